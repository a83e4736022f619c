"""JSON without NaN, terminals without UTF-8, paths that are no text, checkpoints with junk: one clear message."""

import copy
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from helpers import TINY, Result, compress, saved, succeed

import compressor
from compressor.cli import main
from compressor.errors import UserError
from compressor.strict_json import dumps


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    succeed("train", "-c", folder / "tiny.yaml", "--set", "epochs=1", "--out", folder / "run")
    return saved(folder / "run" / "checkpoint.pt")


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


# --- JSON ----------------------------------------------------------------------------------------------------------


def test_numbers_that_are_not_finite_are_null_everywhere() -> None:
    value = {"a": [1.5, float("nan"), {"b": (float("inf"), -float("inf"))}], "c": True, "d": None, "e": 3}
    assert dumps(value) == '{"a": [1.5, null, {"b": [null, null]}], "c": true, "d": null, "e": 3}'


@pytest.mark.parametrize("command", ["eval", "report"])
def test_the_json_of_a_network_with_nan_is_json(command: str, trained: dict[str, Any]) -> None:
    spoilt = {**trained, "model": {**trained["model"], "fc1.bias": torch.full((16,), torch.nan)}}
    spoilt["model"]["fc1.weight"] = torch.full((16, 64), torch.nan)
    spoilt["metrics"] = {"test": {"loss": float("nan"), "top1": float("nan"), "top5": 50.0}}
    torch.save(spoilt, "nan.pt")
    found = json.loads(succeed(command, "nan.pt", "--json"), parse_constant=no_constant)
    assert (found["loss"] if command == "eval" else found["totals"]["top1"]) is None


# --- terminals and paths -------------------------------------------------------------------------------------------


def on_ascii(*arguments: object) -> Result:
    """Run a command whose stdout and stderr are ascii."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = [io.TextIOWrapper(one, encoding="ascii", write_through=True) for one in (out, err)]
    argv = ["compress", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "stdout", streams[0]),
        mock.patch.object(sys, "stderr", streams[1]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Result(
        int(ended.value.code or 0), out.getvalue().decode(errors="replace"), err.getvalue().decode(errors="replace")
    )


NAMES = {"letters": "läuf-✓", "bytes that are no UTF-8": os.fsdecode(b"l\xe4uf")}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_an_ascii_terminal_and_any_path_are_no_error(name: str) -> None:
    os.mkdir(name)
    Path(name, "own.yaml").write_text(TINY)
    run = f"{name}/run"
    trained = on_ascii("train", "-c", f"{name}/own.yaml", "--set", "epochs=1", "--out", run)
    assert trained.code == 0, trained.err
    assert "run folder: l" in trained.out
    assert "top-1" in on_ascii("eval", run).out
    assert on_ascii("report", run).code == 0
    init = ("train", "-c", "tiny", "--set", "epochs=1", "--init", f"{run}/best.pt", "--out", f"{name}/next")
    assert on_ascii(*init).code == 0
    assert "finished already" in on_ascii("train", "--out", f"{name}/next", "--resume").out
    missing = on_ascii("eval", f"{name}/nothing.pt")
    assert (missing.code, "internal" in missing.err, len(missing.err.splitlines())) == (2, False, 1)


# --- junk ----------------------------------------------------------------------------------------------------------

JUNK = {
    "format": (("format",), torch.zeros(2), "format"),
    "classes of numbers": (("classes", 0), 3, "classes.0: input should be a valid string"),
    "a side of the images": (("shape", 1), "x", "damaged"),
    "images that would fill the memory": (("shape", 1), 2**40, "shape: an image of 1 x 1099511627776 x 8 is too large"),
    "metrics": (("metrics", "test"), 3, "metrics.test: input should be a valid dictionary"),
    "a metric": (("metrics", "test", "top1"), "x", "metrics.test.top1: input should be a valid number"),
    "figures": (("figures",), ["x"], "figures: input should be a valid dictionary"),
    "thinnings": (("thinnings",), [{"when": 3}], "thinnings.0."),
    "epoch": (("epoch",), "x", "epoch: input should be a valid integer"),
    "architecture": (("architecture",), 3, "its architecture should be a table"),
    "no groups": (("architecture",), {"fc1": {"in_features": 64}}, "its architecture has a layer 'fc1'"),
    "a layer": (("architecture",), {3: {}}, "its architecture has a layer 3"),
    "config": (("config", "epochs"), "x", "its configuration cannot be read"),
    "a weight": (("model", "fc1.weight"), torch.zeros(16, 64) * 1j, "fc1.weight is no dense tensor of real numbers"),
    "a name": (("model",), {3: torch.zeros(1)}, "the weights do not fit this model"),
}

READERS: dict[str, Callable[[], Result]] = {
    "eval": lambda: compress("eval", "junk.pt"),
    "report": lambda: compress("report", "junk.pt"),
    "thin": lambda: compress("thin", "junk.pt"),
}


def write_junk(trained: dict[str, Any], path: tuple[Any, ...], value: Any, file: str = "junk.pt") -> None:
    changed = {key: copy.deepcopy(one) if key != "model" else dict(one) for key, one in trained.items()}
    changed.setdefault("architecture", {})
    here: Any = changed
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    torch.save(changed, file)


@pytest.mark.parametrize(("path", "value", "words"), JUNK.values(), ids=JUNK)
def test_junk_in_a_checkpoint_is_one_message(
    path: tuple[Any, ...], value: Any, words: str, trained: dict[str, Any]
) -> None:
    write_junk(trained, path, value)
    for command in READERS.values():
        result = command()
        assert (result.code, result.out) == (2, "")
        (line,) = result.err.splitlines()
        assert line.startswith("error: junk.pt: ")
        assert words in line
    with pytest.raises(UserError, match=r"junk\.pt: "):
        compressor.load("junk.pt")


@pytest.mark.parametrize("key", ["dense", "clock", "masks", "optimizer", "rng", "progress", "live"])
@pytest.mark.parametrize("value", [3, "x", torch.zeros(2), None], ids=["number", "text", "tensor", "nothing"])
def test_a_run_is_not_resumed_from_a_junk_state(key: str, value: Any, trained: dict[str, Any]) -> None:
    os.mkdir("run")
    (Path("run") / "config.yaml").write_text(json.dumps({**trained["config"]}))
    write_junk({**trained, "finished": False}, ("state", key), value, "run/checkpoint.pt")
    result = compress("train", "--out", "run", "--resume")
    assert result.code == 2, result.err
    assert "run/checkpoint.pt: " in result.err
    assert "internal error" not in result.err
