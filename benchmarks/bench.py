"""All benchmarks, row by row, into one file and one table: `make bench [ONLY=row,row] [QUICK=1]`.

    python -m benchmarks.bench [--only ROW,ROW] [--quick] [--again] [--list]

A row that is finished is written at once to docs/measured/benchmarks.json; a row that is in the file is measured again
only where it is named, or with `--again`. At the end the table in
docs/benchmarks.md and the figure of the cost as the work grows are made of the file. `--quick` is the short form: a few
blocks, small sizes, nothing that can be relied on; it writes runs/bench-quick/ and leaves docs/ as it is. Before and
while it measures it looks at what other processes use of the machine.
"""

import argparse
import importlib
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    compaction,
    components,
    growth,
    one_off,
    packed,
    step_overhead,
    thin_inference,
    thinning_speed,
    throughput,
)
from benchmarks.measuring import QUIET, Figure, Load
from benchmarks.recorded import ROOT, between, read, row, table, verdict, write

FOLDER = ROOT / "docs" / "measured"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = "<!-- make bench -->", "<!-- end of make bench -->"
QUICK = ROOT / "runs" / "bench-quick"
BEFORE = 2.0
"""Seconds for which the load of other processes is looked at before anything is measured."""

Found = tuple[list[Figure], list[str]]


@dataclass(frozen=True)
class Size:
    """How long a row measures: `quick` is the form that only shows that it works."""

    blocks: int
    steps: int
    quick: bool


SHORT, WHOLE = Size(1, 1, True), Size(11, 2, False)


@dataclass(frozen=True)
class Row:
    """One row: its title in the table, and what measures it."""

    title: str
    measure: Callable[[Size], Found]


def _step(name: str) -> Row:
    return Row(
        f"training step: {name}", lambda size: step_overhead.measure(name, size.blocks, size.steps, small=size.quick)
    )


def _section(section: str) -> Row:
    def measure(size: Size) -> Found:
        return components.measure(section, size.blocks, 2 * size.steps, small=size.quick), []

    return Row(f"a step of a small network under each of the {section}, and the begin of an epoch", measure)


def _thin(name: str) -> Row:
    def measure(size: Size) -> Found:
        found = thin_inference.compare(name, 32 if size.quick else 64, 2 if size.quick else 32, size.blocks)
        return thin_inference.figures(name, found), found.missing

    return Row(f"inference of {name}, half of its channels removed", measure)


def _growth(kind: str) -> Row:
    def measure(size: Size) -> Found:
        return growth.by_weights(kind, 10**5 if size.quick else 10**8, min(size.blocks, 7)), []

    return Row(f"more weights: {kind}, beyond the bare loop", measure)


def _compaction(size: Size) -> Found:
    cases = compaction.CASES[:2] if size.quick else compaction.CASES
    batches = (1,) if size.quick else (1, 32)
    return [compaction.figure(compaction.compare(case, batch, size.blocks)) for case in cases for batch in batches], []


def _feed(size: Size) -> Found:
    feed = importlib.import_module("benchmarks.feed")
    count, rounds = (64, 1) if size.quick else (2000, 3)
    root = feed.made(Path(tempfile.gettempdir()), count)
    found = []
    for workers in (0,) if size.quick else (0, 2):
        theirs, own, again = feed.compared(root, workers, rounds)
        seconds = statistics.median(each.wall for each in own)
        note = f"{count / seconds:,.0f} images a second; by wall time {feed.ratio(theirs, own, 'wall'):.3f}"
        what = f"feed with {workers} workers: images a second of CPU / a plain loop's"
        noise = feed.ratio(own, again, "cpu")
        found.append(Figure(what, feed.ratio(theirs, own, "cpu"), "x", 0.9, True, noise, note))
    return found, []


