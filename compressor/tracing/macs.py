"""The multiply-accumulates of one image, by layer."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compressor.evaluating import evaluating
from compressor.sparsity import prunable

__all__ = ["macs", "macs_by_module"]

Shape = Sequence[int]


def _of_mkldnn(images: Shape, *weights: Shape | None, out_shape: object = None, **others: object) -> int:
    """Return the operations of one direction of one recurrent layer on (time, images, inputs)."""
    return 2 * images[0] * images[1] * sum(math.prod(w) for w in weights[:2] if w)


def _of_cudnn(
    images: Shape, weights: Sequence[Shape], *others: object, out_shape: object = None, **more: object
) -> int:
    """Return the operations of all recurrent layers on (time, images, inputs) or (images, time, inputs)."""
    return 2 * images[0] * images[1] * sum(math.prod(w) for w in weights if len(w) > 1)


_RECURRENT = {torch.ops.aten.mkldnn_rnn_layer: _of_mkldnn, torch.ops.aten._cudnn_rnn: _of_cudnn}
"""Recurrent layers that are one operation; others are products that the counter knows."""


def macs(model: nn.Module, shape: tuple[int, int, int]) -> tuple[int, dict[str, int]]:
    """Return the number of MACs of one image of `shape` (C, H, W), and those of each prunable weight by name.

    A convolution has volume(output) * C_in / groups * kh * kw, a linear layer in * out; attention has its projections
    and its two products of activations, a recurrent layer its matrices at each step.
    """
    by_module = macs_by_module(model, shape)
    names = {id(weight): name for name, weight in prunable(model).items()}
    by_weight = dict.fromkeys(names.values(), 0)
    for path, module in model.named_modules():
        name = names.get(id(module._parameters.get("weight")))
        if name is not None:  # a weight that several layers share works in each of them
            by_weight[name] += by_module.get(path, 0)
    return by_module[""], by_weight


@torch.no_grad()
def macs_by_module(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the MACs of one image of `shape` (C, H, W) by the path of each module that has some, with those of the
    modules inside it; of the whole model at "".
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that the counter does not know
    try:
        counter = FlopCounterMode(display=False, custom_mapping=_RECURRENT)
        with counter, evaluating(model), sdpa_kernel(SDPBackend.MATH):
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    found = {path.partition(".")[2]: sum(ops.values()) // 2 for path, ops in counter.get_flop_counts().items()}
    return {**found, "": counter.get_total_flops() // 2}
