"""The papers' tables beside ours: `make reproduce [ONLY=row,row] [SEEDS=n] [DATA=folder]`.

Every row is a few runs of `compress train` in runs/papers/ (continued where they were broken off); each finished (row,
seed) is a JSON under docs/results/, from which docs/results.md and the records in the schedules' headers are written.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import ROWS, Row, Stage

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS = ROOT / "docs" / "results", ROOT / "runs" / "papers"
BEGIN, END = "# record, by `make reproduce`:", "# end of record"


def arguments(stage: Stage, seed: int) -> list[str]:
    """What follows `compress train` for one stage, but for --init, --data and --out."""
    sets = [word for override in stage.sets for word in ("--set", override)]
    return ["--schedule", stage.schedule, "--config", stage.config, *sets, "--seed", str(seed)]


def train(name: str, row: Row, seed: int, data: str | None) -> Path:
    """The finished run of a stage, and of those that it starts from."""
    stage = row.stages[name]
    folder = RUNS / f"{name}-seed{seed}"
    words = arguments(stage, seed)
    if stage.init is not None:
        words += ["--init", str(train(stage.init, row, seed, data) / "checkpoint.pt")]
    if data is not None:
        words += ["--data", data]
    command = [sys.executable, "-c", "from compressor.cli import main; main()", "train", *words]
    command += ["--out", str(folder), "--resume"]
    ended = subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if ended.returncode:
        sys.exit(f"{name}, seed {seed}: compress train ended with {ended.returncode}")
    return folder


def facts(folder: Path) -> dict[str, Any]:
    """Test errors (percent) and counts of a finished run."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    best = torch.load(folder / "best.pt", weights_only=True)
    trained = {
        name: tensor
        for name, tensor in saved["model"].items()
        if not name.rpartition(".")[2].startswith(("running", "num"))
    }
    weights = [tensor for tensor in trained.values() if tensor.dim() > 1]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "error": round(100 - saved["metrics"]["test"]["top1"], 2),
        "error_best_validation": round(100 - best["metrics"]["test"]["top1"], 2),
        "parameters": sum(tensor.numel() for tensor in trained.values()),
        "parameters_left": sum(int(tensor.count_nonzero()) for tensor in trained.values()),
        "weights": sum(tensor.numel() for tensor in weights),
        "weights_left": sum(int(tensor.count_nonzero()) for tensor in weights),
        "epochs": len(lines),
        "minutes": round(sum(line["seconds"] for line in lines) / 60, 1),
    }


def run(key: str, seed: int, data: str | None) -> None:
    """Make the JSON of one row and seed, unless it is there."""
    path = RESULTS / f"{key}-seed{seed}.json"
    if path.exists():
        return
    row = ROWS[key]
    names = {"result": row.result, "reference": row.reference, "control": row.control}
    record: dict[str, Any] = {"row": key, "seed": seed}
    for role, name in names.items():
        if name is not None:
            record[role] = facts(train(name, row, seed, data))
    record["commands"] = {
        name: " ".join(["compress train", *arguments(stage, seed)]) for name, stage in row.stages.items()
    }
    record["made"] = time.strftime("%Y-%m-%d")
    RESULTS.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)


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


def table() -> str:
    """docs/results.md."""
    lines = [
        "# The papers' tables beside ours",
        "",
        "Made by `make reproduce` from the files in `results/`. Errors in percent of MNIST's 10,000 test images, of",
        "the last epoch, mean over the seeds; the dense reference is what was pruned, the control the same network",
        "trained on without pruning for as long. *times* counts weights and biases (weights alone).",
        "",
        "| row | paper: error, times | ours: error | times | reference | control | seeds | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, made in records().items():
        row = ROWS[key]

        def mean(role: str, what: str, made: list[dict[str, Any]] = made) -> float:
            return statistics.mean(record[role][what] for record in made if role in record)

        every = ", ".join(f"{record['result']['error']:.2f}" for record in made)
        both = statistics.mean(times(record["result"], "parameters") for record in made)
        alone = statistics.mean(times(record["result"], "weights") for record in made)
        control = f"{mean('control', 'error'):.2f}" if "control" in made[0] else "-"
        paper = f"{row.paper_error} %, {row.paper_times}x" if row.paper_error is not None else "-"
        lines.append(
            f"| {row.title} (`{key}`) | {paper} | {mean('result', 'error'):.2f} ({every}) | {both:.1f}x ({alone:.1f}x)"
            f" | {mean('reference', 'error'):.2f} | {control} | {len(made)} | {mean('result', 'minutes'):.1f} |"
        )
    return "\n".join(lines) + "\n"


def headers() -> Iterator[tuple[Path, str]]:
    """The schedules of the rows, with the records in their headers made anew."""
    for key, made in records().items():
        row = ROWS[key]
        path = ROOT / "schedules" / f"{row.stages[row.result].schedule}.yaml"
        lines = [BEGIN, f"#   make reproduce ONLY={key} SEEDS={len(made)}"]
        for record in made:
            result, reference = record["result"], record["reference"]
            control = f", dense control {record['control']['error']:.2f} %" if "control" in record else ""
            lines.append(
                f"#     seed {record['seed']}: test error {result['error']:.2f} % at {times(result, 'parameters'):.1f}x"
                f" (reference {reference['error']:.2f} %{control}); {result['minutes']} minutes"
            )
        text = path.read_text()
        before, found, rest = text.partition(BEGIN)
        after = rest.partition(f"{END}\n")[2] if found else ""
        if not found:  # after the headline
            first, second, after = text.split("\n", 2)
            before = f"{first}\n{second}\n"
        yield path, before + "\n".join([*lines, END]) + "\n" + after


def main() -> None:
    """Run what is missing, then write the table and the headers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="rows, with commas")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each row")
    parser.add_argument("--data", default=os.environ.get("COMPRESS_DATA"))
    given = parser.parse_args()
    wanted = [key for key in given.only.split(",") if key] or list(ROWS)
    for key in wanted:
        if key not in ROWS:
            sys.exit(f"no row {key!r}: there are {', '.join(ROWS)}")
    for seed in range(given.seeds):
        for key in wanted:
            run(key, seed, given.data)
    if not records():
        return
    (ROOT / "docs" / "results.md").write_text(table())
    for path, text in headers():
        path.write_text(text)
    print(table())


if __name__ == "__main__":
    main()
