"""Find the unused channels of a network, and check on real images that the outputs stay equal without them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from compressor.copying import copied
from compressor.errors import CompressError
from compressor.evaluating import evaluating
from compressor.importing import random_state_kept
from compressor.thinning.cutting import Cut, cut_of
from compressor.thinning.graph import ChannelGraph
from compressor.thinning.reading import channel_graph
from compressor.thinning.removal import EVERY_WAY, Removal, decide
from compressor.thinning.stays import Stay, Way
from compressor.tracing import inputs_by_weight

TOLERANCE, EXACT = 1e-4, 1e-6
"""The largest change of a logit that may be rounding, as a fraction of the logits' spread: in float32, in float64."""

_ROUNDING = 1e-13
"""The largest change that is rounding in float64 in any case, as a fraction of the largest logit."""


_FEW = 8
"""The number of images of the check in training mode."""


@dataclass(frozen=True)
class Thinned:
    """The removal, the zero filters that stay, and the largest difference of a logit on `images` images.

    `exact` is that difference in float64, given where the one in float32 is large: sums in another order are rounded
    differently, and a deep network may magnify that.
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

    Float64 decides whether logits differ, where those in float32 are not the same bits. The caller applies the cut to
    the network and to all tensors of its shapes (`Cut.model` and the other methods). With `training` the network is
    also equal in training mode, and every layer keeps inputs through which it can recover. Raises `CompressError` where
    the network cannot be traced, or the logits of the thinned one differ.
    """
    shape = tuple(images.shape[1:])
    seen = inputs_by_weight(network, shape, training=training)
    ways = ways - {"constant"} if training else ways
    others: set[str] = set()
    removals: list[Removal] = []

    def removes(graph: ChannelGraph) -> Removal:
        if not removals:
            others.update({node.weight for node in graph.nodes if node.kind == "producer"} - seen.keys())
            if others:  # layers that only training uses
                in_training = inputs_by_weight(network, shape, training=True)
                seen.update({name: in_training[name] for name in others & in_training.keys()})
        with evaluating(network):  # in training some layers compute their weight again, as spectral norm does
            removals.append(decide(graph, network, seen, ways, round_to, skip=not training))
        return removals[-1]

    graph = channel_graph(network, shape, removes)
    removal = removals[-1]
    cut = cut_of(graph, network, removal)
    if not cut:
        return Thinned(cut, removal.stays, 0.0, 0)
    found = _difference(network, images, removal, cut)
    large = not found.within(TOLERANCE)
    exact = _difference_in_float64(network, images, removal, cut) if found.largest != 0 else None
    rounding = TOLERANCE if removal.absorbed else EXACT  # constants that are absorbed were computed in float32
    if large if exact is None else not exact.within(rounding):
        how = f"{exact.largest:.3g} in float64, more than {rounding:g}" if exact else f"more than {TOLERANCE:g}"
        raise CompressError(
            f"not thinned: a logit changes by {found.largest:.3g} on {len(images)} real images, {how} of the logits'"
            f" spread ({found.spread:.3g}): more than rounding"
        )
    if training or others:
        _check_training_form(network, images, removal, cut, equal=training)
    absorb_constants(network, removal)
    given = exact.largest if exact is not None and large else None
    return Thinned(cut, removal.stays, found.largest, len(images), given, removal.skipped)


@torch.no_grad()
def _check_training_form(network: nn.Module, images: Tensor, removal: Removal, cut: Cut, *, equal: bool) -> None:
    """Raise `CompressError` where the thinned network does not run in training mode, or gives other outputs.

    There it may use other layers, such as auxiliary heads. With `equal` outputs are compared, in float64, where the
    network draws no random numbers beside those of dropout layers; in the modes that its modules have.
    """
    before = copied(network)
    if not equal:
        before.train()
    for module in before.modules():
        if isinstance(module, _DropoutNd):  # what it draws depends on the number of channels
            module.eval()
    after = copied(before)
    absorb_constants(after, removal)
    cut.model(after)
    images = images[:_FEW]
    with random_state_kept():
        try:
            after(images)
            before(images)  # as often as the other one
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise CompressError(
                f"not thinned: the thinned network does not run in training mode, where it uses other layers ({reason})"
            ) from error
        if not equal:
            return
        state = torch.get_rng_state()
        try:
            both = (_outputs(form.double()(images.double())) for form in (before, after))
            found = [difference(one, two) for one, two in zip(*both, strict=True)]
        except (RuntimeError, TypeError, NotImplementedError):  # it does not compute in float64
            return
        drawn = not torch.equal(state, torch.get_rng_state())
    for one in found:
        if not drawn and not one.within(TOLERANCE):
            raise CompressError(
                f"not thinned: in training mode, where the network uses other layers, a logit changes by"
                f" {one.largest:.3g}, more than {TOLERANCE:g} of the logits' spread ({one.spread:.3g})"
            )


def _outputs(given: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class Difference:
    """The largest change of a logit, beside the spread of the logits and the largest of them."""

    largest: float
    spread: float
    magnitude: float

    def within(self, tolerance: float) -> bool:
        """Return whether the change is at most `tolerance` times the spread."""
        return self.largest <= max(tolerance * self.spread, _ROUNDING * self.magnitude)


def difference(before: Tensor, after: Tensor) -> Difference:
    """Return the difference of logits (N, classes).

    The spread is the standard deviation of an image's logits around their mean, over all images: what is added to all
    classes changes no answer. Of a single logit it is the deviation over the images.
    """
    before, after = before.flatten(1).double(), after.flatten(1).double()
    mean = before.mean(1, keepdim=True) if before.shape[1] > 1 else before.mean()
    spread = (before - mean).square().mean().sqrt()
    return Difference(float((after - before).abs().max()), float(spread), float(before.abs().max()))


def _difference_in_float64(network: nn.Module, images: Tensor, removal: Removal, cut: Cut) -> Difference | None:
    """Return the difference in float64; None where the network does not compute in it."""
    exact, images = copied(network).double(), images.double()
    try:
        logits = _logits(exact, images)
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    return _difference(exact, images, removal, cut) if logits.dtype == torch.float64 else None


def _difference(network: nn.Module, images: Tensor, removal: Removal, cut: Cut) -> Difference:
    """Return the difference of the logits with and without the channels that are removed."""
    before = _logits(network, images)
    trial = copied(network)
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
    return difference(before, after)


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
    return out
