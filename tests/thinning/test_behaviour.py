"""What becomes of 0: the rule of each operation beside torch's own value."""

from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from compressor.thinning import behaviour
from compressor.thinning.behaviour import rule_at_zero

Z, X, INT, BOOL = torch.zeros(4), torch.full((4,), 3.0), torch.zeros(4, dtype=torch.long), torch.tensor([True] * 4)
AT = [torch.arange(2)]

ZERO: dict[str, tuple[Any, ...]] = {
    "_prelu_kernel": (Z, X), "add": (Z, Z), "all": (Z, 0), "any": (Z, 0), "bitwise_and": (INT, INT + 3),
    "clamp": (Z, -1, 1), "clamp_max": (Z, 0), "clamp_min": (Z, 0), "copy": (Z, Z), "cummax": (Z, 0), "cumsum": (Z, 0),
    "div": (Z, X), "dropout": (Z, 0.5, True), "fill": (Z, 0), "floor_divide": (Z, X), "fmax": (Z, Z), "fmin": (Z, Z),
    "fmod": (Z, X), "gt": (Z, Z), "heaviside": (Z, Z), "hypot": (Z, Z), "imag": (Z + 0j,), "index_put": (Z, AT, Z[:2]),
    "lerp": (Z, Z, 0.5), "logical_and": (Z, X), "logical_or": (Z, Z), "logical_xor": (Z, Z), "lt": (Z, Z),
    "masked_fill": (Z, BOOL, 0.0), "maximum": (Z, Z), "minimum": (Z, Z), "mul": (Z, X),
    "native_dropout": (Z, 0.5, True), "ne": (Z, Z), "pow": (Z, 2), "prelu": (Z, X[:1]),
    "remainder": (Z, X), "rrelu_with_noise": (Z, X.clone()),
    "sub": (Z, Z), "threshold": (Z, 0, 0), "true_divide": (Z, X), "where": (BOOL, Z, Z), "xlogy": (Z, X),
    "amax": (Z, [0]), "amin": (Z, [0]),
}  # fmt: skip
"""The arguments with which an operation is 0; of all others it is one tensor."""


@pytest.mark.parametrize(("name", "args"), [
    *((name, ZERO.get(name, (Z,))) for name in sorted(behaviour._ZERO_AT_ZERO)),
    ("add", (Z, 1)), ("add", (Z, 0)), ("sub", (Z, 1)), ("rsub", (Z, 1)), ("pow", (Z, 0)), ("pow", (Z, -1)),
    ("pow", (Z, 0.5)), ("gt", (Z, -1)), ("gt", (Z, 0)), ("gt", (Z, 1)), ("lt", (Z, 1)), ("lt", (Z, 0)), ("lt", (Z, -1)),
    ("ge", (Z, 0)), ("ge", (Z, 1)), ("le", (Z, 0)), ("le", (Z, -1)), ("eq", (Z, 0)), ("eq", (Z, 1)), ("ne", (Z, 0)),
    ("ne", (Z, 1)), ("ge", (Z, Z)), ("le", (Z, Z)), ("eq", (Z, Z)), ("hardtanh", (Z, 1, 2)), ("hardtanh", (Z, -2, -1)),
    ("hardtanh", (Z, 0, 6)), ("clamp", (Z, 0.5)), ("clamp", (Z, None, -1)), ("clamp", (Z, None, 1)),
    ("clamp_min", (Z, 1)), ("clamp_min", (Z, -1)), ("clamp_max", (Z, -1)), ("clamp_max", (Z, 1)),
    ("threshold", (Z, 0, 3)), ("threshold", (Z, -1, 3)), ("masked_fill", (Z, BOOL, 1.0)), ("fill", (Z, 1)),
    ("sigmoid", (Z,)), ("softplus", (Z,)), ("exp", (Z,)), ("cos", (Z,)), ("log", (Z,)), ("reciprocal", (Z,)),
    ("rsqrt", (Z,)), ("hardsigmoid", (Z,)), ("log_sigmoid", (Z,)), ("logit", (Z,)), ("erfc", (Z,)), ("acos", (Z,)),
    ("cosh", (Z,)), ("isfinite", (Z,)), ("logical_not", (Z,)), ("bitwise_not", (INT,)), ("_softmax", (Z, 0, False)),
    ("logsumexp", (Z, 0)), ("index_put", (Z, AT, torch.tensor(0.0))),
])  # fmt: skip
def test_the_rule_at_zero_is_what_torch_computes(name: str, args: tuple[Any, ...]) -> None:
    """`never` where torch's value at 0 is not 0, and another rule where it is."""
    given = [one.clone() if isinstance(one, torch.Tensor) else one for one in args]
    value = tree_leaves(getattr(torch.ops.aten, name)(*given))[0]
    assert (rule_at_zero(name, args, {}) != "never") == bool((value == 0).all())


@pytest.mark.parametrize(("name", "kwargs", "holds"), [
    ("clamp", {"min": -1}, True), ("clamp", {"min": 1}, False), ("clamp", {"max": -1}, False),
    ("clamp", {"min": -1, "max": 1}, True), ("hardtanh", {"min_val": 1, "max_val": 2}, False), ("hardtanh", {}, True),
])  # fmt: skip
def test_bounds_may_be_given_by_name(name: str, kwargs: dict[str, float], holds: bool) -> None:
    assert bool((getattr(torch.ops.aten, name)(Z, **kwargs) == 0).all()) == holds
    assert rule_at_zero(name, (Z,), kwargs) == ("all" if holds else "never")


@pytest.mark.parametrize(("name", "rule"), [
    ("add", "all"), ("maximum", "all"), ("mul", "any"), ("logical_and", "any"), ("bitwise_and", "any"),
    ("div", "first"), ("prelu", "first"), ("xlogy", "first"), ("remainder", "first"),
])  # fmt: skip
def test_which_arguments_must_be_zero(name: str, rule: str) -> None:
    """By torch's values at (0, 3) and (3, 0), in the type of the operation."""
    of = getattr(torch.ops.aten, name)
    a, b = (INT, INT + 3) if name == "bitwise_and" else (Z, X)
    if name == "prelu":
        b = b[:1]
    first = bool((of(a, b) == 0).all())
    second = name != "prelu" and bool((of(b, a) == 0).all())
    assert rule_at_zero(name, (a, b), {}) == rule
    assert (first, second) == {"all": (False, False), "any": (True, True), "first": (True, False)}[rule]
