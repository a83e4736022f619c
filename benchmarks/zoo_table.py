"""What becomes of the small networks of tests/zoo: the second table in docs/thinning.md.

    python -m benchmarks.zoo_table [--write] [NAME ...]

Each network is pruned, thinned afterwards and in mid-training, trained on, resumed and exported, as the tests do; a row
says what the tests expect and found, or the first problem.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from zoo.entry import Entry, entries  # noqa: E402
from zoo.harness import Found, examine  # noqa: E402

PAGE = ROOT / "docs" / "thinning.md"
BEGIN, END = "<!-- zoo -->", "<!-- end of zoo -->"


def line(entry: Entry, found: Found) -> str:
    """A row of the table."""
    verdict = entry.verdict if not found.problems else f"FAILS: {found.problems[0]}"
    cells = [entry.name, entry.kind, verdict, _widths(entry, found), _reasons(found)]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _widths(entry: Entry, found: Found) -> str:
    """The sizes that changed, by the block that is expected to change; layers of one block that change alike once."""
    told: dict[str, None] = {}
    for path, after in found.widths.items():
        key = max((key for key in entry.widths if path == key or path.startswith(f"{key}.")), key=len, default=path)
        told[f"{key} {_size(found.dense[path])} -> {_size(after)}"] = None
    return ", ".join(told)


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _reasons(found: Found) -> str:
    """Why zero filters stay; layers with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in found.stays.items():
        by_reason.setdefault(reason, []).append(path)
    return "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in by_reason.items())


def table(rows: list[tuple[Entry, Found]]) -> str:
    """All rows, in Markdown."""
    verdicts = Counter(entry.verdict if not found.problems else "fails" for entry, found in rows)
    thin = verdicts["thins"] + verdicts["thins in part"]
    told = [f"{thin} of {len(rows)} thin: {verdicts['thins']} wholly, {verdicts['thins in part']} in part"]
    told += [f"{verdicts[one]} {said}" for one, said in (("stays", "stay"), ("fails", "fail")) if verdicts[one]]
    columns = "| network | kind | verdict | outputs before -> after | zero filters that stay |"
    head = f"{'; '.join(told)}.\n\n{columns}\n| --- | --- | --- | --- | --- |"
    return "\n".join([head, *(line(entry, found) for entry, found in rows)])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--write", action="store_true", help="all networks, into docs/thinning.md")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    every = entries()
    rows = []
    for name in every if given.write else given.names or every:
        rows.append((every[name], examine(every[name])))
        print(line(*rows[-1]), flush=True)
    if given.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
