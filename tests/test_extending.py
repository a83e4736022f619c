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
import test_components as contracts
import torch
import yaml
from helpers import compress, metrics, saved, succeed, write_tiny
from torch import Tensor

from compressor.allocation import Layer
from compressor.component import REGISTRY
from compressor.criteria import Given
from compressor.policies.policy import BoundPolicy
from compressor.pruners.general import Pruner
from compressor.schedule.faults import Faults
from compressor.schedule.registry import AXES, components
from compressor.schedule.schedule import view_of
from compressor.session.session import Session
from compressor.sparsity.structures import FILTERS
from compressor.timing.clock import Clock
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
    assert len(MODULES) == len(SCHEDULES) == 6
    assert all(re.search(rf"plugins: \[.*\b{module}\]", PAGE) for module in MODULES)


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
    "rigl.yaml": ("fraction: 0.3", "fraction: 1.3", ":6:68: ", "less than or equal to 1, got 1.3"),
}
ZEROS = {
    "median.yaml": {"fc1.weight": 8 * 64},
    "erk.yaml": {"fc1.weight": 845, "fc2.weight": 102},  # of 1,024 and 160: see below
    "pairs.yaml": {"fc1.weight": 4 * 2 * 64},
    "linear.yaml": {"fc1.weight": 614, "fc2.weight": 96},
    "hoyer.yaml": {},
    "rigl.yaml": {"fc1.weight": 845, "fc2.weight": 102},
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
    if name == "rigl.yaml":
        assert metrics(work / "run")[-1]["figures"]["0.rigl"]["grown"] > 100
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


RIGL_WRONG = {
    "in epochs": ("sparsity: 0.8", "sparsity: 0.8", ":6:5: it acts at steps"),
    "by scores": ("allocation: erk", "allocation: global", ": `allocation: global` needs scores"),
    "fixed": ("sparsity: 0.8", "sparsity: 0.99", "warning: 0.rigl: fc2.weight keeps 3 weights: less than one is"),
}


@pytest.mark.parametrize("change", RIGL_WRONG)
def test_rigl_says_before_a_run_what_does_not_fit(work: Path, change: str) -> None:
    old, new, said = RIGL_WRONG[change]
    lines = FILES["rigl.yaml"].replace(old, new).splitlines()
    if change == "in epochs":
        lines = [line for line in lines if "step" not in line]
    (work / "rigl.yaml").write_text("# rigl.yaml\n" + "\n".join(lines))
    result = compress("validate", "rigl.yaml", "-c", "tiny", "--allow-plugins")
    assert (result.code == 0) == (change == "fixed")
    assert said in result.out + result.err


def test_the_share_of_rigl_is_a_cosine_from_step_0_of_the_run() -> None:
    one = made("rigl", "policies", "rigl", weights="*", sparsity=0.5)
    windows = [Window(starting_step=start, ending_step=100, step_frequency=5) for start in (0, 30)]
    for window in windows:
        shares = [one.model_copy(update={"window": window}).share(step) for step in (0, 25, 50, 75, 100)]
        assert shares == pytest.approx([0.3, 0.256066, 0.15, 0.043934, 0], abs=1e-6)


def given_gradient(session: Session, gradient: list[float]) -> None:
    """A step in which the gradient of the one weight is this."""
    with session.step():
        weight = session.network.parameters["weight"]
        weight.grad = torch.tensor([gradient])


@pytest.mark.parametrize(
    ("gradient", "mask", "grown"),
    [
        ([0.9, 0.2, -0.7, 0.1, -0.3, 0.05], [1, 0, 1, 0, 1, 0], 1),
        ([0.9, 0.4, 0.7, 0.1, 0.3, -0.4], [1, 1, 1, 0, 0, 0], 0),
    ],
)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_one_event_of_rigl_by_hand(gradient: list[float], mask: list[int], grown: int, optimizer: Any) -> None:
    # Of three kept weights int(0.9 / 2 * 3) = 1 is dropped half-way: the second. Of equal gradients the first grows.
    one = made("rigl", "policies", "rigl", weights="*", sparsity=0.5, first="magnitude", fraction=0.9)
    one = one.model_copy(update={"window": Window(starting_step=0, ending_step=4, step_frequency=2)})
    layer = torch.nn.Linear(6, 1, bias=False)
    weights = torch.tensor([[0.5, -0.1, 0.3, 0.01, -0.02, 0.03]])
    layer.weight.data.copy_(weights)
    kind = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    bound = BoundPolicy("0.rigl", one, {"weights": ["weight"]})
    session = Session(layer, optimizer(layer.parameters(), 0.0, **kind), [bound], Clock(1, 4))
    with session.epoch(0):
        given_gradient(session, [1.0] * 6)
        first = torch.tensor([[True, True, True, False, False, False]])
        assert torch.equal(layer.weight, weights * first)
        assert session.masks.keep("weight").tolist() == first.tolist()  # type: ignore[union-attr]
        given_gradient(session, [1.0] * 6)
        slots = {key: value for key, value in session.optimizer.state_of("weight").items() if value.shape == (1, 6)}
        assert all(torch.equal(value != 0, first) for value in slots.values())  # masked gradients are not remembered
        for value in slots.values():
            value[~first] = 7.0
        before = {key: value.clone() for key, value in slots.items()}
        given_gradient(session, gradient)
        keep = torch.tensor([mask]).bool()
        assert torch.equal(session.masks.keep("weight"), keep)  # type: ignore[arg-type]
        # What is dropped and grows at once keeps its value, -0.1; what grows begins at 0, and so do its slots.
        assert torch.equal(layer.weight, weights * (keep & first))
        assert not torch.signbit(layer.weight[layer.weight == 0]).any()
        for key, value in session.optimizer.state_of("weight").items():
            if key in slots:  # no optimizer step was made
                assert torch.equal(value, before[key].masked_fill(keep & ~first, 0.0))
        assert session.events.figures() == {"0.rigl": {"grown": grown}}
        given_gradient(session, [1.0] * 6)


def test_rigl_grows_by_the_dense_gradient_that_the_network_gives() -> None:
    """The gradient at the event is that of the loss at the masked weights, entries that are pruned included."""
    one = made("rigl", "policies", "rigl", weights="*", sparsity=0.5, fraction=1.0)
    one = one.model_copy(update={"window": Window(starting_step=0, ending_step=100, step_frequency=1)})
    torch.manual_seed(0)
    layer, images = torch.nn.Linear(8, 4), torch.randn(5, 8)
    bound = BoundPolicy("0.rigl", one, {"weights": ["weight"]})
    session = Session(layer, torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9), [bound], Clock(1, 3))
    with session.epoch(0):
        for step in range(3):
            keep = session.masks.keep("weight")
            with session.step() as open_step:
                plain = torch.nn.Linear(8, 4)
                plain.load_state_dict(layer.state_dict())
                open_step.backward(layer(images).square().mean())
                plain(images).square().mean().backward()
                assert torch.equal(plain.weight.grad, layer.weight.grad)
            if step:
                assert keep is not None
                after, count = session.masks.keep("weight"), int(one.share(step) * 16)
                dropped = torch.zeros_like(keep).flatten()
                kept = keep.flatten().nonzero().flatten()
                order = plain.weight.detach().flatten()[kept].abs().argsort(stable=True)
                dropped[kept[order[:count]]] = True
                free = (~keep.flatten() | dropped).nonzero().flatten()
                grown = free[plain.weight.grad.flatten()[free].abs().argsort(descending=True, stable=True)[:count]]
                expected = keep.flatten() & ~dropped
                expected[grown] = True
                assert torch.equal(after, expected.view_as(keep))  # type: ignore[arg-type]
                assert int(after.sum()) == 16  # type: ignore[union-attr]


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


