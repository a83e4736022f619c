"""What holds of every component, whichever there are: written once, run over the registry.

Each contract has a negative control, which shows that its test can fail.
"""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
import rig
import torch
import yaml
from helpers import reread
from on_meta import HostSync, OnMeta
from rig import (
    END,
    EPOCHS,
    FIRST,
    RARELY,
    STEPS,
    Moment,
    Rig,
    all_components,
    difference,
    left,
    merged,
    plans,
    resumed,
    windowed,
    zeros,
)

from compressor.component import Component
from compressor.policies.policy import Policy
from compressor.regularizers.regularizer import Regularizer
from compressor.schedule.faults import Faults

COMPONENTS = all_components()
PRUNERS = [key for key in COMPONENTS if key.startswith("pruners.")]
REGULARIZERS = [key for key in COMPONENTS if key.startswith("regularizers.")]

every_component = pytest.mark.parametrize("key", COMPONENTS)
every_pruner = pytest.mark.parametrize("key", PRUNERS)
every_lr_scheduler = pytest.mark.parametrize("key", [key for key in COMPONENTS if key.startswith("lr_schedulers.")])
every_regularizer = pytest.mark.parametrize("key", REGULARIZERS)

KNOWN = {
    "pruners": "SparsityLevelParameterPruner AutomatedGradualPruner StructureParameterPruner BernoulliFilterPruner"
    " ActivationAPoZRankedFilterPruner_AGP RandomLevelStructureParameterPruner",
    "policies": "batchnorm",
    "regularizers": "L1Regularizer GroupLassoRegularizer GroupVarianceRegularizer",
    "lr_schedulers": "StepLR MultiStepLR ConstantLR LinearLR ExponentialLR CosineAnnealingLR CyclicLR OneCycleLR"
    " CosineAnnealingWarmRestarts PolynomialLR ReduceLROnPlateau",
}

MOMENTS = {
    "before the window": ((0, 3), (1, 1)),
    "at the window's begin": ((1, 0), (2, 0)),
    "after the window's first step": ((1, 1), (2, 1)),
    "in the window, mid-epoch": ((2, 2), (EPOCHS, 0)),
    "at the end of an epoch's steps": ((2, STEPS), (4, 0)),
    "after the window's last step": ((3, STEPS), (4, 1)),
    "at the window's end": ((4, 0), (5, 1)),
    "after the window, mid-epoch": ((5, 1), (EPOCHS, 0)),
}
"""Where a run is resumed, and up to where it then goes on: past the events in which what was not saved would be missed,
or to the end of the run."""
FEW = ("at the window's begin", "in the window, mid-epoch", "after the window's last step")
"""Those of `make test`; the others are slow."""
in_the_window = [(epoch, step) for epoch in (1, 2, 3) for step in range(1, STEPS + 1)]


def test_the_registry_has_at_least_the_components_that_we_know() -> None:
    found = {f"{section}.{name}" for section, names in KNOWN.items() for name in names.split()}
    assert found <= set(COMPONENTS)


@every_component
def test_a_component_says_what_it_is_and_shows_itself(key: str) -> None:
    cls = COMPONENTS[key]
    assert (cls.__dict__.get("__doc__") or "").strip(), "no docstring of its own"
    assert cls.summary()
    assert inspect.getmodule(cls) is not None
    assert key.partition(".")[2] in cls.example
    assert "example" in cls.__dict__, "no example of its own"


def own(schedule: rig.grammar.Schedule, cls: type[Component]) -> Component:
    """The component of class `cls` in a schedule."""
    policies = [entry.policy for entry in schedule.entries]
    applied = [p if p.component is None else getattr(p, p.name) for p in policies]
    return next(component for component in applied if type(component) is cls)


@every_component
def test_the_example_of_a_component_round_trips(key: str) -> None:
    cls = COMPONENTS[key]
    section, _, name = key.partition(".")
    component = own(rig.read(cls.example), cls)
    dumped = component.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(component, Policy):
        window = dumped.pop("window", {})
        text = yaml.safe_dump({"version": 2, "policies": [{cls.name: dumped, **window}]})
    else:
        kind = section.removesuffix("s")  # other policies may take components of this section, too
        instance = {"again": {"class": name, **dumped}}
        version = 2 if section == "gates" else 1
        policy: dict[str, Any] = {kind: {"instance_name": "again"}}
        if getattr(cls, "needs_double_copies", False):
            policy[kind]["args"] = {"use_double_copies": True}
        text = yaml.safe_dump({"version": version, section: instance, "policies": [policy]})
    again = own(rig.read(text), cls)
    assert again == component
    assert again.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"window"}) == dumped
    jsonschema.validate(dumped, cls.model_json_schema(), cls=jsonschema.Draft7Validator)


