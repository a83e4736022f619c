"""The claims of the papers' schedules, from the JSON files of their runs: `expect:` in each file.

For a schedule of your own: `python -m benchmarks.claims 98.33 98.61 98.06 --images 360` prints the lowest mean that
its runs may have.
"""

import argparse
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.rows import ROWS, Row, Stage

_IMAGES = 10_000
"""Test images of MNIST and of CIFAR-10."""
_BLOCK = re.compile(r"^expect:.*\n(?: +.*\n)*", re.MULTILINE)
_CONFIG = re.compile(r"^config: .*\n", re.MULTILINE)


def lowest(tops: Sequence[float], images: int) -> float:
    """Return the claimed top-1 in percent: the mean of the recorded runs minus a margin, rounded down to 0.01.

    The margin is the larger of two deviations (n - 1) over the seeds, where there are three or more, and of
    2 sqrt(p (1 - p) / n) for n test images.
    """
    mean = statistics.mean(tops)
    p = mean / 100
    margins = [200 * math.sqrt(p * (1 - p) / images)]
    if len(tops) >= 3:
        margins.append(2 * statistics.stdev(tops))
    return math.floor(100 * (mean - max(margins)) + 1e-9) / 100


def of_schedule(name: str, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """Return the block `expect:` of a schedule (a name below schedules/); None where no run of it is recorded."""
    for key, made in records.items():
        row = ROWS[key]
        for role, stage_name in {"result": row.result, **row.beside}.items():
            stage = row.stages[stage_name]
            if stage.schedule == name and not any(word.startswith("schedule.") for word in stage.sets):
                return _block(row, stage, [record[role] for record in made], row.kept if role == "result" else "")
    return None


def _block(row: Row, stage: Stage, runs: Sequence[Mapping[str, Any]], kept: str) -> str:
    lines = ["expect:  # by `make reproduce`", f"  config: {stage.config}"]
    if stage.sets:
        lines.append(f"  set: {_mapping(stage.sets)}")
    if stage.init is not None:
        base = row.stages[stage.init]
        words = [f"schedule: {base.schedule}", f"config: {base.config}"]
        if base.sets:
            words.append(f"set: {_mapping(base.sets)}")
        lines.append(f"  init: {{{', '.join(words)}}}")
    tops = [100 - run["error"] for run in runs]
    lines.append(f"  top1: {{min: {lowest(tops, _IMAGES):.2f}, seeds: {len(tops)}}}")
    zeros = [1 - run["weights_left"] / run["weights"] for run in runs]
    if kept in ("non-zero", "structure") and min(zeros) >= 0.01:  # other counts are not those of the report
        lines.append(f"  sparsity: {math.floor(100 * min(zeros)) / 100:g}")
    return "\n".join(lines) + "\n"


def _mapping(sets: Sequence[str]) -> str:
    pairs = (word.partition("=") for word in sets)
    return "{" + ", ".join(f"{key}: {value}" for key, _, value in pairs) + "}"


def put(text: str, block: str) -> str:
    """Return the text of a schedule with this `expect:`, behind its `config:`."""
    text = _BLOCK.sub("", text)
    return _CONFIG.sub(lambda found: found[0] + block, text, count=1)


def main() -> None:
    """Print the claim of runs that were done by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("top1", nargs="+", type=float, help="test top-1 in percent, one for each seed")
    parser.add_argument("--images", type=int, required=True, help="number of test images")
    given = parser.parse_args()
    print(f"expect: {{top1: {{min: {lowest(given.top1, given.images):.2f}, seeds: {len(given.top1)}}}}}")


if __name__ == "__main__":
    main()
