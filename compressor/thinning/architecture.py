"""A thinned network as data: the numbers of channels of its layers, to which a dense network is resized."""

from typing import Any

import torch
from torch import nn

from compressor.errors import UserError
from compressor.thinning.layers import INPUTS, set_widths, shapes_of, tensors, widths
from compressor.thinning.skipping import skip, widths_or_skipped

Architecture = dict[str, dict[str, int]]
"""The attributes that count channels, by the path of each convolution, linear layer and norm. Layers without inputs are
skipped (`Skipped`)."""


def describe(network: nn.Module) -> Architecture:
    """Return the architecture of a network."""
    found = {path: widths_or_skipped(module) for path, module in network.named_modules()}
    return {path: sizes for path, sizes in found.items() if sizes}


@torch.no_grad()
def resize(network: nn.Module, architecture: Any, source: str) -> None:
    """Resize the layers of a dense network to an architecture; tensors that change their shape hold zeros then.

    Raises `UserError` where the architecture is not one of this network.
    """
    if not isinstance(architecture, dict):
        raise UserError(f"{source}: its architecture should be a table of layers")
    modules = dict(network.named_modules())
    for path, sizes in architecture.items():
        own = widths(modules[path]) if path in modules else {}
        if not own or not isinstance(sizes, dict) or set(sizes) != set(own):
            raise UserError(f"{source}: its architecture has a layer {path!r}, this model does not")
        if any(not isinstance(n, int) or not (key not in INPUTS) <= n <= own[key] for key, n in sizes.items()):
            raise UserError(f"{source}: its architecture gives {path!r} {sizes}, in the dense model it has {own}")
        groups = sizes.get("groups", 1)
        if any(n % groups for n in sizes.values() if n != groups):
            raise UserError(f"{source}: its architecture gives {path!r} {sizes}: not divisible by {groups} groups")
        if sizes != own:
            _resize(modules[path], sizes)
        if not all(sizes.values()):
            skip(network, path, sizes)


def _resize(module: nn.Module, sizes: dict[str, int]) -> None:
    own = tensors(module)
    for name, shape in shapes_of(module, sizes).items():
        value = own[name]
        if value.shape == torch.Size(shape):
            continue
        fresh = torch.zeros(shape, dtype=value.dtype, device=value.device)
        if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
            fresh = fresh.contiguous(memory_format=torch.channels_last)
        if isinstance(value, nn.Parameter):
            value.data = fresh
        else:
            module._buffers[name] = fresh
    set_widths(module, sizes)
