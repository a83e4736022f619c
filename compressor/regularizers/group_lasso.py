"""Group lasso: lambda * sum ||w_g||_2 (Yuan and Lin 2006); structured sparsity learning of networks (Wen et al. 2016).

Yuan and Lin, "Model selection and estimation in regression with grouped variables", JRSS-B 68, 2006.

Wen et al., "Learning Structured Sparsity in Deep Neural Networks", NIPS 2016, arXiv 1608.03665.

Jenatton et al., "Proximal Methods for Hierarchical Sparse Coding", JMLR 12, 2011: the proximal step of nested groups.
"""

import math
from collections.abc import Callable
from itertools import combinations
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import Targets
from compressor.regularizers.groups import TINY, GroupRegularizer, add_directions, largest, norms, spread, sums, terms
from compressor.regularizers.regularizer import Weights
from compressor.sparsity import magnitudes
from compressor.sparsity.structures import Shape, Structure


class GroupLassoRegularizer(GroupRegularizer, name="GroupLassoRegularizer"):
    """Penalize lambda * sum ||w_g||_2 over groups (Yuan and Lin 2006; Wen 2016); gradient lambda w / ||w_g||, 0 at 0.

    Penalties of groups that overlap are added: `Rows+Cols`, or `[[l, Filters], [m, Channels], [s, Shapes], [d, 4D]]`,
    all four of Wen's. Gradient steps alone end near lr * lambda and reach no exact zeros. These do:

    - `threshold_criteria`: after each step groups become 0 whose largest (Max) or mean |w| (Mean_Abs) is at most
      `threshold`, by default their lambda (Distiller). Groups that overlap are all judged before any is set to 0. Wen's
      clamp of single weights is an L1Regularizer of lambda 0 and threshold 1e-4 on the same weights.
    - `proximal` replaces the gradient by a step after the optimizer's: w_g <- w_g max(0, 1 - t lambda / ||w_g||), t =
      lr / (1 - momentum) for SGD, so that training ends at the minimum of loss + penalty. For nested groups, the
      smaller ones first, that is the step of the sum (Jenatton et al. 2011). Groups that overlap otherwise (rows and
      columns), and Adam, which has a step size for each weight, have no closed form and are refused.

    The bias of a filter that a threshold sets to 0, and gamma and beta of its batch norm, are set to 0, too, as under
    pruners; after a proximal step they are where `keep_mask` prunes the filter at the end.
    """

    example: ClassVar[str] = """
    regularizers:
      ssl: {class: GroupLassoRegularizer, reg_regims: {conv2.weight: [1e-3, 3D], 'fc*.weight': [1e-3, Rows+Cols]}}
    policies:
      - {regularizer: {instance_name: ssl}, starting_epoch: 0, ending_epoch: 10}
    """

    threshold_criteria: Literal["Max", "Mean_Abs"] | None = Field(
        default=None,
        description="which |w| of a group is compared with the threshold after each step, the largest or the mean;"
        " default: no threshold",
    )
    threshold: float | None = Field(
        default=None, ge=0, description="largest such |w| at which a group becomes 0; default: lambda"
    )
    proximal: bool = Field(
        default=False,
        description="true: a proximal step after the optimizer's, which reaches exact zeros; false: the subgradient",
    )
    size_normalized: bool = Field(
        default=False,
        description="true: multiply lambda by the root of the number of weights in a group (Yuan and Lin)",
    )

    @model_validator(mode="after")
    def _well_posed(self) -> Self:
        if self.threshold is not None and self.threshold_criteria is None:
            raise ValueError("`threshold` needs `threshold_criteria`: Max or Mean_Abs of a group is compared with it")
        for regim in self.reg_regims.values() if self.proximal else ():
            for (_, one), (_, other) in combinations(terms(regim), 2):
                if not (set(one.members) <= set(other.members) or set(one.members) >= set(other.members)):
                    raise ValueError(
                        f"no proximal step: {one.name} and {other.name} overlap, and neither lies in the other. Remove"
                        " `proximal`, or use one regularizer for each: the steps are then taken one after the other"
                    )
        return self

    def _strength(self, strength: float, structure: Structure, shape: Shape) -> float:
        return strength * math.sqrt(structure.size(shape)) if self.size_normalized else strength

    @torch.no_grad()
    def add_gradient(self, weights: Weights, targets: Targets) -> None:
        if self.proximal:
            return
        for name, regim in targets["reg_regims"].items():
            weight, gradient = weights[name], weights[name].grad
            if gradient is None:
                continue
            for strength, structure in terms(regim):
                add_directions(gradient, weight, structure, self._strength(strength, structure, weight.shape))

    @property
    def takes_proximal_steps(self) -> bool:
        return self.proximal

    @property
    def needs_one_step_size(self) -> bool:
        return self.proximal

    @property
    def thresholds(self) -> bool:
        return self.threshold_criteria is not None

    @property
    def makes_zeros(self) -> bool:
        return self.proximal or self.thresholds

    @torch.no_grad()
    def after_step(self, weights: Weights, targets: Targets, step: Callable[[Tensor], float | Tensor]) -> None:
        for name, regim in targets["reg_regims"].items() if self.makes_zeros else ():
            weight, groups = weights[name].detach(), terms(regim)
            if self.proximal:
                size = step(weights[name])
                for strength, structure in sorted(groups, key=lambda term: term[1].size(weight.shape)):
                    shorter = size * self._strength(strength, structure, weight.shape)
                    lengths = norms(structure, weight).clamp_(min=TINY)
                    _scale(weight, structure, ((lengths - shorter) / lengths).clamp_(min=0.0))
            if self.thresholds:
                found = magnitudes(weight)
                kept = [self._kept(found, structure, strength) for strength, structure in groups]
                for (_, structure), keep in zip(groups, kept, strict=True):
                    _scale(weight, structure, keep)

    def _kept(self, found: Tensor, structure: Structure, strength: float) -> Tensor:
        """Return 0 for the groups whose criterion is at most the threshold, 1 for the others."""
        if self.threshold_criteria == "Max":
            criterion = largest(structure, found)
        else:
            criterion = sums(structure, found) / structure.size(found.shape)
        limit = strength if self.threshold is None else self.threshold
        return (~(criterion <= limit)).to(found.dtype)

    @torch.no_grad()
    def value(self, weights: Weights, targets: Targets) -> float:
        total = 0.0
        for name, regim in targets["reg_regims"].items():
            weight = weights[name].detach()
            for strength, structure in terms(regim):
                total += self._strength(strength, structure, weight.shape) * float(norms(structure, weight).sum())
        return total


def _scale(weight: Tensor, structure: Structure, factors: Tensor) -> None:
    """Multiply each group by its factor, in place; a negative weight times 0 is -0.0, which + 0 makes 0.0."""
    weight.mul_(spread(structure, factors, weight.shape)).add_(0.0)
