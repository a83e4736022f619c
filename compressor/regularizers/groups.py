"""Penalties on the norms of groups of weights: how a schedule names the groups, and the norm of a group."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Discriminator, Field, Tag
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.regularizers.l1 import Strength
from compressor.regularizers.regularizer import Regularizer
from compressor.sparsity import squares
from compressor.sparsity.structures import Groups, Pair, Shape, Structure, groups


def _form(value: Any) -> str:
    several = isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[0], (list, tuple))
    return "several" if several else "one"


StrengthAndGroups = Annotated[
    tuple[Strength, Groups], Field(strict=False), Pair("[lambda, group], or a list of such pairs")
]
"""A strength and a group, or several groups joined by +, each with that strength."""

Regim = Annotated[
    Annotated[StrengthAndGroups, Tag("one")] | Annotated[list[StrengthAndGroups], Field(strict=False), Tag("several")],
    Discriminator(_form),
]


def terms(regim: Any) -> list[tuple[float, Structure]]:
    """Return the strengths and groups of a `Regim`; the groups may overlap."""
    pairs, known = regim if _form(regim) == "several" else [regim], groups()
    return [(strength, known[part]) for strength, joined in pairs for part in joined.split("+")]


class GroupRegularizer(Regularizer):
    """A penalty on the L2 norms of groups of weights."""

    reg_regims: Annotated[dict[str, Regim], Selects()] = Field(
        min_length=1,
        description="strength and groups of each weight: {selector: [lambda, group]}, or a list of such pairs;"
        " Rows+Cols: both with that lambda",
    )

    def structures(self, targets: Targets) -> Mapping[str, Sequence[Structure]]:
        return {name: [cut for _, cut in terms(regim)] for name, regim in targets["reg_regims"].items()}


def norms(structure: Structure, weight: Tensor) -> Tensor:
    """Return the L2 norm of each group, in `index_shape`."""
    if _across_filters(structure):
        return sums(structure, squares(weight)).sqrt_()
    return structure.norms(weight)


def sums(structure: Structure, values: Tensor) -> Tensor:
    """Return the sum over each group."""
    return structure.sums(values.sum(0, keepdim=True) if _across_filters(structure) else values)


def largest(structure: Structure, values: Tensor) -> Tensor:
    """Return the largest value of each group."""
    return structure.largest(values.amax(0, keepdim=True) if _across_filters(structure) else values)


def spread(structure: Structure, index: Tensor, shape: Shape) -> Tensor:
    """Return one value for each group (in `index_shape`) as a tensor that can be broadcast over the weight."""
    if _across_filters(structure):
        return structure.expand(index, (1, *shape[1:])).contiguous()
    return structure.expand(index, shape)


def _across_filters(structure: Structure) -> bool:
    """Return whether a group has entries of each filter: then, filters first, a CPU's loops are long (a fifth of the
    time).
    """
    plain = type(structure).view_shape is Structure.view_shape
    return plain and 0 in structure.members and 1 not in structure.members


TINY = 1e-15
"""The smallest norm: w / norm is 0 at 0, and not above 1 where squares vanish in single precision."""


@torch.no_grad()
def add_directions(gradient: Tensor, weight: Tensor, structure: Structure, factor: float) -> None:
    """Add factor * w / ||w_g|| to a gradient, and 0 where the group is 0."""
    inverse = norms(structure, weight).clamp_(min=TINY).reciprocal_()
    gradient.addcmul_(weight.detach(), spread(structure, inverse, weight.shape), value=factor)
