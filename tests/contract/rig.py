"""A tiny network on random images under any schedule, trained in this process; saved at every step if need be."""

import contextlib
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import bits
import torch
import yaml
from torch import Tensor, nn

from compressor.component import Component
from compressor.config import Config, OptimizerConfig
from compressor.errors import Interrupted
from compressor.policies.policy import Policy
from compressor.schedule import grammar
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.plan import Plan, make_plan
from compressor.schedule.registry import components
from compressor.schedule.schedule import view_of
from compressor.session import rng
from compressor.session.start import start
from compressor.thinning.architecture import describe
from compressor.timing.clock import Clock
from compressor.training import optimizers
from compressor.training.observers import Observer
from compressor.training.trainer import Trainer
from compressor.training.weights import load_weights, restore_live

CPU = torch.device("cpu")
STEPS, EPOCHS, BATCH = 5, 6, 8
FIRST, END = 1, 4
"""The window that every example is given: epochs 1, 2 and 3 of six, or the steps of those epochs."""

SECTIONS = ("pruners", "regularizers", "lr_schedulers", "gates", "extensions", "quantizers")

Moment = tuple[int, int]
"""Finished epochs, and steps taken in the current one."""

Snapshot = dict[str, Any]


def all_components() -> dict[str, type[Component]]:
    """Every component there is, by section and name; of the policies those that are their own component."""
    found = {f"{section}.{name}": cls for section in SECTIONS for name, cls in components(section).items()}
    for name, cls in components("policies").items():
        assert issubclass(cls, Policy)
        if cls.component is None:
            found[f"policies.{name}"] = cls
    return found


def network() -> nn.Sequential:
    """The names that examples select: conv1, conv2, fc1, fc2; for 1x12x12 images of 5 classes."""
    layers = [
        *[("conv1", nn.Conv2d(1, 4, 3)), ("bn1", nn.BatchNorm2d(4)), ("relu1", nn.ReLU()), ("pool1", nn.MaxPool2d(2))],
        *[("conv2", nn.Conv2d(4, 6, 3)), ("relu2", nn.ReLU()), ("flatten", nn.Flatten())],
        *[("fc1", nn.Linear(54, 10)), ("relu3", nn.ReLU()), ("drop", nn.Dropout(0.2)), ("fc2", nn.Linear(10, 5))],
    ]
    return nn.Sequential(OrderedDict(layers))


