"""Penalties on the norms of groups of weights: how a schedule names the groups, and what a group's norm is."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.errors import did_you_mean
from compressor.regularizers.l1 import Strength
from compressor.regularizers.regularizer import Regularizer
from compressor.sparsity.structures import BY_NAME, ELEMENTS, Shape, Structure

GROUPS = {name: structure for name, structure in BY_NAME.items() if structure is not ELEMENTS}
"""What a weight can be cut into, by all names; in either version `Rows` are dim 0, the outputs."""


def _known(group: str) -> str:
    parts = group.split("+")
    for part in parts:
        if part not in GROUPS:
            raise ValueError(f"no group {part!r}: {did_you_mean(part, GROUPS)}")
    if len({GROUPS[part] for part in parts}) < len(parts):
        raise ValueError(f"{group!r} names a group twice")
    return group


def _is_pair(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("should be [lambda, group], or a list of such pairs")
    return value


def _form(value: Any) -> str:
    several = isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[0], (list, tuple))
    return "several" if several else "one"


_ONE = "|".join(GROUPS)
_PAIR_SCHEMA = {
    "type": "array",
    "minItems": 2,
    "maxItems": 2,
    "items": {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"enum": list(GROUPS)},
            {"type": "string", "pattern": rf"^({_ONE})(\+({_ONE}))+$"},
        ]
    },
}

Pair = Annotated[
    tuple[Strength, Annotated[str, AfterValidator(_known)]],
    Field(strict=False),
    BeforeValidator(_is_pair),
    WithJsonSchema(_PAIR_SCHEMA),
]
"""A strength and a group, or several groups joined by + that have it each."""

Regim = Annotated[
    Annotated[Pair, Tag("one")] | Annotated[list[Pair], Field(strict=False), Tag("several")], Discriminator(_form)
]


def terms(regim: Any) -> list[tuple[float, Structure]]:
    """The strengths and groups that a `Regim` means; they may overlap."""
    pairs = regim if _form(regim) == "several" else [regim]
    return [(strength, GROUPS[part]) for strength, groups in pairs for part in groups.split("+")]


class GroupRegularizer(Regularizer):
    """A penalty on the L2 norms of groups of weights."""

    reg_regims: Annotated[dict[str, Regim], Selects()] = Field(
        min_length=1, description="weight: [lambda, group], or a list of such pairs; Rows+Cols: both with that lambda"
    )

    def structures(self, targets: Targets) -> Mapping[str, Sequence[Structure]]:
        return {name: [cut for _, cut in terms(regim)] for name, regim in targets["reg_regims"].items()}


def norms(structure: Structure, weight: Tensor) -> Tensor:
    """The L2 norm of each group, in `index_shape`."""
    if _across_filters(structure):
        return sums(structure, weight.square()).sqrt_()
    return structure.norms(weight)


def sums(structure: Structure, values: Tensor) -> Tensor:
    """The sum over each group."""
    return structure.sums(values.sum(0, keepdim=True) if _across_filters(structure) else values)


def largest(structure: Structure, values: Tensor) -> Tensor:
    """The largest value of each group."""
    return structure.largest(values.amax(0, keepdim=True) if _across_filters(structure) else values)


def spread(structure: Structure, index: Tensor, shape: Shape) -> Tensor:
    """One value a group (in `index_shape`) as a tensor that can be broadcast over the weight."""
    if _across_filters(structure):
        return structure.expand(index, (1, *shape[1:])).contiguous()
    return structure.expand(index, shape)


def _across_filters(structure: Structure) -> bool:
    """Whether a group has some of each filter: then, filters first, a CPU's loops are long (a fifth of the time)."""
    return 0 in structure.members and 1 not in structure.members


TINY = 1e-15
"""Norms below it count as it: w / norm is 0 at 0, and not above 1 where squares vanish in single precision."""


@torch.no_grad()
def add_directions(gradient: Tensor, weight: Tensor, structure: Structure, factor: float) -> None:
    """Add factor * w / ||w_g|| to a gradient, and 0 where the group is 0."""
    inverse = norms(structure, weight).clamp_(min=TINY).reciprocal_()
    gradient.addcmul_(weight.detach(), spread(structure, inverse, weight.shape), value=factor)
