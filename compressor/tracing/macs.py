"""The multiply-accumulates of one image, by layer."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.evaluating import evaluating
from compressor.sparsity import prunable

__all__ = ["macs"]


@torch.no_grad()
def macs(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, dict[str, int]]:
    """Return the number of MACs of one image of `shape` (C, H, W), and those of each prunable weight by name.

    A convolution has volume(output) * C_in / groups * kh * kw, a linear layer in * out.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
    with FlopCounterMode(display=False) as counter, evaluating(model):
        model(image)
    by_module = {path.partition(".")[2]: sum(ops.values()) // 2 for path, ops in counter.get_flop_counts().items()}
    names = {id(weight): name for name, weight in prunable(model).items()}
    by_weight = dict.fromkeys(names.values(), 0)
    for path, module in model.named_modules():
        name = names.get(id(getattr(module, "weight", None)))
        if name is not None:  # a weight that several layers share works in each of them
            by_weight[name] += by_module.get(path, 0) if path else counter.get_total_flops() // 2
    return counter.get_total_flops() // 2, by_weight
