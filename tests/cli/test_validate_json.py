"""`compress validate --json`: every finding with its severity and its place, whatever cannot be read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import PRUNE, TINY, compress

from compressor.schedule.faults import MOST


def findings(*arguments: object, code: int) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The JSON without its findings, and each of them as a tuple."""
    result = compress("validate", *arguments, "--json")
    assert (result.code, result.err) == (code, "")
    shown = json.loads(result.out, parse_constant=pytest.fail)
    keys = ["severity", "file", "line", "column", "text"]
    found = shown.pop("findings")
    assert all(list(one) == keys for one in found)
    return shown, [tuple(one[key] for key in keys) for one in found]


def test_a_valid_schedule_has_no_findings() -> None:
    assert findings("prune", code=0) == ({"schema": 1, "valid": True, "model": "mlp"}, [])


def test_every_fault_and_every_warning_has_its_place(work: Path) -> None:
    (work / "prune.yaml").write_text(PRUNE.replace("epoch: 4}", "epoch: 9}").replace("fc1.weight", "fc9.weight"))
    (work / "bad.yaml").write_text(TINY.replace("name: digits", "name: digit"))
    shown, found = findings("prune", "-c", "bad", code=2)
    assert shown == {"schema": 1, "valid": False, "model": "mlp"}
    short = [(severity, file, line, column) for severity, file, line, column, _ in found]
    assert short == [
        ("warning", "prune.yaml", 10, 5),
        ("error", "bad.yaml", 2, 14),
        ("error", "prune.yaml", 6, 47),
    ]
    assert found[0][4].startswith("0.fine acts last in epoch 8")
    assert "'fc9.weight'" in found[2][4]


def test_a_flag_is_no_file() -> None:
    _, found = findings("prune", "--set", "epochs=0", code=2)
    [(severity, file, line, column, text)] = found
    assert (severity, file, line, column) == ("error", None, None, None)
    assert text.startswith("--set epochs=0: ")


def test_without_a_configuration_no_model_is_named(work: Path) -> None:
    (work / "prune.yaml").write_text(PRUNE.replace("config: tiny\n", ""))
    assert findings("prune", code=0) == ({"schema": 1, "valid": True, "model": None}, [])


def test_what_cannot_be_read_is_a_finding(work: Path) -> None:
    nothing = {"schema": 1, "valid": False, "model": None}
    (work / "bytes.yaml").write_bytes(b"version: 2\nconfig: \xff\n")
    assert findings("bytes", code=2) == (nothing, [("error", "bytes.yaml", 2, 9, "this byte is not UTF-8 text")])
    (work / "torn.yaml").write_text("version: [2\n")
    assert [one[:3] for one in findings("torn", code=2)[1]] == [("error", "torn.yaml", 2)]
    shown, [found] = findings("prnue", code=2)
    assert (shown, found[:4]) == (nothing, ("error", None, None, None))
    assert "did you mean 'prune'" in found[4]
    (work / "large.yaml").write_text("#" * 300_000)
    assert [one[:4] for one in findings("large", code=2)[1]] == [("error", "large.yaml", None, None)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_a_finding(work: Path) -> None:
    (work / "prune.yaml").chmod(0)
    assert [one[:4] for one in findings("prune", code=2)[1]] == [("error", "prune.yaml", None, None)]


def test_more_faults_than_are_looked_for_are_all_there(work: Path) -> None:
    (work / "prune.yaml").write_text(PRUNE + "".join(f"key{number}: 1\n" for number in range(2 * MOST)))
    _, found = findings("prune", code=2)
    assert len(found) == MOST + 1
    assert found[-1] == ("error", None, None, None, f"these are {MOST} faults: correct them to see more")
    assert {one[1] for one in found[:-1]} == {"prune.yaml"}
    assert len(compress("validate", "prune").err.splitlines()) == MOST + 1
