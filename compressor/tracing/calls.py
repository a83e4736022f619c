"""Names for the calls of torch's functions in one forward pass."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Call", "Calls", "tensors"]


@dataclass(frozen=True)
class Call:
    """Call number `number` (from 0) of a function of this name in a forward pass."""

    function: str
    number: int


class Calls:
    """Number the calls of one forward pass."""

    def __init__(self) -> None:
        self._counts = Counter[str]()

    def next(self, function: Any) -> Call:
        """Return the call that begins now. Methods and functions of one name count together."""
        name = getattr(function, "__name__", str(function))
        self._counts[name] += 1
        return Call(name, self._counts[name] - 1)


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors among some arguments, also those in lists and tuples of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(one for one in value if isinstance(one, Tensor))
    return found
