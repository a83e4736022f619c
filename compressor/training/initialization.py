"""Weight initializations by name."""

import math

import torch
from torch import nn

from compressor.sparsity import PRUNABLE


@torch.no_grad()
def initialize(model: nn.Module, scheme: str) -> None:
    """Draw the weights of convolutions and linear layers, and set their biases to 0; `default` changes nothing.

    `xavier` is Caffe's U(+-sqrt(3/fan_in)); `kaiming` N(0, 2/fan_in) (He et al., ICCV 2015, equation 10).
    """
    if scheme == "default":
        return
    for module in model.modules():
        if isinstance(module, PRUNABLE):
            fan_in = module.weight[0].numel()
            if scheme == "xavier":
                bound = math.sqrt(3 / fan_in)
                module.weight.uniform_(-bound, bound)
            else:
                module.weight.normal_(0, math.sqrt(2 / fan_in))
            if module.bias is not None:
                module.bias.zero_()
