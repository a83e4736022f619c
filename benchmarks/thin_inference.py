"""What thinning gains at inference, beside torch-pruning's removal of the same channels.

    python -m benchmarks.thin_inference [--blocks 7] [--side 64] [--batch 32] [NAME ...]

Half of the filters of every layer but the last are pruned. `thin` is what `compressor.thinning` leaves, `torch-pruning`
the masked network after its dependency graph removed the very same channels, `thin, widths of 8` keeps some zeros so
that widths are multiples of 8. One thread; the variants take turns within a block, in an order that rotates. Time is
the process's CPU time, ratios are taken within a block, and the median over the blocks is printed. `dense again` is the
dense network a second time: its distance from 1 is the noise. `of promise` is the gain as a share of what the MACs say.
"""

import argparse
import importlib
import signal
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.half_pruned import masked, new, settle, zero_filters
from benchmarks.measuring import Figure, milliseconds, ratio, take_turns
from compressor.copying import copied
from compressor.sparsity.weights import prunable
from compressor.thinning.cutting import Cut
from compressor.thinning.equivalence import TOLERANCE, difference, thin
from compressor.tracing.macs import macs

NAMES = ("resnet18", "vgg11_bn", "mobilenet_v2")
PEER = "torch-pruning"
PROMISE = 0.75
"""Of what the MACs promise, at least this on resnet18."""


def thinned(network: nn.Module, images: Tensor, round_to: int = 1) -> tuple[nn.Module, Cut]:
    """A thinned copy, and how it was cut."""
    own = copied(network)
    cut = thin(own, images, round_to=round_to).cut
    cut.model(own)
    return own, cut


def removed(cut: Cut) -> dict[str, list[int]]:
    """The outputs that `cut` removes, by weight."""
    found = {}
    for name, places in cut.stays.items():
        full = cut.shapes[name]
        if len(full) > 1 and places.numel():  # of a layer without inputs no place is left
            kept = places.flatten(1)[:, 0] // full[1:].numel()
            found[name] = sorted(set(range(full[0])) - set(kept.tolist()))
    return found


def by_torch_pruning(network: nn.Module, images: Tensor, gone: Mapping[str, list[int]]) -> nn.Module:
    """A copy from which torch-pruning removed the outputs `gone` of convolutions and linear layers, by weight."""
    torch_pruning = importlib.import_module("torch_pruning")  # of the extra `bench`; tests do without it
    own = copied(network)
    graph = torch_pruning.DependencyGraph().build_dependency(own, images[:1])
    for path, layer in own.named_modules():
        mine = gone.get(f"{path}.weight")
        if not isinstance(layer, nn.Conv2d | nn.Linear) or not mine:
            continue
        if len(layer.weight) != len(network.get_submodule(path).weight):  # its group went with an earlier layer's
            continue
        graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, mine).prune()
    return own


@dataclass(frozen=True)
class Race:
    """How many times as fast as the dense network the thinned one is, and what torch-pruning removes; 0: not measured.

    `peer`: why torch-pruning's removal of the same channels is not the same network. Where zero filters stay, `rest` is
    the share of the parameters that torch-pruning leaves when it is asked to remove these, too, and `changed` the
    largest change of a logit then, as a fraction of the logits' spread; `failed`: why it could not.
    """

    gain: float = 0.0
    peer_gain: float = 0.0
    peer: str = ""
    rest: float = 0.0
    changed: float = 0.0
    failed: str = ""


def race(
    dense: nn.Module,
    pruned: nn.Module,
    thin_net: nn.Module | None,
    cut: Cut | None,
    images: Tensor,
    blocks: int,
    patience: int,
) -> Race:
    """Measure a network: dense, pruned, and without the channels that `cut` removes (None: it was refused).

    torch-pruning may take `patience` seconds of CPU for each removal.
    """
    dead = {name: zero_filters(weight) for name, weight in prunable(pruned).items()}
    zero = {name: rows.nonzero().flatten().tolist() for name, rows in dead.items() if bool(rows.any())}
    variants, found = {"dense": dense}, Race()
    gone = {} if cut is None else removed(cut)
    if thin_net is not None and gone:
        variants["thin"] = thin_net
        theirs, why = _theirs(pruned, images, gone, patience)
        if theirs is not None:
            same = [parameter.shape for parameter in thin_net.parameters()]
            changed = _change(pruned, theirs, images)
            if same != [parameter.shape for parameter in theirs.parameters()]:
                why = "other widths"
            elif changed > TOLERANCE:
                why = f"logits change by {changed:.1g} of their spread"
            else:
                variants["torch-pruning"] = theirs
        taken = measure(variants, images, blocks)
        gain = {variant: ratio(taken["dense"], times) for variant, times in taken.items()}
        found = Race(gain["thin"], gain.get("torch-pruning", 0.0), why)
    if sum(map(len, zero.values())) > sum(len(gone.get(name, ())) for name in zero):
        theirs, why = _theirs(pruned, images, zero, patience)
        found = replace(found, failed=why)
        if theirs is not None:
            found = replace(found, rest=_size(theirs) / _size(pruned), changed=_change(pruned, theirs, images))
    return found


