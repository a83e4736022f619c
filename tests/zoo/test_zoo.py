"""Every network of the zoo thins to its expected widths, computes the same, trains on, resumes and is exported."""

import os
import subprocess
from pathlib import Path

import pytest

from zoo.entry import Entry, entries
from zoo.harness import examine

FEW = (
    *("SharedHead", "UnrolledLoop", "TiedWeights"),
    *("Where", "BooleanIndex"),
    *("AuxiliaryConvolution", "SecondNorm"),
    *("C2f", "PartialConvolution", "ZerosLike", "Cbam", "LayerScale", "BlurPool", "FlattenedHardCoded", "Softmax"),
)
"""The networks of `make test`: of each kind one or two."""


def quarter(names: list[str], commit: str) -> list[str]:
    """Every fourth network, from one that the commit's hash chooses."""
    return names[int(commit[:8] or "0", 16) % 4 :: 4]


def chosen() -> list[Entry]:
    """A few networks; where ZOO is `quarter` or `all` so many."""
    every, how = entries(), os.environ.get("ZOO", "few")
    if how == "all":
        return list(every.values())
    assert how in ("few", "quarter"), how
    names = list(FEW)
    if how == "quarter":
        head = ["git", "rev-parse", "HEAD"]
        found = subprocess.run(head, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        names = quarter(list(every), found.stdout.strip())
    return [every[name] for name in names]


@pytest.mark.counted
@pytest.mark.parametrize("entry", chosen(), ids=lambda entry: entry.name)
def test_a_network_thins_as_expected(entry: Entry) -> None:
    assert examine(entry).problems == []


def test_the_quarters_are_all_networks() -> None:
    names = list(entries())
    parts = [quarter(names, f"{number:08x}ffff") for number in range(4)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_of_each_kind_are_three_networks() -> None:
    kinds = [entry.kind for entry in entries().values()]
    assert len(kinds) >= 100
    assert all(kinds.count(kind) >= 3 for kind in kinds)
