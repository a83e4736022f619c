"""Chosen calls of a forward pass are shown as they are made."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.tracing.calls import Call, Calls, tensors
from compressor.tracing.watching import Look, Watching


def noting(into: list[Any], name: str) -> Look:
    """Note the first argument and the result as they are at that time."""

    def look(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        given: Tensor = tensors((*args, *named.values()))[0]
        into.append((name, given.tolist(), None if result is None else result.tolist()))

    return look


def test_arguments_are_shown_before_they_are_overwritten_and_results_after() -> None:
    seen: list[Any] = []
    relu = Call("relu_", 1)
    before = [(relu, noting(seen, "before")), (relu, noting(seen, "before, too")), (Call("tanh", 0), noting(seen, "-"))]
    with Watching(before, [(relu, noting(seen, "after"))]):
        torch.relu_(torch.tensor([-1.0]))
        torch.relu_(torch.tensor([-2.0, 3.0]))
        torch.relu_(torch.tensor([-4.0]))
    given = [-2.0, 3.0]
    assert seen == [("before", given, None), ("before, too", given, None), ("after", [0.0, 3.0], [0.0, 3.0])]


def test_what_a_look_computes_itself_is_neither_shown_nor_counted() -> None:
    seen: list[Any] = []

    def look(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        F.relu(args[0])
        seen.append(args[0].tolist())

    with Watching([(Call("relu", 0), look), (Call("relu", 1), look)], []):
        F.relu(torch.zeros(1))
        F.relu(torch.ones(1))
    assert seen == [[0.0], [1.0]]


def test_calls_are_numbered_by_the_function_s_name() -> None:
    calls = Calls()
    given = (F.relu, torch.relu, Tensor.relu, nn.functional.linear, "no function")
    expected = [("relu", 0), ("relu", 1), ("relu", 2), ("linear", 0), ("no function", 0)]
    assert [calls.next(function) for function in given] == [Call(*one) for one in expected]


def test_tensors_are_found_in_lists_and_tuples_of_arguments() -> None:
    a, b, c = torch.zeros(3)
    found = tensors((a, 1, [b, None], (c, "x"), {"d": a}))
    assert [one is other for one, other in zip(found, (a, b, c), strict=True)] == [True] * 3