class Feed:
    """Random images with random labels: an epoch's batches are a function of the epoch alone."""

    steps_per_epoch = STEPS
    pace = 1.0
    images = STEPS * BATCH
    held_out = 2 * BATCH

    def __init__(self, device: torch.device = CPU) -> None:
        self._device = device

    def train(self, epoch: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """STEPS batches."""
        yield from self._batches(epoch, STEPS)[first_step:]

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Two batches."""
        yield from self._batches(1000, 2)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Two other ones."""
        yield from self._batches(2000, 2)

    def _batches(self, seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
        draws = torch.Generator().manual_seed(seed)
        images = torch.randn(count, BATCH, 1, 12, 12, generator=draws)
        labels = torch.randint(0, 5, (count, BATCH), generator=draws)
        return list(zip(images.to(self._device), labels.to(self._device), strict=True))


class Watch(Observer):
    """The lines of metrics.jsonl, without the time they took, and of layers.jsonl; the rig looks after every step and
    every epoch.
    """

    def __init__(self, look: Callable[[Moment], None]) -> None:
        self.lines: list[dict[str, Any]] = []
        self.layers: list[dict[str, Any]] = []
        self._look = look

    def on_step(self, epoch: int, step: int, loss: Tensor) -> None:
        self._look((epoch, step + 1))

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.lines.append({key: value for key, value in record.items() if key != "seconds"})
        self._look((record["epoch"] + 1, 0))

    def on_layers(self, record: dict[str, Any]) -> None:
        self.layers.append(record)


SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
ADAM = {"name": "adam", "lr": 0.01, "weight_decay": 0.01}
OFTEN, RARELY = {"every_minutes": 1e-12}, {"every_epochs": 1000}
"""When a run is saved: after every step and every epoch; at its end alone."""


class Rig:
    """One run, to the end or `until` a moment. `snapshots` has what would be on disk at the moments of `checkpoint`."""

    def __init__(
        self,
        schedule: str,
        *,
        epochs: int = EPOCHS,
        seed: int = 0,
        snapshot: Snapshot | None = None,
        until: Moment | None = None,
        checkpoint: Mapping[str, Any] = OFTEN,
        device: torch.device = CPU,
        **config: Any,
    ) -> None:
        self.config = Config.model_validate(
            {
                "model": {"name": "rig"},
                "data": {"name": "rig"},
                "optimizer": SGD,
                "epochs": epochs,
                "checkpoint": checkpoint,
                **config,
            }
        )
        self.end = until or (epochs, 0)
        self.said: list[str] = []
        rng.seed_all(seed)
        self.model = network().to(device)
        self.dense = describe(self.model)
        if snapshot is not None:
            load_weights(self.model, snapshot, "snapshot")
        faults = Faults()
        read_schedule = read(schedule)
        bound = read_schedule.bind(self.model, epochs, faults)
        faults.raise_any()
        dense = snapshot["state"]["dense"] if snapshot is not None else None
        optimizer = optimizers.build(self.model, self.config.optimizer)
        session = start(self.config, self.model, optimizer, bound.policies, Feed(device), self.said.append, dense)
        self.session = session
        self.watch = Watch(self.look)
        self.snapshots: dict[Moment, Snapshot] = {}
        self.trainer = Trainer(
            session,
            Feed(device),
            self.config,
            device,
            [self.watch],
            save=self._save,
            stop_signal=self._stop,
        )
        self.masks = session.masks
        self.fresh = self._state()
        rng.seed_all(seed)

    @property
    def moment(self) -> Moment:
        """Where it stands."""
        return self.trainer.progress.epoch, self.trainer.progress.step

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without the time they took."""
        return self.watch.lines

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The lines of layers.jsonl."""
        return self.watch.layers

    def _stop(self) -> int | None:
        ends = self.moment == self.end and self.moment != (self.config.epochs, 0)
        return signal.SIGTERM if ends else None

    def _save(self, kind: str) -> None:
        if kind == "checkpoint":
            self.snapshots[self.moment] = self._state()

    def look(self, moment: Moment) -> None:
        """Called after every step and every epoch."""

    def _state(self) -> Snapshot:
        """What would be on disk now; without the seconds, which no two runs share."""
        with self.session.as_shipped() as shipped:
            model = bits.copied(dict(self.model.state_dict()))
        state = bits.copied({**self.trainer.state_dict(), "live": shipped.live})
        state["progress"]["seconds"] = 0.0
        written: Snapshot = {"model": model, "state": state}
        now = describe(self.model)
        return written if now == self.dense else {**written, "architecture": now}

    def at(self, moment: Moment) -> Snapshot:
        """What was on disk then, read as strangers read it."""
        return bits.reread(self.snapshots[moment])

    def run(self) -> Snapshot:
        """Train to its end and give what is on disk then."""
        with contextlib.suppress(Interrupted):
            self.trainer.run()
        return self.snapshots[self.end]


def resumed(schedule: str, snapshot: Snapshot, until: Moment | None = None, **config: Any) -> Rig:
    """A run that was begun elsewhere with other random numbers, and then continued from `snapshot` to its end."""
    rig = Rig(schedule, seed=99, snapshot=snapshot, until=until, checkpoint=RARELY, **config)
    rig.trainer.load_state_dict(snapshot["state"])
    restore_live(rig.model, snapshot["state"]["live"])
    rig.run()
    return rig


def plans(schedule: str, *ends: int) -> list[Plan]:
    """What is planned of runs of so many epochs each, with the windows of the whole run."""
    model, faults = network(), Faults()
    groups = optimizers.settings(model, OptimizerConfig.model_validate(SGD))
    view = view_of(model, image=(1, 12, 12), groups=groups, epochs=EPOCHS)
    bound = read(schedule).bind(model, EPOCHS, faults).check(view, faults)
    faults.raise_any()
    return [make_plan(bound.policies, view, Clock(end, STEPS)) for end in ends]


def difference(ours: Snapshot, theirs: Snapshot) -> str | None:
    """The first difference between two snapshots; None where they are the same bits."""
    return bits.difference(ours, theirs)


def read(text: str) -> grammar.Schedule:
    """A schedule without a fault."""
    faults = Faults()
    schedule = grammar.read(parse("example.yaml", text, faults), faults)
    faults.raise_any()
    return schedule


def windowed(text: str, first: int = FIRST, end: int = END) -> str:
    """The schedule with every policy's window moved to epochs `first` up to `end`."""
    data = parsed(text)
    for policy in data["policies"]:
        by_step = any(key in policy for key in ("starting_step", "ending_step", "step_frequency"))
        for key in ("epochs", "frequency", "step_frequency"):
            policy.pop(key, None)
        unit, scale = ("step", STEPS) if by_step else ("epoch", 1)
        policy.update({f"starting_{unit}": first * scale, f"ending_{unit}": end * scale})
    return yaml.safe_dump(data, sort_keys=False)


def merged(*texts: str) -> str:
    """One schedule with all their components and policies, in their order; a name that is taken gets a number."""
    whole: dict[str, Any] = {"policies": []}
    for number, text in enumerate(texts):
        data = parsed(text)
        for key, block in data.items():
            if key in SECTIONS:
                whole.setdefault(key, {}).update({f"{name}_{number}": value for name, value in block.items()})
            elif key != "policies":
                whole[key] = block
        for policy in data["policies"]:
            for applied in policy.values():
                if isinstance(applied, dict) and "instance_name" in applied:
                    applied["instance_name"] += f"_{number}"
            whole["policies"].append(policy)
    return yaml.safe_dump(whole, sort_keys=False)


def parsed(text: str) -> dict[str, Any]:
    """A schedule's data, as our own reader understands it."""
    faults = Faults()
    data = parse("example.yaml", text, faults).data
    faults.raise_any()
    assert isinstance(data, dict)
    return data


def left(zeros: Mapping[str, Tensor]) -> dict[str, int]:
    """How many weights are not zero."""
    return {name: int((~zero).sum()) for name, zero in zeros.items()}


def zeros(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the weights of two and more dimensions are zero."""
    return {name: tensor == 0 for name, tensor in model.items() if tensor.dim() > 1}
