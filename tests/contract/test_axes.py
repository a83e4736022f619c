"""What holds of every criterion, structure, allocation, rate and order: each pair of them is in one of these runs."""

from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from rig import Rig, difference, left, network, plans, resumed, zeros

from compressor.component import Component
from compressor.pruners.general import Pruner
from compressor.schedule.registry import AXES, components

FIRST, MOMENT, END, UNTIL = 1, (2, 0), (3, 0), (3, 1)
"""The window is epochs 1 and 2; between them a run is resumed. It goes on for a step behind the window."""

WEIGHTS = {name: tuple(weight.shape) for name, weight in network().named_parameters() if weight.dim() > 1}


REACHABLE = {name: {name: 0.95} for name in ("macs", "parameters")}
"""Budgets that each weight of the rig can meet alone."""


def example(cls: type[Component]) -> Any:
    """How a schedule names a component."""
    if cls.name in REACHABLE:
        return REACHABLE[cls.name]
    return yaml.safe_load(cls.example) if cls.example else cls.name


def of(section: str) -> dict[str, Component]:
    """Every component of an axis, by its name; one of several names counts once."""
    found = {}
    for cls in components(section).values():
        given = example(cls)
        arguments = given[cls.name] if isinstance(given, dict) else {}
        found[cls.name] = cls.model_validate(arguments if isinstance(arguments, dict) else {cls.main: arguments})
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Row:
    """One run: what is on each axis, by name."""

    criterion: str
    structure: str
    allocation: str
    rate: str
    order: str

    def __str__(self) -> str:
        return " ".join(vars(self).values())

    @property
    def pairs(self) -> set[Any]:
        """Each axis with each other one, and what is on them."""
        return set(combinations(vars(self).items(), 2))

    def weights(self) -> list[str]:
        """The weights of the rig that it fits."""
        structure, criterion = AXIS["structures"][self.structure], AXIS["criteria"].get(self.criterion)
        fits = [name for name, shape in WEIGHTS.items() if structure.misfit(shape) is None]  # type: ignore[attr-defined]
        if structure.holds_outputs(WEIGHTS["fc2.weight"]):  # type: ignore[attr-defined]
            fits = [name for name in fits if name != "fc2.weight"]  # its outputs are the classes
        behind = criterion is not None and "batch_norms" in criterion.needs  # type: ignore[attr-defined]
        return [name for name in fits if not behind or name == "conv1.weight"]

    def is_valid(self) -> bool:
        """Whether they fit together; at random there is no criterion."""
        if (self.criterion == "-") != (self.order == "random") or not self.weights():
            return False
        found = {axis: AXIS[section].get(getattr(self, axis)) for section, axis in zip(AXES, KINDS, strict=True)}
        given = {axis: component for axis, component in found.items() if component is not None}
        try:
            Pruner.model_validate({**given, "order": self.order, "weights": "*"})
        except ValidationError:
            return False
        return True

    def schedule(self) -> str:
        """Its pruner in the window."""
        pruner: dict[str, Any] = {"class": "Pruner", "order": self.order, "weights": self.weights()}
        for section, axis in zip(AXES, KINDS, strict=True):
            if (name := getattr(self, axis)) in components(section):
                pruner[axis] = example(components(section)[name])
        window = {"starting_epoch": FIRST, "ending_epoch": FIRST + 2}
        return yaml.safe_dump({"version": 2, "policies": [{"pruner": pruner, **window}]})


KINDS = ("criterion", "structure", "allocation", "rate")
AXIS = {section: of(section) for section in AXES}


def table() -> list[Row]:
    """Valid rows in which every pair is that a valid row has: again and again the one with the most new pairs."""
    axes = [[*AXIS["criteria"], "-"], *(list(AXIS[section]) for section in AXES[1:]), ["smallest", "largest", "random"]]
    left: dict[Row, set[Any]] = {row: row.pairs for row in (Row(*names) for names in product(*axes)) if row.is_valid()}
    chosen = []
    while left:
        best = max(left, key=lambda row: len(left[row]))
        new = left[best]
        chosen.append(best)
        left = {row: pairs - new for row, pairs in left.items() if pairs - new}
    return chosen


