"""A forward pass on the meta device, before there are any data."""

import copy
import warnings

import torch
from torch import nn

from compressor.tracing.trace import Trace, trace

__all__ = ["expected_channels", "trace_on_meta"]


def trace_on_meta(network: nn.Module, shape: tuple[int, ...]) -> Trace | None:
    """Return the trace of images of `shape` (C, H, W); None where the network cannot be run without storage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trace(copy.deepcopy(network).to("meta"), torch.zeros(2, *shape, device="meta"))
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
