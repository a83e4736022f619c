"""What a row of the papers' table says of a finished run: its errors, what is left, how fast it is."""

import json
import statistics
from pathlib import Path
from typing import Any

import torch

import compressor
from compressor.copying import copied
from compressor.reports import compared, measure
from compressor.reports.latency import BATCH
from compressor.sparsity.weights import prunable
from compressor.thinning.equivalence import thin

Facts = dict[str, Any]


def facts(folder: Path, kept: str, *, tested: bool = True) -> Facts:
    """Return errors (percent) and counts of a finished run; what is left is counted as `Row.kept` says.

    `tested`: errors are those of the test images, else of the images held out.
    """
    last, best = (torch.load(folder / name, weights_only=True) for name in ("checkpoint.pt", "best.pt"))
    report = json.loads((folder / "sparsity.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {
        **_errors(last, best, lines[-1], tested=tested),
        **_counts(last),
        "times_stored_bits": round(report["totals"]["rates"]["bits"], 2),
        "epochs": len(lines),
        "minutes": round(sum(line["seconds"] for line in lines) / 60, 1),
    }
    if report["thinnings"]:  # of the dense network, as all counts
        found["parameters"] = report["thinnings"][0]["parameters_before"]
        found["weights"] = report["totals"]["dense_weights"]
    if kept == "architecture":
        found |= architecture(folder / "checkpoint.pt")
    if kept == "structure":
        found |= structure(folder)
    if kept == "stored numbers":
        gates = [figures for figures in report["figures"].values() if "stored_numbers" in figures]
        saved_numbers = sum(int(figures["virtual_weights"] - figures["stored_numbers"]) for figures in gates)
        found["parameters_left"] = found["parameters"] - saved_numbers
        found["weights_left"] = found["weights"] - saved_numbers
        found["times_stored_bits"] = round(found["parameters"] / found["parameters_left"], 2)
    return found | _stability(lines)


def _errors(last: Facts, best: Facts, line: Facts, *, tested: bool) -> Facts:
    """The errors of the last epoch, by the gates' own inference where there is one, and of the chosen epoch."""
    if tested:
        folded, chosen = last["metrics"]["test"], best["metrics"]["test"]
        own = last["metrics"].get("test_by_own_inference", folded)
    else:
        own, chosen = line["val"], best["metrics"]["validation"]
        folded = line.get("val_folded", own)
    found = {"error": _error(own), "error_best_validation": _error(chosen)}
    return found if own is folded else {**found, "error_folded": _error(folded)}


def _error(figures: Facts) -> float:
    return round(100 - float(figures["top1"]), 2)


def _counts(saved: Facts) -> Facts:
    trained = {
        name: tensor
        for name, tensor in saved["model"].items()
        if not name.rpartition(".")[2].startswith(("running", "num"))
    }
    weights = {name: tensor for name, tensor in trained.items() if tensor.dim() > 1}
    return {
        "parameters": sum(tensor.numel() for tensor in trained.values()),
        "parameters_left": sum(int(tensor.count_nonzero()) for tensor in trained.values()),
        "weights": sum(tensor.numel() for tensor in weights.values()),
        "weights_left": sum(int(tensor.count_nonzero()) for tensor in weights.values()),
    }


def _stability(lines: list[Facts]) -> Facts:
    every = [figures for line in lines for figures in line.get("figures", {}).values()]
    events = [figures["instability"] for figures in every if "instability" in figures]
    if not events:
        return {}
    return {
        "events": len(events),
        "effective": sum(instability != 0 for instability in events),
        "stability": 100 * (1 - statistics.mean(events)),
    }


def macs(folder: Path) -> tuple[int, int]:
    """Return the MACs of one image, dense and of what thinning leaves."""
    network, shape = compressor.load(folder / "checkpoint.pt"), _shape(folder / "checkpoint.pt")
    dense = measure(network, shape).totals.macs
    thin(network, torch.rand(16, *shape)).cut.model(network)
    left = measure(network, shape).totals.macs
    assert dense is not None
    assert left is not None
    return dense, left


def structure(folder: Path) -> Facts:
    """Return the MACs of one image, dense and of what thinning and compaction leave, and how many times as fast that is
    at a batch of 16: the median of passes in turns on one thread.
    """
    torch.set_num_threads(1)
    network, shape = compressor.load(folder / "checkpoint.pt"), _shape(folder / "checkpoint.pt")
    dense = copied(network)
    thin(network, torch.rand(16, *shape)).cut.model(network)
    report = compared(measure(network, shape), {"dense": dense, "thin": network}, shape)
    assert report.comparison is not None
    assert report.latency is not None
    stages = report.comparison.stages
    [timing] = [one for one in report.latency.timings if (one.stage, one.batch) == (stages[-1].name, BATCH)]
    return {"macs": stages[0].macs, "macs_left": stages[-1].macs, "times_as_fast": timing.times_as_fast}


def _shape(path: Path) -> tuple[int, int, int]:
    channels, height, width = torch.load(path, weights_only=True)["shape"]
    return channels, height, width


def architecture(path: Path) -> Facts:
    """Return what is left as the L0 paper counts it: of each weight its live outputs x its live inputs x the kernel.

    Dead channels are removed first, to the fix point; inputs of zero columns count as removed, pixels included.
    """
    network, shape = compressor.load(path), _shape(path)
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
