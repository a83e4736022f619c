"""What is said of a pruner before there are any data: of what stands behind its weights, and of shares of nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressor.schedule import grammar
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import view_of

Check = Callable[..., tuple[list[str], list[str]]]

OF_COMPONENT = "s.yaml:3:13: "
GENERAL = "class: Pruner, structure: Filters, rate: {sparsity: 0.5}"
BERNOULLI = "class: BernoulliFilterPruner, group_type: Filters, desired_sparsity: 0.5"
RANKED = "class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5"


@pytest.fixture
def said(schedule_of: Callable[[str], grammar.Schedule]) -> Check:
    """`said(component, network)`: the lines of the faults and of the notes, without the pruner's place."""

    def check(
        component: str,
        network: nn.Module,
        weights: str = "[conv.weight]",
        when: str = "epochs: [0]",
        args: str = "",
        shape: tuple[int, int, int] = (1, 6, 6),
    ) -> tuple[list[str], list[str]]:
        policy = f"  - pruner: {{{component}, weights: {weights}, args: {{{args}}}}}\n    {when}\n"
        schedule, faults = schedule_of(f"version: 2\npolicies:\n{policy}"), Faults()
        view = view_of(network, image=shape, epochs=4)
        notes = [note for note in schedule.bind(network, 4, faults).check(view, faults).notes if OF_COMPONENT in note]
        lines = [*faults.lines, *notes]
        assert all(line.startswith(OF_COMPONENT) for line in lines), lines
        short = [line.partition(": ")[2] for line in lines]
        return short[: len(faults.lines)], short[len(faults.lines) :]

    return check


class Net(nn.Module):
    """A convolution of 20 filters, what stands behind it, and a classifier; a layer that nothing goes through."""

    def __init__(self, *behind: nn.Module) -> None:
        super().__init__()
        self.conv, self.behind, self.fc = nn.Conv2d(1, 20, 3), nn.Sequential(*behind), nn.Linear(20, 2)
        self.unused = nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.behind(self.conv(x)).mean((2, 3)))
        return logits


NORM = nn.BatchNorm2d(20)

# --- activations ------------------------------------------------------------------------------------------------------

ACTIVATIONS = [
    *[nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0, 6), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardshrink(), nn.Softshrink()],
    *[nn.Threshold(0.0, 0.0), nn.LeakyReLU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.RReLU(), nn.PReLU(), nn.GELU()],
    *[nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.LogSigmoid(), nn.Softsign()],
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda module: type(module).__name__)
def test_apoz_behind_what_makes_no_zeros_is_a_warning(said: Check, activation: nn.Module) -> None:
    with torch.no_grad():
        makes_none = bool(activation.eval()(torch.linspace(-4, 4, 100)).all())
    warned = {}
    for criterion in ("apoz", "mean_activation"):
        _, notes = said(f"{GENERAL}, criterion: {criterion}", Net(NORM, activation))
        warned[criterion] = [note for note in notes if "criterion" in note]
    assert len(warned["apoz"]) == makes_none
    assert all("warning: criterion apoz counts zeros, but " in note for note in warned["apoz"])
    assert all(" after conv.weight makes none: " in note for note in warned["apoz"])
    assert warned["mean_activation"] == []


@pytest.mark.parametrize(("behind", "function"), [((), "conv2d"), ((NORM, nn.Dropout()), "batch_norm")])
@pytest.mark.parametrize("criterion", ["apoz", "mean_activation", "taylor"])
def test_a_criterion_of_activations_where_none_follows_is_a_warning(
    said: Check, criterion: str, behind: tuple[nn.Module, ...], function: str
) -> None:
    expected = (
        f"warning: criterion {criterion} reads the output of an activation, but none follows conv.weight:"
        f" it reads the output of {function}"
    )
    assert said(f"{GENERAL}, criterion: {criterion}", Net(*behind)) == ([], [expected])


@pytest.mark.parametrize("criterion", ["l1", "gradient", "feature_map", "running_feature_map"])
def test_other_criteria_need_no_activation(said: Check, criterion: str) -> None:
    assert said(f"{GENERAL}, criterion: {criterion}", Net()) == ([], [])


@pytest.mark.parametrize("name", ["ActivationAPoZRankedFilterPruner", "ActivationMeanRankedFilterPruner"])
def test_distiller_s_rankers_go_by_activations_too(said: Check, name: str) -> None:
    _, (note,) = said(RANKED.replace("L1RankedStructureParameterPruner", name), Net())
    assert "reads the output of an activation, but none follows conv.weight" in note


@pytest.mark.parametrize("criterion", ["apoz", "taylor", "gradient", "feature_map", "bn_scale"])
def test_a_weight_that_the_forward_pass_does_not_use_is_a_fault(said: Check, criterion: str) -> None:
    faults, notes = said(f"{GENERAL}, criterion: {criterion}", Net(NORM, nn.ReLU()), "[conv.weight, unused.weight]")
    used = "the forward pass does not use unused.weight in a convolution or linear layer"
    assert (faults, notes) == ([f"criterion {criterion}: {used}"], [])


