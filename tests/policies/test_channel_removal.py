"""What a remover says at its event, and with what a run ends where it removed nothing of what is zero."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop import Batch, Loop
from torch import Tensor, nn
from torch.nn import Conv2d, LayerNorm, Linear

FILTERS = "{class: Pruner, structure: Filters, weights: [a.weight, b.weight], rate: {sparsity: 0.5}}"
ELEMENTS = "{class: Pruner, structure: Elements, weights: [a.weight], rate: {sparsity: 0.25}}"


class Net(nn.Module):
    """Two convolutions with 4 filters; a LayerNorm over channels behind one of them, or behind both, keeps these."""

    def __init__(self, normed: str) -> None:
        super().__init__()
        self.a, self.b, self.fc = Conv2d(1, 4, 3), Conv2d(4, 4, 3), Linear(4, 3)
        self.na = LayerNorm([4, 4, 4]) if "a" in normed else nn.Identity()
        self.nb = LayerNorm([4, 2, 2]) if "b" in normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.nb(self.b(F.relu(self.na(self.a(x))))))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def batches(epoch: int) -> list[Batch]:
    draws = torch.Generator().manual_seed(epoch)
    return [(torch.randn(4, 1, 6, 6, generator=draws), torch.arange(4) % 3) for _ in range(2)]


def loop(normed: str, pruner: str, pruned: str, removed: str, kind: str = "StructureRemover") -> Loop:
    """A run of 3 epochs in version 1, where what cannot be thinned is masked with a warning."""
    torch.manual_seed(0)
    policies = f"  - pruner: {pruner}\n    epochs: {pruned}\n  - extension: {{class: {kind}}}\n    epochs: {removed}\n"
    return Loop(Net(normed), batches, f"version: 1\npolicies:\n{policies}", optimizer={"lr": 0.01}, epochs=3)


def ran(normed: str, pruner: str, pruned: str, removed: str, kind: str = "StructureRemover") -> Loop:
    return loop(normed, pruner, pruned, removed, kind).run()


def ended(run: Loop) -> list[str]:
    return run.session.events.shortfalls()


def said(run: Loop, start: str) -> list[Any]:
    return [line for line in run.said if line.startswith(start)]  # type: ignore[attr-defined]


WHEN = "1.StructureRemover, epoch 1: "


def test_what_all_has_to_stay_ends_the_run_with_the_reasons() -> None:
    run = ran("ab", FILTERS, "[1]", "[1]")
    [line] = ended(run)
    assert line.startswith(f"{WHEN}nothing was removed, though filters or channels are all zero:\n  a.weight: 2 zero ")
    assert "\n  b.weight: 2 zero filters stay: " in line
    assert [re.search(rf"{name}.weight: .* stay: .*\bn{name}\b", line) is not None for name in "ab"] == [True, True]
    assert said(run, "warning: 1.S") == [f"warning: {line}"]


def test_part_of_it_is_enough_and_what_stays_is_named() -> None:
    run = ran("a", FILTERS, "[1]", "[1]")
    assert ended(run) == []
    assert (len(run.model.a.weight), len(run.model.b.weight)) == (4, 2)
    assert len(said(run, f"{WHEN}{40 + 148 + 32 * 4 + 15:,} parameters become ")) == 1
    assert [line.partition(" stay")[0] for line in said(run, "  ")] == ["  a.weight: 2 zero filters"]


def test_a_later_event_that_removes_something_makes_up_for_one_that_did_not() -> None:
    assert ended(ran("ab", FILTERS, "[1]", "[1, 2]")) != []
    run = ran(
        "a",
        "{class: Pruner, structure: Filters, weights: [a.weight], rate: {sparsity: 0.5}}\n    epochs: [0]\n"
        "  - pruner: {class: Pruner, structure: Filters, weights: [b.weight], rate: {sparsity: 0.5}}",
        "[2]",
        "[1, 2]",
    )
    assert len(said(run, "warning: 2.StructureRemover, epoch 1: nothing was removed")) == 1
    assert ended(run) == []


@pytest.mark.parametrize(
    ("pruner", "pruned", "removed", "zeros", "line"),
    [
        (ELEMENTS, "[1]", "[1]", 9, ""),  # scattered: .25 of 36
        (FILTERS, "[2]", "[1]", 0, "removed nothing: no filter and no channel was all zero when it acted"),
        (FILTERS, "[1]", "[5]", None, "removed nothing: it acts first in epoch 5, the run has 3"),
        (ELEMENTS, "[1]", "[5]", None, ""),
    ],
)
def test_nothing_zero_at_its_event_is_said_and_is_a_fault_only_where_something_is_zero_at_the_end(
    pruner: str, pruned: str, removed: str, zeros: int | None, line: str
) -> None:
    run = ran("", pruner, pruned, removed)
    all_of = 36 + 144 + 12
    told = f"nothing to remove: no filter and no channel is all zero ({zeros} of {all_of} weights are zero)"
    assert said(run, "1.S") == ([] if zeros is None else [WHEN + told])
    later = "; some can go at the end of the run: let it act later, or use `compress thin`"
    assert ended(run) == ([f"1.StructureRemover {line}{later}"] if line else [])


@pytest.mark.parametrize("kind", ["FilterRemover", "ChannelRemover"])
def test_a_remover_of_the_other_kind_says_so(kind: str) -> None:
    pruner = FILTERS if kind == "ChannelRemover" else FILTERS.replace("Filters", "Channels").replace("a.weight, ", "")
    [line] = ended(ran("", pruner, "[1]", "[1]", kind))
    assert "(StructureRemover also removes those that " in line


def test_the_reasons_are_kept_over_a_resume() -> None:
    for normed, pruned in (("ab", "[1]"), ("", "[2]")):
        first = ran(normed, FILTERS, pruned, "[1]")
        assert ended(loop(normed, FILTERS, pruned, "[1]").resume(first.at((1, 1)))) == ended(first)
