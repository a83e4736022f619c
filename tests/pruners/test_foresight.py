"""What is known of a pruner before a run: goals, and of what has none exactly the reason."""

from typing import Any

import pytest

from compressor.pruners.pruner import PrunerBase
from compressor.schedule.registry import components
from compressor.timing.window import Window

NAMES, SHAPES = ["a", "b"], {"a": (4, 3), "b": (6, 4)}
WINDOW = Window(ending_epoch=3)
FILTERS = {"group_type": "Filters", "weights": NAMES}


def pruner(name: str, **arguments: Any) -> PrunerBase:
    made = components("pruners")[name].model_validate(arguments)
    assert isinstance(made, PrunerBase)
    return made


def by_name(value: Any) -> dict[str, Any]:
    return dict.fromkeys(NAMES, value)


EXACT = [
    (pruner("SparsityLevelParameterPruner", levels=by_name(0.5)), {"levels": by_name(0.5)}, [6, 12]),
    (pruner("AutomatedGradualPruner", final_sparsity=0.5, weights=NAMES), {"weights": NAMES}, [6, 12]),
    (pruner("L1RankedStructureParameterPruner", desired_sparsity=0.5, **FILTERS), {"weights": NAMES}, [2 * 3, 3 * 4]),
    (pruner("RandomRankedFilterPruner_AGP", final_sparsity=0.5, **FILTERS), {"weights": NAMES}, [2 * 3, 3 * 4]),
    (pruner("Pruner", weights=NAMES, rate={"events": 0.5}), {"weights": NAMES}, [6, 12]),
    (pruner("Pruner", weights=NAMES, order="random", rate={"sparsity": 0.5}), {"weights": NAMES}, [6, 12]),
    (pruner("Pruner", weights=NAMES, scope="global", rate={"sparsity": 0.5}), {"weights": NAMES}, [18]),
]


@pytest.mark.parametrize(("one", "targets", "zeros"), EXACT, ids=lambda value: getattr(value, "name", ""))
def test_a_known_sparsity_is_a_goal_and_nothing_is_unknown(
    one: PrunerBase, targets: dict[str, Any], zeros: list[int]
) -> None:
    assert [goal.zeros(SHAPES) for goal in one.goals(targets, WINDOW, 2)] == zeros
    assert [goal.zeros(SHAPES) for goal in one.goals(targets, WINDOW, 2, SHAPES)] == zeros
    assert one.unknown(targets) == {}


THRESHOLDS = {"reg_regims": by_name((0.1, "Filters"))}
UNKNOWN = [
    (pruner("MagnitudeParameterPruner", thresholds=by_name(0.1)), {"thresholds": by_name(0.1)}, "is a threshold"),
    (pruner("SensitivityPruner", sensitivities=by_name(0.1)), {"sensitivities": by_name(0.1)}, "is a threshold"),
    (
        pruner("BaiduRNNPruner", q=0.1, ramp_epoch_offset=1, ramp_slope_mult=2, weights=NAMES),
        {"weights": NAMES},
        "is a threshold",
    ),
    (
        pruner("StructureParameterPruner", reg_regims=by_name([0.1, "Filters"]), threshold_criteria="Max"),
        THRESHOLDS,
        "is a threshold",
    ),
    (
        pruner("SplicingPruner", sensitivities=by_name(0.5), low_thresh_mult=0.9, hi_thresh_mult=1.1),
        {"sensitivities": by_name(0.5)},
        "SplicingPruner has no `goals`: how much it prunes is not known",
    ),
    (pruner("BernoulliFilterPruner", desired_sparsity=0.5, **FILTERS), {"weights": NAMES}, "pruned by chance"),
    (pruner("Pruner", weights=NAMES, rate={"survivors_std": 0.5}), {"weights": NAMES}, "is a threshold"),
    (pruner("Pruner", weights=NAMES, rate={"bernoulli": 0.5}), {"weights": NAMES}, "pruned by chance"),
]


@pytest.mark.parametrize(("one", "targets", "why"), UNKNOWN, ids=lambda value: getattr(value, "name", ""))
def test_what_is_not_known_has_a_reason_for_each_weight(one: PrunerBase, targets: dict[str, Any], why: str) -> None:
    assert one.goals(targets, WINDOW, 2) == []
    assert set(one.unknown(targets)) == set(NAMES)
    assert all(why in said for said in one.unknown(targets).values())


@pytest.mark.parametrize(
    "one",
    [
        pruner("RandomLevelStructureParameterPruner", sparsity_range=[0.5, 0.9], **FILTERS),
        pruner("Pruner", weights=NAMES, structure="Filters", rate={"random": [0.5, 0.9]}),
    ],
)
def test_of_a_sparsity_that_is_drawn_the_least_is_sure(one: PrunerBase) -> None:
    targets = {"weights": NAMES}
    assert [goal.zeros(SHAPES) for goal in one.goals(targets, WINDOW, 2)] == [2 * 3, 3 * 4]
    assert one.unknown(targets) == by_name("its sparsity is drawn between 0.5 and 0.9")
