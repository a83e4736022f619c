"""A forward pass without storage: what it tells of a network before there are any data."""

import copy
import warnings

import torch
from torch import nn

from compressor.policies.activations import Place, places


def rehearse(network: nn.Module, shape: tuple[int, ...]) -> dict[str, Place] | None:
    """What stands behind each weight that images of `shape` (C, H, W) go through; None where it cannot be run so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return places(copy.deepcopy(network).to("meta"), torch.zeros(2, *shape, device="meta"))
    except Exception:  # whatever a network's forward raises: images of another size, or values that are not there
        return None


def channels_wanted(network: nn.Module, shape: tuple[int, int, int]) -> int | None:
    """How many channels a network wants where images of `shape` do not go through it, and of so many channels would."""
    other = 3 if shape[0] == 1 else 1
    return other if rehearse(network, shape) is None and rehearse(network, (other, *shape[1:])) is not None else None
