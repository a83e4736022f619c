"""The papers' tables beside ours: `make reproduce [ONLY=row,row] [SEEDS=n] [DATA=folder]`.

Every row is a few runs of `compress train` in runs/papers/ (continued where they were broken off); each finished
(row, seed) is a JSON under docs/results/, from which the table of docs/results.md and the records in the
schedules' headers are written. A JSON names its commit and holds the smoke digest of its schedule: `AGAIN=1` runs a row
again whose digest differs today, with the same torch and processor. `CHECK=1` runs recorded rows again in runs/check/,
writes nothing into docs/, and fails where an error is further from the recorded ones than their spread allows.

`TUNE=1 [SET="key=value ..."]` trains on 55,000 of 60,000 images and does not use the test images: it prints the errors
on the other 5,000 and writes nothing into docs/. Each variant has a folder of its own under runs/tuning/. `SET` changes
the row's own run.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau
from scipy.stats import t as student

from benchmarks import claims, launch
from benchmarks.paper_facts import facts
from benchmarks.recorded import commit
from benchmarks.rows import ROWS, Row, Stage
from compressor.experiment import environment
from compressor.experiment import records as digests
from compressor.experiment.specification import Specification, specification

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS, PAGE = ROOT / "docs" / "results", ROOT / "runs" / "papers", ROOT / "docs" / "results.md"
TUNING, CHECKS = ROOT / "runs" / "tuning", ROOT / "runs" / "check"
HELD_OUT = 5000 / 60000
"""The fraction of the training images of MNIST on which a row is tuned, where its configuration holds none out."""
CONFIDENCE = 0.95
BEGIN, END = "# record, by `make reproduce`:", "# end of record"


def arguments(stage: Stage, seed: int) -> list[str]:
    """What follows `compress train` for one stage, but for --init, --data and --out."""
    sets = [word for override in stage.sets for word in ("--set", override)]
    schedule = [] if stage.schedule is None else ["--schedule", stage.schedule]
    return [*schedule, "--config", stage.config, *sets, "--seed", str(seed)]


@dataclass(frozen=True)
class Place:
    """Where runs lie, and which data they have; `digests`: of each variant of a stage in a folder of its own."""

    runs: Path
    data: str | None
    digests: bool = False
    finished: set[Path] = field(default_factory=set)
    """The runs that this process has seen finished."""


def train(name: str, row: Row, seed: int, place: Place) -> Path:
    """The finished run of a stage, and of those that it starts from."""
    stage, start = row.stages[name], None
    words = arguments(stage, seed)
    if stage.init is not None:
        start = train(stage.init, row, seed, place)
        words += ["--init", str(start / "checkpoint.pt")]
    own = f"-{_digest(stage, start)}" if place.digests else ""
    folder = place.runs / f"{name}{own}-seed{seed}"
    if folder in place.finished:
        return folder
    if place.data is not None:
        words += ["--data", place.data]
    if code := launch.compress("train", *words, "--out", str(folder), "--resume"):
        sys.exit(f"{name}, seed {seed}: compress train ended with {code}")
    place.finished.add(folder)
    return folder


def _spec(stage: Stage) -> Specification:
    """What a stage trains, from initial weights."""
    sets = [(key, value) for key, _, value in (override.partition("=") for override in stage.sets)]
    return specification(stage.schedule, stage.config, sets)


def _digest(stage: Stage, start: Path | None) -> str:
    """A few letters for what a stage is and what it starts from."""
    text = digests.inputs(_spec(stage)) + ("" if start is None else start.name)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run(key: str, seed: int, data: str | None) -> None:
    """Make the JSON of one row and seed, unless it is there."""
    path = RESULTS / f"{key}-seed{seed}.json"
    if path.exists():
        print(f"{key}, seed {seed}: {path.name} is there; with CHECK=1 it is run again and compared")
        return
    row = ROWS[key]
    record: dict[str, Any] = {"row": key, "seed": seed, **_roles(row, seed, Place(RUNS, data))}
    spec = _spec(row.stages[row.result])
    record["commit"] = commit()
    record["digest"] = digests.record(spec, environment.here(torch.device("cpu")), None).model_dump(mode="json")
    record["commands"] = {
        name: " ".join(["compress train", *arguments(stage, seed)]) for name, stage in row.stages.items()
    }
    record["made"] = time.strftime("%Y-%m-%d")
    RESULTS.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)


def _roles(row: Row, seed: int, place: Place) -> dict[str, dict[str, Any]]:
    """Train the row's result and what stands beside it; return the figures of each."""
    return {
        role: facts(train(name, row, seed, place), row.kept if role == "result" else "non-zero")
        for role, name in {"result": row.result, **row.beside}.items()
    }


