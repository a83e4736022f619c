"""A schedule over a small model, its events fired by the session's own steps, without data or a trainer."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compressor.context.data import Batches, Data
from compressor.schedule import grammar
from compressor.schedule.faults import Faults
from compressor.session.session import Epoch, Session
from compressor.timing.clock import Clock


def _batches_of(images: Tensor) -> Callable[[int], Batches]:
    return lambda count: [(images, torch.zeros(len(images), dtype=torch.long))] * count


class Run:
    """A schedule over a model: the session's own steps, with gradients that a test sets.

    There are no data: in each step every gradient is `gradient`, so that SGD moves a weight by `-lr * gradient`.
    """

    def __init__(
        self,
        schedule: grammar.Schedule,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data: Data,
        *,
        epochs: int,
        steps: int,
    ) -> None:
        faults = Faults()
        bound = schedule.bind(model, epochs, faults)
        faults.raise_any()
        self.said = list[str]()
        self.session = Session(model, optimizer, bound.policies, Clock(epochs, steps), data, say=self.said.append)
        self.model, self.optimizer, self.masks = model, optimizer, self.session.masks
        self.events, self.clock, self.data = self.session.events, self.session.clock, self.session.data
        self.parameters = self.session.network.parameters
        self.gradient = 0.0
        self.seen: list[dict[str, Tensor]] = []
        """The weights of every forward pass."""
        self._open = contextlib.ExitStack()
        self._epoch: Epoch

    def images(self, images: Tensor) -> None:
        """Let these be the training images."""
        self.data.batches = _batches_of(images)

    def epoch(self, epoch: int, validation: Mapping[str, float] | None = None) -> None:
        """One epoch, all of its steps."""
        self.begin(epoch)
        for _ in range(self.clock.steps_per_epoch):
            self.step()
        self.end(validation)

    def begin(self, epoch: int) -> None:
        """Up to the first mini-batch."""
        self._epoch = self._open.enter_context(self.session.epoch(epoch))

    def step(self) -> None:
        """One mini-batch."""
        self.session.enter()
        self.seen.append({name: p.detach().clone() for name, p in self.parameters.items()})
        self.session.before_backward(torch.zeros(()))
        for parameter in self.parameters.values():
            parameter.grad = torch.full_like(parameter, self.gradient)
        self.session.after_backward()
        self.session.before_optimizer()
        self.optimizer.step()
        self.session.after_optimizer()

    def end(self, validation: Mapping[str, float] | None = None) -> None:
        """After the last mini-batch."""
        self._epoch.validation = validation or {}
        self._open.close()


def make(
    schedule: grammar.Schedule,
    model: nn.Module,
    epochs: int = 4,
    steps: int = 1,
    lr: float = 0.1,
    momentum: float = 0.0,
    optimizer: torch.optim.Optimizer | None = None,
    images: Tensor | None = None,
    batches: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> Run:
    """A run, not begun; with SGD unless an optimizer is given."""
    if optimizer is None:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    data = Data()
    if images is not None:
        data.batches = _batches_of(images)
    if batches is not None:
        data.batches = lambda count: batches[:count]
    return Run(schedule, model, optimizer, data, epochs=epochs, steps=steps)
