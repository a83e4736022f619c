"""What a pruner is advised where channels of its weights cannot be removed: the advice can be followed, and works."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from loop import read
from torch import Tensor, nn
from torch.nn import Conv2d, LayerNorm, Linear

from compressor.schedule.faults import Faults
from compressor.schedule.schedule import view_of


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def chain() -> Net:
    """A LayerNorm keeps the channels of `a`; `b` and `c` are free."""
    return Net(
        lambda s, x: s.head(F.relu(s.c(F.relu(s.b(F.relu(s.n(s.a(x))))))).mean((2, 3))),
        a=Conv2d(1, 4, 3), n=LayerNorm([4, 6, 6]), b=Conv2d(4, 6, 3), c=Conv2d(6, 4, 1), head=Linear(4, 3),
    )  # fmt: skip


def block(normed: bool) -> Net:
    """`a` and `c` make the same channels, which a LayerNorm may keep; `b` is free."""
    return Net(
        lambda s, x: (lambda y: s.head(s.n(F.relu(y + s.c(F.relu(s.b(y))))).mean((2, 3))))(F.relu(s.a(x))),
        a=Conv2d(1, 4, 3), b=Conv2d(4, 6, 1), c=Conv2d(6, 4, 1),
        n=LayerNorm([4, 6, 6]) if normed else nn.Identity(), head=Linear(4, 3),
    )  # fmt: skip


def readers() -> Net:
    """`b` and `c` read the channels of `a`."""
    return Net(
        lambda s, x: (lambda y: s.head((s.b(y) * s.c(y)).mean((2, 3))))(F.relu(s.a(x))),
        a=Conv2d(1, 4, 3), b=Conv2d(4, 5, 1), c=Conv2d(4, 5, 1), head=Linear(5, 3),
    )  # fmt: skip


FILTERS = "{class: Pruner, structure: Filters, rate: {sparsity: 0.5}, weights: %s}"
COUPLED = FILTERS.replace("rate", "scope: coupled, rate")
CHANNELS = FILTERS.replace("Filters", "Channels")
RANKED = "{class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: %s}"
THRESHOLD = (
    "{class: StructureParameterPruner, threshold_criteria: Max, reg_regims: {a.weight: [0.1, 3D], b.weight: [0.1, 3D]}}"
)


def faults(net: nn.Module, pruner: str, version: int = 2) -> list[str]:
    text = f"version: {version}\npolicies:\n  - pruner: {pruner}\n    epochs: [0]\n"
    found = Faults()
    bound = read(text).bind(net, 1, found)
    found.raise_any()
    bound.check(view_of(net, image=(1, 8, 8)), found)
    return [line.text for line in found.lines]


PASTE = re.compile(r"; all of this selection can be removed: `weights: (\[.*\])`$")


@pytest.mark.parametrize(
    ("net", "pruner", "weights", "advice", "selection"),
    [
        (chain, FILTERS, "'re:^(?!head)'", "leave it out", "['re:^(?!head)', '!a.weight']"),
        (chain, RANKED, "\"re:^[^h'].*\"", "leave it out", "['re:^[^h''].*', '!a.weight']"),
        (chain, FILTERS, "[a.weight, c.weight]", "leave it out", "[c.weight]"),
        (chain, FILTERS, "[module.a.weight, '[bc].weight']", "leave it out",
         "[module.a.weight, '[bc].weight', '!a.weight']"),
        (chain, FILTERS, "['*', '!b.weight']", "leave it out", "['*', '!b.weight', '!a.weight', '!head.weight']"),
        (chain, COUPLED, "[a.weight, b.weight]", "leave it out", "[b.weight]"),
        (chain, FILTERS, "a.weight",
         "without that nothing is left to prune: select other weights, or remove the pruner", None),
        (lambda: block(False), FILTERS, "['[ab].weight']", "select c.weight, too, or set `scope: coupled`",
         "['[ab].weight', c.weight]"),
        (lambda: block(False), RANKED, "[c.weight]", "select a.weight, too, or use `scope: coupled` of `class: Pruner`",
         "[c.weight, a.weight]"),
        # To select the others, too, would not help; nor does `scope: coupled`, which is there.
        (lambda: block(True), FILTERS, "[a.weight, b.weight]", "leave it out", "[b.weight]"),
        (lambda: block(True), COUPLED, "['[ab].weight']", "leave a.weight out", "['[ab].weight', '!a.weight']"),
        (lambda: block(True), COUPLED, "'[abc].weight'", "leave them out",
         "['[abc].weight', '!a.weight', '!c.weight']"),
        (readers, CHANNELS, "[b.weight]", "select c.weight, too, or set `scope: coupled`", "[b.weight, c.weight]"),
    ],
)  # fmt: skip
def test_the_advice_can_be_followed_and_what_can_be_pasted_is_valid(
    net: Callable[[], Net], pruner: str, weights: str, advice: str, selection: str | None
) -> None:
    *_, line = said = faults(net(), pruner % weights)
    assert len(said) == 1
    assert re.search(r"^[abc].weight.* (is|are) pruned by 0\.\w+, but .+: ", line)
    found = PASTE.search(line)
    assert (found and found[1]) == selection
    assert PASTE.sub("", line).endswith(f": {advice}")
    if found is not None:
        assert faults(net(), pruner % found[1]) == []


def test_the_reason_is_the_operation_where_the_other_weights_would_not_help() -> None:
    [line] = faults(block(True), FILTERS % "[a.weight, b.weight]")
    assert re.search(r"\bn\b", line.partition(", but ")[2])
    assert "the same channels" not in line
    [line] = faults(block(False), FILTERS % "[a.weight, b.weight]")
    assert ", but c.weight makes the same channels" in line


def test_weights_of_a_mapping_are_named_without_a_selection() -> None:
    [line] = faults(chain(), THRESHOLD)
    assert line.startswith("a.weight is pruned by")
    assert line.endswith(": leave it out")


def test_weights_that_are_kept_by_the_same_operation_are_one_line_and_the_shorter_selection_is_given() -> None:
    wide = Net(
        lambda s, x: s.head(s.n(sum((c(x) for c in s.convs), s.a(x))).mean((2, 3))),
        a=Conv2d(1, 4, 1), convs=nn.ModuleList(Conv2d(1, 4, 1) for _ in range(80)), n=LayerNorm([4, 8, 8]),
        head=Linear(4, 3),
    )  # fmt: skip
    [line] = faults(wide, FILTERS % "'*'")
    assert line.startswith("a.weight, convs.0.weight, convs.1.weight and 78 more are pruned by 0.Pruner, but ")
    assert line.endswith(": leave them out")  # with 81 exclusions or without: nothing is left but the logits
    free = Net(
        lambda s, x: s.head(s.n(sum((c(x) for c in s.convs), s.a(F.relu(s.b(x))))).mean((2, 3))),
        b=Conv2d(1, 5, 1), a=Conv2d(5, 4, 1), convs=nn.ModuleList(Conv2d(1, 4, 1) for _ in range(80)),
        n=LayerNorm([4, 8, 8]), head=Linear(4, 3),
    )  # fmt: skip
    [line] = faults(free, FILTERS % "'*'")
    assert line.endswith("; all of this selection can be removed: `weights: [b.weight]`")


@pytest.mark.parametrize(
    ("net", "threshold", "group", "warned"),
    [
        (chain, "threshold_criteria: Max", "3D", ["a.weight"]),
        (chain, "proximal: true", "Filters", ["a.weight"]),
        (chain, "threshold_criteria: Max", "2D", []),  # kernels
        (chain, "size_normalized: false", "3D", []),  # no exact zeros
        (lambda: block(True), "threshold_criteria: Max", "3D", ["a.weight"]),
        (lambda: block(False), "threshold_criteria: Max", "3D", []),  # `c` may have zeros there, too
    ],
)
def test_filters_that_a_threshold_sets_to_zero_and_an_operation_keeps_are_named(
    net: Callable[[], Net], threshold: str, group: str, warned: list[str]
) -> None:
    regularizer = f"{{class: GroupLassoRegularizer, {threshold}, reg_regims: {{'[ab].weight': [0.1, {group}]}}}}"
    model, found = net(), Faults()
    bound = read(f"version: 2\npolicies:\n  - regularizer: {regularizer}\n    epochs: [0]\n").bind(model, 1, found)
    notes = list(bound.check(view_of(model, image=(1, 8, 8), groups=[{"lr": 0.1}]), found).notes)
    found.raise_any()
    said = [
        re.fullmatch(r"filters of (\S+) that 0\.\w+ sets to zero cannot be thinned: .*\bn\b.*", n.text) for n in notes
    ]
    assert [one[1] for one in said if one] == warned
    assert all(n.severity == "warning" for n, one in zip(notes, said, strict=True) if one)