@every_component
def test_a_component_refuses_an_argument_that_it_does_not_have(key: str) -> None:
    cls = COMPONENTS[key]
    component = own(rig.read(cls.example), cls)
    arguments = component.model_dump(by_alias=True, exclude_unset=True)
    with pytest.raises(ValueError, match="surely_not_an_argument"):
        cls.model_validate({**arguments, "surely_not_an_argument": 1})
    with pytest.raises(ValueError, match="frozen"):
        setattr(component, next(iter(cls.model_fields)), 1)


@every_component
def test_the_example_of_a_component_trains_two_epochs(key: str) -> None:
    run = Rig(COMPONENTS[key].example, epochs=2, checkpoint=RARELY)
    end = run.run()
    assert len(run.lines) == 2
    assert all(torch.isfinite(tensor).all() for tensor in end["model"].values())
    begin = run.fresh
    assert all(not torch.equal(end["model"][name], begin["model"][name]) for name in ("conv1.weight", "fc2.bias"))


# Examples whose numbers do nothing in a run of six epochs.
SHARPER = {
    "lr_schedulers.StepLR": ("step_size: 30", "step_size: 2"),
    "lr_schedulers.MultiStepLR": ("milestones: [60, 120]", "milestones: [2, 3]"),
    # Nothing is an improvement: the rate falls at the end of the window's third epoch.
    "lr_schedulers.ReduceLROnPlateau": ("patience: 2", "patience: 1, threshold: 10.0, threshold_mode: abs"),
}


def schedule(key: str) -> str:
    """The example of a component, in the window and with numbers that show in six epochs."""
    before, after = SHARPER.get(key, ("", ""))
    assert before in COMPONENTS[key].example
    return windowed(COMPONENTS[key].example.replace(before, after) if before else COMPONENTS[key].example)


TOGETHER = "it is ranked together with other weights"

FREES = {"policies.dsd"}
"""What lets go of its zeros on purpose."""

DERIVABLE = {"policies.dropout", "gates.DropConnect"}
"""What would find the same by itself, were its memory lost."""

MEASURES = {"policies.instability", "policies.strided"}
"""Whose memory changes no weight: it shows in the figures at the end."""


class Watched(Rig):
    """Looks after every step at what is masked and at the zeros, in the weights that count."""

    def __init__(self, schedule: str, **config: Any) -> None:
        super().__init__(schedule, **config)
        self.masked = 0
        self.narrower = False  # than the last contribution alone: another one counted
        self.zeros: dict[Moment, dict[str, torch.Tensor]] = {}
        self.kept: dict[Moment, dict[str, int]] = {}

    def look(self, moment: Moment) -> None:
        """Masked weights are +0.0, and the mask in force is the intersection of all contributions."""
        weights = [(name, weight, self.masks.keep(name)) for name, weight in self.model.named_parameters()]
        self.kept[moment] = {
            name: weight.numel() if keep is None else int(keep.sum())
            for name, weight, keep in weights
            if weight.dim() > 1
        }
        with self.session.as_shipped():
            self.zeros[moment] = zeros(self.model.state_dict())
            for name, weight in self.model.named_parameters():
                keep = self.masks.keep(name)
                contributions = [self.masks.owned(key) for key in self.session.events.memory]
                owned = [masks[name] for masks in contributions if name in masks]
                assert (keep is None) == (not owned)
                if keep is None:
                    continue
                assert torch.equal(keep, torch.stack(owned).all(0))
                assert is_plus_zero(weight[~keep])
                self.masked += int((~keep).sum())
                self.narrower |= not torch.equal(keep, owned[-1])


def is_plus_zero(values: torch.Tensor) -> bool:
    """Whether all are 0.0, and none is -0.0."""
    return not values.any() and not torch.signbit(values).any()


REFERENCES: dict[str, Watched] = {}


