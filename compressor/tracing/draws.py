"""Single numbers that a network draws, by which it may choose what it runs: layers that are left out in training.

A forward pass in which all of them are low, and one in which all are high, take both ways at each of these choices.
"""

import random
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["draw", "is_draw", "python_drew", "seed"]

_BETWEEN_0_AND_1 = ("rand", "rand_like")


def is_draw(function: Any, result: Any) -> bool:
    """Return whether an operation drew one number."""
    return torch.Tag.nondeterministic_seeded in function.tags and isinstance(result, Tensor) and result.numel() == 1


def draw(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor, *, high: bool) -> None:
    """Let a number that was drawn be the least or the largest one, where it is uniform, or 0 and 1."""
    if name in _BETWEEN_0_AND_1:
        result.fill_(1 - torch.finfo(result.dtype).eps if high else 0)
    elif name == "uniform":
        low = args[1] if len(args) > 1 else kwargs.get("from", 0)
        top = args[2] if len(args) > 2 else kwargs.get("to", 1)
        result.fill_(top if high else low)
    elif name == "bernoulli":
        result.fill_(high)


def seed(number: int) -> None:
    """Set the states of the global random generators of torch, Python and numpy."""
    torch.manual_seed(number)
    random.seed(number)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(number)


def python_drew(number: int) -> bool:
    """Return whether Python or numpy drew a number since `seed`."""
    if random.getstate() != random.Random(number).getstate():
        return True
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False
    now, then = numpy.random.get_state(), numpy.random.RandomState(number).get_state()
    return bool(now[2] != then[2] or (now[1] != then[1]).any())