def check(key: str, seed: int, data: str | None) -> bool:
    """Run one row and seed again; print its figures beside the recorded ones, and return whether the errors agree.

    They agree where the new error lies in the 95 % interval in which the recorded seeds let one expect one more run:
    mean +- t s sqrt(1 + 1 / n), by Student's t. Of a row with one seed, only the same figure agrees.
    """
    made = records().get(key, [])
    if not made:
        sys.exit(f"{key}: no result is recorded in {RESULTS}")
    new, agree = _roles(ROWS[key], seed, Place(CHECKS, data)), True
    for role, found in new.items():
        errors = [record[role]["error"] for record in made]
        close = abs(found["error"] - statistics.mean(errors)) <= _half_interval(errors, 1 + 1 / len(errors)) + 1e-9
        agree &= close
        each = ", ".join(f"{error:.2f}" for error in errors)
        counts = f"{found['parameters_left']:,} parameters left, recorded {_mean(made, role, 'parameters_left'):,.0f}"
        verdict = "agrees" if close else "DIFFERS"
        print(f"{key}, seed {seed}, {role}: error {found['error']:.2f} %, recorded {each}: {verdict}; {counts}")
    return agree


def tune(key: str, seed: int, data: str | None, sets: Sequence[str]) -> None:
    """Print what a row reaches on the images held out; `sets`: of its own run."""
    row = ROWS[key]
    stages = {name: _held_out(stage, sets if name == row.result else ()) for name, stage in row.stages.items()}
    row = replace(row, stages=stages)
    for role, name in {"result": row.result, **row.beside}.items():
        folder = train(name, row, seed, Place(TUNING, data, digests=True))
        found = facts(folder, row.kept if role == "result" else "non-zero", tested=False)
        left = f"{times(found, 'parameters'):.1f}x ({times(found, 'weights'):.1f}x)"
        print(f"{key}, seed {seed}, {role}: validation error {found['error']:.2f} %, {left}; {folder}: {found}")


def _held_out(stage: Stage, sets: Sequence[str]) -> Stage:
    own = (*stage.sets, *sets)
    held = () if _spec(stage).config.data.validation else (f"data.validation={HELD_OUT:.9f}",)
    return replace(stage, sets=(*own, *held, "test=false"))


def stale(key: str) -> list[int]:
    """The seeds of a row whose schedule has another smoke digest now, with the same torch and processor."""
    made = records().get(key, [])
    spec = _spec(ROWS[key].stages[ROWS[key].result])
    found = []
    known: dict[str, bool] = {}
    for record in made:
        if "digest" in record:
            recorded = digests.Record.model_validate(record["digest"])
            if recorded.smoke not in known:
                known[recorded.smoke] = digests.compare_smoke(spec, recorded).result == "differs"
            if known[recorded.smoke] or recorded.inputs != digests.inputs(spec):
                found.append(int(record["seed"]))
    return found