def reference(key: str) -> Watched:
    """The uninterrupted run of a component in its window, trained once."""
    if key not in REFERENCES:
        whole = Watched(schedule(key))
        whole.run()
        REFERENCES[key] = whole
    return REFERENCES[key]


@every_component
@pytest.mark.parametrize(
    ("moment", "until"),
    [pytest.param(*MOMENTS[name], id=name, marks=[pytest.mark.slow] * (name not in FEW)) for name in MOMENTS],
)
def test_a_run_resumed_then_goes_on_with_the_same_bits(key: str, moment: Moment, until: Moment) -> None:
    whole = reference(key)
    run = resumed(schedule(key), whole.at(moment), until)
    assert difference(run.snapshots[until], whole.snapshots[until]) is None
    assert run.lines == whole.lines[moment[0] : until[0]]
    assert run.layers == whole.layers[moment[0] : until[0]]


@every_component
def test_what_was_pruned_and_revived_since_the_beginning_is_what_the_masks_do_not_keep(key: str) -> None:
    whole = reference(key)
    left = {name: zero.numel() for name, zero in whole.zeros[0, 1].items()}
    for line in whole.layers:
        for name, layer in line["layers"].items():
            left[name] -= layer["pruned"] - layer["revived"]
        for counted in ("pruned", "revived"):
            by_layer = sum(layer[counted] for layer in line["layers"].values())
            assert by_layer == sum(event[counted] for event in line["events"])
        now = whole.kept[line["epoch"] + 1, 0]
        assert left == now
    assert key not in PRUNERS or any(line["events"] for line in whole.layers)


def spoilt(key: str, moment: Moment, entry: str, until: Moment = (EPOCHS, 0)) -> str | None:
    """How the run differs at `until` where one entry of the saved state was lost and is as in a fresh run."""
    whole = reference(key)
    snapshot = whole.at(moment)
    snapshot["state"][entry] = reread(whole.fresh)["state"][entry]
    ends = [one.snapshots[until] for one in (resumed(schedule(key), snapshot, until), whole)]
    ours, theirs = (
        end["state"]["figures"] if key in MEASURES and entry == "policies" else end["model"] for end in ends
    )
    return difference(ours, theirs)


@every_component
@pytest.mark.parametrize("entry", ["optimizer", "rng"])
def test_control_a_resumed_run_differs_where_the_state_was_lost(key: str, entry: str) -> None:
    assert spoilt(key, (2, 2), entry, until=(2, 4)) is not None


@every_pruner
def test_control_a_resumed_run_differs_where_the_masks_were_lost(key: str) -> None:
    assert spoilt(key, (4, 0), "masks", until=(4, 2)) is not None


@every_component
def test_control_a_resumed_run_differs_where_the_memory_was_lost(key: str) -> None:
    whole = reference(key)
    fresh = whole.fresh["state"]["policies"]
    moments = [m for m in in_the_window if difference(whole.snapshots[m]["state"]["policies"], fresh) is not None]
    if not moments:
        pytest.skip("it remembers nothing")
    if key in DERIVABLE:
        pytest.skip("what it remembers could be derived again")
    assert any(spoilt(key, moment, "policies") is not None for moment in moments)


@every_component
def test_outside_its_window_a_component_makes_no_zeros_and_its_zeros_stay(key: str) -> None:
    whole = reference(key)
    at_the_end = whole.zeros[4, 0]
    for moment, found in whole.zeros.items():
        if moment <= (FIRST, 0):
            assert not any(zero.any() for zero in found.values())
        elif moment >= (4, 0):
            assert all((at_the_end[name] | ~zero).all() for name, zero in found.items())
            assert key in FREES or all(torch.equal(zero, at_the_end[name]) for name, zero in found.items())


UNKNOWN = {
    **dict.fromkeys(("gates.HardConcreteL0", "gates.NetworkSurgery"), "a gate learns which entries are zero"),
    **{
        f"pruners.{name}": "is a threshold: how much is below it depends on the values"
        for name in ("MagnitudeParameterPruner", "SensitivityPruner", "BaiduRNNPruner", "StructureParameterPruner")
    },
    **{f"pruners.BernoulliFilterPruner{end}": "each is pruned by chance" for end in ("", "_AGP")},
    "pruners.RandomLevelStructureParameterPruner": "its sparsity is drawn between",
    "pruners.SplicingPruner": "how much it prunes is not known",
    "pruners.Pruner": TOGETHER,
    "policies.strided": "a search decides which taps stay",
}
"""Components whose plan does not say how many zeros each of their weights will have, and why not."""

