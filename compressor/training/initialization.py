"""Weight initializations by name."""

import math

import torch
from torch import nn

from compressor.sparsity.weights import PRUNABLE

SCHEMES = ("default", "xavier")


@torch.no_grad()
def initialize(model: nn.Module, scheme: str) -> None:
    """`default` leaves what the layers drew themselves; `xavier` is Caffe's: U(+-sqrt(3/fan_in)), zero biases."""
    if scheme == "default":
        return
    for module in model.modules():
        if isinstance(module, PRUNABLE):
            fan_in = module.weight[0].numel()
            bound = math.sqrt(3 / fan_in)
            module.weight.uniform_(-bound, bound)
            if module.bias is not None:
                module.bias.zero_()
