"""What a checkpoint says beside its weights, checked before it is used."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from compressor.errors import UserError
from compressor.reports import Thinning

Figures = dict[str, float]

LARGEST = 2**26
"""The number of values of the largest image: 3 x 4096 x 4096, and some more."""


def _not_too_large(shape: list[int]) -> list[int]:
    if math.prod(shape) > LARGEST:
        raise ValueError(f"an image of {' x '.join(map(str, shape))} is too large")
    return shape


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    dense: dict[str, list[int] | tuple[int, ...]] = {}


class _Contents(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    shape: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(_not_too_large)]
    classes: list[str]
    metrics: dict[str, Figures]
    epoch: int = 0
    figures: dict[str, Figures] = {}
    thinnings: list[Thinning] = []
    state: _State = _State()


def check_contents(checkpoint: Mapping[str, Any], source: str) -> None:
    """Raise `UserError` that names the first key of a checkpoint whose value cannot be used."""
    try:
        _Contents.model_validate(dict(checkpoint))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{source}: a damaged checkpoint: {where}: {said[0].lower()}{said[1:]}") from None
