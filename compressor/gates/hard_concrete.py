"""The hard concrete distribution: Louizos, Welling and Kingma, ICLR 2018 (arXiv 1712.01312), equations 10 to 13."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from compressor.sparsity import map_pieces

EPSILON = 1e-6
"""The smallest distance of uniform draws from 0 and 1."""

CLAMP = math.log(100.0)


@dataclass(frozen=True)
class HardConcrete:
    """The distribution of z = min(1, max(0, s (zeta - gamma) + gamma)), s binary concrete (log_alpha, temperature
    beta).
    """

    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1

    def sample(self, log_alpha: Tensor, stream: torch.Generator | None = None) -> Tensor:
        """Return one draw for each gate; `stream`: the random numbers (None: torch's own)."""
        return map_pieces(partial(self._sample, stream), log_alpha)

    def _sample(self, stream: torch.Generator | None, log_alpha: Tensor) -> Tensor:
        u = torch.empty_like(log_alpha).uniform_(generator=stream).mul_(1 - 2 * EPSILON).add_(EPSILON)
        s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / self.beta)
        return (s * (self.zeta - self.gamma) + self.gamma).clamp_(0, 1)

    def slope(self, z: Tensor) -> Tensor:
        """Return dz / dlog_alpha of a draw: (z - gamma)(zeta - z) / ((zeta - gamma) beta), 0 where it is clipped."""
        inside = (z > 0) & (z < 1)
        return (z - self.gamma) * (self.zeta - z) / ((self.zeta - self.gamma) * self.beta) * inside

    def active(self, log_alpha: Tensor) -> Tensor:
        """Return P(z != 0) = sigmoid(log_alpha - beta ln(-gamma / zeta))."""
        return torch.sigmoid(log_alpha - self.beta * math.log(-self.gamma / self.zeta))

    def final(self, log_alpha: Tensor) -> Tensor:
        """Return the shipped gate: min(1, max(0, sigmoid(log_alpha)(zeta - gamma) + gamma)); it has no temperature."""
        return (torch.sigmoid(log_alpha) * (self.zeta - self.gamma) + self.gamma).clamp_(0, 1)
