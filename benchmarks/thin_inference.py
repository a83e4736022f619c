"""What thinning gains at inference, beside torch-pruning's removal of the same channels.

    python -m benchmarks.thin_inference [--blocks 7] [--side 64] [--batch 32] [NAME ...]

Half of the filters of every layer but the last are pruned. `thin` is what `compressor.thinning` leaves, `torch-pruning`
the masked network after its dependency graph removed the very same channels, `thin, widths of 8` keeps some zeros so
that widths are multiples of 8. One thread; the variants take turns within a block, in an order that rotates. Time is
the process's CPU time, ratios are taken within a block, and the median over the blocks is printed. `dense again` is the
dense network a second time: its distance from 1 is the noise. `of promise` is the gain as a share of what the MACs say.
"""

import argparse
import copy
import statistics
import time

import torch
import torch_pruning
from torch import Tensor, nn

from benchmarks.thinning_table import prune, randomize, settle
from compressor.models import build
from compressor.sparsity.weights import prunable
from compressor.thinning.cutting import Cut
from compressor.thinning.equivalence import TOLERANCE, thin
from compressor.tracing.macs import macs

NAMES = ("resnet18", "vgg11_bn", "mobilenet_v2")
PROMISE = 0.75
"""Of what the MACs promise, at least this on resnet18."""


def thinned(network: nn.Module, images: Tensor, round_to: int = 1) -> tuple[nn.Module, Cut]:
    """A thinned copy, and how it was cut."""
    own = copy.deepcopy(network)
    cut = thin(own, images, round_to=round_to).cut
    cut.model(own)
    return own, cut


def by_torch_pruning(network: nn.Module, images: Tensor, cut: Cut) -> nn.Module:
    """A copy from which torch-pruning removed the outputs that `cut` removes."""
    own = copy.deepcopy(network)
    graph = torch_pruning.DependencyGraph().build_dependency(own, images[:1])
    for path, layer in own.named_modules():
        places = cut.stays.get(f"{path}.weight")
        if not isinstance(layer, nn.Conv2d | nn.Linear) or places is None:
            continue
        full = cut.shapes[f"{path}.weight"]
        kept = places.flatten(1)[:, 0] // full[1:].numel()
        if len(kept) == len(layer.weight):  # its inputs alone go, or its group went with an earlier layer's
            continue
        gone = sorted(set(range(full[0])) - set(kept.tolist()))
        graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, gone).prune()
    return own


@torch.no_grad()
def measure(variants: dict[str, nn.Module], images: Tensor, blocks: int) -> dict[str, list[float]]:
    """CPU seconds of a forward pass, of each variant in each block."""
    names = list(variants)
    for name in names:
        variants[name](images)
    began = time.process_time()
    variants[names[0]](images)
    repeats = max(1, round(0.15 / (time.process_time() - began)))
    taken: dict[str, list[float]] = {name: [] for name in names}
    for block in range(blocks):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            variants[name](images)  # its weights into the caches
            began = time.process_time()
            for _ in range(repeats):
                variants[name](images)
            taken[name].append((time.process_time() - began) / repeats)
    return taken


def compare(name: str, side: int, batch: int, blocks: int) -> None:
    """Print one network's lines."""
    torch.manual_seed(0)
    shape = (3, side, side)
    dense = build(name)
    randomize(dense)
    masked = copy.deepcopy(dense)
    prune(masked, list(prunable(masked))[:-1], torch.randn(2, *shape))
    settle(masked, torch.randn(4, *shape))
    settle(dense, torch.randn(4, *shape))
    images = torch.randn(batch, *shape)
    thin_net, cut = thinned(masked, images)
    rounded, cut_rounded = thinned(masked, images, round_to=8)
    theirs = by_torch_pruning(masked, images, cut)
    variants = {
        "dense": dense,
        "dense again": copy.deepcopy(dense),
        "masked": masked,
        "thin": thin_net,
        "torch-pruning": theirs,
        "thin, widths of 8": rounded,
        "torch-pruning, widths of 8": by_torch_pruning(masked, images, cut_rounded),
    }
    work = {variant: macs(network, shape)[0] for variant, network in variants.items()}
    same = [tuple(parameter.shape) for parameter in thin_net.parameters()]
    assert same == [tuple(parameter.shape) for parameter in theirs.parameters()], "torch-pruning has other widths"
    with torch.no_grad():
        logits = {variant: network(images) for variant, network in variants.items()}
    taken = measure(variants, images, blocks)
    print(f"\n{name}, {side} pixels, batch {batch} ({blocks} blocks)")
    print(f"{'':28} {'dense/it':>8} {'MACs':>6} {'of promise':>10} {'ms':>7}   largest logit difference to masked")
    for variant, times in taken.items():
        gain = _ratio(taken["dense"], times)
        share = work[variant] / work["dense"]
        difference = (logits[variant] - logits["masked"]).abs() / logits["masked"].abs().clamp(min=1)
        told = "" if variant.startswith("dense") else f"{float(difference.max()):.0e}"
        if told and float(difference.max()) > TOLERANCE:
            told += f" MORE THAN {TOLERANCE:g}"
        milliseconds = 1000 * statistics.median(times)
        print(f"{variant:28} {gain:8.2f} {share:6.3f} {gain * share:10.2f} {milliseconds:7.1f}   {told}")
    wanted = f" (at least {PROMISE})" if name == "resnet18" else ""
    share = _ratio(taken["dense"], taken["thin"]) * work["thin"] / work["dense"]
    masked_to_dense = _ratio(taken["masked"], taken["dense"])
    print(f"masked/dense time {masked_to_dense:.3f}; thin has {share:.2f} of what its MACs promise{wanted}")
    print(
        f"torch-pruning's time / ours {_ratio(taken['torch-pruning'], taken['thin']):.3f} (at least 1, but for noise)"
    )


def _ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", default=NAMES)
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--side", type=int, default=64)
    arguments.add_argument("--batch", type=int, default=32)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        compare(name, given.side, given.batch, given.blocks)


if __name__ == "__main__":
    main()
