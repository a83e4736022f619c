"""Which of torchvision's and timm's classifiers thin, how far, and what that gains: the tables in docs/thinning.md.

    python -m benchmarks.thinning_table [--families] [--write] [--again] [--patience 300] [NAME ...]

Each network has random weights, biases and affines, scaled so that its logits depend on the image, and batch norms that
have seen random images. Half of the filters of every convolution and linear layer but that of the logits are pruned by
a schedule (`class: Pruner`, `structure: Filters`, `scope: coupled`), then `thin` removes them, and the logits of the
masked and the thinned network are compared on other images. Of networks of at most 100 million weights a forward pass
is timed: dense, thinned, and with the same channels removed by torch-pruning (`thin_inference.race`). With `--families`
also timm's classifiers of `half_pruned.FAMILIES`. Every network has a process of its own; what was found is kept in
the temporary folder until its name is given here, or `--again`.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import math
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.half_pruned import FAMILIES, TIMM, masked, new, settle, side_of, zero_filters
from benchmarks.thin_inference import Race, race
from compressor.copying import copied
from compressor.errors import CompressError
from compressor.models import torchvision_models
from compressor.sparsity.weights import prunable
from compressor.thinning.equivalence import TOLERANCE, thin
from compressor.thinning.reading import channel_graph
from compressor.tracing.macs import macs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "thinning.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
BEGIN_FAMILIES, END_FAMILIES = "<!-- families -->", "<!-- end of families -->"
CACHE = Path(tempfile.gettempdir()) / "compressor-thinning-table"
EXACT = 1e-9
"""Functions are the same where no logit differs by more in float64."""
OUTPUT = "they are the network's output"
TIMED = 100_000_000
"""Networks of more weights are thinned, not timed."""
BATCH, BATCH_OF_LARGE, BLOCKS = 8, 2, 5
"""Images of a timed forward pass, where they have 64 to 96 pixels or more; and how often the variants take turns."""


@dataclass(frozen=True)
class Row:
    """What became of one network. `refused`: why it was not thinned. `zero`: the filters pruned, `stay`: of those."""

    name: str
    side: int
    refused: str = ""
    rounding: str = ""
    """Why it was refused in float32, though not in float64."""
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    difference: float = 0.0
    exact: float = 0.0
    absorbed: bool = False
    """Whether constants were absorbed in biases, which is computed in float32."""
    """The largest difference of a logit, over max(1, |logit|), in float32 and in float64."""
    spread: float = 0.0
    """How much the logits differ between images."""
    zero: int = 0
    stay: int = 0
    reasons: tuple[tuple[str, int, str], ...] = ()
    channels: int = 0
    kept: tuple[tuple[int, str], ...] = ()
    """How many of its channels can never be removed, whatever is pruned, by reason."""
    said: tuple[str, ...] = ()
    seconds: float = 0.0
    race: Race | None = None


def attempt(name: str, patience: int = 0) -> Row:
    """Build, prune and thin one network, and measure it where torch-pruning may take some seconds for that."""
    began = time.process_time()
    torch.manual_seed(0)
    side = side_of(name)
    network = new(name)
    shape = (3, side, side)
    row = Row(name, side, parameters=(_size(network), 0), macs=(macs(network, shape)[0], 0))
    timed = patience > 0 and row.parameters[0] <= TIMED
    dense = copied(network) if timed else network
    graph = channel_graph(network, shape)
    kept = Counter(reason for reason in graph.keeps.values() if reason != OUTPUT)
    row = dataclasses.replace(row, channels=graph.cells, kept=tuple((count, why) for why, count in kept.items()))
    said = masked(network, side)
    zero = sum(int(zero_filters(weight).sum()) for weight in prunable(network).values())
    row = dataclasses.replace(row, zero=zero, said=tuple(said))
    gc.collect()
    fresh = torch.randn(4, *shape)
    with torch.no_grad():
        before, exact_before = network(fresh), network.double()(fresh.double())
    network.float()
    row = dataclasses.replace(row, spread=float(before.std(0).mean()))
    vectors = {
        name: one.clone() for name, one in network.state_dict().items() if one.dim() == 1 and one.is_floating_point()
    }
    images, thinned, pruned = torch.randn(4, *shape), None, copied(network) if timed else network
    try:
        thinned = thin(network, images)
    except CompressError as error:
        row = dataclasses.replace(row, refused=str(error))
        if "a logit changes" in row.refused:
            with contextlib.suppress(CompressError):
                thinned = thin(network.double(), images.double())
    if thinned is not None:
        own = network.state_dict()
        moved = any(not torch.equal(own[vector].float(), value) for vector, value in vectors.items())
        row = dataclasses.replace(row, absorbed=moved)
        with torch.no_grad():
            thinned.cut.model(network.double())
            exact, after = network(fresh.double()), network.float()(fresh)
        row = dataclasses.replace(
            row,
            refused="",
            rounding=row.refused,
            parameters=(row.parameters[0], _size(network)),
            macs=(row.macs[0], macs(network, shape)[0]),
            difference=_difference(before, after),
            exact=_difference(exact_before, exact),
            stay=sum(stay.count for stay in thinned.stays),
            reasons=tuple((stay.weight, stay.count, stay.reason) for stay in thinned.stays),
        )
    row = dataclasses.replace(row, seconds=time.process_time() - began)
    if timed:
        settle(dense, torch.randn(4, *shape))
        thin_net, cut = (None, None) if thinned is None else (network, thinned.cut)
        images = torch.randn(BATCH if side <= 96 else BATCH_OF_LARGE, *shape)
        row = dataclasses.replace(row, race=race(dense, pruned, thin_net, cut, images, BLOCKS, patience))
    return row


def _difference(before: Tensor, after: Tensor) -> float:
    return float(((after - before).abs() / before.abs().clamp(min=1)).max())


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def found(name: str, again: bool, patience: int) -> Row:
    """The network's row: as it was found before, or now, in a process of its own."""
    kept = CACHE / f"{name.replace('/', '-')}.json"
    if again or not kept.exists():
        CACHE.mkdir(exist_ok=True)
        told, why = _run(name, patience)
        row = Row(name, side_of(name), refused=why) if told is None else _row(told)
        kept.write_text(json.dumps(dataclasses.asdict(row)), "utf-8")
    return _row(json.loads(kept.read_text(encoding="utf-8")))


