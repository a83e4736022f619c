"""`${NAME}` in the values of a configuration."""

from pathlib import Path
from typing import Any

import pytest

from compressor.schedule import open_config
from compressor.schedule.faults import Faults

CONFIG = (
    "model: {name: mlp, file: FILE, more: [1, 'x${WEIGHTS}']}\ndata: {name: digits}\noptimizer: {lr: 1}\nepochs: 1\n"
)


def opened(text: str, overrides: Any = ()) -> tuple[Any, list[str]]:
    Path("c.yaml").write_text(text)
    faults = Faults()
    built, _ = open_config("c.yaml", overrides, {}, {}, faults)
    return built, faults.lines


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTS", "/w/a b")
    monkeypatch.setenv("SECRET", "${nested}")


def test_a_variable_is_put_in_place_in_every_text_value_and_in_those_of_set() -> None:
    built, faults = opened(f"{CONFIG}init: '${{WEIGHTS}}/${{WEIGHTS}}.pt'\n", [("model.file", "$HOME ${WEIGHTS}")])
    assert faults == []
    assert built.checkpoint_path == "/w/a b//w/a b.pt"
    assert built.model.arguments == {"file": "$HOME /w/a b", "more": [1, "x/w/a b"]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${WIEGHTS}/x", "there is no environment variable 'WIEGHTS': did you mean 'WEIGHTS'?"),
        ("${Q_Q_Q}", "there is no environment variable 'Q_Q_Q': set it (export Q_Q_Q=...), or write its value here"),
        ("${WEIGHTS", "'${WEIGHTS' should be ${NAME}, the name of an environment variable"),
        ("${}", "'${}' should be ${NAME}, the name of an environment variable"),
        ("${WEIGHTS:-x}", "'${WEIGHTS:-x}' should be ${NAME}, the name of an environment variable"),
        ("${SECRET}", "the environment variable 'SECRET' itself has a '${', which is not expanded: write it in full"),
    ],
)
def test_what_is_no_variable_is_a_fault_with_its_place_and_no_value_is_shown(value: str, said: str) -> None:
    built, faults = opened(f"{CONFIG}init: '{value}'\n")
    assert built is None
    assert faults == [f"c.yaml:5:7: init: {said}"]


def test_a_name_that_is_not_expanded_is_not_sought() -> None:
    Path("c.yaml").write_text(CONFIG.replace("digits", "'${Q_Q_Q}/x'"))
    faults = Faults()
    open_config("c.yaml", (), {}, {"data": lambda: {"digits": ""}}, faults)
    assert len(faults.lines) == 1