OWN = {
    "policies.rigl": ("rigl", "{starting_step: 5, ending_step: 20, step_frequency: 3}"),
    "regularizers.HoyerSquare": ("hoyer_square", "{starting_epoch: 1, ending_epoch: 4}"),
}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the contracts know the policy and the regularizer of the page, in the rig's window."""
    for module, _ in OWN.values():
        importlib.import_module(module)
    known = rig.all_components()
    assert set(known) - set(contracts.COMPONENTS) == set(OWN)
    monkeypatch.setattr(contracts, "COMPONENTS", known)
    monkeypatch.setattr(contracts, "REFERENCES", RUNS)
    monkeypatch.setattr(contracts, "schedule", schedule)


RUNS: dict[str, rig.Rig] = {}


def schedule(key: str) -> str:
    """The example of a component in the rig's window; RigL's last steps are no events, so that what grew is not 0."""
    if key not in OWN:
        return rig.windowed(rig.all_components()[key].example)
    text = rig.windowed(rig.all_components()[key].example)
    data = rig.parsed(text)
    for policy in data["policies"]:
        for name in [name for name in policy if name.startswith(("starting", "ending"))]:
            del policy[name]
        policy.update(yaml.safe_load(OWN[key][1]))
    return yaml.safe_dump(data, sort_keys=False)


