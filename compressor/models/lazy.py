"""Lazy layers (`torch.nn.LazyConv2d`, ...): they get their sizes and their weights from the first batch."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from compressor.errors import UserError, listed
from compressor.evaluating import evaluating
from compressor.importing import blame

__all__ = ["NeedsImages", "with_sizes"]


class NeedsImages(UserError):
    """Raised where lazy layers get their sizes from images whose shape is not known yet."""


def with_sizes(network: nn.Module, name: str, image: tuple[int, int, int] | None) -> nn.Module:
    """Return the network after a batch of two images of zeros of shape `image` (C, H, W), where it has lazy layers.

    In eval mode: statistics of batch norms stay as they are; then in training mode for layers that only that uses.
    Raises `NeedsImages` where the shape is not known, `UserError` where the network does not take such images, or does
    not use a lazy layer.
    """
    layers = _lazy(network)
    if not layers:
        return network
    if image is None:
        raise NeedsImages(
            f"model {name!r}: {listed(layers)} get their sizes from the images, and only the data's files tell those:"
            " names and shapes of weights cannot be checked without the data"
        )
    try:
        with torch.no_grad(), evaluating(network):
            network(torch.zeros(2, *image))
        if _lazy(network):
            _in_training(network, image)
    except Exception as error:  # whatever the user's code raises
        shown = "x".join(map(str, image))
        raise UserError(f"model {name!r}: its lazy layers do not take images of {shown}: {blame(error)}") from error
    if left := _lazy(network):
        raise UserError(
            f"model {name!r}: the forward pass does not use the lazy layers {listed(left)}: give them their sizes"
        )
    return network


def _in_training(network: nn.Module, image: tuple[int, int, int]) -> None:
    """Run the network in training mode; of what had sizes before, all values stay as they were."""
    tensors = [value for value in (*network.parameters(), *network.buffers()) if not is_lazy(value)]
    before = [value.detach().clone() for value in tensors]
    unsized = [module for module in network.modules() if _is_lazy(module)]
    with torch.no_grad():
        network(torch.zeros(2, *image))
        for value, old in zip(tensors, before, strict=True):
            value.copy_(old)
    for module in unsized:
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()


def _lazy(network: nn.Module) -> list[str]:
    """Return the layers that have no sizes yet, with their classes."""
    return [
        f"{path or 'the network itself'} ({type(module).__name__})"
        for path, module in network.named_modules()
        if _is_lazy(module)
    ]


def _is_lazy(module: nn.Module) -> bool:
    return isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()
