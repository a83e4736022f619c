"""The parts of the README that are generated from the code: `make docs` writes them, a test compares them."""

import json
import sys
from pathlib import Path
from typing import get_args

import click
from pydantic import BaseModel


def commands() -> str:
    """Return every command with its arguments and options, from click."""
    from compressor.cli import cli

    lines = []
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=f"compress {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        usage = usage.replace("[[", "[").replace("]]", "]")  # of a choice that may be left out, in click before 8.4
        lines += [f"**`compress {name} {usage}`** {command.get_short_help_str(200)}", ""]
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        rows = [record for option in options if (record := option.get_help_record(context))]
        for flags, text in rows:
            lines.append(f"- `{flags}` {text}".rstrip())
        if rows:
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def methods() -> str:
    """Return every component by section, with the first line of its docstring."""
    from compressor.schedule import AXES, SECTIONS, components

    lines = ["| section | class | what it does |", "| --- | --- | --- |"]
    for section in ("policies", *SECTIONS, "gates", *AXES):
        for name, cls in sorted(components(section).items()):
            summary = cls.summary().replace("|", "\\|")
            lines.append(f"| {section} | `{name}` | {summary} |")
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """Return every key of a configuration with its default, from the pydantic model."""
    from compressor.config import Config

    return "\n".join(["| key | default | |", "| --- | --- | --- |", *_rows(Config, "")]) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows: list[str] = []
    for name, field in model.model_fields.items():
        options = (field.annotation, *get_args(field.annotation))
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if inner:
            if field.default is None:
                rows.append(f"| `{prefix}{name}` | `null` | {inner[0].__doc__ or ''} |")
            rows += _rows(inner[0], f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        choices = [str(choice) for option in options for choice in get_args(option) if isinstance(choice, str)]
        choices = choices or [option for option in get_args(field.annotation) if isinstance(option, str)]
        said = field.description or ("one of " + ", ".join(dict.fromkeys(choices)) if choices else "")
        rows.append(f"| `{prefix}{name}` | {default} | {said.replace('|', chr(92) + '|')} |")
    return rows


def fill(text: str) -> str:
    """Return `text` with new content between `<!-- commands -->`, `<!-- methods -->` ... and their ends."""
    for name, make in (("commands", commands), ("methods", methods), ("configuration", configuration)):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if found and closed:
            text = f"{before}{begin}\n{make()}{end}{after}"
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
