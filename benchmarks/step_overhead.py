"""What a training step costs under each policy, as a ratio to a bare PyTorch loop.

    python -m benchmarks.step_overhead [--blocks 7] [--steps 2] [--only L0]

torchvision's resnet18 at 64 pixels, batch 32, SGD with momentum, one thread. Every variant trains its own copy of the
same network on the same batch; the variants take turns within a block, in an order that rotates. Time is the process's
CPU time, a ratio is taken within a block, and the median over the blocks is printed. `again` is the bare loop beside
itself: its distance from 1 is the noise. Most schedules add less than the noise of a step: what they take alone is
measured in a step without arithmetic, and the ratio that a budget is for is 1 + that time / the dense step. Under each
of ours stand its peers (`benchmarks.peers`): the bare loop
with another package at the same work. Those that are not installed are named and left out. DropConnect is measured
against the linear layer (800 x 800, batch 128) that it is put on, forward and backward pass alone. Where a budget is
not met, a row `floor` shows what the least work costs: the bare loop with each weight read and written once after the
step; the matrix products of DropConnect alone, six where a linear layer has three. What a run records
of its masks and weights (layers.jsonl) is measured against the same step, and the same epoch of four steps, without it.
"""

import argparse
import copy
import itertools
import statistics
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from benchmarks.measuring import Figure, Step, milliseconds, ratio, take_turns
from benchmarks.peers import NO_HOOKS, PEERS, Hooks
from compressor.config import Config
from compressor.gates.dropconnect import DropConnect
from compressor.gates.gate import Site
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import read
from compressor.session.start import start
from compressor.sparsity import prunable
from compressor.training import optimizers
from compressor.training.evaluation import Batches
from compressor.training.observers import LayersFile, Observer
from compressor.training.trainer import Trainer

BUDGETS = {
    "no policy": 1.00,
    "element mask in force": 1.01,
    "AGP, masks every mini-batch": 1.10,
    "AGP over filters, masks every mini-batch": 1.10,
    "L1 subgradient, conv + fc": 1.03,
    "L1 proximal, conv + fc": 1.01,
    "group lasso over filters": 1.02,
    "network surgery, masks every mini-batch": 1.06,
    "L0 gates on filters": 1.05,
    "DropConnect, local, beside its linear layer": 1.80,
    "recording, masks every mini-batch": 1.01,
    "recording, an epoch of four steps": 1.01,
}

SCHEDULES = {
    "no policy": "{version: 2, policies: [{pruner: {class: Pruner, weights: '*', rate: {sparsity: 0.8}},"
    " epochs: [9]}]}",
    "element mask in force": "{version: 2, policies: [{pruner: {class: Pruner, weights: '*', rate: {sparsity: 0.8}},"
    " epochs: [0]}]}",
    "AGP, masks every mini-batch": "{version: 2, policies: [{pruner: {class: AutomatedGradualPruner, weights: '*',"
    " initial_sparsity: 0.5, final_sparsity: 0.8, args: {mini_batch_pruning_frequency: 1}}, ending_epoch: 10}]}",
    "AGP, masks every epoch": "{version: 2, policies: [{pruner: {class: AutomatedGradualPruner, weights: '*',"
    " initial_sparsity: 0.5, final_sparsity: 0.8}, ending_epoch: 1000}]}",
    "AGP over filters, masks every mini-batch": "{version: 2, policies: [{pruner: {group_type: Filters,"
    " class: L1RankedStructureParameterPruner_AGP, weights: ['layer*.conv1.weight'], initial_sparsity: 0.5,"
    " final_sparsity: 0.8, args: {mini_batch_pruning_frequency: 1}}, ending_epoch: 10}]}",
    "L1 subgradient, conv + fc": "{version: 2, policies: [{regularizer: {class: L1Regularizer,"
    " reg_regims: {'*': 1e-5}}}]}",
    "L1 proximal, conv + fc": "{version: 2, policies: [{regularizer: {class: L1Regularizer, proximal: true,"
    " reg_regims: {'*': 1e-5}}}]}",
    "group lasso over filters": "{version: 2, policies: [{regularizer: {class: GroupLassoRegularizer,"
    " reg_regims: {'type:Conv2d': [1e-4, Filters]}}}]}",
    "network surgery, masks every mini-batch": "{version: 2, policies: [{gate: {class: NetworkSurgery, weights: '*',"
    " c: {'*': 1.0}, gamma: 0.0, stop_step: 100000}}]}",
    "L0 gates on filters": "{version: 2, policies: [{gate: {class: HardConcreteL0, structure: Filters, lambda: 0.1,"
    " l2: 1e-4, weights: ['layer*.conv1.weight']}}]}",
    "double copies (Distiller's splicing), masks every mini-batch": "{version: 2, policies: [{pruner:"
    " {class: SplicingPruner, sensitivities: {'*': 0.5}, low_thresh_mult: 0.9, hi_thresh_mult: 1.1,"
    " args: {use_double_copies: true, mini_batch_pruning_frequency: 1}}, ending_epoch: 10}]}",
}

