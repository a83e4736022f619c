"""Lazy layers (`torch.nn.LazyConv2d`, ...): they get their sizes and their weights from the first batch."""

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from compressor.errors import UserError, listed
from compressor.evaluating import evaluating
from compressor.importing import blame

__all__ = ["NeedsImages", "with_sizes"]


class NeedsImages(UserError):
    """Raised where lazy layers get their sizes from images whose shape is not known yet."""


def with_sizes(network: nn.Module, name: str, image: tuple[int, int, int] | None) -> nn.Module:
    """Return the network after a batch of two images of zeros of shape `image` (C, H, W), where it has lazy layers.

    In eval mode: statistics of batch norms and dropout's draws stay as they are. Raises `NeedsImages` where the shape
    is not known, `UserError` where the network does not take such images, or does not use a lazy layer.
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
    except Exception as error:  # whatever the user's code raises
        shown = "x".join(map(str, image))
        raise UserError(f"model {name!r}: its lazy layers do not take images of {shown}: {blame(error)}") from error
    if left := _lazy(network):
        raise UserError(
            f"model {name!r}: the forward pass in eval mode does not use the lazy layers {listed(left)}: give"
            " them their sizes"
        )
    return network


def _lazy(network: nn.Module) -> list[str]:
    """Return the layers that have no sizes yet, with their classes."""
    return [
        f"{path or 'the network itself'} ({type(module).__name__})"
        for path, module in network.named_modules()
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()  # type: ignore[misc]
    ]
