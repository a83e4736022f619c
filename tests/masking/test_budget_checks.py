"""Budgets in a schedule: what is said before a run, and what the run makes of it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loop import Loop, read
from rig import Rig, difference, network, resumed
from torch import Tensor, nn

from compressor.schedule.faults import Faults
from compressor.schedule.plan import Plan, make_plan
from compressor.schedule.plan_table import as_table
from compressor.schedule.schedule import view_of
from compressor.timing.clock import Clock
from compressor.tracing import macs

STEPS, IMAGE = 2, (1, 6, 6)


class Chain(nn.Module):
    """6, 4 and 3 filters: 864 + 384 + 192 + 6 = 1446 MACs, 60 + 28 + 15 + 8 = 111 parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.fc = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 3, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))).mean((2, 3)))
        return logits


THIN = "extensions: {thinner: {class: FilterRemover, thinning_func_str: remove_filters}}\n"


def schedule(rate: str = "{macs: 0.5}", more: str = "", version: int = 2, when: str = "epochs: [0]") -> str:
    """One pruner of the three convolutions."""
    head = "version: 2\n" if version == 2 else ""
    pruner = f"{{class: Pruner, structure: Filters, weights: [a.weight, b.weight, c.weight], rate: {rate}{more}}}"
    return f"{head}policies:\n  - pruner:\n      {pruner}\n    {when}\n"


def planned(
    text: str, shape: tuple[int, int, int] | None = IMAGE, epochs: int = 3, network: nn.Module | None = None
) -> tuple[list[str], Plan | None]:
    """The faults, and the plan where there are none."""
    network, faults = network or Chain(), Faults()
    view = view_of(network, image=shape, epochs=epochs, groups=[{"lr": 1.0}])
    bound = read(text).bind(network, epochs, faults).check(view, faults)
    return faults.lines, None if faults else make_plan(bound.policies, view, Clock(epochs, STEPS))


def loop(text: str, epochs: int = 3, **config: Any) -> Loop:
    draws = torch.Generator().manual_seed(3)
    pictures = torch.randn(STEPS, 4, *IMAGE, generator=draws)
    images = list(zip(pictures, torch.randint(0, 2, (STEPS, 4), generator=draws), strict=True))
    return Loop(Chain(), images, text, epochs=epochs, **config)


def test_the_plan_names_each_layer_with_the_width_that_is_left_and_the_total() -> None:
    lines, plan = planned(schedule("{macs: 0.61}"))
    assert not lines
    assert plan is not None
    [policy] = plan.policies
    budget = policy.budget[0]
    assert (budget.unit, budget.most, budget.dense, budget.left) == ("macs", 882, 1446, 868)  # 4, 3, 2 filters
    assert {row.name: (row.shape, row.left) for row in budget.weights} == {
        "a.weight": ([6, 1, 3, 3], [4, 1, 3, 3]),
        "b.weight": ([4, 6, 1, 1], [3, 4, 1, 1]),
        "c.weight": ([3, 4, 1, 1], [2, 3, 1, 1]),
        "fc.weight": ([2, 3], [2, 2]),
    }
    text = as_table(plan)
    assert "left after thinning: 0: at most 61.00 % of 1,446 MACs, that is 868 (60.03 %)" in text
    assert "    b.weight  4x6x1x1 -> 3x4x1x1" in text
    assert [row.nonzero for row in plan.predicted] == [36, 18, 8, 6]


def test_of_one_ranking_the_plan_says_the_total_and_that_the_run_decides_which_layers() -> None:
    lines, plan = planned(schedule(more=", scope: global"))
    assert not lines
    assert plan is not None
    budget = plan.policies[0].budget[0]
    assert (budget.most, budget.dense, budget.left, budget.weights) == (723, 1446, None, [])
    assert "at most 50.00 % of 1,446 MACs\n    which channels are left depends on the weights" in as_table(plan)
    assert all("depends on the weights in the run" in str(row.reason) for row in plan.predicted[:3])


