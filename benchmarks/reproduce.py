"""The papers' tables beside ours: `make reproduce [ONLY=row,row] [SEEDS=n] [DATA=folder]`.

Every row is a few runs of `compress train` in runs/papers/ (continued where they were broken off); each finished
(row, seed) is a JSON under docs/results/, from which the table of docs/results.md and the records in the
schedules' headers are written.
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
from scipy.stats import kendalltau

import compressor
from benchmarks import claims
from benchmarks.rows import ROWS, Row, Stage
from compressor.sparsity.weights import prunable
from compressor.thinning.equivalence import thin

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS, PAGE = ROOT / "docs" / "results", ROOT / "runs" / "papers", ROOT / "docs" / "results.md"
BEGIN, END = "# record, by `make reproduce`:", "# end of record"


def arguments(stage: Stage, seed: int) -> list[str]:
    """What follows `compress train` for one stage, but for --init, --data and --out."""
    sets = [word for override in stage.sets for word in ("--set", override)]
    schedule = [] if stage.schedule is None else ["--schedule", stage.schedule]
    return [*schedule, "--config", stage.config, *sets, "--seed", str(seed)]


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


def facts(folder: Path, kept: str) -> dict[str, Any]:
    """Test errors (percent) and counts of a finished run; what is left is counted as `Row.kept` says."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    best = torch.load(folder / "best.pt", weights_only=True)
    trained = {
        name: tensor
        for name, tensor in saved["model"].items()
        if not name.rpartition(".")[2].startswith(("running", "num"))
    }
    weights = {name: tensor for name, tensor in trained.items() if tensor.dim() > 1}
    report = json.loads((folder / "sparsity.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = saved["metrics"]
    own = metrics.get("test_by_own_inference")
    found = {
        "error": round(100 - (own or metrics["test"])["top1"], 2),
        "error_best_validation": round(100 - best["metrics"]["test"]["top1"], 2),
        "parameters": sum(tensor.numel() for tensor in trained.values()),
        "parameters_left": sum(int(tensor.count_nonzero()) for tensor in trained.values()),
        "weights": sum(tensor.numel() for tensor in weights.values()),
        "weights_left": sum(int(tensor.count_nonzero()) for tensor in weights.values()),
        "times_stored_bits": round(report["totals"]["rates"]["bits"], 2),
        "epochs": len(lines),
        "minutes": round(sum(line["seconds"] for line in lines) / 60, 1),
    }
    if report["thinnings"]:  # of the dense network, as all counts
        found["parameters"] = report["thinnings"][0]["parameters_before"]
        found["weights"] = report["totals"]["dense_weights"]
    if own:
        found["error_folded"] = round(100 - metrics["test"]["top1"], 2)
    if kept == "architecture":
        found |= architecture(folder)
    if kept == "stored numbers":
        gates = [figures for figures in report["figures"].values() if "stored_numbers" in figures]
        saved_numbers = sum(int(figures["virtual_weights"] - figures["stored_numbers"]) for figures in gates)
        found["parameters_left"] = found["parameters"] - saved_numbers
        found["weights_left"] = found["weights"] - saved_numbers
        found["times_stored_bits"] = round(found["parameters"] / found["parameters_left"], 2)
    every = [figures for line in lines for figures in line.get("figures", {}).values()]
    events = [figures["instability"] for figures in every if "instability" in figures]
    if events:
        found |= {
            "events": len(events),
            "effective": sum(instability != 0 for instability in events),
            "stability": 100 * (1 - statistics.mean(events)),
        }
    return found


def architecture(folder: Path) -> dict[str, Any]:
    """What is left as the L0 paper counts it: of each weight its live outputs x its live inputs x the kernel.

    Dead channels are removed first, to the fix point; inputs of zero columns count as removed, pixels included.
    """
    network = compressor.load(folder / "checkpoint.pt")
    shape = torch.load(folder / "checkpoint.pt", weights_only=True)["shape"]
    thin(network, torch.rand(16, *shape)).cut.model(network)
    left, units = 0, []
    for weight in prunable(network).values():
        inputs, outputs = weight != 0, weight != 0
        live_in = int(inputs.transpose(0, 1).flatten(1).any(1).sum())
        live_out = int(outputs.flatten(1).any(1).sum())
        left += live_in * live_out * weight[0][0].numel()
        units.append((live_in, live_out))
    biases = sum(parameter.numel() for parameter in network.parameters() if parameter.dim() == 1)
    return {"weights_left": left, "parameters_left": left + biases, "architecture": units}


def run(key: str, seed: int, data: str | None) -> None:
    """Make the JSON of one row and seed, unless it is there."""
    path = RESULTS / f"{key}-seed{seed}.json"
    if path.exists():
        return
    row = ROWS[key]
    record: dict[str, Any] = {"row": key, "seed": seed}
    for role, name in {"result": row.result, **row.beside}.items():
        record[role] = facts(train(name, row, seed, data), row.kept if role == "result" else "non-zero")
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


HEAD = """\
Made by `make reproduce` from the files in `results/`. Errors in percent of the 10,000 test images (MNIST unless
the row says otherwise), of the last epoch, mean over the seeds. The *reference* is the dense network that was
pruned, the *control* the same network trained on without pruning for as long. *times* counts weights and biases (then
weights alone, and bits as stored: relative indices, or the numbers that hashing stores); rows of L0 and SSL count the
kept architecture as the papers do: live inputs x live outputs of each layer, and name each layer's live inputs. Minutes
are the wall time of the result's own run on one thread, most of them of a machine that ran four others.

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
        gaps = [record["result"]["error"] - record[row.paired]["error"] for record in made]
        beside.append(f"less {row.paired}: {statistics.mean(gaps):+.2f} ({', '.join(f'{gap:+.2f}' for gap in gaps)})")
    if row.kept == "architecture":
        counted += f"; inputs {', '.join('-'.join(str(i) for i, _ in r['result']['architecture']) for r in made)}"
    minutes = f"{_mean(made, 'result', 'minutes'):.1f}"
    title = f"{row.title} (`{key}`)"
    return f"| {title} | {paper} | {mean} | {counted} | {'; '.join(beside)} | {len(made)} | {minutes} |"


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
    PAGE.write_text(page())
    for path, text in schedules():
        path.write_text(text)
    print(table())


if __name__ == "__main__":
    main()
