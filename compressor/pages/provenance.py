"""Where a run's results come from: versions, machine, data, code, and each start of the run."""

import shlex
from collections.abc import Mapping
from typing import Any

from compressor.pages.numbers import date
from compressor.pages.page import Section, Table
from compressor.reports import Recorded, Report


def provenance(recorded: Recorded, report: Report) -> Section:
    """Return the part with a column for each start of the run, and what was removed or tested on the way."""
    starts = recorded.environment.get("starts")
    found = [one for one in starts if isinstance(one, dict)] if isinstance(starts, list) else []
    said = [
        f"Thinned {thinning.when}: {thinning.parameters_before:,} parameters became {thinning.parameters_after:,}; the"
        f" largest difference of a logit on {thinning.images} images is {thinning.largest_difference:.2g}."
        for thinning in report.thinnings
    ]
    said += [
        f"Tested before, after {test.epochs} epochs: top-1 {'–' if test.top1 is None else f'{test.top1:.2f} %'}."
        for test in report.earlier_tests
    ]
    if not found:
        return Section("provenance", "Provenance", said=said, missing="environment.json is not recorded in this run")
    rows: dict[str, list[str]] = {}
    for place, start in enumerate(found):
        for name, value in _rows(start).items():
            rows.setdefault(name, ["–"] * len(found))[place] = value
    heads = ["", *("start" if place == 0 else f"resume {place}" for place in range(len(found)))]
    return Section(
        "provenance",
        "Provenance",
        said=said,
        table=Table(heads, [[name, *cells] for name, cells in rows.items()], left=99),
    )


def _rows(start: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of one start as texts."""
    command = start.get("command")
    device = start.get("device")
    versions, sums = start.get("versions"), start.get("sha256")
    found = {
        "time": date(start.get("started", "–")),
        "command": shlex.join(map(str, command)) if isinstance(command, list) else "–",
        "working directory": str(start.get("working_directory", "–")),
        "platform": str(start.get("platform", "–")),
        "device": ", ".join(str(value) for value in device.values()) if isinstance(device, dict) else "–",
        "threads": str(start.get("threads", "–")),
        "git commit": str(start.get("git_commit") or "none"),
    }
    for name, value in versions.items() if isinstance(versions, dict) else ():
        found[f"version of {name}"] = str(value)
    for name, value in sums.items() if isinstance(sums, dict) else ():
        found[f"SHA-256 of {name}"] = str(value)
    return found
