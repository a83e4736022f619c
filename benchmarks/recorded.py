"""The file of figures that `make bench` and `make gpu` write row by row, and the table that is made of it."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import QUIET, Figure

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("torch", "torchvision", "numpy", "torch-pruning", "fasterai", "nncf")

Row = dict[str, Any]


def read(path: Path) -> dict[str, Row]:
    """Return the rows that were finished, by name."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}


def write(path: Path, rows: Mapping[str, Row]) -> None:
    """Replace the file; a process that is killed meanwhile leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def row(figures: Sequence[Figure], left_out: Sequence[str], seconds: float, others: float | None, **more: Any) -> Row:
    """Return a finished row: its figures, with where and when they were measured."""
    return {
        "made": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "seconds": round(seconds, 1),
        "others": None if others is None else round(others, 3),
        **more,
        "machine": machine(),
        "left_out": list(left_out),
        "figures": [asdict(figure) for figure in figures],
    }


def commit() -> str:
    """Return the commit of the working tree; empty where git does not tell."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, str]:
    """Return the processor, the device where there is one, and the versions of Python and the packages."""
    found = {"processor": _processor(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def verdict(figure: Figure, reasons: Mapping[str, str]) -> str:
    """Return `met`, or why not; empty without a budget.

    A ratio that misses its budget by no more than the same variant misses 1 is `met within the noise`.
    """
    if figure.budget is None:
        return ""
    missed = figure.budget - figure.value if figure.at_least else figure.value - figure.budget
    if missed <= 0:
        return "met"
    if figure.again is not None and missed <= abs(figure.again - 1):
        return "met within the noise"
    return f"not met: {reasons.get(figure.what, 'not explained yet')}"


def shown(value: float | None, unit: str = "x") -> str:
    """Return a number with four digits or fewer, and its unit where it is not a ratio."""
    if value is None:
        return ""
    digits = (
        f"{value:.3f}" if unit == "x" or abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    )
    return digits if unit == "x" else f"{digits} {unit}"


def table(rows: Mapping[str, Row], titles: Mapping[str, str], reasons: Mapping[str, str]) -> str:
    """Return the rows in the order of `titles`, as Markdown."""
    lines = ["| measured | figure | again | budget | |", "| --- | --- | --- | --- | --- |"]
    made = {name: rows[name] for name in titles if name in rows}
    for name, one in made.items():
        lines.append(f"| **{titles[name]}** (`{name}`) | | | | {_about(one)} |")
        for saved in one["figures"]:
            figure = Figure(**saved)
            budget = ""
            if figure.budget is not None:
                budget = ("at least " if figure.at_least else "") + shown(figure.budget, figure.unit)
            said = [verdict(figure, reasons), figure.note]
            cells = [figure.what, shown(figure.value, figure.unit), shown(figure.again), budget]
            lines.append("| " + " | ".join([*cells, "; ".join(filter(None, said))]).replace("\n", " ") + " |")
        lines += [f"| {what} | | | | left out |" for what in one["left_out"]]
    return "\n".join([*_machines(made), "", *lines])


def _about(one: Row) -> str:
    others = one["others"]
    load = "" if others is None else f", others used {others:.2f} cores"
    quiet = " (not quiet)" if others is not None and others > QUIET else ""
    short = ", short form" if one.get("quick") else ""
    return f"{one['made']}, commit {one['commit'] or 'not known'}{short}{load}{quiet}"


def _machines(rows: Mapping[str, Row]) -> list[str]:
    """Return one line for each machine and set of versions on which rows were measured."""
    by_machine: dict[str, list[str]] = {}
    for name, one in rows.items():
        about = ", ".join(f"{key} {value}" for key, value in one["machine"].items())
        by_machine.setdefault(about, []).append(name)
    if len(by_machine) == 1:
        return [f"Measured with {about}." for about in by_machine]
    return [f"{', '.join(f'`{name}`' for name in names)}: {about}.\n" for about, names in by_machine.items()]


def between(page: Path, marks: tuple[str, str], text: str) -> str:
    """Return the page with the text between its two marks."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    assert end, f"{page} has no {marks[0]} ... {marks[1]}"
    return f"{before}{begin}\n{text}\n{end}{after}"
