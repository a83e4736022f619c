"""The examples of docs/extending.md, taken from the page and used as plugins: checked, planned, trained, by number."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rig
import test_axes as axes
import torch
from helpers import compress, metrics, saved, succeed, write_tiny
from torch import Tensor

from compressor.allocation import Layer
from compressor.component import REGISTRY
from compressor.criteria import Given
from compressor.pruners.general import Pruner
from compressor.schedule.registry import AXES, components
from compressor.sparsity.structures import FILTERS
from compressor.timing.window import Window

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
MODULES = [name.removesuffix(".py") for name in FILES if name.endswith(".py")]
SCHEDULES = [name for name in FILES if name.endswith(".yaml")]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with `tiny` and the page's files; what they register is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(f"# {name}\n{text}")
    components("pruners")  # ours are in
    before = {section: dict(known) for section, known in REGISTRY.items()}
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for section in list(REGISTRY):
        REGISTRY[section].clear()
        REGISTRY[section].update(before.get(section, {}))
    for module in MODULES:
        sys.modules.pop(module, None)


def made(module: str, section: str, name: str, **arguments: Any) -> Any:
    """A component of the page."""
    importlib.import_module(module)
    return REGISTRY[section][name].model_validate(arguments)


def test_the_page_has_one_module_and_one_schedule_for_each_kind() -> None:
    assert len(MODULES) == len(SCHEDULES) == 5
    assert all(f"plugins: [{module}]" in PAGE for module in MODULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_the_page_is_valid_for_the_network_that_it_names(name: str) -> None:
    assert "valid for lenet5_digits" in succeed("validate", name, "--allow-plugins")


# --- trained ----------------------------------------------------------------------------------------------------------

WRONG = {
    "median.yaml": ("structure: Filters", "structure: Channels", ":7:7: ", "scores the outputs of a layer"),
    "erk.yaml": ("allocation: erk", "allocation: {erk: {epsilon: 2}}", ":8:26: ", "unknown key 'epsilon'"),
    "pairs.yaml": ("structure: FilterPairs", "structure: FilterPair", ":9:18: ", "did you mean 'FilterPairs'"),
    "linear.yaml": ("sparsity: 0.6", "sparsity: 1.6", ":9:45: ", "less than or equal to 1, got 1.6"),
    "hoyer.yaml": ("'*': 1e-3", "'*': -1", ":6:48: ", "greater than or equal to 0, got -1"),
}
ZEROS = {
    "median.yaml": {"fc1.weight": 8 * 64},
    "erk.yaml": {"fc1.weight": 845, "fc2.weight": 102},  # of 1,024 and 160: see below
    "pairs.yaml": {"fc1.weight": 4 * 2 * 64},
    "linear.yaml": {"fc1.weight": 614, "fc2.weight": 96},
    "hoyer.yaml": {},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_wrong_argument_is_a_fault_with_its_place_before_anything_is_trained(work: Path, name: str) -> None:
    old, new, place, message = WRONG[name]
    assert FILES[name].count(old) == 1
    (work / name).write_text((work / name).read_text().replace(old, new))
    for command in (("validate", name, "-c", "tiny"), ("train", "-s", name, "-c", "tiny")):
        result = compress(*command, "--allow-plugins")
        assert result.code == 2
        (line,) = result.err.strip().splitlines()
        assert line.removeprefix("error: ").startswith(f"{name}{place}"), line
        assert message in line


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_the_page_trains_to_what_it_plans(work: Path, name: str) -> None:
    plan = json.loads(succeed("plan", name, "-c", "tiny", "--allow-plugins", "--json"))
    succeed("train", "-s", name, "-c", "tiny", "--allow-plugins", "--out", "run", "--set", "epochs=3")
    model = saved(work / "run" / "checkpoint.pt")["model"]
    zeros = {key: int((weight == 0).sum()) for key, weight in model.items() if weight.dim() > 1}
    assert {key: count for key, count in zeros.items() if count} == ZEROS[name]
    assert plan["total_nonzero"] == plan["total_weights"] - sum(ZEROS[name].values())
    for row in plan["predicted"]:
        assert row["nonzero"] in (None, row["weights"] - zeros[row["name"]])
    if name == "hoyer.yaml":
        assert all(line["losses"]["hoyer"] > 0 for line in metrics(work / "run"))
    if name == "median.yaml":
        weight = model["fc1.weight"]
        assert sorted(weight.any(1).tolist()) == [False] * 8 + [True] * 8
        assert torch.equal(model["fc1.bias"] == 0, ~weight.any(1))
    if name == "pairs.yaml":
        rows = model["fc1.weight"].any(1)
        assert torch.equal(rows[::2], rows[1::2])
        assert torch.equal(model["fc1.bias"] == 0, ~rows)


# --- by number --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([[0.0, 0], [1, 0], [1, 1], [4, 0]], [6.414214, 5.0, 5.576491, 10.162278]),
        ([[2.0, 0], [-2, 0], [0, 0.1], [2.2, 0]], [6.202498, 10.202498, 6.207268, 6.602272]),
    ],
)
def test_the_filter_near_the_centre_has_the_smallest_sum_of_distances(
    filters: list[list[float]], expected: list[float]
) -> None:
    criterion = made("geometric_median", "criteria", "geometric_median")
    score = criterion.score(Given({"w": torch.tensor(filters)}, "any"), "w", FILTERS)
    assert score.tolist() == pytest.approx(expected, abs=1e-6)


def layers(**shapes: tuple[int, ...]) -> list[Layer]:
    return [Layer(name, shape, int(torch.tensor(shape).prod())) for name, shape in shapes.items()]


LENET5 = layers(conv1=(20, 1, 5, 5), conv2=(50, 20, 5, 5), fc1=(500, 800), fc2=(10, 500))
LENET300 = layers(fc1=(300, 784), fc2=(100, 300), fc3=(10, 100))


@pytest.mark.parametrize(
    ("network", "sparsity", "densities"),
    [
        (LENET5, 0.9, [1, 0.087072, 0.088433, 1]),
        (LENET5, 0.95, [0.726116, 0.037477, 0.038063, 1]),
        (LENET300, 0.9, [0.079568, 0.230189, 1]),
        (LENET300, 0.98, [0.015394, 0.044534, 0.367403]),
        (LENET5, 0.0, [1, 1, 1, 1]),
        (LENET5, 1.0, [0, 0, 0, 0]),
    ],
)
def test_erk_gives_the_densities_of_the_paper_and_the_exact_total(
    network: list[Layer], sparsity: float, densities: list[float]
) -> None:
    goal = SimpleNamespace(sparsity=sparsity, count=lambda total: int(sparsity * total))
    counts = made("erk", "allocations", "erk").counts(network, goal)
    total = sum(layer.count for layer in network)
    assert sum(counts) == int(sparsity * total)
    for layer, count, density in zip(network, counts, densities, strict=True):
        assert layer.count - count == pytest.approx(density * layer.count, abs=1.001)


def test_erk_is_foreseen_by_weight() -> None:
    importlib.import_module("erk")
    one = Pruner.model_validate({"weights": "*", "allocation": "erk", "rate": {"sparsity": 0.8}})
    shapes = {"fc1.weight": (16, 64), "fc2.weight": (10, 16)}
    goals = one.goals({"weights": list(shapes)}, Window(epochs=[0]), 0, shapes)
    # 1,184 weights, 237 stay; (16 + 64) / 1,024 and (10 + 16) / 160, times their sizes, are 80 and 26 of 106.
    assert {goal.names: goal.zeros(shapes) for goal in goals} == {
        ("fc1.weight",): 1024 - 179,
        ("fc2.weight",): 160 - 58,
    }


def test_pairs_of_filters_are_two_that_are_neighbours() -> None:
    pairs = made("filter_pairs", "structures", "FilterPairs")
    weight = torch.tensor([1.0, 2, 3, 4, 5, 6]).reshape(6, 1, 1, 1).expand(6, 3, 1, 1)
    assert pairs.norms(weight, "l1").tolist() == [9, 21, 33]
    keep = pairs.expand(torch.tensor([True, False, True]), weight.shape)
    assert keep[:, 0, 0, 0].int().tolist() == [1, 1, 0, 0, 1, 1]
    assert (pairs.count(weight.shape), pairs.size(weight.shape)) == (3, 6)
    assert pairs.misfit((5, 2)) == "5 filters are no pairs"


def test_a_straight_line_ends_where_it_should() -> None:
    rate, window = made("linear_rate", "rates", "linear", start=0.2, sparsity=0.6), Window(ending_epoch=5)
    assert [rate.foresee(window, time).sparsity for time in range(6)] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    assert rate.foresee(Window(epochs=[3]), 3).sparsity == 0.6


@pytest.mark.parametrize(
    ("values", "value", "gradient"), [([3.0, -4, 0], 1.96, [0.0896, 0.0672, 0]), ([0.0, 0], 0.0, [0, 0])]
)
def test_hoyer_square_and_its_gradient(values: list[float], value: float, gradient: list[float]) -> None:
    one = made("hoyer_square", "regularizers", "HoyerSquare", strengths={"w": 1.0})
    weight, targets = torch.tensor(values, requires_grad=True), {"strengths": {"w": 1.0}}
    weight.grad = torch.zeros_like(weight)
    one.add_gradient({"w": weight}, targets)
    assert one.value({"w": weight}, targets) == pytest.approx(value)
    assert weight.grad.tolist() == pytest.approx(gradient)


# --- by the contracts -------------------------------------------------------------------------------------------------


def test_the_components_of_the_page_keep_the_contracts_of_the_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name for section in AXES for name in axes.AXIS[section]}
    for module in MODULES:
        importlib.import_module(module)
    monkeypatch.setattr(axes, "AXIS", {section: axes.of(section) for section in AXES})
    runs = dict.fromkeys({name for section in AXES for name in axes.AXIS[section]} - ours, 0)
    assert len(runs) == len(AXES)
    for row in axes.table():
        mine = set(vars(row).values()) & set(runs)
        if all(runs[name] >= 4 for name in mine):
            continue
        runs.update({name: runs[name] + 1 for name in mine})
        axes.test_a_row_makes_exact_zeros_in_its_window_and_nothing_before(row)
        axes.test_a_row_has_the_zeros_of_each_weight_that_were_planned(row)
        axes.test_a_row_that_is_resumed_in_its_window_ends_in_the_same_bits(row)
    assert min(runs.values()) >= 4


def test_the_regularizer_of_the_page_resumes_to_the_same_bits_and_its_gradient_is_that_of_its_value() -> None:
    importlib.import_module("hoyer_square")
    text = rig.windowed(REGISTRY["regularizers"]["HoyerSquare"].example)
    whole = rig.Rig(text)
    end = whole.run()
    assert rig.difference(rig.resumed(text, whole.at((2, 2))).snapshots[rig.EPOCHS, 0], end) is None

    def penalty(weight: Tensor) -> Tensor:
        return weight.abs().sum() ** 2 / weight.square().sum()

    one = made("hoyer_square", "regularizers", "HoyerSquare", strengths={"w": 0.5})
    weight = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(0.5 * penalty(weight), weight)
    weight.grad = torch.zeros_like(weight)
    one.add_gradient({"w": weight}, {"strengths": {"w": 0.5}})
    torch.testing.assert_close(weight.grad, expected)