def _two_ranks(size: Size) -> Found:
    """The lines that `benchmarks.two_ranks` prints, as figures."""
    data = os.environ.get("COMPRESS_DATA", str(ROOT.parent / "shared" / "data"))
    words = ["--data", data, *(["--rounds", "1", "--images", "256"] if size.quick else [])]
    command = [sys.executable, "-m", "benchmarks.two_ranks", *words]
    told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = []
    for number, line in enumerate((line for line in told.splitlines() if line.startswith("round")), 1):
        of_one, of_two = (float(word) for word in re.findall(r"([\d.]+) (?:x one|of two runs)", line))
        note = f"{of_two:.2f} of what two separate runs reach together (0.85 is enough, too);{line.rpartition(';')[2]}"
        enough = 1.7 if of_two < 0.85 else None
        found.append(
            Figure(f"images a second of two processes / one, round {number}", of_one, "x", enough, True, note=note)
        )
    return found, []


def _slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", name.lower())[:4])


ROWS: dict[str, Row] = {
    **{f"step-{_slug(name)}": _step(name) for name in step_overhead.ROWS},
    **{f"all-{section}": _section(section) for section in components.SECTIONS if components.in_section(section)},
    "once": Row("what happens once", lambda size: (one_off.measure(2 if size.quick else 7, small=size.quick), [])),
    "start": Row("start of the command line", lambda size: (one_off.of_commands(1 if size.quick else 7), [])),
    "trainer": Row("the trainer", lambda size: (throughput.figures(130 if size.quick else 512, size.blocks), [])),
    **{f"thin-{name}": _thin(name) for name in thin_inference.NAMES},
    "thinning": Row(
        "thinning itself", lambda size: (thinning_speed.figures(1 if size.quick else 5, small=size.quick), [])
    ),
    "compaction": Row("one layer without its zero rows and columns: dense time / its time", _compaction),
    "packed": Row("the packed file", lambda size: (packed.figures(1 if size.quick else 7), [])),
    **{f"weights-{_slug(kind)}": _growth(kind) for kind in growth.KINDS},
    "tensors": Row("more tensors", lambda size: (growth.by_tensors(size.blocks, 10**5 if size.quick else 10**6), [])),
    "policies": Row(
        "more policies", lambda size: (growth.by_policies(size.blocks, 10**5 if size.quick else 10**6), [])
    ),
    "ranks": Row("more processes", lambda size: (growth.by_ranks(size.blocks), [])),
    "memory": Row("peak memory", lambda size: (growth.memory("resnet18" if size.quick else "vgg16"), [])),
    "feed": Row("the feed", _feed),
    "two-ranks": Row("two processes under torchrun", _two_ranks),
}
for _key, _module in (("feed", "feed"), ("two-ranks", "two_ranks")):
    if importlib.util.find_spec(f"benchmarks.{_module}") is None:
        del ROWS[_key]

_SLOW = "a limit in seconds, set on a machine about three times as fast"
_RANKED = "after the partition all entries are compared with the threshold, and counted"
REASONS = {
    "no policy": "losses and hits are counted, and events fired: milliseconds of Python, whatever the network",
    "element mask in force": "each mask is read, and each weight read and written, once a step: see the floors",
    "L1 proximal, conv + fc": "each weight is read and written once a step, after the optimizer has done the same",
    "group lasso over filters": "each weight is read for its filter's norm, and once more for the gradient",
    "DropConnect, local, beside its linear layer": "six matrix products where a linear layer has three: see the floor",
    "masks of resnet18 at 80 %, beside np.partition": _RANKED,
    **{f"mask of {count:,} weights at 80 %, beside np.partition": _RANKED for count in one_off.LARGE[:2]},
    f"mask of {one_off.LARGE[2]:,} weights at 80 %, beside np.partition": "both take new memory of twice 400 MB,"
    " and its cost changes threefold from call to call",
    **{f"sparsity summary of resnet18{at}": _SLOW for at in ("", " at 80 %")},
    "compress --help": _SLOW,
    "compress validate, beyond import torch": "torch 2.14 loads its compiler at the first operation on the meta device"
    " (half of it), and torchvision is imported",
    **{f"thinning {name}": _SLOW for name in thinning_speed.NETWORKS},
    "vgg16, element mask in force: peak memory beyond the bare loop": "the masks are one byte a weight; the rest is"
    " what the allocator keeps of freed memory, which differs between two equal runs",
    "vgg16, AGP, masks every mini-batch: peak memory beyond the bare loop": "while the largest weight is ranked, its"
    " magnitudes take 4 bytes a weight, and the masks 1",
    "processes: the cost of one, largest case / least before": "each step sums losses over the processes, and here four"
    " processes share two cores",
}
"""Why a budget is not met, by figure: what was tried, and what is left."""