ROWS = table()
every_row = pytest.mark.parametrize("row", ROWS, ids=str)


@cache
def reference(row: Row) -> Rig:
    """The uninterrupted run of a row, trained once."""
    run = Rig(row.schedule(), until=UNTIL, checkpoint={"every_epochs": 1})
    run.run()
    return run


def test_every_component_of_an_axis_is_in_a_row() -> None:
    for section, axis in zip(AXES, KINDS, strict=True):
        assert {getattr(row, axis) for row in ROWS} >= set(AXIS[section])
    assert {row.order for row in ROWS} == {"smallest", "largest", "random"}


@every_row
def test_a_row_makes_exact_zeros_in_its_window_and_nothing_before(row: Row) -> None:
    run, plain = reference(row), reference(ROWS[0])
    assert difference(run.snapshots[FIRST, 0]["model"], plain.snapshots[FIRST, 0]["model"]) is None
    for moment, snapshot in run.snapshots.items():
        model = snapshot["model"]
        found = zeros(model)
        assert not any(torch.signbit(model[name][zero]).any() for name, zero in found.items())
        assert {name for name, zero in found.items() if zero.any()} <= set(row.weights() if moment > (FIRST, 0) else ())
    assert AXIS["rates"][row.rate].unknown() or pruned(row)  # type: ignore[attr-defined]


@every_row
def test_a_row_has_the_zeros_of_each_weight_that_were_planned(row: Row) -> None:
    unknown = AXIS["rates"][row.rate].unknown()  # type: ignore[attr-defined]
    sizes = {AXIS["structures"][row.structure].size(WEIGHTS[name]) for name in row.weights()}  # type: ignore[attr-defined]
    mixed = row.allocation == "global" and len(sizes) > 1
    for end, plan in zip((2, 3), plans(row.schedule(), 2, 3), strict=True):
        found = left(zeros(reference(row).snapshots[end, 0]["model"]))
        assert plan.total_nonzero == (None if unknown or mixed else sum(found.values()))
        for weight in plan.predicted:
            if weight.nonzero is None:
                assert weight.name in row.weights()
                assert weight.reason == unknown or (row.allocation == "global" and "together" in str(weight.reason))
            else:
                assert weight.nonzero == found[weight.name]


def pruned(row: Row) -> bool:
    """Whether there are zeros at the window's end: of what is unknown before a run there may be none."""
    return any(zero.any() for zero in zeros(reference(row).snapshots[END]["model"]).values())


def test_every_component_of_an_axis_prunes_something_in_one_of_the_rows() -> None:
    found = [row for row in ROWS if pruned(row)]
    for section, axis in zip(AXES, KINDS, strict=True):
        assert {getattr(row, axis) for row in found} >= set(AXIS[section])


@every_row
def test_a_row_that_is_resumed_in_its_window_ends_in_the_same_bits(row: Row) -> None:
    whole = reference(row)
    again = resumed(row.schedule(), whole.at(MOMENT), UNTIL)
    assert difference(again.snapshots[UNTIL], whole.snapshots[UNTIL]) is None


def test_control_rows_that_differ_in_one_axis_end_differently() -> None:
    base = Row("l1", "Filters", "uniform", "sparsity", "smallest")
    others = [
        Row("mean_abs", "Channels", "uniform", "sparsity", "smallest"),
        Row("l1", "Filters", "global", "sparsity", "smallest"),
        Row("l1", "Filters", "uniform", "events", "smallest"),
        Row("l1", "Filters", "uniform", "sparsity", "largest"),
    ]
    for row in others:
        assert row.is_valid()
        assert difference(reference(row).snapshots[UNTIL]["model"], reference(base).snapshots[UNTIL]["model"])


def test_control_a_row_whose_masks_were_lost_ends_differently() -> None:
    row = Row("l1", "Filters", "uniform", "events", "smallest")
    snapshot = reference(row).at(END)
    snapshot["state"]["masks"] = reference(row).at((FIRST, 0))["state"]["masks"]
    again = resumed(row.schedule(), snapshot, UNTIL)
    assert difference(again.snapshots[UNTIL]["model"], reference(row).snapshots[UNTIL]["model"])