def _run(name: str, patience: int) -> tuple[dict[str, Any] | None, str]:
    """What a process of this file finds of a network, or None and the reason why it did not end."""
    command = [sys.executable, "-m", "benchmarks.thinning_table", "--one", name, "--patience", str(patience)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode == -signal.SIGXCPU:
        return None, f"given up after {patience} s of CPU"
    if ended.returncode:
        return None, f"crashed, exit code {ended.returncode}: {(ended.stderr.strip().splitlines() or ['no word'])[-1]}"
    return json.loads(ended.stdout.splitlines()[-1]), ""


def _row(told: dict[str, Any]) -> Row:
    return Row(**{**told, "race": None if told["race"] is None else Race(**told["race"])})


def line(row: Row) -> str:
    """A row of the table."""
    before = f"| {row.name.removeprefix(TIMM)} | {row.side} "
    if row.refused:
        told = f"{before}| refused: {row.refused} | | | | | {_gains(row)} | {_rest(row)} |"
        return told.replace("|logit|", r"\|logit\|")
    if row.parameters[0] == row.parameters[1]:
        size = _change(row.parameters, 1e6)
        return f"{before}| nothing goes | {size} | | | {_stays(row)} | | {_rest(row)} |"
    verdict = "thins" if row.exact <= (TOLERANCE if row.absorbed else EXACT) else "DIFFERS"
    if row.absorbed:
        verdict += ", constants absorbed in float32"
    if row.rounding:
        verdict += f" in float64 (in float32 {row.rounding.removeprefix('not thinned: ').partition(',')[0]})"
    changes = f"{_change(row.parameters, 1e6)} | {_change(row.macs, 1e9)}"
    differences = f"{row.difference:.0e}, {row.exact:.0e}"
    return f"{before}| {verdict} | {changes} | {differences} | {_stays(row)} | {_gains(row)} | {_rest(row)} |"


def _gains(row: Row) -> str:
    """How many times as fast the thinned network is, and that of torch-pruning with the same channels removed."""
    if row.race is None or not row.race.gain:
        return ""
    theirs = f"{row.race.peer_gain:.2f} x" if row.race.peer_gain else row.race.peer
    return f"{row.race.gain:.2f} x, {theirs}".replace("|", "/")


def _rest(row: Row) -> str:
    """What torch-pruning makes of the zero filters that stay."""
    if row.race is None or not (row.race.rest or row.race.failed):
        return ""
    if row.race.failed:
        return row.race.failed.replace("|", "/")
    logits = "equal logits" if row.race.changed <= EXACT else f"logits change by {row.race.changed:.1g}"
    return f"{row.race.rest:.2f}, {logits}"


def _change(pair: tuple[int, int], unit: float) -> str:
    return f"{_short(pair[0] / unit)} -> {_short(pair[1] / unit)} ({pair[1] / pair[0]:.2f})"


def _short(value: float) -> str:
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-3))))}f}"