CONFIG = {
    "model": {"name": "resnet18"},
    "data": {"name": "digits", "batch": 32},
    "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4},
    "epochs": 1000,
}

IN_FORWARD = ("L0 gates on filters",)
"""Those that act in the forward pass: what they take alone is not all."""

ROWS = (*SCHEDULES, "DropConnect, local, beside its linear layer", "recording")
"""What is measured in one go, each beside the bare loop and the bare loop again."""


def floors(network: nn.Module) -> dict[str, Hooks]:
    """What the least work of a mask in force costs after a bare step: the weights are read and written once."""
    weights = [weight.detach() for weight in prunable(network).values()]
    wide = [(weight.view(torch.int32), -(torch.rand_like(weight) > 0.8).int()) for weight in weights]

    def write() -> None:
        for weight in weights:
            weight.add_(0.0)

    def mask() -> None:
        for words, bits in wide:
            words.bitwise_and_(bits)

    return {"weights read and written": Hooks(after_step=write), "AND, masks of 4 bytes": Hooks(after_step=mask)}


class _Feed:
    """The same batch in each step of an epoch; `held_out`: it is validated on, too."""

    pace = 1.0

    def __init__(self, batch: tuple[torch.Tensor, torch.Tensor], steps: int, *, held_out: bool) -> None:
        self.steps_per_epoch, self._batch = steps, batch
        self.images, self.held_out = steps * len(batch[1]), len(batch[1]) * held_out

    def train(self, epoch: int, first_step: int) -> Batches:
        return iter([self._batch] * self.steps_per_epoch)

    def validation(self) -> Batches:
        return iter([self._batch] if self.held_out else [])

    test = validation


