"""What a step costs under each registered component, beside the bare loop, and what the begin of an epoch costs.

    python -m benchmarks.components [--blocks 7] [--steps 2] [--only NAME] [--small]

Each component has its own example as schedule, in force from the first epoch on, over a small network with the names
that examples select. The components of one section take turns with the bare loop, which is measured twice: `again` is
its ratio to itself. Time is the process's CPU time on one thread. New components are measured without a change here.
"""

import argparse
import copy
import time
from collections import OrderedDict
from typing import Any

import torch
import yaml
from torch import nn

from benchmarks.measuring import Figure, Step, milliseconds, ratio, take_turns
from benchmarks.step_overhead import bare, trainer_of
from compressor.component import Component
from compressor.policies.policy import Policy
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.registry import components

SECTIONS = ("pruners", "regularizers", "lr_schedulers", "gates", "extensions", "quantizers", "policies")
CONFIG = {
    "model": {"name": "benchmark"},
    "data": {"name": "benchmark"},
    "optimizer": {"name": "sgd", "lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4},
    "epochs": 1000,
}
IMAGES, WIDTHS, CLASSES, BATCH = (1, 28, 28), (32, 64, 256), 10, 32


def in_section(section: str) -> dict[str, type[Component]]:
    """The components of a section by name; of the policies those that are their own component."""
    if section != "policies":
        return dict(components(section))
    own = components(section).items()
    return {name: cls for name, cls in own if issubclass(cls, Policy) and cls.component is None}


def network(images: tuple[int, int, int], widths: tuple[int, int, int]) -> nn.Sequential:
    """The names that examples select: conv1, conv2, fc1, fc2; `widths`: of conv1, conv2 and fc1."""
    first, second, third = widths
    side = ((images[1] - 2) // 2 - 2, (images[2] - 2) // 2 - 2)
    layers = [
        *[("conv1", nn.Conv2d(images[0], first, 3)), ("bn1", nn.BatchNorm2d(first)), ("relu1", nn.ReLU())],
        *[("pool1", nn.MaxPool2d(2)), ("conv2", nn.Conv2d(first, second, 3)), ("relu2", nn.ReLU())],
        *[("flatten", nn.Flatten()), ("fc1", nn.Linear(second * side[0] * side[1], third)), ("relu3", nn.ReLU())],
        *[("drop", nn.Dropout(0.2)), ("fc2", nn.Linear(third, CLASSES))],
    ]
    return nn.Sequential(OrderedDict(layers))


def schedule(component: type[Component], first: int, end: int, steps: int) -> str:
    """The component's example, with every policy in force from epoch `first` up to `end`, of so many steps each."""
    faults = Faults()
    data: Any = parse("example", component.example, faults).data
    faults.raise_any()
    for policy in data["policies"]:
        by_step = any(key in policy for key in ("starting_step", "ending_step", "step_frequency"))
        for key in ("epochs", "frequency", "step_frequency"):
            policy.pop(key, None)
        unit, scale = ("step", steps) if by_step else ("epoch", 1)
        policy.update({f"starting_{unit}": first * scale, f"ending_{unit}": end * scale})
    return str(yaml.safe_dump(data, sort_keys=False))


def measure(section: str, blocks: int, steps: int, only: str = "", *, small: bool = False) -> list[Figure]:
    """The figures of one section; `small`: of a network that is too small to say anything, to try whether it works."""
    torch.manual_seed(0)
    images, widths = ((1, 12, 12), (4, 6, 10)) if small else (IMAGES, WIDTHS)
    batch = torch.randn(BATCH, *images), torch.randint(0, CLASSES, (BATCH,))
    plain = network(images, widths).train()
    variants: dict[str, Step] = {
        name: bare(copy.deepcopy(plain), *batch, config=CONFIG) for name in ("dense", "dense again")
    }
    begins: dict[str, float] = {}
    for name, cls in in_section(section).items():
        if only not in name:
            continue
        text = schedule(cls, 0, 1000, 1000)
        more: dict[str, Any] = {"config": CONFIG, "held_out": True, "allows_empty_layers": True}
        trainer = trainer_of(text, copy.deepcopy(plain), batch, 1000, **more)
        began = time.process_time()
        trainer.session.events.fire("on_epoch_begin")
        begins[name] = 1000 * (time.process_time() - began)
        variants[name] = lambda step=trainer.step: step(*batch).item()
    if not begins:
        return []
    taken = take_turns(variants, blocks, steps)
    dense = taken["dense"]
    again, ms = ratio(taken["dense again"], dense), milliseconds(dense)
    return [
        Figure(
            name,
            ratio(taken[name], dense),
            again=again,
            note=f"{milliseconds(taken[name]) - ms:+.2f} ms on {ms:.1f}; the epoch's begin {begin:.1f} ms",
        )
        for name, begin in begins.items()
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--steps", type=int, default=2)
    arguments.add_argument("--small", action="store_true", help="a network too small to say anything")
    arguments.add_argument("--only", default="", help="only components whose name has this in it")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"{'':50} {'ratio':>6} {'again':>6}")
    for section in SECTIONS:
        for figure in measure(section, given.blocks, given.steps, given.only, small=given.small):
            print(f"{figure.what:50} {figure.value:6.3f} {figure.again:6.3f}   {figure.note}", flush=True)


if __name__ == "__main__":
    main()