def records() -> dict[str, list[dict[str, Any]]]:
    """The results there are, by row."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["row"], []).append(record)
    return {key: found[key] for key in ROWS if key in found}


def times(facts: dict[str, Any], what: str) -> float:
    """How many times fewer `weights` or `parameters` are left."""
    return float(facts[what]) / max(int(facts[f"{what}_left"]), 1)


HEAD = """\
Made by `make reproduce` from the files in `results/`. Errors in percent of the 10,000 test images (MNIST unless
the row says otherwise), of the last epoch, mean over the seeds. The *reference* is the dense network that was
pruned, the *control* the same network trained on without pruning for as long. *times* counts weights and biases (then
weights alone, and bits as stored: relative indices, or the numbers that hashing stores); rows of L0 and SSL count the
kept architecture as the papers do: live inputs x live outputs of each layer, and name each layer's live inputs. *less
X* is the mean of the paired differences; from three seeds on its 95 % interval (Student's t) follows them. MACs and
speed: dense, and what thinning and compaction leave, at a batch of 16. Minutes are the wall time of the result's own
run on one thread, on several machines that ran others beside it.

| row | paper: error, times | ours: error | times (weights; bits) | beside it | seeds | minutes |
| --- | --- | --- | --- | --- | --- | --- |
"""


def table() -> str:
    """Return the rows with what their columns mean, then the tables of stability."""
    every = records()
    lines = [_line(key, made) for key, made in every.items()]
    stability = [_stability(key, made) for key, made in every.items() if "stability" in made[0]["result"]]
    return HEAD + "\n".join([*lines, *stability]) + "\n"


def page() -> str:
    """Return docs/results.md with the table in its place."""
    before, begin, rest = PAGE.read_text().partition("<!-- papers -->\n")
    _, end, after = rest.partition("<!-- end of papers -->")
    return f"{before}{begin}\n{table()}\n{end}{after}"


def _mean(made: list[dict[str, Any]], role: str, what: str) -> float:
    return statistics.mean(record[role][what] for record in made)


def _line(key: str, made: list[dict[str, Any]]) -> str:
    row = ROWS[key]
    each = ", ".join(f"{record['result']['error']:.2f}" for record in made)
    mean = f"{_mean(made, 'result', 'error'):.2f} ({each})" if len(made) > 1 else each
    paper = f"{row.paper[0]:.2f} %, {row.paper[1]:.1f}x" if row.paper else "-"
    both, alone = (statistics.mean(times(r["result"], what) for r in made) for what in ("parameters", "weights"))
    counted = f"{both:.1f}x ({alone:.1f}x; {_mean(made, 'result', 'times_stored_bits'):.1f}x)"
    if both < 1.005:
        counted = "-"
    beside = [f"{role} {_mean(made, role, 'error'):.2f}" for role in row.beside]
    if row.paired is not None:
        beside += [_paired(made, role) for role in (row.paired, *row.also_paired)]
    if "error_folded" in made[0]["result"]:
        beside.append(f"folded into plain weights {_mean(made, 'result', 'error_folded'):.2f}")
    if "macs" in made[0]["result"]:
        macs, left, speed = (_mean(made, "result", what) for what in ("macs", "macs_left", "times_as_fast"))
        counted = f"{macs / 1e6:.3g} M MACs -> {left / 1e6:.3g} M, {speed:.2f}x as fast"
    if row.kept == "architecture":
        counted += f"; inputs {', '.join('-'.join(str(i) for i, _ in r['result']['architecture']) for r in made)}"
    minutes = f"{_mean(made, 'result', 'minutes'):.1f}"
    title = f"{row.title}{', test figure seen while tuning' if row.seen else ''} (`{key}`)"
    return f"| {title} | {paper} | {mean} | {counted} | {'; '.join(beside)} | {len(made)} | {minutes} |"


def _half_interval(values: Sequence[float], variances: float) -> float:
    """Half the interval of Student's t of something whose variance is so many times that of one value."""
    if len(values) < 2:
        return 0.0
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * statistics.stdev(values) * math.sqrt(variances)


def _paired(made: list[dict[str, Any]], role: str) -> str:
    gaps = [record["result"]["error"] - record[role]["error"] for record in made]
    each = ", ".join(f"{gap:+.2f}" for gap in gaps)
    interval = ""
    if len(gaps) > 2:
        half = _half_interval(gaps, 1 / len(gaps))
        interval = f"; {statistics.mean(gaps) - half:+.2f} to {statistics.mean(gaps) + half:+.2f}"
    return f"less {role}: {statistics.mean(gaps):+.2f} ({each}{interval})"


def _stability(key: str, made: list[dict[str, Any]]) -> str:
    """Stability beside accuracy over the ways to prune, and how they go together."""
    row = ROWS[key]
    lines = [
        "",
        f"### {row.title}",
        "",
        "Stability is 100 (1 - instability) %, the mean over the events that pruned; a network that is not pruned has",
        "100. An event has an effect where the accuracy on the images held out changed.",
        "",
        "| network | stability | events, with an effect | test error |",
        "| --- | --- | --- | --- |",
    ]
    stabilities: list[float] = []
    errors: list[float] = []
    for role in ("result", *row.beside):
        own = [record[role] for record in made]
        stable = [facts.get("stability", 100.0) for facts in own]
        stabilities += stable
        errors += [facts["error"] for facts in own]
        events = ", ".join(f"{facts.get('effective', 0):.0f} of {facts.get('events', 0):.0f}" for facts in own)
        each = ", ".join(f"{facts['error']:.2f}" for facts in own)
        name = row.called(role)
        lines.append(
            f"| {name} | {', '.join(f'{value:.2f}' for value in stable)} | {events}"
            f" | {statistics.mean(facts['error'] for facts in own):.2f} ({each}) |"
        )
    pruned = [number for number, stability in enumerate(stabilities) if stability != 100]
    every, among = (
        kendalltau([stabilities[n] for n in chosen], [-errors[n] for n in chosen])
        for chosen in (range(len(errors)), pruned)
    )
    lines += [
        "",
        f"Kendall's tau of stability and accuracy over all {len(errors)} networks: {every.statistic:+.2f}"
        f" (p = {every.pvalue:.2f}); over the {len(pruned)} that were pruned: {among.statistic:+.2f}"
        f" (p = {among.pvalue:.2f}).",
    ]
    return "\n".join(lines)


def schedules() -> Iterator[tuple[Path, str]]:
    """Yield the schedules of the rows with new records in their headers, and all recorded ones with new claims."""
    texts = {path: path.read_text() for path in sorted((ROOT / "schedules").rglob("*.yaml"))}
    texts |= headers()
    for path, text in texts.items():
        claim = claims.of_schedule(path.relative_to(ROOT / "schedules").with_suffix("").as_posix(), records())
        if claim is not None:
            yield path, claims.put(text, claim)


def headers() -> dict[Path, str]:
    """Return the schedules of the rows, with new records in their headers."""
    found: dict[Path, str] = {}
    for key, made in records().items():
        row = ROWS[key]
        path = ROOT / "schedules" / f"{row.stages[row.result].schedule}.yaml"
        lines = [BEGIN, f"#   make reproduce ONLY={key} SEEDS={len(made)}"]
        for record in made:
            result = record["result"]
            others = ", ".join(f"{role} {record[role]['error']:.2f} %" for role in row.beside)
            beside = f" ({others})" if others else ""
            smaller = times(result, "parameters")
            counted = f" at {smaller:.1f}x" if smaller >= 1.005 else ""
            if "macs" in result:
                counted = f" at {result['macs'] / 1e6:.3g} M -> {result['macs_left'] / 1e6:.3g} M MACs"
            stable = f", stability {result['stability']:.2f} %" if "stability" in result else ""
            lines.append(
                f"#     seed {record['seed']}: test error {result['error']:.2f} %{counted}{stable}{beside};"
                f" {result['minutes']} minutes"
            )
        text = path.read_text()
        before, marked, rest = text.partition(BEGIN)
        after = rest.partition(f"{END}\n")[2] if marked else ""
        if not marked:  # after the headline
            first, second, after = text.split("\n", 2)
            before = f"{first}\n{second}\n"
        found[path] = before + "\n".join([*lines, END]) + "\n" + after
    return found


def main() -> None:
    """Run what is missing, then write the table and the headers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows, with commas")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each row")
    parser.add_argument("--data", default=os.environ.get("COMPRESS_DATA"))
    parser.add_argument("--tune", action="store_true", help="train on 55,000 images, print validation errors alone")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="with --tune: of the row's own run")
    parser.add_argument("--again", action="store_true", help="run rows again whose smoke digest differs")
    parser.add_argument("--check", action="store_true", help="run recorded rows again, and compare; nothing is written")
    given = parser.parse_args()
    wanted = [key for key in given.only.split(",") if key] or list(ROWS)
    for key in wanted:
        if key not in ROWS:
            sys.exit(f"no row {key!r}: there are {', '.join(ROWS)}")
    for seed in range(given.seeds) if given.tune else ():
        for key in wanted:
            tune(key, seed, given.data, given.set)
    if given.tune:
        return
    if given.check:
        recorded = [key for key in wanted if given.only or key in records()]
        agree = [check(key, seed, given.data) for seed in range(given.seeds) for key in recorded]
        sys.exit(0 if all(agree) else 1)
    for key in wanted if given.again else ():
        for seed in stale(key):
            print(f"{key}, seed {seed}: its schedule gives another digest now: it runs again")
            (RESULTS / f"{key}-seed{seed}.json").unlink()
            for name in ROWS[key].stages:
                shutil.rmtree(RUNS / f"{name}-seed{seed}", ignore_errors=True)
    for seed in range(given.seeds):
        for key in wanted:
            run(key, seed, given.data)
    if not records():
        return
    PAGE.write_text(page())
    for path, text in schedules():
        path.write_text(text)
    print(table())


if __name__ == "__main__":
    main()