def bare(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    hooks: Hooks = NO_HOOKS,
    config: Mapping[str, Any] = CONFIG,
) -> Step:
    """The loop everybody writes, with the loss and hits that everybody counts; on CUDA they are summed on the device,
    where reading them would wait.
    """
    optimizer = optimizers.build(network, Config.model_validate(config).optimizer)
    criterion = nn.CrossEntropyLoss()
    sums = torch.zeros(2, device=images.device)

    def step() -> None:
        hooks.before_forward()
        logits = network(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        hits = logits.argmax(1).eq(labels).sum()
        if images.is_cuda:
            sums.add_(torch.stack([loss.detach(), hits]))
        else:
            loss.item()
            hits.item()

    return step


def trainer_of(
    text: str,
    network: nn.Module,
    batch: tuple[torch.Tensor, torch.Tensor],
    steps: int,
    *observers: Observer,
    config: Mapping[str, Any] = CONFIG,
    held_out: bool = False,
    **more: Any,
) -> Trainer:
    """A trainer under the schedule `text`, on the device of the batch; `more` is given to its session."""
    faults = Faults()
    schedule = read(parse("benchmark", text, faults), faults)
    faults.raise_any()
    settings = Config.model_validate(config)
    bound = schedule.bind(network, settings.epochs, faults)
    faults.raise_any()
    feed = _Feed(batch, steps, held_out=held_out)
    optimizer = optimizers.build(network, settings.optimizer)
    shape = tuple(batch[0].shape[1:])
    session = start(settings, network, optimizer, bound.policies, feed, lambda text: None, shape=shape, **more)
    return Trainer(session, feed, settings, batch[0].device, observers, lambda kind: None, lambda: None)


def ours(
    text: str,
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    records: bool = True,
    **more: Any,
) -> Step:
    """A trainer's step under the schedule `text`; `records`: changes of masks are counted."""
    trainer = trainer_of(text, network, (images, labels), 1000, **more)
    if not records:
        trainer.session.churn.note = lambda policy: None  # type: ignore[method-assign]
    network.train()
    trainer.session.events.fire("on_epoch_begin")
    if images.is_cuda:
        return lambda: trainer.step(images, labels)
    return lambda: trainer.step(images, labels).item()


def epochs(text: str, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, file: Path | None) -> Step:
    """A trainer's epoch of four steps; `file` is its layers.jsonl, None: nothing is recorded."""
    trainer = trainer_of(text, network, (images, labels), 4, *([LayersFile(file, 0)] if file is not None else []))
    if file is None:
        trainer.session.churn.note = lambda policy: None  # type: ignore[method-assign]
        trainer._layers = lambda epoch, by_weight: {}  # type: ignore[method-assign]
    numbers = itertools.count()
    return lambda: trainer._epoch(next(numbers))


def recording(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, folder: Path) -> list[dict[str, Step]]:
    """A step, and an epoch, without what is recorded, twice, and with it."""
    step, each = SCHEDULES["AGP, masks every mini-batch"], SCHEDULES["AGP, masks every epoch"]

    def own() -> nn.Module:
        return copy.deepcopy(network)

    return [
        {
            "AGP, masks every mini-batch, not recorded": ours(step, own(), images, labels, records=False),
            "the same again": ours(step, own(), images, labels, records=False),
            "recording, masks every mini-batch": ours(step, own(), images, labels),
        },
        {
            "AGP, an epoch of four steps, not recorded": epochs(each, own(), images, labels, None),
            "the same again": epochs(each, own(), images, labels, None),
            "recording, an epoch of four steps": epochs(each, own(), images, labels, folder / "layers.jsonl"),
        },
    ]


def peers(
    name: str, network: nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> tuple[dict[str, Step], list[str]]:
    """The steps of those that stand under our `name`, and which of them are not installed."""
    steps, missing = {}, []
    for peer, ready in PEERS.get(name, {}).items():
        own = copy.deepcopy(network)
        try:
            hooks = ready(own, images)
        except ImportError as error:
            missing.append(f"{peer} ({error})")
            continue
        assert all(module.training for module in own.modules()), f"{peer} leaves the network in eval mode"
        steps[f"{name}: {peer}"] = bare(own, images, labels, hooks)
    return steps, missing


def linear_layers() -> dict[str, Step]:
    """The forward and backward pass of a linear layer alone, twice, and under DropConnect with local sampling."""
    torch.manual_seed(0)
    network = nn.Sequential(OrderedDict(fc=nn.Linear(800, 800)))
    images, gradient = torch.randn(128, 800, requires_grad=True), torch.randn(128, 800)
    layer = network.get_submodule("fc")
    gate = DropConnect(modules=["fc"])
    site = Site("benchmark", network, {}, {"modules": ["fc"]}, 1, lambda: images, *[None] * 4)  # type: ignore[arg-type]
    installed = gate.install(site)

    def plain() -> None:
        network.zero_grad(set_to_none=True)
        layer(images).backward(gradient)

    def dropped() -> None:
        installed.before_forward()
        plain()
        installed.after_backward()

    weight = layer.weight.detach()
    given, others = images.detach(), (images.detach().square(), weight.square(), gradient.square())

    def products() -> None:
        for v, w, g in ((given, weight, gradient), others):
            v @ w.T, g @ w, g.T @ v
        torch.randn_like(gradient)

    return {
        "linear layer": plain,
        "linear layer again": plain,
        "DropConnect, local, beside its linear layer": dropped,
        "  floor: its six matrix products, and its normal draws": products,
    }


def figures(variants: Mapping[str, Step], blocks: int, steps: int) -> list[Figure]:
    """Measure what each variant's step costs beside the first one's; the second is the first again."""
    return compared(take_turns(variants, blocks, steps))


def compared(taken: Mapping[str, Sequence[float]]) -> list[Figure]:
    """What each variant's step costs beside the first one's, by the seconds taken; the second is the first again."""
    first, second, *others = taken
    again = ratio(taken[second], taken[first])
    dense = milliseconds(taken[first])
    found = []
    for name in others:
        note = f"{milliseconds(taken[name]):.1f} ms beside {dense:.1f}"
        found.append(Figure(name, ratio(taken[name], taken[first]), "x", BUDGETS.get(name), again=again, note=note))
    return found


def measure(name: str, blocks: int, steps: int, *, small: bool = False) -> tuple[list[Figure], list[str]]:
    """The figures of one of `ROWS` and of its peers, and the peers that are not installed.

    `small`: few and small images, to try whether it works.
    """
    torch.manual_seed(0)
    if name.startswith("DropConnect"):
        return figures(linear_layers(), blocks, 20 * steps), []
    count, side = (4, 32) if small else (32, 64)
    images, labels = torch.randn(count, 3, side, side), torch.randint(0, 1000, (count,))
    network = torchvision.models.resnet18(weights=None).train()
    if name == "recording":
        with tempfile.TemporaryDirectory() as folder:
            pairs = recording(network, images, labels, Path(folder))
            return [figure for pair in pairs for figure in figures(pair, blocks, steps)], []
    beside, missing = peers(name, network, images, labels)
    if name == "element mask in force":
        for floor in floors(network):
            own = copy.deepcopy(network)
            beside[f"  floor: {floor}"] = bare(own, images, labels, floors(own)[floor])
    variants: dict[str, Step] = {
        "dense": bare(copy.deepcopy(network), images, labels),
        "dense again": bare(copy.deepcopy(network), images, labels),
        name: ours(SCHEDULES[name], copy.deepcopy(network), images, labels),
        **beside,
    }
    taken = take_turns(variants, blocks, steps)
    found = compared(taken)
    if name not in IN_FORWARD:
        dense = milliseconds(taken["dense"])
        own, *others = found
        whole = replace(own, what=f"{name}: whole step", budget=None)
        found = [alone(name, network, images, labels, dense, blocks), whole, *others]
    return found, missing


def alone(
    name: str, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, dense: float, blocks: int
) -> Figure:
    """What a schedule adds to a step of `dense` milliseconds: measured without a forward and a backward pass, of which
    the noise is larger than most of what is added.
    """
    plain = bare(hollow(network), images, labels)
    own = ours(SCHEDULES[name], hollow(network), images, labels)
    taken = take_turns({"bare": plain, "again": plain, "ours": own}, 2 * blocks, 5)
    more, noise = (
        1000 * statistics.median(a - b for a, b in zip(taken[key], taken["bare"], strict=True))
        for key in ("ours", "again")
    )
    note = f"{more:.1f} ms alone (the bare loop beside itself {noise:+.1f}), in a step of {dense:.0f}"
    return Figure(name, 1 + more / dense, "x", BUDGETS.get(name), again=1 + noise / dense, note=note)


def hollow(network: nn.Module) -> nn.Module:
    """A copy without arithmetic in its passes: logits are zeros, and each parameter has a gradient of zeros."""
    own = copy.deepcopy(network)

    def forward(images: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images), 1000) + 0 * sum(one.sum() for one in own.parameters())

    own.forward = forward
    return own


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--steps", type=int, default=2)
    arguments.add_argument("--only", default="", help="only those of ours whose name has this in it, and their peers")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"{'':70} {'ratio':>6} {'again':>6} {'budget':>6}   ({given.blocks} blocks of {given.steps} steps)")
    for name in ROWS:
        if given.only not in name:
            continue
        found, missing = measure(name, given.blocks, given.steps)
        for figure in found:
            budget = "" if figure.budget is None else f"{figure.budget:.2f}"
            print(f"{figure.what:70} {figure.value:6.3f} {figure.again:6.3f} {budget:>6}   {figure.note}", flush=True)
        for peer in missing:
            print(f"left out: {peer}: pip install 'compressor[bench]'")


if __name__ == "__main__":
    main()
