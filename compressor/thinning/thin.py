"""Thinning: find what says nothing, cut it out, and prove on real images that the function is the same."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.evaluating import evaluating
from compressor.thinning import liveness
from compressor.thinning.cutting import Cut, cut_of
from compressor.thinning.removal import EVERY_WAY, Removal, Stay, Way, decide
from compressor.thinning.tracing import trace

TOLERANCE = 1e-4
"""A logit may change by this, or by this share of itself where it is larger than 1."""


@dataclass(frozen=True)
class Thinned:
    """What was cut, what stays though it is zero, and the largest difference of a logit on so many images."""

    cut: Cut
    stays: tuple[Stay, ...]
    largest_difference: float
    images: int


def thin(
    network: nn.Module,
    images: Tensor,
    *,
    ways: frozenset[Way] = EVERY_WAY,
    round_to: int = 1,
    training: bool = False,
) -> Thinned:
    """Find the cut of `network` that leaves its logits on `images` the same; nothing is changed but by folding.

    The caller applies the cut, to the network and to all that goes with it (`Cut.model` and its siblings). With
    `training` it is the same function in training mode, too. Raises `CompressError` where the network cannot be traced,
    or the thinned one computes something else.
    """
    shape = tuple(images.shape[1:])
    graph = trace(network, shape)
    seen = liveness.inputs_of(network, shape, training=training)
    removal = decide(graph, network, seen, ways - {"constant"} if training else ways, round_to)
    cut = cut_of(graph, network, removal)
    if not cut:
        return Thinned(cut, removal.stays, 0.0, 0)
    before = _logits(network, images)
    trial = copy.deepcopy(network)
    fold(trial, removal)
    cut.model(trial)
    try:
        after = _logits(trial, images)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CompressError(f"not thinned: the thinned network does not run ({reason})") from error
    if after.shape != before.shape:
        raise CompressError(f"not thinned: it gives logits of {tuple(after.shape)}, {tuple(before.shape)} before")
    difference = (after - before).abs()
    allowed = TOLERANCE * before.abs().clamp(min=1)
    largest = float(difference.max())
    if not bool((difference <= allowed).all()):
        raise CompressError(
            f"not thinned: a logit changes by {largest:.3g} on {len(images)} real images, more than"
            f" {TOLERANCE:g} * max(1, |logit|)"
        )
    fold(network, removal)
    return Thinned(cut, removal.stays, largest, len(images))


@torch.no_grad()
def fold(network: nn.Module, removal: Removal) -> None:
    """Let biases (or the running means behind) take over the constants that go."""
    for path, change in removal.folds.items():
        module = network.get_submodule(path)
        target = module.running_mean if hasattr(module, "running_mean") else module.bias
        assert isinstance(target, Tensor)
        target += change.to(target.device, target.dtype)


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with evaluating(network):
        out: Tensor = network(images)
    return out.double()
