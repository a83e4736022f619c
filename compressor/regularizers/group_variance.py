"""Distiller's group variance: lambda / Var(norms of the groups), which makes the norms of a layer's groups differ."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from compressor.component import Targets
from compressor.regularizers.groups import GroupRegularizer, norms, spread, terms
from compressor.regularizers.regularizer import Weights
from compressor.sparsity.structures import Structure

_EQUAL = 8
"""In units of rounding: norms that differ by no more are equal."""


class GroupVarianceRegularizer(GroupRegularizer, name="GroupVarianceRegularizer"):
    """Penalize lambda / Var(n_1 ... n_G), n_g = ||w_g||_2, so that the norms of a layer's groups differ (Distiller).

    Var is the unbiased variance, as torch's. The gradient is -2 lambda (n_g - mean) / ((G - 1) Var^2) * w / n_g. Where
    all norms are equal the penalty is infinite and has no direction: there, and in groups that are 0, it is 0. Its size
    is proportional to lambda Var^-1.5 / G: where the norms of a new layer hardly differ, lambda has to be small.
    """

    example: ClassVar[str] = """
    regularizers:
      apart: {class: GroupVarianceRegularizer, reg_regims: {conv2.weight: [1e-6, Channels], fc1.weight: [1e-6, Rows]}}
    policies:
      - {regularizer: {instance_name: apart}, starting_epoch: 0, ending_epoch: 10}
    """

    def misfits(self, targets: Targets, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        single = [
            f"{name}: one group has no variance: {structure.name} of {'x'.join(map(str, shapes[name]))}"
            for name, structures in self.structures(targets).items()
            for structure in structures
            if structure.misfit(shapes[name]) is None and structure.count(shapes[name]) < 2
        ]
        return super().misfits(targets, shapes) + single

    @torch.no_grad()
    def add_gradient(self, weights: Weights, targets: Targets) -> None:
        for name, regim in targets["reg_regims"].items():
            weight, gradient = weights[name].detach(), weights[name].grad
            if gradient is None:
                continue
            for strength, structure in terms(regim):
                lengths, away, variance = _variance(weight, structure)
                slopes = -2 * strength / max(lengths.numel() - 1, 1) * away / variance.square() / lengths
                slopes = slopes.masked_fill((lengths == 0) | (variance == 0), 0.0).to(weight.dtype)
                gradient.addcmul_(weight, spread(structure, slopes, weight.shape))

    @torch.no_grad()
    def value(self, weights: Weights, targets: Targets) -> float:
        found = (
            strength / _variance(weights[name].detach(), structure)[2]
            for name, regim in targets["reg_regims"].items()
            for strength, structure in terms(regim)
            if strength > 0
        )
        return float(sum(found))


def _variance(weight: Tensor, structure: Structure) -> tuple[Tensor, Tensor, Tensor]:
    """Return the groups' norms, their distances from the mean, and their variance; 0 where they differ by rounding
    only.

    In double precision: the square of a variance soon leaves the range of single precision.
    """
    lengths = norms(structure, weight).double()
    mean = lengths.mean()
    away = lengths - mean
    variance = away.square().sum() / max(lengths.numel() - 1, 1)
    equal = (_EQUAL * torch.finfo(weight.dtype).eps * mean).square()
    return lengths, away, variance.masked_fill(variance <= equal, 0.0)