def measured(key: str, size: Size) -> dict[str, Any]:
    """Measure one row."""
    load, began = Load(), time.monotonic()
    figures, left_out = ROWS[key].measure(size)
    return row(figures, left_out, time.monotonic() - began, load.others(), quick=size.quick)


def show(made: Mapping[str, Any]) -> None:
    """Print the figures of a row."""
    for saved in made["figures"]:
        figure = Figure(**saved)
        said = "; ".join(filter(None, [verdict(figure, REASONS), figure.note]))
        print(f"  {figure.what:72} {figure.value:10.3f} {figure.unit:14} {said}", flush=True)
    for what in made["left_out"]:
        print(f"  left out: {what}", flush=True)
    others = made["others"]
    if others is not None and others > QUIET:
        print(f"  not quiet: other processes used {others:.2f} cores meanwhile", flush=True)


def grown(rows: Mapping[str, Any]) -> dict[str, list[Figure]]:
    """The rows of the cost as the work grows, without the verdict that each ends with."""
    keys = [key for key in rows if key.startswith("weights-") or key in ("tensors", "policies", "ranks")]
    return {key: [Figure(**saved) for saved in rows[key]["figures"][:-1]] for key in keys}


def text_of(rows: Mapping[str, Any]) -> str:
    """The table of the rows that there are, and the picture where there is one."""
    picture = "![What a step costs beyond the bare loop, as the work grows](measured/growth.svg)\n\n"
    made = table(rows, {key: one.title for key, one in ROWS.items()}, REASONS)
    return (picture if grown(rows) else "") + made


def main() -> None:
    """Measure what is missing, and write the file, the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows, with commas")
    parser.add_argument("--quick", action="store_true", help="the short form, into runs/bench-quick/")
    parser.add_argument("--again", action="store_true", help="measure rows again that are in the file")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    given = parser.parse_args()
    if given.list:
        print(*(f"{key:34} {one.title}" for key, one in ROWS.items()), sep="\n")
        return
    wanted = [key for key in given.only.split(",") if key] or list(ROWS)
    unknown = [key for key in wanted if key not in ROWS]
    if unknown:
        sys.exit(f"no row {unknown[0]!r}: there are {', '.join(ROWS)}")
    size, folder = (SHORT, QUICK) if given.quick else (WHOLE, FOLDER)
    path = folder / "benchmarks.json"
    torch.set_num_threads(1)
    load = Load()
    time.sleep(BEFORE)
    others = load.others()
    if others is None:
        print("this system does not tell what other processes use: see yourself that the machine is quiet")
    else:
        said = "quiet" if others <= QUIET else f"not quiet (at most {QUIET}): the figures are of a busy machine"
        print(f"other processes use {others:.2f} cores: {said}", flush=True)
    failed = []
    for key in wanted:
        if key in read(path) and not given.again and not given.only:
            print(f"{key}: measured before")
            continue
        print(f"{key}: {ROWS[key].title}", flush=True)
        try:
            made = measured(key, size)
        except Exception as error:  # the other rows are measured all the same
            failed.append(key)
            print(f"  failed: {type(error).__name__}: {error}", flush=True)
            continue
        show(made)
        write(path, {**read(path), key: made})
    rows = read(path)
    text = text_of(rows)
    if curves := grown(rows):
        (folder / "growth.svg").write_text(growth.picture(curves), encoding="utf-8")
    if given.quick:
        (folder / "benchmarks.md").write_text(text + "\n", encoding="utf-8")
    else:
        PAGE.write_text(between(PAGE, MARKS, text), encoding="utf-8")
    print(f"{len(rows)} of {len(ROWS)} rows are in {path}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