DENSE_AGAIN = {"policies.dsd", "policies.iht"}
"""What lets all weights go on in between: those that no gradient reaches stay 0."""


@every_component
def test_the_zeros_of_each_weight_are_those_that_were_planned(key: str) -> None:
    whole, reasons, planned = reference(key), set(), plans(schedule(key), *range(1, EPOCHS + 1))
    moments = [(epoch, STEPS) for epoch in range(EPOCHS - 1)] + [(EPOCHS, 0)]
    for plan, moment in zip(planned, moments, strict=True):
        found = left(whole.zeros[moment])
        assert {row.name for row in plan.predicted} == set(found)
        for row in plan.predicted:
            if row.nonzero is None:
                reasons.add(row.reason)
            elif key in DENSE_AGAIN and row.nonzero == row.weights:
                assert found[row.name] <= row.nonzero
            else:
                assert found[row.name] == row.nonzero, (moment, row.name)
        if plan.total_nonzero not in (None, plan.total_weights):
            assert plan.total_nonzero == sum(found.values())
    assert all(UNKNOWN.get(key, "nothing") in reason for reason in reasons)
    assert bool(reasons) == (key in UNKNOWN)
    assert all((plan.total_nonzero is None) == (bool(reasons) and UNKNOWN[key] != TOGETHER) for plan in planned[1:4])


@pytest.mark.parametrize("more", ["proximal: true", "threshold: 0.02"])
def test_of_a_penalty_that_makes_zeros_the_plan_says_that_it_depends_on_the_values(more: str) -> None:
    example = COMPONENTS["regularizers.L1Regularizer"].example
    text = windowed(example.replace("'fc*.weight': 1e-4}}", f"'fc*.weight': 0.3}}, {more}}}"))
    run = Watched(text, until=(3, 1), checkpoint=RARELY)
    run.run()
    before, inside = plans(text, FIRST, FIRST + 1)
    assert all(row.nonzero == row.weights == left(run.zeros[FIRST, 0])[row.name] for row in before.predicted)
    for row in inside.predicted:
        zeros = row.weights - left(run.zeros[FIRST, STEPS])[row.name]
        assert (row.nonzero is None) == row.name.startswith("fc") == (zeros > 0)
        assert row.nonzero is not None or "depends on the values" in str(row.reason)


@every_pruner
def test_control_a_pruner_of_known_sparsity_plans_other_zeros_than_none(key: str) -> None:
    [plan] = plans(schedule(key), EPOCHS)
    assert plan.total_nonzero is None or plan.total_nonzero < plan.total_weights


@every_pruner
def test_control_a_pruner_makes_zeros_in_its_window(key: str) -> None:
    assert any(zero.any() for zero in reference(key).zeros[4, 0].values())


@every_lr_scheduler
def test_control_a_learning_rate_schedule_changes_the_rate_in_its_window(key: str) -> None:
    whole = reference(key)
    states = [whole.snapshots[moment]["state"] for moment in in_the_window]
    rates = [state["optimizer"]["param_groups"][0]["lr"] for state in states]
    assert len({*rates, rig.SGD["lr"]}) > 1 or whole.lines[4]["lr"] != rig.SGD["lr"]


@every_lr_scheduler
def test_after_its_window_a_learning_rate_schedule_leaves_the_rate_alone(key: str) -> None:
    lines = reference(key).lines
    assert lines[4]["lr"] == lines[5]["lr"]


@cache
def plain() -> Rig:
    """The first epoch of a run in which nothing happens before the last one."""
    text = windowed(COMPONENTS["regularizers.L1Regularizer"].example, first=EPOCHS - 1, end=EPOCHS)
    run = Rig(text, until=(FIRST, 0))
    run.run()
    return run


@every_component
def test_before_its_window_a_component_changes_nothing(key: str) -> None:
    for moment, ours in plain().snapshots.items():
        assert difference(reference(key).snapshots[moment]["model"], ours["model"]) is None


CONFIGS = {"adam": {"optimizer": rig.ADAM}, "averaged weights": {"ema": {"decay": 0.8}}}


@every_pruner
def test_masked_weights_are_plus_zero_after_every_step(key: str) -> None:
    assert reference(key).masked > 0  # with momentum and weight decay


