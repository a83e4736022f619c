"""How a sparsity is shared over layers: counts by hand, and the masks that follow from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from compressor.allocation import Allocation, Goal, Layer, largest_remainders
from compressor.allocation.global_ranking import Global
from compressor.allocation.uniform import Uniform
from compressor.pruners.general import Pruner
from compressor.pruners.pruner import Request
from compressor.timing.window import Window


@dataclass(frozen=True)
class Share:
    """A sparsity, rounded down."""

    sparsity: float

    def count(self, total: int) -> int:
        return int(self.sparsity * total)


def layers(*counts: int, spare: int = 0, removed: int = 0) -> list[Layer]:
    return [Layer(f"w{n}", (count, 1), count, removed=removed, spare=spare) for n, count in enumerate(counts)]


def test_uniform_is_the_same_share_of_each() -> None:
    assert Uniform().counts(layers(10, 7, 1), Share(0.5)) == [5, 3, 0]
    assert not Uniform.needs_scores


@pytest.mark.parametrize(
    ("scores", "sparsity", "spare", "expected"),
    [
        ([[1.0, 2, 3], [4.0, 5, 6]], 0.5, 0, [3, 0]),
        ([[1.0, 2, 3], [4.0, 5, 6]], 0.5, 1, [2, 1]),  # the best of each stays
        ([[5.0, 5, 5], [5.0, 5, 5]], 0.5, 1, [2, 1]),  # of equals the first go
        ([[1.0, 1], [2.0, 2, 2]], 1.0, 0, [2, 3]),
        ([[1.0, 1], [2.0, 2, 2]], 1.0, 1, [1, 2]),
        ([[9.0], [1.0, 2, 3]], 0.3, 0, [0, 1]),
        ([[9.0, -torch.inf], [1.0, 2]], 0.5, 0, [1, 1]),
    ],
)
def test_global_takes_the_smallest_of_all(
    scores: list[list[float]], sparsity: float, spare: int, expected: list[int]
) -> None:
    mine = layers(*map(len, scores), spare=spare)
    assert Global().counts(mine, Share(sparsity), [torch.tensor(each) for each in scores]) == expected
    assert Global.needs_scores


def test_what_was_removed_counts_as_pruned() -> None:
    mine = layers(4, 4, removed=2)  # of each two are left
    assert Uniform().counts(mine, Share(0.5)) == [2, 2]
    found = Global().counts(mine, Share(0.75), [torch.tensor([1.0, 2]), torch.tensor([3.0, 4])])
    assert found == [4, 2]  # 6 of 8, of which 4 are gone


@pytest.mark.parametrize(
    ("shares", "total", "expected"),
    [
        ([500.0, 2176.8, 35373.2, 5000.0], 43050, [500, 2177, 35373, 5000]),
        ([1.5, 1.5], 3, [2, 1]),  # of equal remainders the first
        ([0.2, 0.3, 0.5], 1, [0, 0, 1]),
        ([2.0, 3.0], 5, [2, 3]),
        ([], 0, []),
    ],
)
def test_largest_remainders_add_up(shares: list[float], total: int, expected: list[int]) -> None:
    assert largest_remainders(shares, total) == expected


class Backwards(Allocation):
    """All from the last layer, then the one before it ..."""

    def counts(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor] | None = None) -> list[int]:
        assert scores is None
        left, found = goal.count(sum(layer.count for layer in layers)), []
        for layer in reversed(layers):
            found.append(min(left, layer.count - layer.spare))
            left -= found[-1]
        return found[::-1]


class Smallest(Allocation):
    """All from the layer of the smallest mean score."""

    needs_scores: ClassVar[bool] = True

    def counts(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor] | None = None) -> list[int]:
        assert scores is not None
        means = [float(score.mean()) for score in scores]
        least, total = means.index(min(means)), goal.count(sum(layer.count for layer in layers))
        return [min(total, layer.count) if n == least else 0 for n, layer in enumerate(layers)]


class Lamp(Global):
    """Lee et al., ICLR 2021: w^2 by the sum of the squares that are not smaller, then one ranking of all layers."""

    def chosen(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor]) -> list[Tensor]:
        return super().chosen(layers, goal, [self.of(score) for score in scores])

    @staticmethod
    def of(score: Tensor) -> Tensor:
        order = score.argsort(stable=True)
        squares = score[order].double().square()
        found = torch.empty_like(squares)
        found[order] = squares / squares.flip(0).cumsum(0).flip(0)
        return found


def test_an_allocation_may_make_scores_of_the_scores() -> None:
    # methods-since-2018.md, "Allocation".
    a, b = torch.tensor([3.0, 1, 2]), torch.tensor([0.1, 0.4, 0.2])
    assert Lamp.of(a).tolist() == pytest.approx([1, 0.071429, 0.307692], abs=1e-6)
    assert Lamp.of(b).tolist() == pytest.approx([0.047619, 1, 0.2], abs=1e-6)
    weights = {"a": torch.tensor([3.0, 1, 2]).reshape(1, 3), "b": torch.tensor([0.1, -0.4, 0.2]).reshape(1, 3)}
    one = Pruner.model_validate({"weights": "*", "allocation": Lamp(), "rate": {"sparsity": 0.5}})
    masks = one.keep(Request(weights, {"weights": list(weights)}, Window(epochs=[0]), 0))
    assert [weights[name][keep].tolist() for name, keep in masks.items()] == [[3, 2], [pytest.approx(-0.4)]]


WEIGHTS = {"a": torch.tensor([[1.0, 2], [3, 4]]), "b": torch.tensor([[0.5, 8], [6, 7]])}


def pruner(**arguments: Any) -> Pruner:
    return Pruner.model_validate({"weights": "*", **arguments})


def pruned(one: Pruner, **asked: Any) -> dict[str, list[float]]:
    """What goes."""
    question = Request(WEIGHTS, {"weights": list(WEIGHTS)}, Window(epochs=[0]), 0, **asked)
    return {name: WEIGHTS[name][~keep].tolist() for name, keep in one.keep(question).items()}


@pytest.mark.parametrize(
    ("allocation", "structure", "sparsity", "expected"),
    [
        (Backwards(), "Elements", 0.5, {"a": [], "b": [0.5, 8, 6, 7]}),
        (Backwards(), "Elements", 0.7, {"a": [1.0], "b": [0.5, 8, 6, 7]}),
        (Backwards(), "Rows", 0.5, {"a": [1.0, 2], "b": [0.5, 8]}),
        (Smallest(), "Elements", 0.4, {"a": [1.0, 2, 3], "b": []}),
        ("global", "Elements", 0.4, {"a": [1.0, 2], "b": [0.5]}),
        ("uniform", "Elements", 0.5, {"a": [1.0, 2], "b": [0.5, 6]}),
    ],
)
def test_within_a_layer_the_smallest_go(
    allocation: Any, structure: str, sparsity: float, expected: dict[str, list[float]]
) -> None:
    one = pruner(allocation=allocation, structure=structure, rate={"sparsity": sparsity})
    assert pruned(one) == expected


def test_before_a_run_the_counts_of_an_allocation_without_scores_are_known_by_weight() -> None:
    targets, window, shapes = {"weights": ["a", "b"]}, Window(epochs=[0]), dict.fromkeys(WEIGHTS, (2, 2))

    def zeros(allocation: Any, known: bool) -> dict[tuple[str, ...], int]:
        one = pruner(allocation=allocation, rate={"sparsity": 0.7})
        goals = one.goals(targets, window, 0, shapes if known else None)
        assert one.unknown(targets) == {}
        return {goal.names: goal.zeros(shapes) for goal in goals}

    assert zeros(Backwards(), known=True) == {("a",): 1, ("b",): 4}
    assert zeros(Backwards(), known=False) == {("a", "b"): 5}
    assert zeros("global", known=True) == zeros(Smallest(), known=True) == {("a", "b"): 5}
    assert zeros("uniform", known=True) == zeros("uniform", known=False) == {("a",): 2, ("b",): 2}


def test_an_allocation_hears_of_what_was_removed_and_of_the_modules() -> None:
    heard: list[Layer] = []

    class Listens(Uniform):
        def counts(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor] | None = None) -> list[int]:
            heard.extend(layers)
            return super().counts(layers, goal, scores)

    one = pruner(allocation=Listens(), structure="Rows", rate={"sparsity": 0.5})
    assert pruned(one, dense={"a": (4, 2)}, types={"a": "Linear"}) == {"a": [], "b": [0.5, 8]}
    assert heard == [
        Layer("a", (4, 2), count=4, size=2, removed=2, spare=1, type="Linear"),
        Layer("b", (2, 2), count=2, size=2, removed=0, spare=1),
    ]


TEXT = "version: 2\npolicies:\n  - pruner: {{class: Pruner, weights: '*', {arguments}}}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("scope: layer, allocation: global, rate: {sparsity: 0.5}", "`scope: layer` means `allocation: uniform`"),
        ("scope: global, allocation: uniform, rate: {sparsity: 0.5}", "`scope: global` means `allocation: global`"),
        ("allocation: globl, rate: {sparsity: 0.5}", "there is no allocation 'globl': did you mean 'global'?"),
        ("allocation: {global: {x: 1}}, rate: {sparsity: 0.5}", "unknown key 'x'"),
        ("allocation: global, rate: {threshold: 0.5}", "remove `allocation: global`"),
        ("allocation: uniform, structure: Layer, rate: {sparsity: 0.5}", "`scope: global`, which ranks layers"),
    ],
)
def test_a_wrong_allocation_is_one_fault(faults_of: Callable[[str], list[str]], arguments: str, message: str) -> None:
    (fault,) = faults_of(TEXT.format(arguments=arguments))
    assert message in fault


@pytest.mark.parametrize(
    "arguments",
    [
        "scope: coupled, allocation: global, structure: Filters, rate: {sparsity: 0.5}",
        "scope: coupled, structure: Filters, rate: {sparsity: 0.5}",
        "allocation: global, rate: {std: 0.5}",
        "allocation: {uniform: {}}, rate: {agp: {final_sparsity: 0.5}}",
    ],
)
def test_what_fits_together_is_no_fault(faults_of: Callable[[str], list[str]], arguments: str) -> None:
    assert faults_of(TEXT.format(arguments=arguments)) == []
