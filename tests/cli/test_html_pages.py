"""Pages by the commands: written at the end of a run and on request; never in the way of a run; nothing is imported."""

import re
import sys
from pathlib import Path

import pytest
from helpers import compress, succeed

from compressor.experiment import drawing

DRAWN = ("--set", "report.html=true", "--set", "data.images=128")


def sections(page: Path) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page.read_text())


def test_a_run_leaves_its_page_and_report_draws_it_again(work: Path) -> None:
    out = succeed("train", "-s", "prune", *DRAWN, "--out", "run")
    assert "warning" not in out
    page = work / "run" / "report.html"
    assert sections(page) == "timeline training layers left churn values classes costs provenance files".split()
    first = page.read_text()
    page.unlink()
    assert succeed("report", "run", "--html", "--no-latency") == f"{Path('run/report.html')}\n"
    again = page.read_text()
    parts = [text.split('<section id="timeline">')[1].split('<section id="costs">')[0] for text in (first, again)]
    assert parts[0] == parts[1]
    assert ['id="latency-every-title"' in text for text in (first, again)] == [True, False]
    (work / "run" / "checkpoint.pt").unlink()
    assert compress("report", "run", "--html").code == 2


def test_a_file_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "draw_run", lambda run, file, measures: f"{run} {file} {measures}")
    assert succeed("report", "run", "--html", "again.html") == "run again.html True\n"


def test_without_a_page_neither_matplotlib_nor_jinja2_is_imported(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in ("matplotlib", "jinja2") or name.startswith(
            ("compressor.pages", "compressor.experiment.drawing")
        ):
            monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it is an error
    assert "warning" not in succeed("train", "-s", "prune", "--set", "data.images=128", "--out", "run")
    assert not (work / "run" / "report.html").exists()
    assert "--html" in succeed("report", "--help")
    succeed("plan", "prune")
    # Where they are missing, a run that should draw ends well.
    result = compress("train", "-s", "prune", *DRAWN, "--out", "other")
    assert result.code == 0
    assert "warning: the report could not be drawn: " in result.out


def test_a_page_that_cannot_be_drawn_does_not_lose_the_run(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no ink\nat all")

    monkeypatch.setattr(drawing, "draw_run", fail)
    result = compress("train", "-s", "prune", *DRAWN, "--out", "run")
    assert result.code == 0
    line = "warning: the report could not be drawn: no ink (`compress report run --html` tries again)"
    assert [one for one in result.out.splitlines() if "could not" in one] == [line]
    assert "RuntimeError: no ink" in (work / "run" / "log.txt").read_text()
    assert (work / "run" / "sparsity.json").is_file()
    smoke = compress("train", "-s", "prune", *DRAWN, "--out", "smoke", "--smoke")
    assert (smoke.code, "could not be drawn" in smoke.out) == (0, False), "a smoke run draws nothing"


def test_a_plan_as_a_page(work: Path) -> None:
    assert succeed("plan", "prune", "--html") == "prune-tiny-plan.html\n"
    page = work / "prune-tiny-plan.html"
    assert sections(page) == ["timeline", "predicted", "files"]
    assert "0.fine" in page.read_text()
    assert succeed("plan", "prune", "--html", "mine.html") == "mine.html\n"
    assert (work / "mine.html").read_bytes() == page.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nowhere", "--html"], "nowhere: no such folder"),
        (["report", ".", "--html"], "is not a run's folder: it has no config.yaml"),
        (["report", "tiny.yaml", "--html"], "tiny.yaml is a file: --html draws the report of a run"),
        (["report", ".", "--html", "x.html", "--json"], "--html and --json"),
        (["plan", "prune", "--html", "x.html", "--json"], "--html and --json"),
        (["plan", "prune", "--html", "no/folder/x.html"], "there is no folder no/folder"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(arguments: list[str], said: str) -> None:
    result = compress(*arguments)
    assert result.code == 2
    assert said in result.err