class Tokens(nn.Module):
    """A linear layer over (images, tokens, features), as many of these as of those."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.inner(x.flatten(1, 2))).mean(1))
        return logits


@pytest.mark.parametrize("criterion", ["apoz", "taylor", "feature_map", "running_feature_map"])
def test_outputs_that_are_no_channels_are_a_fault(said: Check, criterion: str) -> None:
    faults, _ = said(f"{GENERAL}, criterion: {criterion}", Tokens(), "[inner.weight]")
    assert faults == [f"criterion {criterion}: the outputs of inner.weight are not channels (dim 1)"]
    assert said(f"{GENERAL}, criterion: gradient", Tokens(), "[inner.weight]")[0] == []


class ByValue(Net):
    """It cannot be run without storage."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.sum()) == 0 else super().forward(x * 2)


def test_where_a_network_cannot_be_run_without_storage_nothing_is_said_of_it(said: Check) -> None:
    faults, notes = said(f"{GENERAL}, criterion: apoz", ByValue(), "[conv.weight, unused.weight]")
    assert faults == []
    assert [note for note in notes if "criterion" in note] == []


WHY = "its channels cannot be traced: RuntimeError: no images today"

# --- batch norms ------------------------------------------------------------------------------------------------------


class Broken(Net):
    """A network that does not run."""

    def __init__(self) -> None:
        super().__init__(NORM, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no images today")


@pytest.mark.parametrize(
    ("component", "args", "by"),
    [
        (f"{GENERAL}, criterion: bn_scale", "", "bn_scale"),
        (f"{GENERAL}, criterion: expected_activation", "", "expected_activation"),
        (GENERAL, "fold_batchnorm: true", "fold_batchnorm"),
        ("class: Pruner, rate: {sparsity: 0.5}", "fold_batchnorm: true", "fold_batchnorm"),
    ],
)
def test_batch_norms_of_a_network_that_cannot_be_followed_are_a_fault_with_the_reason(
    said: Check, component: str, args: str, by: str
) -> None:
    why = f"0.Pruner needs batch norms ({by}), but their places are not known: {WHY}"
    assert said(component, Broken(), args=args) == ([why], [])
    assert said(component, Net(NORM, nn.ReLU()), args=args) == ([], [])


def test_without_looking_at_them_such_a_network_is_a_warning(said: Check) -> None:
    faults, notes = said(GENERAL, Broken())
    assert faults == []
    assert notes[0].startswith(f"warning: {WHY}: ")
    assert said("class: Pruner, rate: {sparsity: 0.5}", Broken()) == ([], [])


# --- shares of nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "weights", "note"),
    [
        (f"{RANKED}, group_size: 64", "[conv.weight]", "conv.weight: 0.5 of 20 Filters rounds to 0"),
        (RANKED.replace("0.5", "0.04"), "[conv.weight]", "conv.weight: 0.04 of 20 Filters rounds to 0"),
        (GENERAL.replace("0.5", "0.04"), "[conv.weight]", "conv.weight: 0.04 of 20 Filters rounds to 0"),
        (
            f"{GENERAL.replace('0.5', '0.02')}, scope: global",
            "[conv.weight, unused.weight]",
            "conv.weight, unused.weight: 0.02 of 22 Filters rounds to 0",
        ),
        ("class: Pruner, rate: {events: 0.001}", "[fc.weight]", "fc.weight: 0.001 of 40 Elements rounds to 0"),
    ],
)
def test_a_share_that_rounds_to_nothing_is_said(said: Check, component: str, weights: str, note: str) -> None:
    faults, notes = said(component, Net(nn.ReLU()), weights)
    assert faults == []
    assert [line.partition(" prunes nothing of ")[2] for line in notes] == [note]


@pytest.mark.parametrize(
    ("component", "when"),
    [
        (RANKED, "epochs: [0]"),
        (f"{RANKED}, group_size: 10", "epochs: [0]"),
        (GENERAL.replace("0.5", "0.0"), "epochs: [0]"),
        ("class: Pruner, structure: Filters, rate: {agp: {final_sparsity: 0.5}}", "ending_epoch: 4"),  # at first 0
        ("class: RandomLevelStructureParameterPruner, group_type: Filters, sparsity_range: [0.01, 0.5]", "epochs: [0]"),
        ("class: Pruner, rate: {threshold: 0.1}", "epochs: [0]"),
    ],
)
def test_of_other_shares_nothing_is_said(said: Check, component: str, when: str) -> None:
    assert said(component, Net(nn.ReLU()), when=when) == ([], [])


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "args", "warned"),
    [
        ("ending_epoch: 4", "", True),
        ("ending_epoch: 4", "mask_on_forward_only: true", True),
        ("epochs: [0]", "mini_batch_pruning_frequency: 1", True),
        ("epochs: [0]", "discard_masks_at_minibatch_end: true", True),
        ("epochs: [0]", "", False),  # one draw that stays
        ("ending_epoch: 4", "use_double_copies: true", False),
        ("ending_epoch: 4", "use_double_copies: true, discard_masks_at_minibatch_end: true", False),
    ],
)
def test_what_draws_drop_starts_again_from_0_where_nobody_keeps_it(
    said: Check, when: str, args: str, warned: bool
) -> None:
    faults, notes = said(BERNOULLI, Net(NORM, nn.ReLU()), when=when, args=args)
    assert faults == []
    assert len(notes) == warned
    assert all("0.BernoulliFilterPruner: weights pruned in one draw start again from 0" in note for note in notes)
    assert all("`use_double_copies: true`" in note for note in notes)
    assert said(RANKED, Net(NORM, nn.ReLU()), when=when, args=args) == ([], [])