def _theirs(
    network: nn.Module, images: Tensor, gone: Mapping[str, list[int]], patience: int
) -> tuple[nn.Module | None, str]:
    """What torch-pruning makes of a network, if it runs; or why not."""

    def late(*_: object) -> None:
        raise TimeoutError(f"given up after {patience} s")

    signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, patience)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = by_torch_pruning(network, images, gone)
        with torch.no_grad():
            theirs(images[:2])
    except Exception as error:
        return None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:80]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return theirs, ""


@torch.no_grad()
def _change(before: nn.Module, after: nn.Module, images: Tensor) -> float:
    """The largest change of a logit in float64, as a fraction of the logits' spread."""
    images = images[:4].double()
    found = difference(copied(before).double()(images), copied(after).double()(images))
    return found.largest / max(found.spread, 1e-30)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def measure(variants: dict[str, nn.Module], images: Tensor, blocks: int) -> dict[str, list[float]]:
    """CPU seconds of a forward pass, of each variant in each block."""
    first = next(iter(variants.values()))
    first(images)
    began = time.process_time()
    first(images)
    repeats = max(1, round(0.15 / (time.process_time() - began)))
    return take_turns({name: partial(one, images) for name, one in variants.items()}, blocks, repeats, warm=True)


@dataclass(frozen=True)
class Compared:
    """One network's variants: MACs beside the dense one's, seconds by block, and the largest difference of a logit."""

    work: dict[str, float]
    taken: dict[str, list[float]]
    differences: dict[str, float]
    missing: list[str]

    def gain(self, variant: str) -> float:
        """How many times as fast as the dense network it is."""
        return ratio(self.taken["dense"], self.taken[variant])

    @property
    def promise(self) -> float:
        """The thinned network's gain as a share of what its MACs say."""
        return self.gain("thin") * self.work["thin"]


def compare(name: str, side: int, batch: int, blocks: int) -> Compared:
    """Measure one network: dense, masked, thinned, and thinned by torch-pruning where it is installed."""
    torch.manual_seed(0)
    shape = (3, side, side)
    dense = new(name)
    pruned = copied(dense)
    masked(pruned, side)
    settle(dense, torch.randn(4, *shape))
    images = torch.randn(batch, *shape)
    thin_net, cut = thinned(pruned, images)
    rounded, cut_rounded = thinned(pruned, images, round_to=8)
    variants = {
        "dense": dense,
        "dense again": copied(dense),
        "masked": pruned,
        "thin": thin_net,
        "thin, widths of 8": rounded,
    }
    missing = []
    try:
        variants[PEER] = by_torch_pruning(pruned, images, removed(cut))
        variants[f"{PEER}, widths of 8"] = by_torch_pruning(pruned, images, removed(cut_rounded))
        same = [tuple(parameter.shape) for parameter in thin_net.parameters()]
        widths = [tuple(parameter.shape) for parameter in variants[PEER].parameters()]
        assert same == widths, "torch-pruning has other widths"
    except ImportError as error:
        missing.append(f"torch-pruning ({error})")
    work = {variant: macs(network, shape)[0] for variant, network in variants.items()}
    with torch.no_grad():
        logits = {variant: network(images) for variant, network in variants.items()}
    differences = {
        variant: float(((own - logits["masked"]).abs() / logits["masked"].abs().clamp(min=1)).max())
        for variant, own in logits.items()
    }
    taken = measure(variants, images, blocks)
    return Compared({variant: one / work["dense"] for variant, one in work.items()}, taken, differences, missing)


def figures(name: str, found: Compared) -> list[Figure]:
    """What is said of one network."""
    again = found.gain("dense again")
    made = [
        Figure(f"{name}: {variant}, dense time / its time", found.gain(variant), again=again, note=f"MACs x {work:.3f}")
        for variant, work in found.work.items()
        if not variant.startswith("dense")
    ]
    promised = PROMISE if name == "resnet18" else None
    made.append(Figure(f"{name}: thin, of what its MACs promise", found.promise, "x", promised, True, again))
    made.append(
        Figure(f"{name}: thin, largest difference of a logit", found.differences["thin"], "of its size", TOLERANCE)
    )
    if PEER in found.taken:
        beside = ratio(found.taken[PEER], found.taken["thin"])
        made.append(Figure(f"{name}: torch-pruning's time / ours", beside, "x", 1.0, True, again))
    return made


def show(name: str, found: Compared) -> None:
    """Print one network's lines."""
    print(f"\n{name} ({len(found.taken['dense'])} blocks)")
    print(f"{'':28} {'dense/it':>8} {'MACs':>6} {'of promise':>10} {'ms':>7}   largest logit difference to masked")
    for variant, times in found.taken.items():
        gain, share, difference = found.gain(variant), found.work[variant], found.differences[variant]
        told = "" if variant.startswith("dense") else f"{difference:.0e}"
        if told and difference > TOLERANCE:
            told += f" MORE THAN {TOLERANCE:g}"
        print(f"{variant:28} {gain:8.2f} {share:6.3f} {gain * share:10.2f} {milliseconds(times):7.1f}   {told}")
    for figure in figures(name, found):
        if figure.budget is not None and figure.unit == "x":
            print(f"{figure.what}: {figure.value:.3f} (at least {figure.budget:g}, but for noise)")
    for peer in found.missing:
        print(f"left out: {peer}: pip install 'compressor[bench]'")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", default=NAMES)
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--side", type=int, default=64)
    arguments.add_argument("--batch", type=int, default=32)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        show(name, compare(name, given.side, given.batch, given.blocks))


if __name__ == "__main__":
    main()
