"""JSON as its standard has it: a number that is not finite is null, and a key stands once."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, *, indent: int | None = None, compact: bool = False) -> str:
    """Return plain values as JSON, with null for NaN and infinity. `compact`: without spaces, letters as they are."""
    separators = (",", ":") if compact else None
    return json.dumps(_finite(value), allow_nan=False, indent=indent, separators=separators, ensure_ascii=not compact)


def loads(text: str) -> Any:
    """Return the value of a JSON text. Raises `ValueError` in one line where it is something else, a key stands twice,
    or a number is not finite.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_number, parse_float=_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:60]!r} stands there more than once")
    return found


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:60]} is no finite number")
    return number


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
