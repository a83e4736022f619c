"""Multiply-accumulates of one image, by layer."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.sparsity.weights import prunable


@torch.no_grad()
def macs(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, dict[str, int]]:
    """All MACs of one image of `shape` (C, H, W), and those of each prunable weight by name.

    A convolution takes volume(output) * C_in / groups * kh * kw, a linear layer in * out.
    """
    training = model.training
    model.eval()
    parameter = next(model.parameters())
    image = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
    with FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    by_module = {path.partition(".")[2]: sum(ops.values()) // 2 for path, ops in counter.get_flop_counts().items()}
    by_weight = {name: by_module.get(name.rpartition(".")[0], 0) for name in prunable(model)}
    return counter.get_total_flops() // 2, by_weight
