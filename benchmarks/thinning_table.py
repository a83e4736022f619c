"""Which of torchvision's classifiers thin, and to what: the table in docs/thinning.md.

    python -m benchmarks.thinning_table [--write] [--again] [--patience 300] [NAME ...]

Each network has random weights, biases and affines, scaled so that its logits depend on the image, and batch norms that
have seen random images. Half of the filters of every convolution and linear layer but the last are pruned by a schedule
(`class: Pruner`, `structure: Filters`, `scope: coupled`), then `thin` removes them, and the logits
of the masked and the thinned network are compared on other images. Every network has a process of its own; what was
found is kept in the temporary folder until its name is given here, or `--again`.
"""

import argparse
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
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from compressor.context.data import Data
from compressor.errors import CompressError
from compressor.models import build, torchvision_models
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import read
from compressor.session.session import Session
from compressor.sparsity.weights import prunable
from compressor.thinning.equivalence import thin
from compressor.thinning.layers import BATCHNORMS, CONVOLUTIONS
from compressor.timing.clock import Clock
from compressor.tracing.macs import macs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "thinning.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
CACHE = Path(tempfile.gettempdir()) / "compressor-thinning-table"
SIDES = {"vit_": 224, "swin_": 224, "maxvit_": 224, "inception_": 96}
"""Pixels of the images by how the name begins; 64 else."""
EXACT = 1e-9
"""Functions are the same where no logit differs by more in float64."""


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
    """The largest difference of a logit, over max(1, |logit|), in float32 and in float64."""
    spread: float = 0.0
    """How much the logits differ between images."""
    zero: int = 0
    stay: int = 0
    reasons: tuple[tuple[str, int, str], ...] = ()
    said: tuple[str, ...] = ()
    seconds: float = 0.0


def side_of(name: str) -> int:
    """Pixels of the images that a network is tried on."""
    return next((side for begin, side in SIDES.items() if name.startswith(begin)), 64)


@torch.no_grad()
def randomize(network: nn.Module) -> None:
    """Biases and affines that are not 0 and 1, and weights that are not 0."""
    for name, parameter in network.named_parameters():
        module = network.get_submodule(name.rpartition(".")[0])
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
        elif isinstance(module, (BATCHNORMS, nn.LayerNorm)) or name.endswith("layer_scale"):
            parameter.uniform_(0.5, 1.5)
        elif not bool(parameter.any()):  # the head of a vision transformer
            parameter.normal_(0, 0.02)


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> None:
    """As training would: every layer's outputs differ by about 1 between images, and batch norms know (roughly) how.

    Without this the logits of a deep random network hardly depend on the image, and their equality would prove nothing.
    """
    norms = [module for module in network.modules() if isinstance(module, BATCHNORMS)]
    layers = [module for module in network.modules() if isinstance(module, (CONVOLUTIONS, nn.Linear))]
    hooks = [layer.register_forward_hook(_rescale) for layer in layers]
    network.eval()
    for norm in norms:
        norm.train().momentum = 1.0
    network(images)
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        variance.mul_(torch.empty_like(variance).uniform_(0.7, 1.4)).add_(1e-3)
        mean.add_(0.1 * variance.sqrt() * torch.randn_like(mean))
    network.eval()
    network(images)
    for hook in hooks:
        hook.remove()


def _rescale(layer: Any, given: tuple[Any, ...], out: Tensor) -> Tensor:
    deviation = out.std(0)
    live = deviation[deviation > 0]
    if not len(live):
        return out
    layer.weight.div_(live.mean())
    return cast(Tensor, layer.forward(*given))


def prune(network: nn.Module, names: list[str], images: Tensor, sparsity: float = 0.5) -> list[str]:
    """Zero so many filters of the named weights, by a schedule; returns what it said."""
    text = (
        "{version: 2, policies: [{pruner: {class: Pruner, criterion: l1, structure: Filters, scope: coupled,"
        f" weights: {json.dumps(names)}, rate: {{sparsity: {sparsity}}}}}, epochs: [0]}}]}}"
    )
    faults = Faults()
    bound = read(parse("benchmark", text, faults), faults).bind(network, 1, faults)
    faults.raise_any()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    said: list[str] = []
    data = Data(batches=lambda count: [(images, torch.zeros(len(images), dtype=torch.long))])
    session = Session(network, optimizer, bound.policies, Clock(1, 1), data, say=said.append)
    session.events.fire("on_epoch_begin")
    return said


def zero_filters(network: nn.Module) -> int:
    """How many filters are all zero."""
    return sum(int((weight == 0).flatten(1).all(1).sum()) for weight in prunable(network).values())


