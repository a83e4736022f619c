"""The JSON Schemas refuse what the grammar refuses by structure: the same mutants are given to both.

Half of the schedules are composed from the registry, the others are shipped ones; FUZZ of them, and half as many
configurations, each mutated as data.
"""

import contextlib
import math
import os
import random
import re
from collections.abc import Callable
from typing import Any

import composing
import jsonschema
import pytest
from mutating import SCALARS, as_data
from pydantic_core import ErrorDetails

from compressor.config import Config
from compressor.errors import UserError
from compressor.schedule import grammar, parsing, schema
from compressor.schedule.document import Document, parse
from compressor.schedule.faults import Faults

pytestmark = pytest.mark.counted
COUNT = int(os.environ.get("FUZZ", "100"))
SEED = os.environ.get("FUZZ_SEED", "0")

FINITE = [value for value in SCALARS if not isinstance(value, float) or (math.isfinite(value) and value % 1)]
"""What a mutation puts in: JSON has no infinity, and no whole number that is a fraction."""

CANNOT_SAY = {
    "which instances the file has": r"no \w+ is called",
    "a fraction from a whole number: 1.0 is 1": r"an integer, got .*\.0$",
    "which `mode` goes with a `metric`": r"is best at its (min|max), got",
    "that `noise` is a probability in version 1": r"'noise' of .* (less than or equal to 1|a number, got a mapping)",
    "which of two numbers of a list is larger, and which of its places is 1": r"should be \[|block_shape should be",
}
"""What a schema cannot say, each with the messages that say it; and all rules of Python on more than one key."""


def _of_several_keys(error: ErrorDetails) -> bool:
    """Return whether an error is that of a rule on a whole block: what its keys, each of them valid, say together."""
    return error["type"] == "value_error" and isinstance(error["input"], dict)


def _schedules(rng: random.Random) -> str:
    return composing.compose(rng)[0] if rng.random() < 0.5 else composing.shipped(rng)[0]


def _configs(rng: random.Random) -> str:
    every = sorted((composing.ROOT / "configs").rglob("*.yaml"))
    return rng.choice(every).read_text(encoding="utf-8")


def _read_config(document: Document, faults: Faults) -> None:
    parsing.build(Config, document.data, document, (), faults, what="the configuration")


@pytest.mark.parametrize(
    ("written", "read", "made", "count"),
    [(_schedules, grammar.read, schema.schedule, COUNT), (_configs, _read_config, schema.config, COUNT // 2)],
    ids=["schedules", "configs"],
)
def test_a_schema_refuses_what_the_grammar_refuses(
    written: Callable[[random.Random], str],
    read: Callable[[Document, Faults], object],
    made: Callable[[], dict[str, object]],
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, rules = parsing._report, 0

    def only_of_one_key(errors: list[ErrorDetails], *more: Any) -> None:
        nonlocal rules
        of_one = [error for error in errors if not _of_several_keys(error)]
        rules += len(errors) - len(of_one)
        report(of_one, *more)

    monkeypatch.setattr(parsing, "_report", only_of_one_key)
    validator = jsonschema.Draft7Validator(made())
    refused = 0
    for number in range(count):
        rng = random.Random(f"{SEED}/{number}")
        text = as_data(written(rng), rng, FINITE)
        faults, rules = Faults(), 0
        document = parse("s.yaml", text, faults)
        if faults:  # it is no YAML of ours: an editor's schema never sees it
            continue
        with contextlib.suppress(UserError):  # after a hundred faults
            read(document, faults)
        said = [line for line in faults.lines if not any(re.search(known, line) for known in CANNOT_SAY.values())]
        error = jsonschema.exceptions.best_match(validator.iter_errors(document.data))
        refused += error is not None
        case = f"FUZZ_SEED={SEED}, number {number}: {said}\n--- file\n{text}"
        assert error is not None or not said, f"the grammar refuses it, the schema does not: {case}"
        empty = error is not None and error.instance == []  # a list without weights is refused when it is bound
        allowed = error is None or faults or rules or empty
        assert allowed, f"the schema refuses it, the grammar does not: {error}: {case}"
    assert refused > 0.3 * count
