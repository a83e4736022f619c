"""Find the unused channels of a network, and check on real images that the outputs stay equal without them."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.evaluating import evaluating
from compressor.thinning.cutting import Cut, cut_of
from compressor.thinning.reading import channel_graph
from compressor.thinning.removal import EVERY_WAY, Removal, decide
from compressor.thinning.stays import Stay, Way
from compressor.tracing import image_dependence

TOLERANCE, EXACT = 1e-4, 1e-6
"""The largest change of a logit, relative where the logit is larger than 1: in float32, and in float64."""


@dataclass(frozen=True)
class Thinned:
    """The removal, the zero filters that stay, and the largest difference of a logit on `images` images.

    `exact` is that difference in float64. It is computed where the one in float32 is too large: sums in another order
    are rounded differently, and a deep network may magnify that.
    """

    cut: Cut
    stays: tuple[Stay, ...]
    largest_difference: float
    images: int
    exact: float | None = None
    skipped: tuple[str, ...] = ()
    """Layers of which only the bias is left."""


def thin(
    network: nn.Module,
    images: Tensor,
    *,
    ways: frozenset[Way] = EVERY_WAY,
    round_to: int = 1,
    training: bool = False,
) -> Thinned:
    """Return the cut of `network` that keeps its logits on `images` equal; constants are absorbed in biases of the
    network.

    The logits are compared in float32, and in float64 where they differ too much. The caller applies the cut to the
    network and to all tensors of its shapes (`Cut.model` and the other methods). With `training` the network is also
    equal in training mode, and every layer keeps inputs through which it can recover. Raises `CompressError` where the
    network cannot be traced, or the logits of the thinned one differ.
    """
    shape = tuple(images.shape[1:])
    graph = channel_graph(network, shape)
    seen = image_dependence.inputs_of(network, shape, training=training)
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
            f" {TOLERANCE:g} * max(1, |logit|), and in float64 by {exact:.3g}: more than rounding"
        )
    absorb_constants(network, removal)
    return Thinned(cut, removal.stays, largest, len(images), exact, removal.skipped)


def _difference(network: nn.Module, images: Tensor, removal: Removal, cut: Cut, tolerance: float) -> tuple[float, bool]:
    """Return the largest change of a logit, and whether each one is within `tolerance` * max(1, |logit|)."""
    before = _logits(network, images)
    trial = copy.deepcopy(network)
    absorb_constants(trial, removal)
    cut.model(trial)
    try:
        after = _logits(trial, images)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CompressError(f"not thinned: the thinned network does not run ({reason})") from error
    if after.shape != before.shape:
        raise CompressError(
            f"not thinned: the logits would have shape {tuple(after.shape)}, they have {tuple(before.shape)}"
        )
    difference = (after - before).abs()
    return float(difference.max()), bool((difference <= tolerance * before.abs().clamp(min=1)).all())


@torch.no_grad()
def absorb_constants(network: nn.Module, removal: Removal) -> None:
    """Add the constants that are removed to biases (or to running means of batch norms that follow)."""
    for path, change in removal.absorbed.items():
        module = network.get_submodule(path)
        target = module.running_mean if hasattr(module, "running_mean") else module.bias
        assert isinstance(target, Tensor)
        target += change.to(target.device, target.dtype)


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor) -> Tensor:
    with evaluating(network):
        out: Tensor = network(images)
    return out.double()
