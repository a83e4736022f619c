"""A forward pass on the meta device, before there are any data."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from compressor.copying import without_storage
from compressor.tracing.trace import Trace, trace

__all__ = ["OnMeta", "expected_channels", "trace_on_meta"]


class OnMeta(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let operations on the meta device take tensors with values, too, of which they use the shapes.

    A network may hold some that are neither parameters nor buffers (a mean and a deviation beside its class), or make
    some in its forward pass.
    """

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = (args, kwargs or {})
        if len({one.is_meta for one in tree_leaves(given) if isinstance(one, Tensor)}) > 1:
            # Torch itself takes single numbers from any device.
            given = tree_map_only(Tensor, lambda one: one.to("meta") if one.dim() else one, given)
        return function(*given[0], **given[1])


def trace_on_meta(network: nn.Module, shape: tuple[int, ...]) -> Trace | None:
    """Return the trace of images of `shape` (C, H, W); None where the network cannot be run without storage."""
    try:
        with warnings.catch_warnings(), OnMeta():  # type: ignore[no-untyped-call]
            warnings.simplefilter("ignore")
            return trace(without_storage(network), torch.zeros(2, *shape, device="meta"))
    except Exception:  # whatever a network's forward raises: images of another size, or values that are not there
        return None


def expected_channels(network: nn.Module, shape: tuple[int, int, int]) -> int | None:
    """Return the number of channels that images should have; None where it is that of `shape`, or none fits."""
    other = 3 if shape[0] == 1 else 1
    return (
        other
        if trace_on_meta(network, shape) is None and trace_on_meta(network, (other, *shape[1:])) is not None
        else None
    )