def test_a_budget_may_fall_along_the_cubic() -> None:
    _, plan = planned(
        schedule("{macs: {left: 0.5, initial: 1}}", when="starting_epoch: 0\n    ending_epoch: 3\n    frequency: 1")
    )
    assert plan is not None
    asked = {time: (one.asked, one.left) for time, one in plan.policies[0].budget.items()}
    assert asked == {0: (1, 1446), 1: (0.5625, 596), 2: (0.5, 596)}  # 0.5 + 0.5 / 8


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            # 144 + 16 + 16 + 2 MACs
            schedule("{macs: 0.01}"),
            "s.yaml:4:90: 0.Pruner: at most 1 % of the dense network's MACs after thinning cannot be reached: with one"
            " channel in each of its layers 178 of 1,446 are left. The smallest budget is `macs: 0.124`; or prune more"
            " layers",
        ),
        (schedule("{parameters: 0.15}"), "The smallest budget is `parameters: 0.163`"),  # 18 of 111
        (schedule("{macs: 0.01}", ", scope: global"), "The smallest budget is `macs: 0.124`"),
        (schedule(version=1), "`rate: macs` needs `version: 2`"),
        (
            schedule(more=", args: {sparsity_of: current}"),
            "s.yaml:3:5: 0.Pruner: a budget is a part of the dense network: remove `sparsity_of: current`",
        ),
        (
            schedule(more=", args: {batches: 1}").replace("  - pruner:", "  - noise:"),
            "`rate: macs` is what is left after thinning: nothing is pruned here",
        ),
    ],
)
def test_a_budget_that_cannot_be_met_is_an_error_before_the_run(text: str, fault: str) -> None:
    lines, _ = planned(text)
    assert any(fault in line for line in lines), lines


class Normalized(Chain):
    """Channels that depend on each other: those of a and b cannot be removed."""

    def forward(self, x: Tensor) -> Tensor:
        b = self.b(self.a(x).softmax(1)).softmax(1)
        logits: Tensor = self.fc(F.relu(self.c(b)).mean((2, 3)))
        return logits


KEPT = "a.weight, b.weight: softmax in the network (Normalized)"


@pytest.mark.parametrize("more", [", scope: layer", ", scope: global", ", scope: coupled, allocation: global"])
def test_a_budget_of_which_no_channel_can_be_removed_says_what_keeps_them(more: str) -> None:
    text = schedule(more=more).replace("weights: [a.weight, b.weight, c.weight]", "weights: [a.weight, b.weight]")
    lines, _ = planned(text, network=Normalized())
    # in one layer after the other the selection is an error of its own
    coupled = "none of its channels can be removed (" + KEPT
    assert any((coupled if "coupled" in more else "normalizes over them") in line for line in lines), lines


def test_a_budget_that_cannot_be_reached_says_which_channels_cannot_be_removed() -> None:
    lines, _ = planned(schedule("{macs: 0.5}", ", scope: coupled"), network=Normalized())
    # 864 + 384 of a and b, and one filter of c: 64 + 2
    [line] = [line for line in lines if "cannot be reached" in line]
    assert f"and all that cannot be removed ({KEPT}" in line
    assert "1,314 of 1,446 are left" in line


def test_a_budget_that_is_in_reach_after_an_earlier_removal_is_no_error() -> None:
    first = "{class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: [a.weight]}"
    text = (
        "version: 2\npruners:\n"
        f"  a: {first}\n"
        "  c: {class: Pruner, structure: Filters, weights: [b.weight], rate: {macs: 0.4}}\n"
        f"{THIN}policies:\n"
        "  - {pruner: {instance_name: a}, epochs: [0]}\n"
        "  - {extension: {instance_name: thinner}, epochs: [0]}\n"
        "  - {pruner: {instance_name: c}, epochs: [1]}\n"
    )
    lines, plan = planned(text)
    assert not lines  # with one filter of b 966 MACs of the dense network are left
    assert plan is not None
    run = loop(text).run()
    # 3 filters of a, one of b: 3 * 144 + 3 * 16 + 3 * 16 + 6
    assert run.session.records.figures["2.c"]["macs_after_thinning"] == 534
    assert not run.session.events.shortfalls()


