"""Regular expressions from files, whose cost is bounded."""

import math
import time
from collections.abc import Iterable

import regex

SECONDS = 0.1
"""The CPU time that one pattern may take."""

NESTED, COPIES = 5, 1_000
"""The depth of groups, and the product of the counts in braces: `regex` multiplies what is repeated out."""

_NO_GROUP = regex.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", regex.DOTALL)
_COUNT = regex.compile(r"\{(\d*),?(\d*)\}")
_OTHER_SYNTAX = regex.compile(r"\(\?(?:#|[\w-]*[xV])|\[:")
"""Comments, the flags `x` and `V1`, POSIX classes: with them a bracket or a brace need not mean what it seems to."""


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names in which the regular expression `pattern` is found.

    Raises `ValueError` where it is no regular expression, or takes too long.
    """
    try:
        _refuse_large(pattern)
        compiled = regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    found = []
    end = time.process_time() + SECONDS
    try:
        for name in names:
            if compiled.search(name, timeout=max(end - time.process_time(), 1e-6)):
                found.append(name)
    except TimeoutError:
        raise ValueError(
            f"{pattern!r} takes longer than {SECONDS:g} s: repeat less in it, or name the weights"
        ) from None
    return found


def _refuse_large(pattern: str) -> None:
    """Raise `ValueError` for a pattern whose compiled form may be much larger than itself, or cannot be estimated."""
    if found := _OTHER_SYNTAX.search(pattern):
        raise ValueError(
            f"{pattern!r} has {found[0]!r}: comments, POSIX classes and the flags x and V1 are not allowed"
        )
    plain = _NO_GROUP.sub("", pattern)
    depth = deepest = 0
    for character in plain:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    counts = [max(int(number or 1) for number in match.groups()) for match in _COUNT.finditer(plain)]
    if deepest > NESTED or math.prod(counts) > COPIES:
        raise ValueError(
            f"{pattern!r} is too large: at most {NESTED} groups inside each other and {COPIES:,} repetitions by"
            " counts in braces"
        )