@every_pruner
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_masked_weights_are_plus_zero_under_other_settings(key: str, config: dict[str, Any]) -> None:
    run = Watched(schedule(key), until=(4, 3), checkpoint=RARELY, **config)
    run.run()
    assert run.masked > 0


def test_control_a_product_with_a_mask_is_not_plus_zero() -> None:
    assert is_plus_zero(torch.zeros(3))
    assert not is_plus_zero(torch.tensor([-1.5]) * 0)
    assert not is_plus_zero(torch.tensor([0.0, 1e-30]))


FEW = """
pruners:
  few: {class: SparsityLevelParameterPruner, levels: {'*': 0.03}}
policies:
  - {pruner: {instance_name: few}, epochs: [4]}
"""
MANY = """
pruners:
  many: {class: SparsityLevelParameterPruner, levels: {'*': 0.9}}
policies:
  - {pruner: {instance_name: many}, epochs: [0]}
"""


@every_pruner
def test_of_two_pruners_on_one_weight_the_later_one_frees_nothing(key: str) -> None:
    # What `few` prunes in epoch 4 is zero already: its own mask is almost all true, the one in force is not.
    run = Watched(merged(schedule(key), FEW), checkpoint=RARELY)
    run.run()
    assert run.narrower
    before, after = run.zeros[4, 0], run.zeros[EPOCHS, 0]
    assert all((after[name] | ~zero).all() for name, zero in before.items())


@every_component
def test_a_component_composes_with_a_pruner_of_all_weights(key: str) -> None:
    text = merged(MANY, schedule(key))
    run = Watched(text)
    run.run()
    assert run.masked > 0
    first = run.zeros[1, 0]
    assert int(first["fc1.weight"].sum()) == 486  # floor(0.9 * 540)
    for now in [now for moment, now in run.zeros.items() if moment >= (1, 0)]:
        for name, zero in first.items():
            if now[name].shape == zero.shape:
                assert (now[name] | ~zero).all()
            else:  # channels were removed: what is left has not more to it
                assert int((~now[name]).sum()) <= int((~zero).sum())
    [plan] = plans(text, EPOCHS)
    found = left(run.zeros[EPOCHS, 0])
    assert all(row.nonzero is None or found[row.name] <= row.nonzero <= row.weights / 8 for row in plan.predicted)
    assert plan.total_nonzero is None or sum(found.values()) <= plan.total_nonzero <= 842 / 8
    again = resumed(text, run.at((2, 2)), until=(4, 1))
    assert difference(again.snapshots[4, 1], run.snapshots[4, 1]) is None


@pytest.mark.parametrize("other", REGULARIZERS)
@every_regularizer
def test_penalties_on_one_weight_add_up(key: str, other: str) -> None:
    def gradients(text: str) -> dict[str, torch.Tensor]:
        run = Rig(text, checkpoint=RARELY)
        for parameter in run.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        run.session.clock.epoch = FIRST
        run.session.events.fire("penalty_gradients")
        return {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}

    texts = [schedule(name) for name in (key, other)]
    one, two, both = gradients(texts[0]), gradients(texts[1]), gradients(merged(*texts))
    assert any(gradient.any() for gradient in one.values())
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, one[name] + two[name])


def slopes(key: str) -> list[tuple[float, float]]:
    """In random directions of each weight: the slope by the gradient that a penalty adds, and that of its value."""
    model, faults, draws = rig.network().double(), Faults(), torch.Generator().manual_seed(0)
    [one] = rig.read(COMPONENTS[key].example).bind(model, EPOCHS, faults).policies
    faults.raise_any()
    penalty, weights = one.policy.applied, {name: model.get_parameter(name).detach() for name in one.names}
    assert isinstance(penalty, Regularizer)
    for weight in weights.values():  # no entry is near 0, where most penalties have a kink
        signs = torch.randint(0, 2, weight.shape, generator=draws) * 2 - 1
        weight.copy_(signs * torch.empty_like(weight).uniform_(0.1, 1, generator=draws))
        weight.grad = torch.zeros_like(weight)
    penalty.add_gradient(weights, one.targets)
    found = []
    for weight in weights.values():
        for _ in range(5):
            way = torch.randn(weight.shape, generator=draws, dtype=torch.float64)
            ends = []
            for step in (1e-5, -2e-5):
                weight.add_(way, alpha=step)
                ends.append(penalty.value(weights, one.targets))
            weight.add_(way, alpha=1e-5)
            assert weight.grad is not None
            found.append((float((weight.grad * way).sum()), (ends[0] - ends[1]) / 2e-5))
    return found