def test_what_another_pruner_masks_before_a_removal_counts_for_the_budget() -> None:
    first = "{class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: [a.weight]}"
    text = schedule("{macs: 0.6}", when="epochs: [1]")  # 867
    run = loop(text.replace("policies:\n", f"policies:\n  - pruner: {first}\n    epochs: [0]\n")).run()
    # 3 filters of a, and all of b and c: 3 * 144 + 3 * 4 * 16 + 4 * 3 * 16 + 6
    assert run.session.records.figures["1.Pruner"]["macs_after_thinning"] == 822
    assert bool(run.model.get_parameter("b.weight").flatten(1).any(1).all())


def test_the_smallest_budget_that_is_named_can_be_reached() -> None:
    lines, plan = planned(schedule("{macs: 0.124}"))
    assert not lines
    assert plan is not None
    assert plan.policies[0].budget[0].left == 178


def test_without_the_shape_of_the_images_a_budget_is_checked_later() -> None:
    lines, plan = planned(schedule("{macs: 0.01}"), shape=None)
    assert not lines
    assert plan is not None
    assert plan.predicted[0].reason == "which channels can be removed is not known"


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_run_that_removes_channels_ends_within_the_budget_and_says_what_is_left(scope: str) -> None:
    removal = "  - {extension: {instance_name: thinner}, epochs: [1]}\n"
    text = schedule(more=f", scope: {scope}", when="epochs: [0, 2]") + removal
    run = loop(text.replace("policies", THIN + "policies")).run()
    left, _ = macs(run.model, IMAGE)
    assert left <= 723
    assert scope == "global" or [len(run.model.get_parameter(f"{name}.weight")) for name in "abc"] == [3, 2, 2]
    assert run.session.records.figures["0.Pruner"] == {
        "macs_after_thinning": left,
        "of_the_dense_network": left / 1446,
    }
    assert f"0.Pruner: after thinning {left} of 1,446 MACs are left ({100 * left / 1446:.2f} %)" in run.said
    assert not run.session.events.shortfalls()


def test_a_budget_that_a_run_does_not_reach_is_a_missed_target() -> None:
    run = loop(schedule(when="epochs: [4]")).run()
    assert run.session.events.shortfalls() == [
        "target missed by 0.Pruner: 1,446 MACs are left after thinning, 100.00 % of the dense network's; it should be"
        " 723 at most"
    ]


def test_zeros_alone_do_not_count_where_thinning_cannot_remove_them() -> None:
    """The filters of a and c are added: masked in a alone they stay."""

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c, self.fc = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 1), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            logits: Tensor = self.fc(F.relu(y + self.c(y)).mean((2, 3)))
            return logits

    text = schedule().replace("[a.weight, b.weight, c.weight]", "[a.weight]")
    network, faults = Added(), Faults()
    view = view_of(network, image=IMAGE, epochs=1, groups=[{"lr": 1.0}])
    read(text).bind(network, 1, faults).check(view, faults)
    assert any("scope: coupled" in line for line in faults.lines)
    faults = Faults()
    coupled = text.replace("class: Pruner", "class: Pruner, scope: coupled")
    bound = read(coupled).bind(network, 1, faults).check(view, faults)
    plan = make_plan(bound.policies, view, Clock(1, STEPS))
    # 144 k + 16 k^2 + 2 k of 1452: with 3 channels 582, with 4 840
    assert plan.policies[0].budget[0].left == 582


def test_of_all_weights_a_budget_leaves_alone_what_cannot_be_removed() -> None:
    class Gated(Chain):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(F.relu(self.c(F.relu(self.b(torch.sigmoid(self.a(x)))))).mean((2, 3)))
            return logits

    text = schedule("{macs: 0.8}", ", scope: coupled").replace("[a.weight, b.weight, c.weight]", "'*'")
    network, faults = Gated(), Faults()
    view = view_of(network, image=IMAGE, epochs=1, groups=[{"lr": 1.0}])
    bound = read(text).bind(network, 1, faults).check(view, faults)
    assert not faults
    [note] = [str(note) for note in bound.notes if "prunes only" in str(note)]
    assert note.endswith(
        "prunes only channels that can be removed, not all of a.weight: sigmoid is not 0 where its input is 0"
    )
    plan = make_plan(bound.policies, view, Clock(1, STEPS))
    # 864 + 96 b + 16 b c + 2 c of 1446, at most 1156: 2, 2 filters at 1/2 (1124), at 1/3 3, 2 (1252)
    assert plan.policies[0].budget[0].left == 1124
    assert {row.name: row.nonzero for row in plan.predicted} == {
        "a.weight": 54,
        "b.weight": 12,
        "c.weight": 8,
        "fc.weight": 6,
    }


