"""The checks between a YAML value and a builder: types and ranges first, then the size, and only then memory."""

import inspect
import reprlib
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError, create_model
from torch import nn
from torch.overrides import TorchFunctionMode

from compressor.component import Settings
from compressor.errors import CompressError, UserError, did_you_mean

Size = Annotated[int, Field(ge=1, le=2**24)]
"""A number of units, channels or classes: the product of two of them and a kernel fits into an int64."""

Rate = Annotated[float, Field(ge=0, lt=1)]
"""A probability of dropping a unit."""

Factor = Annotated[float, Field(gt=0)]
"""A factor on a width or a scale."""

LARGEST = 2**31
"""Parameters and buffers of the largest model that is built (8 GiB of floats)."""


def refuse_unknown(model: str, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> None:
    """Raise `UserError` for the first name that is not an argument of the model."""
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            # The nearest name first, but always with the whole list: it is short, and nowhere else at hand.
            every = f" It takes {', '.join(known)}." if hint.startswith("did") else ""
            raise UserError(f"model {model!r} has no argument {name!r}: {hint}{every}")


def checked(model: str, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given arguments, checked against the builder's annotations.

    Raises `UserError` with the wrong one and the reason.
    """
    refuse_unknown(model, known, given)
    fields: dict[str, Any] = {name: (known[name].annotation, ...) for name in given}
    try:
        parsed = create_model("Arguments", __base__=Settings, **fields).model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = str(first["loc"][0]) + "".join(f"[{at}]" for at in first["loc"][1:] if isinstance(at, int))
        what = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(f"model {model!r}, argument {where!r}: {what}, got {_shown(first['input'])}") from error
    return {name: getattr(parsed, name) for name in given}


def construct(model: str, make: Callable[[], nn.Module], *, draft: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Return `make()`. Raises `UserError` where it fails or its result would be larger than `LARGEST`.

    `draft` makes the same network for measuring the size, where `make` does more than that.
    """
    try:
        network = shapes(draft or make)
        size = sum(t.numel() for t in [*network.parameters(), *network.buffers()])
        if size > LARGEST:
            raise UserError(f"model {model!r} would have {size:,} parameters, at most {LARGEST:,} are allowed")
        return make()
    except CompressError:
        raise
    except Exception as error:  # whatever a builder trips over comes from the values that it was given
        raise UserError(f"model {model!r} cannot be built: {one_line(error)}") from error


def shapes(make: Callable[[], nn.Module]) -> nn.Module:
    """Return `make()` without its weights: milliseconds and no memory, whatever the size of the network."""
    with _ShapesOnly(sys._getframe()):
        return make()


def one_line(error: BaseException) -> str:
    """Return an exception in one line: its type, and the first line of its message."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _ShapesOnly(TorchFunctionMode):
    """Let layers allocate nothing: what `torch.empty`, `zeros` and `ones` would fill has a shape only.

    `torch.device("meta")` would do that to *every* tensor; torchvision's RegNets compute their widths with some. A
    module that is imported inside the block keeps its tensors, so those are real ones. `outer` is the block's frame.
    """

    def __init__(self, outer: FrameType) -> None:
        self._outer = outer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in (torch.empty, torch.zeros, torch.ones) or self._importing():
            return func(*args, **(kwargs or {}))
        return func(*args, **{**(kwargs or {}), "device": "meta"})

    def _importing(self) -> bool:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame is not self._outer:
            if frame.f_code.co_name == "<module>":
                return True
            frame = frame.f_back
        return False


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        return f"a huge {type(value).__name__}"
