"""The parts of README.md and of the pages in docs/ that are generated from the code.

`make generate` writes them between `<!-- NAME -->` and `<!-- end of NAME -->`, a test compares them.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

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
        lines += [f"## compress {name}", "", f"`compress {name} {usage}`", ""]
        for paragraph in inspect.cleandoc(command.help or "").replace("\b", "").split("\n\n"):
            lines += [escaped(" ".join(paragraph.split())), ""]
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        rows = [record for option in options if (record := option.get_help_record(context))]
        if rows:
            lines += ["| option | meaning |", "| --- | --- |"]
            lines += [f"| `{flags.replace('|', bar)}` | {in_table(text)} |" for flags, text in rows for bar in (r"\|",)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def commands_in_short() -> str:
    """Return every command with one line."""
    from compressor.cli import cli

    rows = [
        f"| `compress {name}` | {in_table(command.get_short_help_str(200))} |" for name, command in cli.commands.items()
    ]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows]) + "\n"


def methods() -> str:
    """Return every component by section, with the first sentence of its docstring."""
    from compressor.schedule import AXES, SECTIONS, components

    lines = ["| section | name | what it does |", "| --- | --- | --- |"]
    for section in ("policies", *SECTIONS, "gates", *AXES):
        for name, cls in sorted(components(section).items()):
            place = f"../reference/{section}.md#{name.lower()}"
            lines.append(f"| {section} | [`{name}`]({place}) | {in_table(cls.summary())} |")
    return "\n".join(lines) + "\n"


def section(name: str) -> str:
    """Return the components of a section: what each does, its arguments, and an example."""
    from compressor.schedule import arguments, components, example

    lines = []
    for own, cls in sorted(components(name).items()):
        lines += [f"## {own}", ""]
        if own != cls.name:
            lines += [f"Another name of [`{cls.name}`](#{cls.name.lower()}).", ""]
            continue
        lines += [escaped(inspect.getdoc(cls) or ""), ""]
        if given := arguments(cls):
            lines += [*_table(given), ""]
        if shown := textwrap.dedent(example(cls)).strip():
            lines += ["```yaml", shown, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(given: list[Any]) -> list[str]:
    rows = ["| argument | values | default | meaning |", "| --- | --- | --- | --- |"]
    for one in given:
        default = "required" if one.default is None else f"`{one.default}`"
        new = " (version 2)" if one.version_2 else ""
        rows.append(f"| `{one.name}` | {in_table(one.type)} | {default} | {in_table(one.description)}{new} |")
    return rows


def keys(model: type[BaseModel], prefix: str = "") -> str:
    """Return every key of a class of settings, those of its blocks included: its values, default and meaning."""
    rows = ["| key | values | default | meaning |", "| --- | --- | --- | --- |", *_rows(model, prefix)]
    return "\n".join(rows) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    from compressor.schedule import arguments

    for field, one in zip(model.model_fields.values(), arguments(model), strict=True):
        default = "required" if one.default is None else f"`{one.default}`"
        options = (field.annotation, *get_args(field.annotation))
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if inner and one.default not in (None, "null"):
            default = "see below"
        values = "a block" if inner else in_table(one.type)
        yield f"| `{prefix}{one.name}` | {values} | {default} | {in_table(one.description)} |"
        for block in inner:
            yield from _rows(block, f"{prefix}{one.name}.")


def models() -> str:
    """Return the networks of this package with their arguments."""
    from compressor import models

    lines = ["| name | arguments | what it is |", "| --- | --- | --- |"]
    for name, said in models.catalogue().items():
        if said != "torchvision":
            own = ", ".join(f"`{key}`" for key in models.arguments(name))
            lines.append(f"| `{name}` | {own} | {in_table(said)} |")
    return "\n".join(lines) + "\n"


def datasets() -> str:
    """Return the data sets."""
    from compressor import data

    rows = [f"| `{name}` | {in_table(said)} |" for name, said in data.catalogue().items()]
    return "\n".join(["| name | what it is |", "| --- | --- |", *rows]) + "\n"


def escaped(text: str) -> str:
    """Return plain text as Markdown; what stands between backticks is code already."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts)


def in_table(text: str) -> str:
    """Return plain text as the content of a table's cell."""
    return " ".join(escaped(text).replace("|", r"\|").split())


def parts() -> dict[str, Callable[[], str]]:
    """Return what makes each generated part, by the name that stands in a page."""
    from compressor.config import Config
    from compressor.schedule import AXES, SECTIONS, Claim
    from compressor.timing import Window

    whole = ("policies", *(name for name in SECTIONS if name != "quantizers"), "gates", *AXES)
    made: dict[str, Callable[[], str]] = {f"reference {name}": partial(section, name) for name in whole}
    made |= {
        "commands": commands,
        "commands in short": commands_in_short,
        "methods": methods,
        "models": models,
        "datasets": datasets,
    }
    made |= {
        "configuration": partial(keys, Config),
        "windows": partial(keys, Window),
        "claims": partial(keys, Claim, "expect."),
    }
    return made


def fill(text: str) -> str:
    """Return `text` with new content between `<!-- commands -->`, `<!-- methods -->` ... and their ends."""
    for name, make in parts().items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if found and closed:
            text = f"{before}{begin}\n\n{make()}\n{end}{after}"
    return text


def pages(root: Path) -> list[Path]:
    """Return README.md and the pages of docs/, below the folder of the project."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


if __name__ == "__main__":
    given = Path(sys.argv[1])  # the project's folder, or its README.md
    for path in pages(given if given.is_dir() else given.parent):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