def test_where_it_matters_which_channels_go_the_plan_gives_no_widths() -> None:
    class Side(nn.Module):
        """c shares its first channels with a, the others with b."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(1, 8, 3)
            self.d, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            a = F.relu(self.a(x))
            both = torch.cat([torch.cat([a, F.relu(self.b(x))], 1) + F.relu(self.c(x)), F.relu(self.d(a))], 1)
            logits: Tensor = self.fc(both.mean((2, 3)))
            return logits

    text = schedule("{macs: 0.5}", ", scope: coupled").replace("[a.weight, b.weight, c.weight]", "'*'")
    network, faults = Side(), Faults()
    view = view_of(network, image=IMAGE, epochs=1, groups=[{"lr": 1.0}])
    bound = read(text).bind(network, 1, faults).check(view, faults)
    assert not faults
    budget = make_plan(bound.policies, view, Clock(1, STEPS)).policies[0].budget[0]
    # 16 positions: 9 * (4 + 4 + 8) + 16 MACs each, and 24
    assert (budget.dense, budget.left, budget.weights) == (2584, None, [])


def test_after_channels_that_another_policy_removed_the_plan_gives_no_widths() -> None:
    other = (
        "  - pruner: {class: Pruner, structure: Filters, weights: [b.weight], rate: {sparsity: 0.5}}\n    epochs: [0]\n"
    )
    removal = "  - {extension: {instance_name: thinner}, epochs: [1]}\n"
    text = schedule("{macs: 0.3}", when="epochs: [2]").replace("policies:\n", THIN + "policies:\n" + other + removal)
    lines, plan = planned(text)
    assert not lines
    assert plan is not None
    budget = plan.policies[2].budget[2]
    assert (budget.most, budget.dense, budget.left) == (433, 1446, None)
    assert plan.predicted[0].reason == "it depends on the channels that are removed before"
    run = loop(text).run()
    assert run.session.records.figures["2.Pruner"]["macs_after_thinning"] <= 433


def test_masked_input_channels_count_as_removed() -> None:
    text = schedule("{macs: 0.8}").replace("Filters", "Channels").replace("a.weight, ", "")
    run = loop(text).run()
    # At 1/6 b reads 5 channels: 720 + 320 + 192 + 6 = 1238; at 1/4 c reads 3, too: 720 + 240 + 144 + 6, within 1156.
    assert run.session.records.figures["0.Pruner"]["macs_after_thinning"] == 1110
    assert not run.session.events.shortfalls()


def test_a_budget_that_falls_while_channels_are_removed_resumes_in_the_same_bits() -> None:
    text = schedule("{macs: {left: 0.4, initial: 0.9}}", when="starting_epoch: 0\n    ending_epoch: 3")
    text = text.replace("a.weight, b.weight, c.weight", "conv1.weight, conv2.weight, fc1.weight")
    text = text.replace("policies", THIN + "policies") + "  - {extension: {instance_name: thinner}, epochs: [1]}\n"
    whole = Rig(text, epochs=4)
    end = whole.run()
    left = [macs(network(), (1, 12, 12))[0], macs(whole.model, (1, 12, 12))[0]]
    assert left[1] < left[0]  # thinned in epoch 1; masked further in epoch 2
    assert whole.session.records.figures["0.Pruner"]["of_the_dense_network"] <= 0.4
    again = resumed(text, whole.at((2, 1)), epochs=4)
    assert difference(again.snapshots[4, 0], end) is None
