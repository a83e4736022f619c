"""The gradient that a regularizer adds is that of its value, along random directions, in float64."""

from collections.abc import Callable

import pytest
import rig
import torch
from rig import EPOCHS
from test_components import COMPONENTS, every_regularizer, own

from compressor.component import Targets
from compressor.regularizers.regularizer import Regularizer, Weights
from compressor.schedule.faults import Faults

STEP = 1e-6


Change = Callable[[torch.Tensor], torch.Tensor]


def worst(regularizer: Regularizer, targets: Targets, change: Change = torch.clone) -> float:
    """The largest error of the slope in eight directions, in norms of the gradient, which may be changed."""
    draws = torch.Generator().manual_seed(3)
    weights: Weights = {
        name: torch.randn(weight.shape, generator=draws, dtype=torch.float64)
        for name, weight in rig.network().named_parameters()
    }
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    regularizer.add_gradient(weights, targets)
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    assert any(gradient.any() for gradient in gradients.values())
    norm = sum(float(gradient.square().sum()) for gradient in gradients.values()) ** 0.5
    errors = []
    for _ in range(8):
        along = {
            name: torch.randn(weight.shape, generator=draws, dtype=torch.float64) for name, weight in weights.items()
        }
        above, below = (
            regularizer.value({name: weight + sign * STEP * along[name] for name, weight in weights.items()}, targets)
            for sign in (1, -1)
        )
        slope = (above - below) / (2 * STEP)
        given = sum(float((change(gradients[name]) * along[name]).sum()) for name in weights)
        errors.append(abs(given - slope) / norm)
    return max(errors)


def parts(key: str) -> tuple[Regularizer, Targets]:
    """The regularizer of an example, and the weights that it selects."""
    cls, faults = COMPONENTS[key], Faults()
    schedule = rig.read(cls.example)
    component = own(schedule, cls)
    assert isinstance(component, Regularizer)
    policies = schedule.bind(rig.network(), EPOCHS, faults).policies
    faults.raise_any()
    return component, next(one.targets for one in policies if getattr(one.policy, "regularizer", None) is component)


@every_regularizer
def test_the_gradient_of_a_penalty_is_that_of_its_value(key: str) -> None:
    assert worst(*parts(key)) < 1e-5


@every_regularizer
@pytest.mark.parametrize("change", [torch.neg, lambda gradient: 2 * gradient], ids=["flipped", "doubled"])
def test_control_another_gradient_is_found(key: str, change: Change) -> None:
    assert worst(*parts(key), change) > 0.1
