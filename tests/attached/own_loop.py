"""A loop of a user's own on a small network, and what there is after it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.attached import AttachedSession, attach

EPOCHS, STEPS = 3, 4

GATED: dict[str, Any] = {
    "version": 2,
    "gates": {
        "l0": {"class": "HardConcreteL0", "weights": ["fc1.weight"], "lambda": 0.1},
        "surgery": {"class": "NetworkSurgery", "weights": ["fc2.weight"], "c": 0.3, "gamma": 0.1, "stop_step": 12},
    },
    "policies": [
        {"gate": {"instance_name": "l0"}, "starting_epoch": 0, "ending_epoch": 2},
        {"gate": {"instance_name": "surgery"}, "starting_epoch": 0, "ending_epoch": 3},
        {
            "pruner": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.1,
                "final_sparsity": 0.8,
                "weights": ["fc3.weight"],
            },
            "starting_step": 0,
            "ending_step": 10,
            "step_frequency": 2,
        },
        {"regularizer": {"class": "L1Regularizer", "reg_regims": {"fc3.weight": 0.01}}, "ending_epoch": 3},
        {
            "lr_scheduler": {"class": "StepLR", "step_size": 3, "gamma": 0.7, "args": {"interval": "step"}},
            "ending_epoch": 3,
        },
    ],
}
"""Gates, masks by steps, a penalty, rates by steps."""


class Net(nn.Module):
    """Three linear layers with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.fc2(torch.relu(self.fc1(x))))
        return self.fc3(self.drop(hidden))  # type: ignore[no-any-return]


def convolutional() -> nn.Sequential:
    """Two convolutions and a linear layer, for channels."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 3)
    )


def batches(shape: tuple[int, ...] = (6,), count: int = STEPS, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Images and labels, a function of the seed."""
    draws = torch.Generator().manual_seed(seed)
    return [(torch.randn(5, *shape, generator=draws), torch.randint(0, 3, (5,), generator=draws)) for _ in range(count)]


def attached(
    schedule: Mapping[str, Any] = GATED,
    *,
    model: nn.Module | None = None,
    shape: tuple[int, ...] = (6,),
    **more: Any,
) -> AttachedSession:
    """A session over a network of its own, drawn with one seed."""
    torch.manual_seed(1)
    if model is None:
        model = Net() if shape == (6,) else convolutional()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    given = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "sample_input": batches(shape)[0][0], "say": lambda text: None}
    return attach(schedule, model, optimizer, **{**given, **more})


def loss_of(it: AttachedSession, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(it.model(images), labels)


def by_blocks(it: AttachedSession, images: Tensor, labels: Tensor) -> None:
    with it.step() as step:
        step.backward(loss_of(it, images, labels), images=images, labels=labels)


def by_events(it: AttachedSession, images: Tensor, labels: Tensor) -> None:
    it.enter()
    it.optimizer.optimizer.zero_grad()
    it.before_backward(loss_of(it, images, labels)).backward()
    it.after_backward()
    it.before_optimizer()
    it.optimizer.optimizer.step()
    it.after_optimizer()


def by_distillers_names(it: AttachedSession, images: Tensor, labels: Tensor) -> None:
    time = (it.clock.epoch, it.clock.step, STEPS)
    it.on_minibatch_begin(*time, it.optimizer.optimizer)
    loss = it.before_backward_pass(*time, loss_of(it, images, labels), return_loss_components=True).overall_loss
    it.optimizer.optimizer.zero_grad()
    loss.backward()
    it.before_parameter_optimization(*time, it.optimizer.optimizer)
    it.optimizer.optimizer.step()
    it.on_minibatch_end(*time, it.optimizer.optimizer)


Step = Callable[[AttachedSession, Tensor, Tensor], None]


def train(
    it: AttachedSession,
    until: int = EPOCHS,
    step: Step = by_blocks,
    given: Iterable[tuple[Tensor, Tensor]] | None = None,
    last: int = STEPS,
) -> dict[str, Tensor]:
    """Train to the end of an epoch (or to a step of it), and return the weights."""
    data = list(batches() if given is None else given)
    for number in range(it.clock.epoch, until):
        it.model.train()
        it.begin_epoch(number)
        stop = last if number == until - 1 else STEPS
        for images, labels in data[it.clock.step : stop]:
            step(it, images, labels)
        if stop == STEPS:
            it.end_epoch()
    return weights(it.model)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
