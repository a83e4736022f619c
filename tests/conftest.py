"""What the tests of schedules share: a schedule's text read, bound to a small model, and its events fired."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.policies.policy import Context
from compressor.policies.scheduler import Scheduler
from compressor.schedule import grammar
from compressor.schedule.document import Document, parse
from compressor.schedule.faults import Faults
from compressor.sparsity.masks import Masks


@pytest.fixture
def parsed() -> Callable[[str], tuple[Document, list[str]]]:
    """`parsed(text)`: the document, called `s.yaml`, and the lines of its faults."""

    def read(text: str) -> tuple[Document, list[str]]:
        faults = Faults()
        document = parse("s.yaml", text, faults)
        return document, faults.lines

    return read


@pytest.fixture
def faults_of() -> Callable[[str], list[str]]:
    """`faults_of(text)`: one line for everything that is wrong in a schedule, called `s.yaml`."""

    def read(text: str) -> list[str]:
        faults = Faults()
        grammar.read(parse("s.yaml", text, faults), faults)
        return faults.lines

    return read


@pytest.fixture
def schedule_of() -> Callable[[str], grammar.Schedule]:
    """`schedule_of(text)`: the schedule; its faults raise."""

    def read(text: str) -> grammar.Schedule:
        faults = Faults()
        schedule = grammar.read(parse("s.yaml", text, faults), faults)
        faults.raise_any()
        return schedule

    return read


class Run:
    """A schedule over a model; an epoch fires the events as `policies/policy.py` says.

    There are no data: before each step every gradient is `gradient`, so that SGD moves a weight by `-lr * gradient`.
    """

    def __init__(
        self, schedule: grammar.Schedule, model: nn.Module, optimizer: torch.optim.Optimizer, **of: Any
    ) -> None:
        faults = Faults()
        policies = schedule.bind(model, of["epochs"], faults)
        faults.raise_any()
        parameters = dict(model.named_parameters())
        self.model, self.optimizer, self.said = model, optimizer, list[str]()
        self.masks = Masks(parameters)
        self.ctx = Context(
            model=model, parameters=parameters, optimizer=optimizer, masks=self.masks, say=self.said.append, **of
        )
        self.scheduler = Scheduler(policies, self.ctx)
        self.gradient = 0.0
        self.seen: list[dict[str, Tensor]] = []
        """The weights of every forward pass."""

    def epoch(self, epoch: int, validation: Mapping[str, float] | None = None) -> None:
        """One epoch, all of its steps."""
        self.begin(epoch)
        for _ in range(self.ctx.steps_per_epoch):
            self.step()
        self.end(validation)

    def begin(self, epoch: int) -> None:
        """Up to the first mini-batch."""
        self.ctx.epoch, self.ctx.step = epoch, 0
        self.scheduler.on_epoch_begin()

    def step(self) -> None:
        """One mini-batch."""
        self.scheduler.on_minibatch_begin()
        self.masks.before_forward()
        self.seen.append({name: p.detach().clone() for name, p in self.ctx.parameters.items()})
        self.scheduler.before_backward_pass(torch.zeros(()))
        for parameter in self.ctx.parameters.values():
            parameter.grad = torch.full_like(parameter, self.gradient)
        self.scheduler.penalty_gradients()
        self.scheduler.before_parameter_optimization()
        self.masks.zero_gradients()
        self.masks.before_step()
        self.optimizer.step()
        self.masks.apply()
        self.scheduler.on_minibatch_end()
        self.ctx.step += 1

    def end(self, validation: Mapping[str, float] | None = None) -> None:
        """After the last mini-batch."""
        self.ctx.validation = validation or {}
        self.scheduler.on_epoch_end()


@pytest.fixture
def run_of(schedule_of: Callable[[str], grammar.Schedule]) -> Callable[..., Run]:
    """`run_of(text, model, epochs=4, steps=1, lr=0.1, momentum=0.0)`: a run of a schedule, with SGD.

    What else is given is the context's: `sample`, `batches` ...
    """

    def run(
        text: str,
        model: nn.Module,
        epochs: int = 4,
        steps: int = 1,
        lr: float = 0.1,
        momentum: float = 0.0,
        optimizer: torch.optim.Optimizer | None = None,
        **context: Any,
    ) -> Run:
        if optimizer is None:
            optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        return Run(schedule_of(text), model, optimizer, epochs=epochs, steps_per_epoch=steps, **context)

    return run