CONTRACTS = (
    contracts.test_a_component_says_what_it_is_and_shows_itself,
    contracts.test_the_example_of_a_component_round_trips,
    contracts.test_a_component_refuses_an_argument_that_it_does_not_have,
    contracts.test_the_example_of_a_component_trains_two_epochs,
    contracts.test_before_its_window_a_component_changes_nothing,
    contracts.test_outside_its_window_a_component_makes_no_zeros_and_its_zeros_stay,
    contracts.test_a_component_composes_with_a_pruner_of_all_weights,
)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__.removeprefix("test_"))
@pytest.mark.parametrize("key", OWN)
def test_the_policy_and_the_regularizer_of_the_page_keep_the_contracts(key: str, contract: Any) -> None:
    contract(key)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("moment", "until"), contracts.MOMENTS.values(), ids=contracts.MOMENTS)
@pytest.mark.parametrize("key", OWN)
def test_they_resume_to_the_same_bits(key: str, moment: tuple[int, int], until: tuple[int, int]) -> None:
    contracts.test_a_run_resumed_then_goes_on_with_the_same_bits(key, moment, until)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("config", contracts.CONFIGS.values(), ids=contracts.CONFIGS)
def test_the_masks_of_rigl_make_plus_zeros_and_their_counts_are_constant(config: dict[str, Any]) -> None:
    class Counted(contracts.Watched):
        def look(self, moment: tuple[int, int]) -> None:
            super().look(moment)
            owned = self.masks.owned("0.rigl")
            seen.append({name: int((~keep).sum()) for name, keep in owned.items()})
            masks.append(owned)

    seen: list[dict[str, int]] = []
    masks: list[dict[str, Tensor]] = []
    run = Counted(schedule("policies.rigl"), **config)
    end = run.run()
    # conv1 and conv2 are not selected; 540 and 50 weights, floor(0.8 n) of them pruned.
    begun = next(place for place, counts in enumerate(seen) if counts)
    assert begun == 6  # after the first step of epoch 1: (0, 1) ... (0, 5), (1, 0)
    assert all(counts == {"fc1.weight": 432, "fc2.weight": 40} for counts in seen[begun:])
    changes = [
        not torch.equal(one["fc1.weight"], other["fc1.weight"])
        for one, other in zip(masks[begun:], masks[begun + 1 :], strict=False)
    ]
    assert sum(changes) == 4  # at steps 8, 11, 14, 17
    (bound,) = rig.read(schedule("policies.rigl")).bind(rig.network(), rig.EPOCHS, Faults()).policies
    view = bound.view(view_of(rig.network(), epochs=rig.EPOCHS))
    predicted = bound.policy.predict(view, Clock(rig.EPOCHS, rig.STEPS), rig.EPOCHS * rig.STEPS - 1).zeros
    measured = {(name,): int((end["model"][name] == 0).sum()) for name in ("fc1.weight", "fc2.weight")}
    assert dict(predicted) == measured
    assert bound.policy.predict(view, Clock(rig.EPOCHS, rig.STEPS), 4).zeros == {}


@pytest.mark.usefixtures("own")
def test_the_penalty_of_the_page_adds_up_with_another_and_its_gradient_is_that_of_its_value() -> None:
    for other in ("regularizers.L1Regularizer", "regularizers.HoyerSquare"):
        contracts.test_penalties_on_one_weight_add_up("regularizers.HoyerSquare", other)
    contracts.test_the_gradient_of_a_penalty_is_that_of_its_value("regularizers.HoyerSquare")

    def penalty(weight: Tensor) -> Tensor:
        return weight.abs().sum() ** 2 / weight.square().sum()

    one = made("hoyer_square", "regularizers", "HoyerSquare", strengths={"w": 0.5})
    weight = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(0.5 * penalty(weight), weight)
    weight.grad = torch.zeros_like(weight)
    one.add_gradient({"w": weight}, {"strengths": {"w": 0.5}})
    torch.testing.assert_close(weight.grad, expected)
