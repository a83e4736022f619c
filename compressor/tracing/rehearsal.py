"""A forward pass on the meta device: what can be known of a network before there are any data."""

import copy
import warnings

import torch
from torch import nn

from compressor.tracing.trace import Trace, trace

__all__ = ["channels_wanted", "rehearse"]


def rehearse(network: nn.Module, shape: tuple[int, ...]) -> Trace | None:
    """Return the trace of images of `shape` (C, H, W); None where the network cannot be run without storage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trace(copy.deepcopy(network).to("meta"), torch.zeros(2, *shape, device="meta"))
    except Exception:  # whatever a network's forward raises: images of another size, or values that are not there
        return None


def channels_wanted(network: nn.Module, shape: tuple[int, int, int]) -> int | None:
    """Return how many channels images must have, where those of `shape` do not fit and others of its size do."""
    other = 3 if shape[0] == 1 else 1
    return other if rehearse(network, shape) is None and rehearse(network, (other, *shape[1:])) is not None else None
