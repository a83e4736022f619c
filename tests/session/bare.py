"""A loop without a trainer around a session with everything: gates, masks, penalties, averages, rates."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from loop import read
from torch import Tensor, nn

from compressor.context.data import Data
from compressor.policies.policy import BoundPolicy, Context, Memory, Policy
from compressor.schedule.faults import Faults
from compressor.session import rng
from compressor.session.session import Session, Settings
from compressor.timing.clock import Clock
from compressor.timing.window import Window

EPOCHS, STEPS = 4, 4

EVERYTHING = """
version: 2
gates:
  l0: {class: HardConcreteL0, weights: [fc1.weight], lambda: 0.1}
  surgery: {class: NetworkSurgery, weights: [fc2.weight], c: 0.3, gamma: 0.1, stop_step: 12}
  drop: {class: DropConnect, modules: [fc5], activation: none}
policies:
  - gate: {instance_name: l0}
    starting_epoch: 1
    ending_epoch: 3
  - gate: {instance_name: surgery}
    starting_epoch: 0
    ending_epoch: 4
  - gate: {instance_name: drop}
    starting_epoch: 0
    ending_epoch: 4
  - pruner:
      class: AutomatedGradualPruner
      initial_sparsity: 0.1
      final_sparsity: 0.8
      weights: [fc3.weight]
    starting_step: 0
    ending_step: 12
    step_frequency: 2
  - pruner:
      class: SparsityLevelParameterPruner
      levels: {fc4.weight: 0.5}
      args: {use_double_copies: true}
    starting_epoch: 0
    ending_epoch: 3
  - regularizer: {class: L1Regularizer, reg_regims: {fc3.weight: 0.01, fc4.weight: 0.02}}
    starting_epoch: 0
    ending_epoch: 4
  - dropout: {modules: [drop], follow: {drop: fc3.weight}}
    starting_epoch: 0
    ending_epoch: 4
  - lr_scheduler: {class: StepLR, step_size: 3, gamma: 0.7, args: {interval: step}}
    starting_epoch: 0
    ending_epoch: 4
"""
"""Gates that enter in another order than the file's, masks by steps, dense copies, dropout ratios, rates by steps."""

SETTINGS = Settings(clip_norm=0.5, average_decay=0.8)


def network() -> nn.Sequential:
    """Five linear layers, a batch norm, and dropout."""
    layers: list[tuple[str, nn.Module]] = [
        *[("fc1", nn.Linear(6, 8)), ("bn", nn.BatchNorm1d(8)), ("tanh", nn.Tanh()), ("fc2", nn.Linear(8, 8))],
        *[("fc3", nn.Linear(8, 8)), ("relu", nn.ReLU()), ("drop", nn.Dropout(0.3)), ("fc4", nn.Linear(8, 8))],
        ("fc5", nn.Linear(8, 3)),
    ]
    return nn.Sequential(OrderedDict(layers))


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    """An epoch's batches, a function of the epoch alone."""
    draws = torch.Generator().manual_seed(epoch)
    images = torch.randn(STEPS, 5, 6, generator=draws)
    return list(zip(images, torch.randint(0, 3, (STEPS, 5), generator=draws), strict=True))


def session(
    text: str = EVERYTHING,
    *more: Policy,
    model: nn.Module | None = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    settings: Settings = SETTINGS,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> Session:
    """A session over a network of its own; `more` policies stand behind those of the schedule."""
    rng.seed_all(seed)
    model = model or network()
    faults = Faults()
    bound = list(read(text).bind(model, epochs, faults).policies) if text else []
    faults.raise_any()
    bound += [BoundPolicy(f"{len(bound) + place}.own", policy, {}) for place, policy in enumerate(more)]
    made = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=0.01)
    data = Data(batches=lambda count: batches(0)[:count], images=5 * STEPS)
    return Session(model, made, bound, Clock(epochs, STEPS), data, settings=settings, say=lambda text: None)


Step = Callable[[Session, Tensor, Tensor], None]


def whole_step(it: Session, images: Tensor, labels: Tensor) -> None:
    """A step in two parts."""
    with it.step() as step:
        for part in (slice(0, 2), slice(2, None)):
            loss = nn.functional.cross_entropy(it.model(images[part]), labels[part])
            step.backward(loss, share=len(labels[part]) / len(labels), images=images[part], labels=labels[part])


def events(it: Session, images: Tensor, labels: Tensor) -> None:
    """The same step by its events."""
    it.enter()
    it.optimizer.optimizer.zero_grad(set_to_none=True)
    for part in (slice(0, 2), slice(2, None)):
        loss = nn.functional.cross_entropy(it.model(images[part]), labels[part])
        share = len(labels[part]) / len(labels)
        (it.before_backward(loss, images=images[part], labels=labels[part]) * share).backward()
    it.after_backward()
    it.before_optimizer()
    it.optimizer.optimizer.step()
    it.after_optimizer()


def train(
    it: Session,
    until: int = EPOCHS,
    step: Step = whole_step,
    watch: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Go on to the end of an epoch, and return what there is then; `watch` is called after every step and epoch."""
    for number in range(it.clock.epoch, until):
        it.model.train()
        with it.epoch(number) as epoch:
            if it.clock.step == 0:
                watch()
            for images, labels in batches(it.clock.data_epoch)[it.clock.step :]:
                step(it, images, labels)
                watch()
            epoch.validation = {"loss": 1.0 + number, "top1": 50.0}
        watch()
    return everything(it)


def everything(it: Session) -> dict[str, Any]:
    """A copy of the model, with buffers, and of what the session holds, and of what belongs to neither."""
    state = copy.deepcopy(it.state_dict())
    tensors = {**dict(it.model.named_parameters()), **dict(it.model.named_buffers())}
    return {
        "model": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "state": state,
        "ratio": getattr(it.model, "drop", nn.Dropout()).p,
    }


def load(it: Session, saved: dict[str, Any]) -> Session:
    """The session after it took over what another one held."""
    it.model.load_state_dict(saved["model"])
    it.load_state_dict(copy.deepcopy(saved["state"]))
    return it


class Calls(Policy):
    """Calls a function at one event, in every step of the run."""

    event: str
    function: Any
    window: Window = Window(ending_epoch=100)

    def _call(self, event: str, ctx: Context) -> None:
        if event == self.event:
            self.function(ctx)

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        self._call("on_minibatch_begin", ctx)

    def before_backward_pass(self, ctx: Context, memory: Memory, loss: Tensor) -> Tensor:
        self._call("before_backward_pass", ctx)
        return loss

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        self._call("penalty_gradients", ctx)

    def before_parameter_optimization(self, ctx: Context, memory: Memory) -> None:
        self._call("before_parameter_optimization", ctx)

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        self._call("on_minibatch_end", ctx)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        self._call("on_epoch_end", ctx)


EVENTS: Sequence[str] = (
    "on_minibatch_begin",
    "before_backward_pass",
    "penalty_gradients",
    "before_parameter_optimization",
    "on_minibatch_end",
)


@contextmanager
def open_epoch(it: Session, number: int = 0) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """An epoch that is open, with its batches."""
    it.model.train()
    with it.epoch(number) as epoch:
        yield batches(it.clock.data_epoch)
        epoch.validation = {}


def parameters(it: Session) -> dict[str, Tensor]:
    """A copy of the parameters."""
    return {name: parameter.detach().clone() for name, parameter in it.network.parameters.items()}
