"""A thinned network as data: the numbers of channels of its layers, to which a dense network is resized."""

from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.thinning.layers import INPUTS, set_widths, shapes_of, tensors, widths
from compressor.thinning.skipping import skip, widths_or_skipped

Architecture = dict[str, dict[str, int]]
"""The attributes that count channels, by the path of each convolution, linear layer and norm; layers without inputs are
skipped (`Skipped`). Of every other parameter and buffer, by name, its size in each dim ("0", "1", ...)."""


def describe(network: nn.Module) -> Architecture:
    """Return the architecture of a network."""
    found = {path: widths_or_skipped(module) for path, module in network.named_modules()}
    found = {path: sizes for path, sizes in found.items() if sizes}
    return found | {name: _shape(tensor) for name, tensor in _bare(network).items()}


def _bare(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that belong to no layer with numbers of channels, without single numbers."""
    layers = {path for path, module in network.named_modules() if widths_or_skipped(module)}
    every = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor for name, tensor in every if tensor.dim() and name.rpartition(".")[0] not in layers}


def _shape(tensor: Tensor) -> dict[str, int]:
    return {str(dim): size for dim, size in enumerate(tensor.shape)}


@torch.no_grad()
def resize(network: nn.Module, architecture: Any, source: str) -> None:
    """Resize the layers of a dense network to an architecture; tensors that change their shape hold zeros then.

    Raises `UserError` where the architecture is not one of this network.
    """
    if not isinstance(architecture, dict):
        raise UserError(f"{source}: its architecture should be a table of layers")
    modules = dict(network.named_modules())
    bare = _bare(network)
    for path, sizes in architecture.items():
        own = widths(modules[path]) if path in modules else _shape(bare[path]) if path in bare else {}
        if not own or not isinstance(sizes, dict) or set(sizes) != set(own):
            raise UserError(f"{source}: its architecture has a layer {path!r}, this model does not")
        if any(not isinstance(n, int) or not (key not in INPUTS) <= n <= own[key] for key, n in sizes.items()):
            raise UserError(f"{source}: its architecture gives {path!r} {sizes}, in the dense model it has {own}")
        groups = sizes.get("groups", 1)
        if any(n % groups for n in sizes.values() if n != groups):
            raise UserError(f"{source}: its architecture gives {path!r} {sizes}: not divisible by {groups} groups")
        if path in bare and path not in modules:
            if sizes != own:
                _replace(network, path, bare[path], tuple(sizes.values()))
            continue
        if sizes != own:
            _resize(modules[path], sizes)
        if not all(sizes.values()):
            skip(network, path, sizes)


def _resize(module: nn.Module, sizes: dict[str, int]) -> None:
    own = tensors(module)
    for name, shape in shapes_of(module, sizes).items():
        _replace(module, name, own[name], shape)
    set_widths(module, sizes)


def _replace(network: nn.Module, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Replace a parameter's values, or a buffer, by zeros of another shape."""
    if value.shape == torch.Size(shape):
        return
    fresh = torch.zeros(shape, dtype=value.dtype, device=value.device)
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        fresh = fresh.contiguous(memory_format=torch.channels_last)
    if isinstance(value, nn.Parameter):
        value.data = fresh
    else:
        path, _, own = name.rpartition(".")
        network.get_submodule(path)._buffers[own] = fresh