def attempt(name: str) -> Row:
    """Build, prune and thin one network."""
    began = time.process_time()
    torch.manual_seed(0)
    side = side_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = build(name)
    randomize(network)
    shape = (3, side, side)
    row = Row(name, side, parameters=(_size(network), 0), macs=(macs(network, shape)[0], 0))
    said = prune(network, list(prunable(network))[:-1], torch.randn(2, *shape))
    settle(network, torch.randn(8, *shape))
    row = dataclasses.replace(row, zero=zero_filters(network), said=tuple(said))
    gc.collect()
    fresh = torch.randn(4, *shape)
    with torch.no_grad():
        row = dataclasses.replace(row, spread=float(network(fresh).std(0).mean()))
    images, refused = torch.randn(4, *shape), ""
    try:
        thinned = thin(network, images)
    except CompressError as error:
        refused = str(error)
        row = dataclasses.replace(row, refused=refused, seconds=time.process_time() - began)
        if "a logit changes" not in refused:
            return row
        try:
            thinned = thin(network.double(), images.double())
        except CompressError:
            return row
    with torch.no_grad():
        before, exact_before = network.float()(fresh), network.double()(fresh.double())
        thinned.cut.model(network)
        exact, after = network(fresh.double()), network.float()(fresh)
    return dataclasses.replace(
        row,
        refused="",
        rounding=refused,
        parameters=(row.parameters[0], _size(network)),
        macs=(row.macs[0], macs(network, shape)[0]),
        difference=_difference(before, after),
        exact=_difference(exact_before, exact),
        stay=sum(stay.count for stay in thinned.stays),
        reasons=tuple((stay.weight, stay.count, stay.reason) for stay in thinned.stays),
        seconds=time.process_time() - began,
    )


def _difference(before: Tensor, after: Tensor) -> float:
    return float(((after - before).abs() / before.abs().clamp(min=1)).max())


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def found(name: str, again: bool, patience: int) -> Row:
    """The network's row: as it was found before, or now, in a process of its own."""
    kept = CACHE / f"{name}.json"
    if again or not kept.exists():
        CACHE.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.thinning_table", "--one", name, "--patience", str(patience)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        why = f"crashed, exit code {ended.returncode}: {(ended.stderr.strip().splitlines() or ['no word'])[-1]}"
        if ended.returncode == -signal.SIGXCPU:
            why = f"given up after {patience} s of CPU"
        crashed = Row(name, side_of(name), refused=why)
        kept.write_text(json.dumps(dataclasses.asdict(crashed)) if ended.returncode else ended.stdout, "utf-8")
    return Row(**json.loads(kept.read_text(encoding="utf-8")))


def line(row: Row) -> str:
    """A row of the table."""
    before = f"| {row.name} | {row.side} "
    if row.refused:
        return f"{before}| refused: {row.refused} | | | | |".replace("|logit|", r"\|logit\|")
    if row.parameters[0] == row.parameters[1]:
        return f"{before}| nothing goes | {_change(row.parameters, 1e6)} | | | {_stays(row)} |"
    verdict = "thins" if row.exact <= EXACT else "DIFFERS"
    if row.rounding:
        verdict += f" in float64 (in float32 {row.rounding.removeprefix('not thinned: ').partition(',')[0]})"
    changes = f"{_change(row.parameters, 1e6)} | {_change(row.macs, 1e9)}"
    return f"{before}| {verdict} | {changes} | {row.difference:.0e}, {row.exact:.0e} | {_stays(row)} |"


def _change(pair: tuple[int, int], unit: float) -> str:
    return f"{_short(pair[0] / unit)} -> {_short(pair[1] / unit)} ({pair[1] / pair[0]:.2f})"


def _short(value: float) -> str:
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-3))))}f}"


def _stays(row: Row) -> str:
    """What stays masked: the reasons that are alike but for the layer's name are told once."""
    if not row.stay:
        return "nothing"
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for _, count, reason in row.reasons:
        kind = re.sub(r"\S*[.\d]\S*", "~", reason)
        counts[kind] += count
        first.setdefault(kind, reason)
    told = [f"{count} ({first[kind]})" for kind, count in counts.most_common(2)]
    more = f", {row.stay - sum(count for _, count in counts.most_common(2))} others" if len(counts) > 2 else ""
    return f"{row.stay} of {row.zero} zero filters: " + "; ".join(told) + more


def table(rows: list[Row]) -> str:
    """All rows, in Markdown."""
    thin_ones = sum(not row.refused and row.exact <= EXACT for row in rows)
    columns = "network | pixels | verdict | parameters | MACs | logit difference, float32, float64 | stays masked"
    counts = f"{thin_ones} of {len(rows)} thin; parameters in millions, MACs in billions."
    head = f"{counts}\n\n| {columns} |\n| --- | --- | --- | --- | --- | --- | --- |"
    return "\n".join([head, *map(line, rows)])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--write", action="store_true", help="into docs/thinning.md")
    arguments.add_argument("--again", action="store_true", help="forget what was found before")
    arguments.add_argument("--patience", type=int, default=300, help="seconds of CPU that one network may take")
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.one:
        resource.setrlimit(resource.RLIMIT_CPU, (given.patience, given.patience + 1))
        print(json.dumps(dataclasses.asdict(attempt(given.one))))
        return
    rows = []
    for name in given.names or torchvision_models.names():
        rows.append(found(name, given.again or bool(given.names), given.patience))
        print(
            line(rows[-1]),
            f"<!-- {rows[-1].seconds:.0f} s, logits differ by {rows[-1].spread:.2g} between images -->",
            flush=True,
        )
    if given.write:
        rows = [found(name, again=False, patience=given.patience) for name in torchvision_models.names()]
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
