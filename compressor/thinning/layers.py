"""The layers whose tensors can be cut, and the dims of their channels."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

CONVOLUTIONS = _ConvNd
BATCHNORMS = _BatchNorm

# Inputs, outputs and groups, as far as the layer has them; a norm's inputs are its outputs.
_ATTRIBUTES: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (_ConvNd, ("in_channels", "out_channels", "groups")),
    (nn.Linear, ("in_features", "out_features")),
    (_NormBase, ("num_features",)),
    (nn.GroupNorm, ("num_channels", "num_groups")),
    (nn.PReLU, ("num_parameters",)),
    (nn.RNNBase, ("input_size",)),
)


INPUTS = ("in_channels", "in_features")
"""The attributes that count a layer's inputs."""


def widths(module: nn.Module) -> dict[str, int]:
    """Return the numbers of channels of a layer, by attribute; empty where it has none that could change."""
    return {name: int(getattr(module, name)) for name in _names(module)}


def new_widths(module: nn.Module, inputs: int, outputs: int, groups: int) -> dict[str, int]:
    """Return the numbers of channels that a layer has after a removal, by attribute."""
    return dict(zip(_names(module), (inputs, outputs, groups), strict=False))


def _names(module: nn.Module) -> tuple[str, ...]:
    return next((names for kind, names in _ATTRIBUTES if isinstance(module, kind)), ())


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of the layer itself, by their names in it, without counters."""
    every = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in every.items() if tensor is not None and tensor.dim() > 0}


def is_depthwise(module: nn.Module) -> bool:
    """Return whether a layer is a convolution with one filter for each channel, which reads that channel alone."""
    return (
        isinstance(module, _ConvNd)
        and module.groups == module.out_channels == module.in_channels
        and module.out_channels > 1
    )


def dims(module: nn.Module) -> tuple[int, int]:
    """Return the dim of the outputs and the dim of the inputs in a layer's weight."""
    return (1, 0) if getattr(module, "transposed", False) else (0, 1)


def shapes_of(module: nn.Module, sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a layer's tensors if its numbers of channels were `sizes`."""
    return {name: _shape_of(module, name, tensor, sizes) for name, tensor in tensors(module).items()}


def _shape_of(module: nn.Module, name: str, tensor: Tensor, sizes: dict[str, int]) -> tuple[int, ...]:
    shape = list(tensor.shape)
    if isinstance(module, nn.RNNBase):
        if name.startswith("weight_ih_l0"):
            shape[1] = sizes["input_size"]
    elif isinstance(module, nn.GroupNorm):
        shape = [sizes["num_channels"]]
    elif isinstance(module, (_ConvNd, nn.Linear)):
        outs, ins = (sizes["out_channels"], sizes["in_channels"]) if isinstance(module, _ConvNd) else (
            sizes["out_features"], sizes["in_features"])  # fmt: skip
        groups = sizes.get("groups", 1)
        if tensor.dim() == 1:  # a scale of the whole weight has one entry
            shape = [outs] if tensor.shape[0] != 1 else [1]
        else:  # what a weight is computed from may have size 1 in a dim
            own = [ins, outs // groups] if getattr(module, "transposed", False) else [outs, ins // groups]
            whole = widths(module)
            old = math.prod(whole.values()) and list(tensor.shape[:2])
            shape[:2] = [new if was != 1 or new == 0 else was for new, was in zip(own, old or own, strict=True)]
    else:
        shape = [math.prod(sizes.values())]
    return tuple(shape)


def set_widths(module: Any, sizes: dict[str, int]) -> None:
    """Set the numbers of channels of a layer."""
    for name, value in sizes.items():
        setattr(module, name, value)
