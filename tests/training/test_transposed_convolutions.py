"""Everything that is done to whole outputs and inputs of a layer, done to a transposed convolution.

One with a kernel of 1x1 and a convolution that has its weight with inputs and outputs exchanged are the same function:
under each schedule the two stay it, step after step.
"""

from collections import OrderedDict

import pytest
import torch
from loop import Batch, Loop, read
from torch import Tensor, nn

from compressor.context import Network
from compressor.schedule.faults import Faults
from compressor.schedule.plan import make_plan
from compressor.schedule.schedule import view_of
from compressor.session.zeros import masks_of_zeros
from compressor.timing import Clock


def exchanged(weight: Tensor, groups: int) -> Tensor:
    """[outputs, inputs of a group, ...] from [inputs, outputs of a group, ...], or the other way: group by group."""
    return torch.cat([part.transpose(0, 1) for part in weight.chunk(groups)])


def network(kind: type[nn.Module], groups: int, norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(1, 4, 3),
            act=nn.ReLU(),
            up=nn.Conv2d(4, 6 if groups < 4 else 4, 1, groups=groups),
            norm=nn.BatchNorm2d(6 if groups < 4 else 4) if norm else nn.Identity(),
            act2=nn.ReLU(),
            last=nn.Conv2d(6 if groups < 4 else 4, 5, 1),
            act3=nn.Tanh(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(5, 3),
        )
    )
    if norm:
        nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    if kind is nn.ConvTranspose2d:
        before: nn.Conv2d = model.up
        model.up = nn.ConvTranspose2d(4, before.out_channels, 1, groups=groups)
        with torch.no_grad():
            model.up.weight.copy_(exchanged(before.weight, groups))
            model.up.bias.copy_(before.bias)
    torch.manual_seed(1)  # what is drawn from here on is the same for both
    return model.double()


def batches() -> list[Batch]:
    draws = torch.Generator().manual_seed(0)
    return [
        (torch.randn(6, 1, 5, 5, generator=draws).double(), torch.randint(0, 3, (6,), generator=draws))
        for _ in range(3)
    ]


THIN = "  - {extension: {class: StructureRemover}, epochs: [1]}\n"


def prunes(component: str, more: str = "", when: str = "epochs: [0]") -> str:
    return f"  - pruner: {{{component}, weights: [up.weight]{more}}}\n    {when}\n"


FILTERS = "class: Pruner, structure: Filters, rate: {sparsity: 0.34}"
CHANNELS = "class: Pruner, structure: Channels, rate: {sparsity: 0.5}"
LASSO = "class: GroupLassoRegularizer, reg_regims: {up.weight: %s}"

SCHEDULES = {
    "filters by l1": prunes(FILTERS) + THIN,
    "filters by gradients": prunes(f"{FILTERS}, criterion: gradient"),
    "filters by activations": prunes(f"{FILTERS}, criterion: mean_activation"),
    "filters by batch norm": prunes(f"{FILTERS}, criterion: bn_scale"),
    "filters behind the norm": prunes(FILTERS, ", args: {fold_batchnorm: true}"),
    "channels": prunes(CHANNELS) + THIN,
    "channels with those that make them": prunes(f"{CHANNELS}, scope: coupled") + THIN,
    "blocks": prunes("class: Pruner, structure: {Blocks: {filters: 2, depth: 1}}, rate: {sparsity: 0.5}"),
    "dropped filters": prunes(
        "class: BernoulliFilterPruner, group_type: Filters, desired_sparsity: 0.5",
        ", args: {use_double_copies: true, mini_batch_pruning_frequency: 1, discard_masks_at_minibatch_end: true}",
    ),
    "noise": f"  - {{noise: {{{FILTERS}, weights: [up.weight], args: {{kind: zeroing, batches: 2}}}}, epochs: [0]}}\n",
    "group lasso": f"  - regularizer: {{{LASSO % '[0.1, Filters]'}}}\n",
    "proximal steps": f"  - regularizer: {{{LASSO % '[0.3, Filters]'}, proximal: true, args: {{keep_mask: true}}}}\n",
    "a threshold": f"  - regularizer: {{{LASSO % '[0.1, Filters]'}, threshold_criteria: Max, threshold: 0.4}}\n",
    "group variance": "  - regularizer: {class: GroupVarianceRegularizer, reg_regims: {up.weight: [1e-6, Filters]}}\n",
    "l0 gates": "  - gate: {class: HardConcreteL0, weights: [up.weight], structure: Filters, lambda: 0.1, lr: 0.5}\n",
}


