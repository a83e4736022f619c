"""What each of two processes does: it trains a component on its half of every batch, as a trainer with DDP does."""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import helpers
import rig
import torch
import torch.distributed as dist
from rig import BATCH, EPOCHS, Feed, Moment
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from compressor.config import Config
from compressor.evaluating import evaluating
from compressor.schedule.faults import Faults
from compressor.session import rng
from compressor.session.start import start
from compressor.thinning import Cut
from compressor.training import optimizers
from compressor.training.meters import Meters
from compressor.world import Processes

SEED, UNTIL = 7, (3, 1)
"""The window has epochs 0, 1 and 2; a step follows."""

State = dict[str, Any]


class Doubles(Feed):
    """The same images in double precision."""

    def _batches(self, seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
        return [(images.double(), labels) for images, labels in super()._batches(seed, count)]


class Run:
    """One run up to `until`. `states` has what there was after every step and every epoch.

    `exact`: without dropout, with frozen batch norm, in double precision, so that two halves are the same as a whole.
    `reduces`: gradients are averaged over the processes.
    """

    def __init__(
        self,
        schedule: str,
        world: Processes,
        *,
        exact: bool = False,
        reduces: bool = True,
        until: Moment = UNTIL,
        **config: Any,
    ) -> None:
        whole = {"model": {"name": "rig"}, "data": {"name": "rig"}, "optimizer": rig.SGD, "epochs": EPOCHS, **config}
        self._world, self._exact, self._until = world, exact, until
        self._reduces = reduces and world.size > 1
        rng.seed_all(0)
        self.model = rig.network()
        if exact:
            self.model.double()
            for module in self.model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        settings, faults = Config.model_validate(whole), Faults()
        bound = rig.read(schedule).bind(self.model, EPOCHS, faults)
        faults.raise_any()
        self._feed, optimizer = Doubles() if exact else Feed(), optimizers.build(self.model, settings.optimizer)
        self.session = start(
            settings, self.model, optimizer, bound.policies, self._feed, lambda text: None, world=world
        )
        self.session.data.evaluate = lambda part: self._figures()
        self.session.network.when_cut(self._cut)
        self._forward = self._wrapped()
        self.states: dict[Moment, State] = {}

    def _wrapped(self) -> nn.Module:
        if not self._reduces:
            return self.model
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # the name that broadcast_buffers will have is not in torch 2.8
            return DistributedDataParallel(
                self.model, broadcast_buffers=False, find_unused_parameters=True, init_sync=False
            )

    def _cut(self, cut: Cut) -> None:
        del self._forward  # the old one follows gradients of the old shapes

    def _figures(self) -> dict[str, float]:
        meters = Meters(torch.device("cpu"))
        with self.session.as_shipped(), self.session.own_inference(), torch.no_grad(), evaluating(self.model):
            for images, labels in self._feed.validation():
                meters.add(self.model(images), labels)
        return meters.means()

    def _train_mode(self) -> None:
        self.model.train()
        if self._exact:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def run(self) -> "Run":
        """Train up to the end."""
        session, world, share = self.session, self._world, BATCH // self._world.size
        mine = slice(world.rank * share, (world.rank + 1) * share)
        for number in range(EPOCHS):
            self._train_mode()
            with session.epoch(number) as epoch:
                for place, (images, labels) in enumerate(self._feed.train(number, 0)):
                    torch.default_generator.manual_seed(world.seed_of_step(number, place) or 0)
                    with session.step() as step:
                        if not hasattr(self, "_forward"):
                            self._forward = self._wrapped()
                        logits = self._forward(images[mine])
                        step.backward(nn.functional.cross_entropy(logits, labels[mine]))
                    self._look((number, place + 1))
                    if (number, place + 1) == self._until:
                        return self
                epoch.validation = self._figures()
            self._look((number + 1, 0))
        return self

    def _look(self, moment: Moment) -> None:
        state = self.session.state_dict()
        del state["rng"]  # each process has its own
        state["figures now"] = self.session.events.figures()
        self.states[moment] = helpers.copied({"model": dict(self.model.state_dict()), **state})


@cache
def alone() -> Any:
    """A group of rank 0 alone."""
    return dist.new_group([0])


Digests = dict[Moment, dict[str, str]]
"""A digest of each part of the state, after every step."""


def digests(schedule: str, *, apart: bool = False, **how: Any) -> Digests:
    """The digests of a run; `apart`: each process has random numbers of its own."""
    return _digests(Run(schedule, Processes(SEED + (dist.get_rank() if apart else 0)), **how).run())


def _digests(run: Run) -> Digests:
    return {moment: {part: digest(value) for part, value in state.items()} for moment, state in run.states.items()}


def digest(value: Any) -> str:
    found = hashlib.sha1()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        found.update(
            value.detach().contiguous().view(torch.uint8).numpy().tobytes()
            if value.dim()
            else repr(value.item()).encode()
        )
    elif isinstance(value, Mapping):
        for key in value:
            found.update(repr(key).encode())
            _feed(found, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(found, item)
    else:
        found.update(repr(value).encode())


def halves(schedule: str, *, compares: bool = True) -> tuple[Digests, str | None]:
    """The digests of an exact run, and its first difference to one of rank 0 alone on the whole batches, if any."""
    first, both = alone(), Run(schedule, Processes(SEED), exact=True).run()
    if dist.get_rank() or not compares:
        return _digests(both), None
    one = Run(schedule, Processes(SEED, first), exact=True).run()
    assert list(one.states) == list(both.states)
    places = (
        f"{moment}: {place}" for moment in one.states for place in unlike(both.states[moment], one.states[moment], "")
    )
    return _digests(both), next(places, None)


def unlike(ours: Any, theirs: Any, place: str) -> Iterator[str]:
    """Where two states differ by more than rounding in double precision; masks and all that is counted are equal."""
    if isinstance(ours, Tensor) and ours.is_floating_point():
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-9, atol=1e-10, equal_nan=True):
            yield f"{place}: {ours} and {theirs}"
    elif isinstance(ours, Tensor):
        if not torch.equal(ours, theirs):
            yield f"{place}: {ours} and {theirs}"
    elif isinstance(ours, Mapping):
        if list(ours) != list(theirs):
            yield f"{place}: {list(ours)} and {list(theirs)}"
            return
        for key in ours:
            yield from unlike(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            yield f"{place}: {ours} and {theirs}"
            return
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from unlike(one, other, f"{place}[{number}]")
    elif isinstance(ours, float):
        if not math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9):
            yield f"{place}: {ours} and {theirs}"
    elif ours != theirs:
        yield f"{place}: {ours} and {theirs}"
