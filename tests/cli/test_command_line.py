"""The commands themselves: what there is, what it is called, what it costs to ask."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
from helpers import compress, environment, process

from compressor.cli import cli, main

# Frozen: whoever changes the command line changes this literal with it, and the README.
# An argument is in capitals, one that may be left out in brackets; an option has its default (None: none).
COMMANDS: dict[str, dict[str, Any]] = {
    "train": {
        "-s --schedule": None,
        "-c --config": None,
        "--set": (),
        "--init": None,
        "--keep-zeros": False,
        "--out": None,
        "--data": None,
        "--device": "auto",
        "--seed": None,
        "--allow-plugins": False,
        "--smoke": False,
        "--resume": False,
        "--other-data": False,
        "--wide": False,
    },
    "validate": {"SCHEDULE": None, "-c --config": None, "--set": (), "--allow-plugins": False, "--json": False},
    "plan": {
        "SCHEDULE": None,
        "-c --config": None,
        "--set": (),
        "--data": None,
        "--allow-plugins": False,
        "--wide": False,
        "--json": False,
        "--html": None,
    },
    "diff": {"A": None, "B": None, "-c --config": None, "--allow-plugins": False, "--json": False},
    "convert": {"OLD": None, "--out": None, "-c --config": None, "--allow-plugins": False},
    "eval": {
        "CHECKPOINT": None,
        "-c --config": None,
        "--set": (),
        "--data": None,
        "--other-data": False,
        "--device": "auto",
        "--min-top1": None,
        "--allow-plugins": False,
        "--json": False,
    },
    "compare": {
        "RUN_A RUN_B ...": None,
        "--max-drop": None,
        "--max-class-drop": None,
        "--min-sparsity": None,
        "--max-size": None,
        "--max-latency": None,
        "--no-latency": False,
        "--allow-plugins": False,
        "--wide": False,
        "--json": False,
        "--html": None,
    },
    "report": {
        "RUN": None,
        "-c --config": None,
        "--set": (),
        "--data": None,
        "--allow-plugins": False,
        "--no-latency": False,
        "--wide": False,
        "--json": False,
        "--html": None,
    },
    "verify": {
        "SCHEDULE...": None,
        "--seeds": None,
        "--data": None,
        "--device": "auto",
        "--out": Path("runs"),
        "--junit": None,
        "--record": False,
        "--allow-plugins": False,
        "--wide": False,
        "--json": False,
    },
    "sweep": {
        "SCHEDULE": None,
        "-c --config": None,
        "--grid": (),
        "--seeds": None,
        "--out": None,
        "--jobs": None,
        "--on": None,
        "--data": None,
        "--device": "auto",
        "--no-latency": False,
        "--allow-plugins": False,
        "--wide": False,
    },
    "summary": {
        "MODEL": None,
        "--svg": None,
        "--image": None,
        "-c --config": None,
        "--set": (),
        "--data": None,
        "--allow-plugins": False,
        "--wide": False,
        "--json": False,
    },
    "thin": {
        "[CHECKPOINT]": None,
        "--round-to": 1,
        "--out": None,
        "--explain": False,
        "--svg": None,
        "-c --config": None,
        "--set": (),
        "--data": None,
        "--other-data": False,
        "--device": "auto",
        "--allow-plugins": False,
        "--no-latency": False,
        "--wide": False,
        "--json": False,
    },
    "export": {
        "CHECKPOINT": None,
        "--format": "onnx",
        "--thin": False,
        "--out": None,
        "-c --config": None,
        "--set": (),
        "--data": None,
        "--other-data": False,
        "--allow-plugins": False,
        "--no-latency": False,
        "--wide": False,
        "--json": False,
    },
    "list": {"[KIND|NAME]": None, "--wide": False},
    "schema": {"--config": False},
    "new": {
        "--model": "x",
        "--data": "digits",
        "--goal": "filters:0.5",
        "--init": None,
        "--set": (),
        "--out": Path(),
        "--allow-plugins": False,
    },
}


def described(command: click.Command) -> dict[str, Any]:
    """A command's parameters as `COMMANDS` has them: the defaults are those that click hands over."""
    parent, fitting = click.Context(cli, **cli.context_settings), list[str]()
    for p in command.params:
        if p.required:
            fitting += p.opts[:1] if isinstance(p, click.Option) else []
            fitting.append(p.type.choices[0] if isinstance(p.type, click.Choice) else "x")
    given = command.make_context(command.name, fitting, parent=parent).params
    shown: dict[str, Any] = {}
    for parameter in command.params:
        value = given[parameter.name] if parameter.expose_value else parameter.get_default(parent)
        if isinstance(parameter, click.Option):
            shown[" ".join(parameter.opts)] = tuple(value) if isinstance(value, list) else value
        elif parameter.required:
            shown[parameter.human_readable_name] = None
        else:
            shown[f"[{parameter.human_readable_name.strip('[]')}]"] = value
    return shown


def test_the_commands_and_their_options_are_the_frozen_ones() -> None:
    assert {name: described(command) for name, command in cli.commands.items()} == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_says_what_it_does(command: str) -> None:
    result = compress(command, "--help")
    assert result.code == 0
    assert cli.commands[command].get_short_help_str()
    for option in COMMANDS[command]:
        assert not option.startswith("-") or option.replace(" ", ", ") in result.out
    undocumented = [
        p.opts for p in cli.commands[command].params if isinstance(p, click.Option) and not (p.help or p.show_default)
    ]
    assert not undocumented


def test_help_names_every_command() -> None:
    result = compress("--help")
    assert result.code == 0
    assert all(f"\n  {name} " in result.out for name in COMMANDS)
    assert compress("-h") == result


HEAVY = ("torch", "torchvision", "numpy", "sklearn", "pydantic", "yaml", "tqdm", "rich", "compressor.config")


def test_asking_for_help_imports_neither_torch_nor_anything_else_that_is_heavy(work: Path) -> None:
    ask = f"""
import sys
sys.argv = ["compress", "--help"]
from compressor.cli import main
try:
    main()
finally:
    print("LOADED", [name for name in {HEAVY!r} if name in sys.modules])
"""
    command = [sys.executable, "-c", ask]
    done = subprocess.run(command, cwd=work, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Usage: compress" in done.stdout
    assert done.stdout.endswith("LOADED []\n")


def test_the_version_is_the_one_of_the_metadata(work: Path) -> None:
    result = process("--version", cwd=work)
    assert result == (0, f"compress, version {version('compressor')}\n", "")


def test_a_reader_that_goes_away_is_no_error_of_ours(work: Path) -> None:
    assert compress("train", "-c", "tiny", "--set", "epochs=1", "--out", "run").code == 0
    reader, writer = os.pipe()
    os.close(reader)
    out, err = os.fdopen(writer, "w"), io.StringIO()
    argv = ["compress", "report", "run", "--json"]
    with mock.patch.object(sys, "argv", argv), mock.patch.object(sys, "stdout", out), redirect_stderr(err):
        with pytest.raises(SystemExit) as ended:
            main()
        with suppress(BrokenPipeError):
            out.close()
    assert (ended.value.code, err.getvalue()) == (1, "")


def test_nor_is_it_one_of_the_process(work: Path) -> None:
    binary = Path(sys.executable).with_name("compress")
    command = ["bash", "-c", f"{binary} --help | true"]
    done = subprocess.run(command, cwd=work, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