def run(kind: type[nn.Module], groups: int, schedule: str, *, norm: bool = True, **settings: object) -> Loop:
    model = network(kind, groups, norm)
    loop = Loop(model, batches(), f"version: 2\npolicies:\n{schedule}", epochs=2, shape=(1, 5, 5), **settings)
    loop.run()
    return loop


def assert_twins(schedule: str, groups: int, **settings: object) -> None:
    ours, theirs = (run(kind, groups, schedule, **settings) for kind in (nn.ConvTranspose2d, nn.Conv2d))
    assert len(ours.watch.after) == len(theirs.watch.after) == 6
    for one, other in zip(ours.watch.after, theirs.watch.after, strict=True):
        assert one.keys() == other.keys()
        now = groups if groups < 4 else len(one["up.weight"])
        one["up.weight"] = exchanged(one["up.weight"], now)
        for name in one:
            torch.testing.assert_close(one[name], other[name], msg=lambda said, name=name: f"{name}: {said}")
    assert [line.replace("ConvTranspose2d", "Conv2d") for line in ours.said] == theirs.said


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_is_trained_as_its_twin(schedule: str) -> None:
    assert_twins(SCHEDULES[schedule], 1)


@pytest.mark.parametrize("schedule", ["filters by l1", "filters by gradients", "dropped filters", "group lasso"])
def test_so_is_one_with_groups(schedule: str) -> None:
    assert_twins(SCHEDULES[schedule], 2)


def test_so_is_a_depthwise_one() -> None:
    coupled = "class: Pruner, structure: Filters, scope: coupled, rate: {sparsity: 0.5}"
    assert_twins(prunes(coupled) + THIN, 4)


@pytest.mark.parametrize("groups", [1, 2])
def test_gates_without_a_norm_act_on_its_outputs(groups: int) -> None:
    assert_twins(SCHEDULES["l0 gates"], groups, norm=False)


def test_so_are_proximal_steps_with_a_size_for_each_entry() -> None:
    l1 = "  - regularizer: {class: L1Regularizer, reg_regims: {up.weight: 0.05}, proximal: true}\n"
    assert_twins(l1, 1, optimizer={"name": "adam", "lr": 0.01})


def test_the_plan_counts_its_outputs_and_a_run_makes_those_zeros() -> None:
    """[4 inputs, 6 outputs]: 0.34 of the outputs are 2 with 4 weights each, of the inputs it would be 1 with 6."""
    loop = run(nn.ConvTranspose2d, 1, prunes(FILTERS))
    model, faults = network(nn.ConvTranspose2d, 1), Faults()
    bound = read(f"version: 2\npolicies:\n{prunes(FILTERS)}").bind(model, 2, faults)
    plan = make_plan(bound.policies, view_of(model, image=(1, 5, 5), epochs=2, groups=[{"lr": 0.1}]), Clock(2, 3))
    predicted = {row.name: row.nonzero for row in plan.predicted}
    assert predicted["up.weight"] == int((loop.model.get_parameter("up.weight") != 0).sum()) == 24 - 2 * 4
    assert plan.policies[0].weights[0].shape == [4, 6, 1, 1]  # as torch stores it
    assert [int((loop.model.get_parameter(name) == 0).sum()) for name in ("up.bias", "norm.weight")] == [2, 2]


def test_zeros_that_it_has_at_the_start_are_held_with_the_biases_of_its_outputs() -> None:
    model = network(nn.ConvTranspose2d, 2)  # inputs 0, 1 make outputs 0, 1, 2; inputs 2, 3 the others
    with torch.no_grad():
        model.up.weight[2:, 1] = 0  # output 4
        model.up.bias[torch.tensor([2, 4])] = 0
    held = masks_of_zeros(Network(model, lambda: (1, 5, 5), print))
    assert held["up.bias"].tolist() == [True, True, True, True, False, True]
    assert torch.equal(held["up.weight"], model.up.weight != 0)
