"""A step of training does not make the host wait for an accelerator: settings, the feed, meters, and a loop of one's
own. For components, see `test_components.py`.
"""

import math
from typing import Any

import pytest
import rig
import torch
from on_meta import META, Answers, HostSync, MetaFeed, OnMeta, after_first_step, no_host_sync
from rig import windowed
from torch import Tensor

import compressor
from compressor.config import DataConfig
from compressor.context import OptimizerView
from compressor.data.feed import DataFeed
from compressor.data.images import DataSet
from compressor.data.memory import InMemory
from compressor.masking import companions
from compressor.policies.noise import deviation
from compressor.regularizers.l1 import _soft_threshold
from compressor.training.class_meters import ClassMeters
from compressor.training.meters import Meters

CLIP: dict[str, Any] = {"optimizer": {**rig.SGD, "clip_norm": 1.0}}
CLIPPED_ADAM: dict[str, Any] = {"optimizer": {**rig.ADAM, "clip_norm": 1.0}}


def regularizer(rest: str) -> str:
    return f"regularizers:\n  r: {{class: {rest}}}\npolicies:\n  - regularizer: {{instance_name: r}}\n"


def gate(rest: str) -> str:
    return f"version: 2\ngates:\n  g: {{class: {rest}}}\npolicies:\n  - gate: {{instance_name: g}}\n"


def pruner(args: str) -> str:
    return (
        "pruners:\n  p: {class: SparsityLevelParameterPruner, levels: {'fc*.weight': 0.5}}\n"
        f"policies:\n  - pruner: {{instance_name: p, args: {{{args}}}}}\n"
    )


def noise(structure: str, rest: str) -> str:
    chosen = f"class: Pruner, structure: {structure}, weights: conv1.weight, rate: {{events: 0.5}}"
    return f"version: 2\npolicies:\n  - noise: {{{chosen}, args: {{batches: 9, {rest}}}}}\n"


L1 = "L1Regularizer, reg_regims: {'fc*.weight': 1e-3}"
LASSO = "GroupLassoRegularizer, reg_regims: {conv2.weight: [1e-3, 3D]}"

VARIANTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "nothing": (None, {}),
    "clipping": (None, CLIP),
    "averages, parts of a batch": (None, {"ema": {"decay": 0.9}, "optimizer": {**rig.SGD, "accumulate": 2}}),
    "Adam": (None, CLIPPED_ADAM),
    "proximal L1": (regularizer(f"{L1}, proximal: true"), CLIP),
    "proximal L1 with Adam": (regularizer(f"{L1}, proximal: true"), CLIPPED_ADAM),
    "L1 with a threshold": (regularizer(f"{L1}, threshold: 1e-3"), {}),
    "proximal group lasso": (regularizer(f"{LASSO}, proximal: true"), CLIP),
    "masks in the forward pass": (pruner("mask_on_forward_only: true"), {}),
    "double copies, masked gradients": (pruner("use_double_copies: true, mask_gradients: true"), {}),
    "noise on filters": (noise("Filters", "kind: gaussian"), {}),
    "noise on weights": (noise("Elements", "kind: gaussian"), {}),
    "zeros as noise": (noise("Filters", "restore: true"), {}),
    "L0 on weights": (gate("HardConcreteL0, weights: [fc1.weight], lambda: 0.1, l2: 0.01"), {}),
    "L0 on inputs": (gate("HardConcreteL0, weights: [fc1.weight], structure: Cols, lambda: 0.1"), {}),
    "a mask for each example": (gate("DropConnect, modules: [fc1], sampling: per_example"), {}),
}


@pytest.mark.parametrize(("schedule", "config"), VARIANTS.values(), ids=VARIANTS)
def test_a_step_does_not_make_the_host_wait(schedule: str | None, config: dict[str, Any]) -> None:
    run = OnMeta(None, **config) if schedule is None else after_first_step(windowed(schedule, 0, 3), **config)
    run.at(0, 2).step()


def test_running_statistics_stay_on_the_device() -> None:
    statistic = "{class: Pruner, structure: Filters, weights: conv1.weight, criterion: running_feature_map"
    text = f"version: 2\npolicies:\n  - pruner: {statistic}, rate: {{events: 0.5}}}}\n"
    run = after_first_step(windowed(text, 0, 3))
    run.at(1, 5).step()  # every tenth step
    [memory] = run.session.events.memory.values()
    assert {value.device for value in memory.running.values()} == {META}


def test_control_a_threshold_on_filters_looks_for_their_companions_on_the_host() -> None:
    run = OnMeta(windowed(regularizer(f"{LASSO}, threshold_criteria: Max"), 0, 3))
    with pytest.raises(HostSync, match="from the device to the CPU"):
        run.at(0, 2).step()


def test_the_masks_of_companions_lie_on_the_device() -> None:
    run = OnMeta(windowed(regularizer(f"{LASSO}, threshold_criteria: Max"), 0, 3))
    [ctx] = run.session.events._contexts.values()
    found = companions(ctx, (), {"conv1.weight": torch.tensor([True, False, False, False])})
    devices = {name: keep.device for name, keep in found.items()}
    assert devices == dict.fromkeys(("conv1.bias", "bn1.weight", "bn1.bias"), META)