def _stays(row: Row) -> str:
    """What stays masked, and what is not pruned because it could not go."""
    told = []
    if row.stay:
        told.append(f"{row.stay} of {row.zero} zero filters: " + _reasons([(n, why) for _, n, why in row.reasons]))
    if row.kept:
        count = sum(n for n, _ in row.kept)
        told.append(f"{count} of {row.channels} channels are never removed: " + _reasons(row.kept))
    return ". ".join(told) or "nothing"


def _reasons(found: Iterable[tuple[int, str]]) -> str:
    """The two most frequent reasons; those that are alike but for the layer's name are told once."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for count, reason in found:
        kind = re.sub(r"\S*[.\d]\S*", "~", reason)
        counts[kind] += count
        first.setdefault(kind, reason)
    told = [f"{count} ({first[kind]})" for kind, count in counts.most_common(2)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(2))
    return "; ".join(told) + (f", {rest} others" if rest else "")


def table(rows: list[Row]) -> str:
    """All rows, in Markdown."""
    thin_ones = sum(
        not row.refused and row.parameters[1] < row.parameters[0] and "DIFFERS" not in line(row) for row in rows
    )
    columns = (
        "network | pixels | verdict | parameters | MACs | logit difference, float32, float64 | what stays"
        " | times as fast, thin, torch-pruning | torch-pruning of what stays"
    )
    counts = f"{thin_ones} of {len(rows)} thin; parameters in millions, MACs in billions."
    head = f"{counts}\n\n| {columns} |\n|{' --- |' * (columns.count('|') + 1)}"
    return "\n".join([head, *map(line, rows)])


def write(rows: list[Row], begin: str, end: str) -> None:
    """Put a table between its marks in docs/thinning.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(f"{before}{begin}\n{table(rows)}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--families", action="store_true", help="also those of timm")
    arguments.add_argument("--write", action="store_true", help="into docs/thinning.md")
    arguments.add_argument("--again", action="store_true", help="forget what was found before")
    arguments.add_argument("--patience", type=int, default=300, help="seconds of CPU that one network may take")
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.one:
        resource.setrlimit(resource.RLIMIT_CPU, (given.patience, given.patience + 1))
        print(json.dumps(dataclasses.asdict(attempt(given.one, given.patience // 6))))
        return
    every = [*torchvision_models.names(), *(FAMILIES if given.families else ())]
    for name in given.names or every:
        row = found(name, given.again or bool(given.names), given.patience)
        print(
            line(row),
            f"<!-- {row.seconds:.0f} s, logits differ by {row.spread:.2g} between images -->",
            flush=True,
        )
    if given.write:
        _write_all(every, given.patience)


def _write_all(names: Iterable[str], patience: int) -> None:
    rows = [found(name, again=False, patience=patience) for name in names]
    families = [row for row in rows if row.name.startswith(TIMM)]
    write([row for row in rows if row not in families], BEGIN, END)
    if families:
        write(families, BEGIN_FAMILIES, END_FAMILIES)


if __name__ == "__main__":
    main()
