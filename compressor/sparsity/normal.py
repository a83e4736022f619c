"""The normal distribution."""

import math

import torch
from torch import Tensor

TINY = 1e-15
"""The smallest deviation that is used: the closed form divides by it."""


def expected_relu(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return E relu(u), u ~ N(mean, deviation^2): mean Phi(mean / sd) + sd phi(mean / sd); relu(mean) where sd is 0."""
    deviation = deviation.clamp_min(TINY)
    z = mean / deviation
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    below: Tensor = torch.special.ndtr(z)
    return (mean * below + deviation * density).clamp_min(0)
