"""README.md and docs/: generated parts are what the code says, YAML is valid, commands and their options exist."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import pytest
import yaml
from helpers import compress
from jsonschema import Draft7Validator

import compressor
from compressor.cli import cli
from compressor.cli.reference import fill, pages
from compressor.schedule import Faults, open_schedule, parse, schema

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in pages(ROOT)}
BLOCKS = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
OWN = {"docs/extending.md"}
"""Pages whose YAML needs their own Python: tests of their own run it."""

SCHEDULE, CONFIG = schema.schedule(), schema.config()
AXES = {"criterion", "structure", "allocation", "rate"}
BUDGETS, WHOLE = {"macs", "parameters"}, {"4D", "Layer"}
CI = {"on", True, "jobs", "stages", "image", "variables", "include", "default"}
"""Keys of the files of GitHub Actions (YAML reads `on` as true) and GitLab."""


def blocks(*kinds: str) -> Iterator[tuple[str, str]]:
    """Yield page and content of each block of these kinds."""
    for page, text in PAGES.items():
        for indent, kind, content in BLOCKS.findall(text):
            if kind in kinds:
                yield page, re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)


def cases(*kinds: str) -> list[Any]:
    """Return the blocks as parameters, with the page and a number as their name."""
    return [pytest.param(page, text, id=f"{page}-{n}") for n, (page, text) in enumerate(blocks(*kinds))]


def faults(text: str, folder: Path) -> list[str]:
    """Return what is wrong with YAML: a schedule, a configuration, parts of one, or arguments of `class: Pruner`."""
    data = parse("shown.yaml", text, Faults()).data
    assert isinstance(data, dict), text
    keys = set(data)
    if keys <= AXES:
        (value,) = data.values()
        name = value if isinstance(value, str) else next(iter(value))
        around = {"structure": "Filters"} if "criterion" in data or name in BUDGETS else {}
        around |= {"scope": "global"} if name in WHOLE else {}
        pruner = {"class": "Pruner", "weights": "*", "rate": {"sparsity": 0.5}, **around, **data}
        data = {"version": 2, "policies": [{"pruner": pruner}]}
        text, keys = yaml.safe_dump(data), set(data)
    if "policies" in keys and "extends" not in keys:
        (folder / "shown.yaml").write_text(text, encoding="utf-8")
        found = Faults()
        open_schedule(str(folder / "shown.yaml"), (), found)
        return found.lines
    if keys & CI:
        return []
    made = SCHEDULE if keys <= set(SCHEDULE["properties"]) else CONFIG
    given = {"extends": "base", **_without_nulls(data)}  # a part of a file, and null takes a key out of a base
    return [error.message for error in Draft7Validator(made).iter_errors(given)]


def _without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in data.items() if value is not None}
    return {key: _without_nulls(value) if isinstance(value, dict) else value for key, value in kept.items()}


def test_the_generated_parts_are_what_the_code_says() -> None:
    assert sum(text.count("<!-- end of ") for text in PAGES.values()) >= 16
    assert [page for page, text in PAGES.items() if fill(text) != text] == [], "run `make generate`"


def test_a_changed_part_is_found() -> None:
    page = PAGES["docs/reference/pruners.md"]
    assert fill(page.replace("final_sparsity", "final_sparsty")) == page


@pytest.mark.parametrize(("page", "text"), [case for case in cases("yaml") if case.values[0] not in OWN])
def test_yaml_is_valid(page: str, text: str, tmp_path: Path) -> None:
    assert faults(text, tmp_path) == []


WRONG = [
    "version: 2\npolicies: [{pruner: {class: Prunr}}]",
    "optimizer: {lr: -1}",
    "rate: {agp: {final: 0.5}}",
    "pruner: {}",
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_yaml_is_found(text: str, tmp_path: Path) -> None:
    assert faults(text, tmp_path) != []


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each line that calls `compress`, `make` or `python -m` of the project."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        line = line.removeprefix("$ ").strip()
        if re.match(r"(compress|make|python -m (benchmarks|compressor)\S*)( |$)", line):
            yield shlex.split(re.split(r" [>|] ", line)[0], comments=True)


COMMANDS = sorted({(page, *words) for page, text in blocks("", "bash", "sh", "console") for words in commands(text)})


def check(words: list[str]) -> None:
    """Raise where a command, one of its options, a verb of the Makefile or a module does not exist."""
    if words[0] == "make":
        verbs = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(verbs)
    elif words[0] == "python":
        assert importlib.util.find_spec(words[2]) is not None
    else:
        cli.commands[words[1]].make_context(words[1], list(words[2:])).close()


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: " ".join(line))
def test_commands_and_their_options_exist(line: tuple[str, ...]) -> None:
    check(list(line[1:]))


def test_wrong_commands_are_found() -> None:
    for words in (["compress", "train", "--shedule", "x"], ["make", "tests"], ["python", "-m", "benchmarks.nothing"]):
        with pytest.raises((click.UsageError, AssertionError)):
            check(words)


def test_options_that_the_text_names_exist() -> None:
    """Of commands in running text: `compress thin RUN --round-to 8`."""
    known = {}
    for name, command in cli.commands.items():
        known[name] = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    unknown = []
    for page, text in PAGES.items():
        for span in re.findall(r"`compress ([a-z][^`]*)`", BLOCKS.sub("", text)):
            name, *rest = span.split()
            if not {word for word in rest if re.match(r"--?[a-z]", word)} <= known.get(name, set()):
                unknown.append(f"{page}: compress {span}")
    assert unknown == []


def test_every_public_name_is_on_the_page_of_the_python_reference() -> None:
    page = PAGES["docs/reference/api.md"]
    named = set(re.findall(r"^::: compressor\.(\w+)$", page, re.MULTILINE))
    assert {name for name in compressor.__all__ if not name.startswith("_")} <= named


FAMILIES = sorted(page for page in PAGES if page.startswith("docs/methods/") and not page.endswith("index.md"))


@pytest.mark.parametrize("page", FAMILIES)
def test_a_family_of_methods_has_formula_figure_schedule_and_reference(page: str) -> None:
    text = PAGES[page]
    assert "```text\n" in text or page.endswith("strided.md")
    assert "```yaml\nversion: 2\n" in text
    assert "](../reference/" in text
    [figure] = re.findall(r"!\[[^\]]+\]\((\S+\.svg)\)", text)
    drawn = ElementTree.parse((ROOT / page).parent / figure).getroot()
    assert drawn.findtext("{http://www.w3.org/2000/svg}title")
    assert f"({Path(page).name})" in PAGES["docs/methods/index.md"]


@pytest.mark.slow
def test_schedules_are_valid_for_the_network_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tried = 0
    for page, text in blocks("yaml"):
        named = re.search(r"^config: (\w+)", text, re.MULTILINE)
        if page not in OWN and named and (ROOT / "configs" / f"{named[1]}.yaml").is_file():
            Path("shown.yaml").write_text(text, encoding="utf-8")
            result = compress("validate", "shown.yaml")
            assert result.code == 0, f"{page}: {result.err}"
            tried += 1
    assert tried >= 20