@every_regularizer
def test_the_gradient_of_a_penalty_is_that_of_its_value(key: str) -> None:
    for given, slope in slopes(key):
        assert given == pytest.approx(slope, rel=1e-5)
        assert given != 0


@every_regularizer
@pytest.mark.parametrize("factor", [-1.0, 2.0])
def test_control_another_gradient_is_not_that_of_the_value(key: str, factor: float) -> None:
    assert all(factor * given != pytest.approx(slope, rel=0.1) for given, slope in slopes(key))


def test_all_components_at_once_compose_and_resume_at_every_step() -> None:
    text = merged(*map(schedule, COMPONENTS))
    whole = Watched(text)
    whole.run()
    assert whole.masked > 0
    assert len(whole.snapshots) == EPOCHS * (STEPS + 1)
    for moment, after in pairwise(whole.snapshots):  # from each moment to the next, from two to the end of the run
        until = (EPOCHS, 0) if moment in ((1, 0), (2, 2)) else after
        found = difference(resumed(text, whole.at(moment), until).snapshots[until], whole.snapshots[until])
        assert found is None, f"resumed at {moment}: {found}"


CHOOSES = "weights are chosen by their values, and their masks are counted"
OF_PRUNER = "the pruner of its example chooses by values"
SHUT = "its closed gates become a mask, which is counted"

WAITS: dict[str, tuple[set[str], str]] = {
    **dict.fromkeys(PRUNERS, ({"begin", "later"}, CHOOSES)),
    **dict.fromkeys(
        ("pruners.SplicingPruner", "pruners.BernoulliFilterPruner_AGP"),
        ({"begin", "later", "end"}, f"{CHOOSES}, also within an epoch"),
    ),
    **{key: ({"begin", "later"}, "what is zero is traced") for key in COMPONENTS if key.startswith("extensions.")},
    "gates.HardConcreteL0": ({"end"}, SHUT),
    "gates.NetworkSurgery": ({"begin", "end"}, f"its thresholds are statistics of the weights; {SHUT}"),
    "policies.batchnorm": ({"begin", "later"}, OF_PRUNER),
    "policies.channel_pruning": ({"begin", "later"}, "weights are solved for on the CPU"),
    "policies.dropout": ({"begin", "later"}, "the connections that are left are counted"),
    "policies.dsd": ({"later"}, CHOOSES),
    "policies.iht": ({"begin", "later"}, CHOOSES),
    "policies.instability": ({"begin", "later"}, f"accuracies are measured; {OF_PRUNER}"),
    "policies.strided": ({"begin"}, "a search compares accuracies"),
}
"""The events at which the host waits for an accelerator, and why. In a step without an event it never does."""


@cache
def host_syncs(key: str) -> dict[str, str]:
    """The first host sync of each event of a component, and of a step without one (`plain`), on `meta`."""
    found: dict[str, str] = {}
    run = OnMeta(schedule(key))
    try:
        run.at(FIRST, 0).begin()
        state = deepcopy(run.session.state_dict())
    except HostSync as error:
        found["begin"] = str(error)
        snapshot = reference(key).at((FIRST, 1))
        state = snapshot["state"]
        if "architecture" in snapshot:
            run = OnMeta(schedule(key), snapshot)
        else:
            run.load(state)
    events: dict[str, Callable[[], None]] = {
        "plain": lambda: run.at(FIRST, 2).step(),
        "later": lambda: run.at(FIRST + 1, 0).begin(),
        "end": lambda: run.at(END - 1, STEPS - 1).end(),
    }
    for event, act in events.items():
        try:
            act()
        except HostSync as error:
            found[event] = str(error)
            run.load(state)
    return found


@every_component
def test_a_step_without_an_event_does_not_make_the_host_wait(key: str) -> None:
    assert "plain" not in host_syncs(key)


@every_component
def test_the_host_waits_at_no_other_events_than_are_known(key: str) -> None:
    events, _ = WAITS.get(key, (set(), ""))
    assert set(host_syncs(key)) - {"plain"} == events, host_syncs(key)
