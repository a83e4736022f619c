"""What each of two processes does with `compressor.attach` in a loop of its own."""

import io
import runpy
from collections.abc import Mapping, Sequence
from contextlib import chdir, nullcontext, redirect_stdout
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import alone, digest, unlike

from compressor.attached import attach
from compressor.errors import CompressError
from compressor.session import Step

EPOCHS, STEPS, BATCH = 4, 3, 8
SCHEDULE: dict[str, Any] = {
    "version": 2,
    "gates": {"l0": {"class": "HardConcreteL0", "weights": ["5.weight"], "lambda": 0.1}},
    "policies": [
        {
            "pruner": {
                "class": "Pruner",
                "criterion": "taylor",
                "structure": "Filters",
                "weights": ["0.weight"],
                "rate": {"sparsity": 0.5},
                "batches": 2,
            },
            "epochs": [1],
        },
        {
            "pruner": {
                "class": "BernoulliFilterPruner",
                "group_type": "Filters",
                "desired_sparsity": 0.5,
                "weights": ["2.weight"],
            },
            "epochs": [2],
        },
        {"lr_scheduler": {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.5}},
        {"regularizer": {"class": "L1Regularizer", "reg_regims": {"2.weight": 0.01}}},
    ],
}
THINS: dict[str, Any] = {
    "version": 2,
    "policies": [
        {**SCHEDULE["policies"][0]},
        {"extension": {"class": "FilterRemover"}, "epochs": [1]},
    ],
}  # fmt: skip
GATED = {**SCHEDULE, "policies": [{"gate": {"instance_name": "l0"}}, *SCHEDULE["policies"]]}


@cache
def batches(seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Whole batches of images with labels."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.randn(count, BATCH, 1, 8, 8, generator=draws, dtype=torch.float64)
    return list(zip(images, torch.randint(0, 3, (count, BATCH), generator=draws), strict=True))


class Loop:
    """A loop of a user's own, on the processes of a group; each has a part of every batch."""

    def __init__(self, schedule: Mapping[str, Any], group: Any = None, *, plain: bool = False) -> None:
        """`plain`: attach is given the model, and the loop averages the gradients itself."""
        self.group, self.size, self.rank = group, dist.get_world_size(group), dist.get_rank(group)
        torch.manual_seed(self.rank)  # others than rank 0 begin with other weights, and take its weights
        self.model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
        ).double()
        self.network: nn.Module | None = self.model if plain else self.wrapped()
        self.plain, self.said = plain, list[str]()
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.session = attach(
            schedule,
            self.network or self.model,
            optimizer,
            epochs=EPOCHS,
            steps_per_epoch=STEPS,
            sample_input=batches(0, 1)[0][0][: BATCH // self.size],
            calibration=batches(1, 2),
            validation=batches(2, 1),
            seed=5,
            say=self.said.append,
        )
        self.states: list[Any] = []

    def wrapped(self) -> nn.Module:
        """DistributedDataParallel, for the present shapes."""
        return DistributedDataParallel(self.model, process_group=self.group)

    def run(self, end: int = EPOCHS, *, wraps: bool = True, parts: int = 1) -> "Loop":
        """Train up to epoch `end`, each batch in `parts`. `wraps`: again, where channels were removed."""
        session, removals = self.session, 0
        share = BATCH // self.size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        for number in range(session.clock.epoch, end):
            with session.epoch(number):
                for images, labels in batches(10 + number, STEPS):
                    with session.step() as step:
                        if wraps and session.removals != removals:
                            self.network, removals = None, session.removals
                            self.network = self.wrapped()
                        assert self.network is not None
                        self.backward(step, images[mine].chunk(parts), labels[mine].chunk(parts))
                        if self.plain:
                            for parameter in self.model.parameters():
                                assert parameter.grad is not None
                                dist.all_reduce(parameter.grad, group=self.group)
                                parameter.grad /= self.size
                    self.states.append(self.state())
            self.states.append(self.state())
        return self

    def backward(self, step: Step, images: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """The gradients of some parts, which are reduced with those of the last one."""
        assert self.network is not None
        for number, (part, truth) in enumerate(zip(images, labels, strict=True), 1):
            waits = number < len(images) and isinstance(self.network, DistributedDataParallel)
            with self.network.no_sync() if waits else nullcontext():  # type: ignore[operator]
                step.backward(nn.functional.cross_entropy(self.network(part), truth), share=1 / len(images))

    def state(self) -> Any:
        """What there is now."""
        state = self.session.state_dict()
        del state["rng"], state["draws"]
        return {"model": {name: value.clone() for name, value in self.model.state_dict().items()}, **state}


def digests(schedule: Mapping[str, Any], *, plain: bool = False) -> list[str]:
    """A digest of the state after each step."""
    return [digest(state) for state in Loop(schedule, plain=plain).run().states]


def differs_from_one(schedule: Mapping[str, Any], *, parts: int = 1) -> str | None:
    """The first difference to a loop of rank 0 alone."""
    group, both = alone(), Loop(schedule).run(parts=parts)
    if dist.get_rank():
        return None
    one = Loop(schedule, group).run()
    places = (place for pair in zip(both.states, one.states, strict=True) for place in unlike(*pair, ""))
    return next(places, None)


def what_is_said() -> list[str]:
    """The messages of a run."""
    return Loop(THINS).run().said


def without_wrapping() -> str:
    """What a loop is told that does not wrap its model again."""
    try:
        Loop(THINS).run(wraps=False)
    except CompressError as error:
        return str(error)
    return ""


def resumed_elsewhere(schedule: Mapping[str, Any]) -> list[str | None]:
    """The differences to an unbroken run of runs that began on one process, and went on on two, and the reverse."""
    group = alone()
    whole = Loop(schedule).run()
    half = Loop(schedule).run(2)
    saved = [(half.model.state_dict(), half.session.state_dict())]
    box: list[Any] = [None]
    if dist.get_rank() == 0:
        first = Loop(schedule, group).run(2)
        again = Loop(schedule, group)
        _load(again, *saved[0])
        box = [[(first.model.state_dict(), first.session.state_dict()), again.run().states[-1]]]
    dist.broadcast_object_list(box, src=0)
    other = Loop(schedule)
    _load(other, *box[0][0])
    return [next(unlike(state, whole.states[-1], ""), None) for state in (box[0][1], other.run().states[-1])]


def _load(loop: Loop, model: Any, session: Any) -> None:
    loop.network = None
    loop.session.load_state_dict(session)
    loop.model.load_state_dict(model)
    loop.network = loop.wrapped()


def example(path: str, folder: str) -> str:
    """What an example prints that begins and ends its own processes; here they are there already."""
    text = io.StringIO()
    keep = patch.multiple(dist, init_process_group=lambda kind: None, destroy_process_group=lambda: None)
    with keep, redirect_stdout(text), chdir(folder):
        runpy.run_path(path, run_name="__main__")
    return text.getvalue()
