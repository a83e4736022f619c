"""A stated value is written as YAML has it in one line."""

from typing import Any

import pytest

from compressor.schedule import Stated


@pytest.mark.parametrize(
    ("value", "given", "text"),
    [
        ({"class": "Pruner", "epochs": [1, 2], "stop": True}, True, "{class: Pruner, epochs: [1, 2], stop: true}"),
        (None, True, "null"),
        (None, False, "-"),
        (0.5, False, "0.5 (default)"),
    ],
)
def test_the_text_of_a_value(value: Any, given: bool, text: str) -> None:
    assert Stated(value=value, file="a.yaml", line=1, column=1, given=given).text == text
