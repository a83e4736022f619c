"""What a training step costs under each policy, as a ratio to a bare PyTorch loop.

    python -m benchmarks.step_overhead [--blocks 7] [--steps 2] [--only L0]

torchvision's resnet18 at 64 pixels, batch 32, SGD with momentum, one thread. Every variant trains its own copy of the
same network on the same batch; the variants take turns within a block, in an order that rotates. Time is the process's
CPU time, a ratio is taken within a block, and the median over the blocks is printed. `dense again` is the bare loop a
second time: its distance from 1 is the noise. Under each of ours stand its peers (`benchmarks.peers`): the bare loop
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
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torchvision
from torch import nn

from benchmarks.peers import NO_HOOKS, PEERS, Hooks
from compressor.config import Config
from compressor.context.data import Data
from compressor.gates.dropconnect import DropConnect
from compressor.gates.gate import Site
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import read
from compressor.session.session import Session
from compressor.sparsity import prunable
from compressor.timing.clock import Clock
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

Step = Callable[[], object]


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
    """The same batch in each step of an epoch, and nothing to validate."""

    def __init__(self, batch: tuple[torch.Tensor, torch.Tensor], steps: int) -> None:
        self.steps_per_epoch, self._batch = steps, batch

    def train(self, epoch: int, first_step: int) -> Batches:
        return iter([self._batch] * self.steps_per_epoch)

    def validation(self) -> Batches:
        return iter(())

    test = validation


def bare(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, hooks: Hooks = NO_HOOKS) -> Step:
    """The loop everybody writes, with the loss and hits that everybody counts."""
    optimizer = optimizers.build(network, Config.model_validate(CONFIG).optimizer)
    criterion = nn.CrossEntropyLoss()

    def step() -> None:
        hooks.before_forward()
        logits = network(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        loss.item()
        logits.argmax(1).eq(labels).sum().item()

    return step


def trainer_of(
    text: str, network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], steps: int, *observers: Observer
) -> Trainer:
    """A trainer under the schedule `text`."""
    faults = Faults()
    schedule = read(parse("benchmark", text, faults), faults)
    faults.raise_any()
    config = Config.model_validate(CONFIG)
    bound = schedule.bind(network, config.epochs, faults)
    faults.raise_any()
    data = Data(batches=lambda count: [batch] * count)
    optimizer = optimizers.build(network, config.optimizer)
    session = Session(network, optimizer, bound.policies, Clock(config.epochs, steps), data)
    feed = _Feed(batch, steps)
    return Trainer(session, feed, config, torch.device("cpu"), observers, lambda kind: None, lambda: None)


def ours(text: str, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, records: bool = True) -> Step:
    """A trainer's step under the schedule `text`; `records`: changes of masks are counted."""
    trainer = trainer_of(text, network, (images, labels), 1000)
    if not records:
        trainer.session.churn.note = lambda policy: None  # type: ignore[method-assign]
    network.train()
    trainer.session.events.fire("on_epoch_begin")
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


def peers(name: str, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Step]:
    """The steps of those that stand under our `name`."""
    steps = {}
    for peer, ready in PEERS.get(name, {}).items():
        own = copy.deepcopy(network)
        try:
            hooks = ready(own, images)
        except ImportError as error:
            print(f"left out: {peer} ({error}): pip install 'compressor[bench]'")
            continue
        assert all(module.training for module in own.modules()), f"{peer} leaves the network in eval mode"
        steps[f"  {peer}"] = bare(own, images, labels, hooks)
    return steps


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


def compare(variants: Mapping[str, Step], blocks: int, steps: int) -> None:
    """Print the variants' CPU time as ratios to the first one's."""
    for step in variants.values():
        step()
    names = list(variants)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for block in range(blocks):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            began = time.process_time()
            for _ in range(steps):
                variants[name]()
            taken[name].append((time.process_time() - began) / steps)
    print(f"{'':60} {'ratio':>6} {'budget':>6}   ms a step ({blocks} blocks of {steps} steps)")
    for name in names:
        ratios = [own / first for own, first in zip(taken[name], taken[names[0]], strict=True)]
        budget = f"{BUDGETS[name]:6.2f}" if name in BUDGETS else " " * 6
        print(f"{name:60} {statistics.median(ratios):6.3f} {budget}   {1000 * statistics.median(taken[name]):.1f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--steps", type=int, default=2)
    arguments.add_argument("--only", default="", help="only those of ours whose name has this in it, and their peers")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.randn(32, 3, 64, 64), torch.randint(0, 1000, (32,))
    network = torchvision.models.resnet18(weights=None).train()
    variants: dict[str, Step] = {
        "dense": bare(copy.deepcopy(network), images, labels),
        "dense again": bare(copy.deepcopy(network), images, labels),
    }
    for name, text in SCHEDULES.items():
        if given.only in name:
            variants[name] = ours(text, copy.deepcopy(network), images, labels)
            variants.update(peers(name, network, images, labels))
        if name == "element mask in force" and given.only in name:
            for floor in floors(network):
                own = copy.deepcopy(network)
                variants[f"  floor: {floor}"] = bare(own, images, labels, floors(own)[floor])
    if len(variants) > 2:
        compare(variants, given.blocks, given.steps)
    if given.only in "DropConnect, local, beside its linear layer":
        compare(linear_layers(), given.blocks, 20 * given.steps)
    if given.only in "recording":
        with tempfile.TemporaryDirectory() as folder:
            for pair in recording(network, images, labels, Path(folder)):
                compare(pair, given.blocks, given.steps)


if __name__ == "__main__":
    main()
