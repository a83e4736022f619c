"""Weights with their outputs first, as in most layers: only transposed convolutions have their inputs first.

Structures (filters, channels, blocks ...) and pruners know one form: [outputs, inputs of a group, ...]. The weight of a
transposed convolution is [inputs, outputs of a group, ...]: it is turned where it is given to them, and what they make
of it is turned back.
"""

from collections.abc import Sequence

from torch import Tensor, nn


def outputs_first(tensor: Tensor, layer: nn.Module | None) -> Tensor:
    """Return a tensor in the shape of a layer's weight with its outputs first; or turn it back, which is the same.

    The tensor itself for all layers but transposed convolutions; for those without groups a view of it, without its
    history: that of a parameter would be kept with its shape, which may change.
    """
    groups = _groups(layer)
    if groups is None:
        return tensor
    tensor = tensor.detach()
    if groups == 1:
        return tensor.transpose(0, 1)
    first, second, *kernel = tensor.shape
    parts = tensor.reshape(groups, first // groups, second, *kernel).transpose(1, 2)
    return parts.reshape(groups * second, first // groups, *kernel)


def shape_outputs_first(shape: Sequence[int], layer: nn.Module | None) -> tuple[int, ...]:
    """Return the shape of `outputs_first`."""
    groups = _groups(layer)
    return tuple(shape) if groups is None else (shape[1] * groups, shape[0] // groups, *shape[2:])


def turned_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the transposed convolutions by the names of their weights."""
    found = ((path, module) for path, module in model.named_modules() if _groups(module) is not None)
    return {f"{path}.weight" if path else "weight": module for path, module in found}


def _groups(layer: nn.Module | None) -> int | None:
    """Return the number of groups of a transposed convolution; None for all other layers."""
    return int(layer.groups) if getattr(layer, "transposed", False) else None  # type: ignore[union-attr, arg-type]