def test_on_a_device_the_loss_is_read_in_every_fiftieth_step() -> None:
    run = OnMeta(None)
    for step in (49, 51):
        run.at(0, step).step()
    with pytest.raises(HostSync, match="first_bad"):
        run.at(0, 50).step()


def test_in_a_loop_of_ones_own_a_step_does_not_make_the_host_wait() -> None:
    model = rig.network().to(META)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = {"version": 2, "regularizers": {"r": {"class": "L1Regularizer", "reg_regims": {"fc*.weight": 1e-3}}}}
    schedule["policies"] = [{"regularizer": {"instance_name": "r"}}]
    [(images, labels)] = MetaFeed()._batches(0, 1)
    with Answers():
        session = compressor.attach(
            schedule, model, optimizer, epochs=2, steps_per_epoch=2, sample_input=images, clip_norm=1
        )
    with session.epoch(0):
        for _ in range(2):
            with no_host_sync(), session.step() as step:
                step.backward(torch.nn.functional.cross_entropy(model(images), labels))


def test_batches_that_are_augmented_on_the_device_do_not_make_the_host_wait() -> None:
    images = InMemory(torch.zeros(12, 3, 16, 16, dtype=torch.uint8), torch.zeros(12, dtype=torch.int64))
    data = DataSet("d", images, images, ("a",), (3, 16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    config = DataConfig.model_validate({"name": "d", "batch": 4, "validation": 0, "augment": ["crop", "flip"]})
    batches = DataFeed(data, config, 0, META).train(0, 0)
    next(batches)  # the set is copied once, and the order once an epoch
    with no_host_sync():
        found = next(batches)
    assert [tensor.device for tensor in found] == [META, META]


@pytest.mark.parametrize("meters", [Meters(META), ClassMeters(META, list("abcdefg"))])
def test_a_batch_of_evaluation_is_counted_on_the_device(meters: Meters) -> None:
    with no_host_sync():
        meters.add(torch.zeros(8, 7, device=META), torch.zeros(8, dtype=torch.int64, device=META))
        with pytest.raises(HostSync):
            meters.means()


def host(tensor: Tensor) -> Tensor:
    return torch.ones(tensor.shape)


MISTAKES = {
    "a number": lambda x: x.sum().item(),
    "a choice": lambda x: bool((x > 0).any()),
    "a list": lambda x: x.tolist(),
    "an array": lambda x: x.numpy(),
    "a comparison": lambda x: torch.equal(x, x),
    "places": lambda x: x.nonzero(),
    "a mask as index": lambda x: x[x > 0],
    "a mask as index that is written to": lambda x: x.__setitem__(x > 0, 0.0),
    "the CPU's tensor in a sum": lambda x: x + host(x),
    "the CPU's tensor in a product in place": lambda x: x.mul_(host(x)),  # `meta` alone lets it pass
    "the CPU's tensor in a matrix product": lambda x: x @ host(x).T,  # and this, too
    "the CPU's indices": lambda x: x[torch.tensor([0, 1])],
    "a copy to the device": lambda x: host(x).to(META),
    "a copy in place": lambda x: x.copy_(host(x)),
    "a copy from the device": lambda x: x.cpu(),
    "numbers that are copied": lambda x: torch.tensor([1.0, 2.0], device=META),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_control_a_mistake_is_found(mistake: Any) -> None:
    with pytest.raises((HostSync, RuntimeError)), no_host_sync():
        mistake(torch.zeros(3, 4, device=META))


def test_what_does_not_wait_is_not_refused() -> None:
    x = torch.zeros(3, 4, device=META)
    with no_host_sync():
        x.masked_fill_(x > 0, 0.0).mul_(torch.tensor(2.0)).add_(torch.full((4,), 0.5, device=META))
        torch.where(x > 0, x, 0.0)
        torch.zeros(4).to(META, non_blocking=True)


def test_a_proximal_step_after_clipping_is_the_same_where_its_size_stays_on_the_device() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.5, -0.25, 0.0625, -1.5]))
    view = OptimizerView(torch.optim.SGD([weight], lr=0.5), {"w": weight})
    view.clipped = torch.tensor(0.3)
    size = view.proximal_step(weight)
    assert size == 0.5 * float(torch.tensor(0.3))
    there = view.clipped.double() * 0.5
    ours, theirs = weight.detach().clone(), weight.detach().clone()
    _soft_threshold(ours, size, 0.7)
    _soft_threshold(theirs, there, 0.7)
    assert torch.equal(ours, theirs)
    assert not torch.signbit(theirs[2:3]).any()
    view.clipped = torch.ones((), device=META)
    assert isinstance(view.proximal_step(weight), Tensor)


def test_the_deviation_of_kept_weights_without_taking_them_out() -> None:
    class Elsewhere(Tensor):
        """A tensor of the CPU that says that it is elsewhere."""

        device = torch.device("cuda")  # type: ignore[assignment]

    weight, keep = torch.tensor([1.0, 2.0, 50.0, 4.0]), torch.tensor([True, True, False, True])
    expected = math.sqrt(((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 2)  # of 1, 2 and 4
    for found in (deviation(weight, keep), deviation(weight.as_subclass(Elsewhere), keep)):
        assert float(found) == pytest.approx(expected, rel=1e-6)
    one = torch.tensor([True, False, False, False])
    assert float(deviation(weight, one)) == float(deviation(weight.as_subclass(Elsewhere), one)) == 0.0
