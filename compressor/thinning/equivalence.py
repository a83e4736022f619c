"""Thinning: find what says nothing, cut it out, and prove on real images that the function is the same."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.evaluating import evaluating
from compressor.thinning.cutting import Cut, cut_of
from compressor.thinning.reading import channel_graph
from compressor.thinning.removal import EVERY_WAY, Removal, decide
from compressor.thinning.staying import Stay, Way
from compressor.tracing import liveness

TOLERANCE, EXACT = 1e-4, 1e-6
"""A logit may change by this, or by this share of itself where it is larger than 1: in float32, and in float64."""


@dataclass(frozen=True)
class Thinned:
    """What was cut, what stays though it is zero, and the largest difference of a logit on so many images.

    `exact` is that difference in float64, looked at where in float32 it is too large: sums in another order round
    differently, and a deep network may magnify that.
    """

    cut: Cut
    stays: tuple[Stay, ...]
    largest_difference: float
    images: int
    exact: float | None = None
    skipped: tuple[str, ...] = ()
    """Layers that nothing is left of but their biases."""


def thin(
    network: nn.Module,
    images: Tensor,
    *,
    ways: frozenset[Way] = EVERY_WAY,
    round_to: int = 1,
    training: bool = False,
) -> Thinned:
    """Find the cut of `network` that leaves its logits on `images` the same; nothing is changed but by folding.

    The logits are compared in float32, and in float64 where that says no. The caller applies the cut, to the network
    and to all that goes with it (`Cut.model` and its siblings). With `training` it is the same function in training
    mode, too, and every layer keeps inputs that it could come back by. Raises `CompressError` where the network cannot
    be traced, or the thinned one computes something else.
    """
    shape = tuple(images.shape[1:])
    graph = channel_graph(network, shape)
    seen = liveness.inputs_of(network, shape, training=training)
    removal = decide(graph, network, seen, ways - {"constant"} if training else ways, round_to, skip=not training)
    cut = cut_of(graph, network, removal)
    if not cut:
        return Thinned(cut, removal.stays, 0.0, 0)
    largest, allowed = _difference(network, images, removal, cut, TOLERANCE)
    exact = None
    if not allowed:
        exact, allowed = _difference(copy.deepcopy(network).double(), images.double(), removal, cut, EXACT)
    if not allowed:
        raise CompressError(
            f"not thinned: a logit changes by {largest:.3g} on {len(images)} real images, more than"
            f" {TOLERANCE:g} * max(1, |logit|), and in float64 by {exact:.3g}: that is no rounding"
        )
    fold(network, removal)
    return Thinned(cut, removal.stays, largest, len(images), exact, removal.skipped)


def _difference(network: nn.Module, images: Tensor, removal: Removal, cut: Cut, tolerance: float) -> tuple[float, bool]:
    """The largest change of a logit, and whether every one is within `tolerance` * max(1, |logit|)."""
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
    return float(difference.max()), bool((difference <= tolerance * before.abs().clamp(min=1)).all())


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
