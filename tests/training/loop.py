"""Any network on given batches under any schedule and settings: the real trainer, watched at each step."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from helpers import copied, reread
from torch import Tensor, nn

from compressor.config import Config
from compressor.schedule import grammar
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import BoundSchedule, view_of
from compressor.session import rng
from compressor.session.start import start
from compressor.training import optimizers
from compressor.training.observers import Observer
from compressor.training.trainer import Trainer
from compressor.training.weights import load_weights, restore_live

Batch = tuple[Tensor, Tensor]
Values = dict[str, Tensor]
Moment = tuple[int, int]
"""Finished epochs, and steps taken in the current one."""


class Feed:
    """The same batches in every epoch, unless they are a function of it."""

    def __init__(self, train: Sequence[Batch] | Callable[[int], Sequence[Batch]], validation: Sequence[Batch]) -> None:
        self._train = train if callable(train) else lambda epoch: train
        self._validation = validation
        self.steps_per_epoch = len(self._train(0))
        self.images = sum(len(labels) for _, labels in self._train(0))
        self.pace = 1.0
        self.held_out = sum(len(labels) for _, labels in validation)

    def train(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on."""
        yield from self._train(epoch)[first_step:]

    def validation(self) -> Iterator[Batch]:
        """The batches for validation."""
        yield from self._validation

    def test(self) -> Iterator[Batch]:
        """The same ones in reverse order of labels, so that their figures are others."""
        yield from [(images.flip(0), labels) for images, labels in self._validation]


class Watch(Observer):
    """Copies of the weights after each step; the epochs' records without their time."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.after: list[Values] = []
        self.lines: list[dict[str, Any]] = []

    def on_step(self, epoch: int, step: int, loss: Tensor) -> None:
        self.after.append(values(self._model))

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.lines.append({key: value for key, value in record.items() if key != "seconds"})


class Hook:
    """Calls a function before each forward pass of a network, but of none of its copies: they would copy the loop."""

    def __init__(self, call: Callable[[nn.Module, Any], None]) -> None:
        self._call = call

    def __call__(self, model: nn.Module, inputs: Any) -> None:
        self._call(model, inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Hook":
        return Hook(lambda model, inputs: None)


def values(model: nn.Module) -> Values:
    """A copy of the parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class Loop:
    """One run of `model`. Everything that is kept is in the order of the optimizer's steps."""

    def __init__(
        self,
        model: nn.Module,
        train: Sequence[Batch] | Callable[[int], Sequence[Batch]],
        schedule: str | None = None,
        *,
        epochs: int = 1,
        validation: Sequence[Batch] | None = None,
        optimizer: dict[str, Any] | None = None,
        seed: int = 0,
        run_seed: int = 0,
        shape: tuple[int, ...] | None = None,
        classes: Sequence[str] = (),
        **config: Any,
    ) -> None:
        """`seed` begins the global random numbers, `run_seed` is the configuration's. With a `shape` of the images lost
        classes are looked for.
        """
        self.model = model
        self.config = Config.model_validate(
            {
                "model": {"name": "none"},
                "data": {"name": "none"},
                "optimizer": optimizer or {"lr": 0.1},
                "epochs": epochs,
                "seed": run_seed,
                "checkpoint": {"every_minutes": 1e-12},
                **config,
            }
        )
        faults = Faults()
        bound = read(schedule).bind(model, epochs, faults) if schedule else BoundSchedule()
        faults.raise_any()
        feed = Feed(train, (train(0) if callable(train) else train) if validation is None else validation)
        self.said: list[str] = []
        self.session = start(
            self.config,
            model,
            optimizers.build(model, self.config.optimizer),
            bound.policies,
            feed,
            self.said.append,
            shape=shape,
            classes=classes,
            allows_empty_layers=bound.allows_empty_layers,
        )
        self.watch = Watch(model)
        self.trainer = Trainer(
            self.session,
            feed,
            self.config,
            torch.device("cpu"),
            [self.watch],
            save=self._save,
            stop_signal=lambda: None,
        )
        self.masks = self.session.masks
        self.snapshots: dict[Moment, dict[str, Any]] = {}
        self.best: dict[str, Any] = {}
        self.forwards: list[Values] = []
        """The weights of every forward pass in training mode, and in `evaluated` of those in evaluation mode."""
        self.evaluated: list[Values] = []
        self.rates: list[list[float]] = []
        """The learning rate of each parameter group in every forward pass in training mode."""
        model.register_forward_pre_hook(Hook(self._forward))
        rng.seed_all(seed)

    def _forward(self, model: nn.Module, inputs: Any) -> None:
        if model.training:
            self.forwards.append(values(model))
            self.rates.append([group["lr"] for group in self.session.optimizer.groups])
        else:
            self.evaluated.append(values(model))

    def _save(self, kind: str) -> None:
        with self.session.as_shipped() as shipped:
            model = copied(dict(self.model.state_dict()))
        written = {"model": model, "state": copied({**self.trainer.state_dict(), "live": shipped.live})}
        if kind == "best":
            self.best = written
        else:
            self.snapshots[self.trainer.progress.epoch, self.trainer.progress.step] = written

    def run(self) -> "Loop":
        """Train to the end."""
        self.trainer.run()
        return self

    @property
    def after(self) -> list[Values]:
        """The weights after each step, as training goes on from them."""
        return self.watch.after

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without the seconds."""
        return self.watch.lines

    def at(self, moment: Moment) -> dict[str, Any]:
        """The checkpoint written then, read as strangers read it."""
        return reread(self.snapshots[moment])

    def resume(self, snapshot: dict[str, Any]) -> "Loop":
        """Go on from a checkpoint of another run to the end."""
        load_weights(self.model, snapshot, "snapshot")
        self.trainer.load_state_dict(snapshot["state"])
        restore_live(self.model, snapshot["state"]["live"])
        return self.run()


def read(text: str) -> grammar.Schedule:
    """A schedule without a fault."""
    faults = Faults()
    schedule = grammar.read(parse("s.yaml", text, faults), faults)
    faults.raise_any()
    return schedule


def notes_of(text: str, model: nn.Module, epochs: int) -> list[str]:
    """What is said of a schedule on a model before a run of so many epochs; a fault raises."""
    faults = Faults()
    bound = read(text).bind(model, epochs, faults).check(view_of(model, epochs=epochs), faults)
    faults.raise_any()
    return list(bound.notes)


def is_plus_zero(tensor: Tensor) -> bool:
    """Whether all entries are 0.0, and none is -0.0."""
    return not tensor.any() and not torch.signbit(tensor).any()


def random_batches(sizes: Sequence[int], features: int = 3, classes: int = 3, seed: int = 0) -> list[Batch]:
    """Random vectors and labels."""
    draws = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, features, generator=draws), torch.randint(0, classes, (size,), generator=draws))
        for size in sizes
    ]
