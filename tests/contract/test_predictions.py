"""What a policy predicts is what a run measures, weight by weight, at the end of every epoch of its window."""

import rig
import test_axes as axes
from rig import END, EPOCHS, FIRST, RARELY, STEPS, merged
from test_components import Watched, every_component, reference, schedule

from compressor.policies.policy import BoundPolicy, View
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import view_of
from compressor.timing.clock import Clock

VALUES = "how many weights are below a threshold depends on their values"
CHANCE = "each draws for itself"
UNKNOWN = {
    **dict.fromkeys(
        ("pruners.MagnitudeParameterPruner", "pruners.SensitivityPruner", "pruners.BaiduRNNPruner"), VALUES
    ),
    **dict.fromkeys(("pruners.StructureParameterPruner", "pruners.SplicingPruner", "gates.NetworkSurgery"), VALUES),
    **dict.fromkeys(("pruners.BernoulliFilterPruner", "pruners.BernoulliFilterPruner_AGP"), CHANCE),
    "pruners.RandomLevelStructureParameterPruner": "the level is drawn",
    "gates.HardConcreteL0": "which gates close is trained",
    "policies.strided": "the accuracies that it measures decide",
}
"""The components with weights whose zeros only a run tells, and the reasons."""

PHASES = {"policies.dsd", "policies.iht"}
"""What frees its zeros: those that no gradient reaches stay."""


def bound(text: str) -> tuple[list[BoundPolicy], View]:
    """The policies of a schedule over the network of these tests, and what they see before a run."""
    model, faults = rig.network(), Faults()
    policies = list(rig.read(text).bind(model, EPOCHS, faults).policies)
    faults.raise_any()
    return policies, view_of(model, epochs=EPOCHS, image=(1, 12, 12))


def predicted(text: str, epoch: int) -> tuple[dict[tuple[str, ...], int], set[str]]:
    """The zeros at the end of an epoch: the largest prediction for each set of weights; the weights not known."""
    policies, view = bound(text)
    found: dict[tuple[str, ...], int] = {}
    unknown: set[str] = set()
    for one in policies:
        time = epoch if one.policy.window.unit == "epoch" else (epoch + 1) * STEPS - 1
        said = one.policy.predict(one.view(view), Clock(EPOCHS, STEPS), time)
        unknown |= set(said.unknown)
        for names, zeros in said.zeros.items():
            found[names] = max(found.get(names, 0), zeros)
    return {names: zeros for names, zeros in found.items() if not unknown & set(names)}, unknown


@every_component
def test_what_a_component_predicts_is_what_a_run_measures(key: str) -> None:
    seen = set()
    for epoch in range(FIRST, END):
        found, unknown = predicted(schedule(key), epoch)
        zeros = {name: int(zero.sum()) for name, zero in reference(key).zeros[epoch, STEPS].items()}
        for names, count in found.items():
            assert sum(zeros[name] for name in names) == count, (epoch, names)
        silent = {name for name, count in zeros.items() if count} - {name for names in found for name in names}
        if key not in PHASES or not seen:
            assert silent <= unknown, epoch
        assert bool(unknown) == (key in UNKNOWN), epoch
        seen |= set(found)


@axes.every_row
def test_what_a_pruner_of_any_axes_predicts_is_what_a_run_measures(row: axes.Row) -> None:
    found, unknown = predicted(row.schedule(), axes.END[0] - 1)
    zeros = {
        name: int(zero.sum()) for name, zero in rig.zeros(axes.reference(row).snapshots[axes.END]["model"]).items()
    }
    for names, count in found.items():
        assert sum(zeros[name] for name in names) == count, names
    known = {name for names in found for name in names}
    assert {name for name, count in zeros.items() if count} <= known | unknown
    assert found or unknown


def test_of_overlapping_policies_the_prediction_is_a_lower_bound() -> None:
    text = merged(
        schedule("pruners.SparsityLevelParameterPruner"), schedule("pruners.L2RankedStructureParameterPruner")
    )
    run = Watched(text, checkpoint=RARELY, until=(END, 0))
    run.run()
    found, unknown = predicted(text, END - 1)
    assert not unknown
    assert found
    for names, count in found.items():
        assert sum(int(run.zeros[END - 1, STEPS][name].sum()) for name in names) >= count
