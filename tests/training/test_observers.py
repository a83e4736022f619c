"""The log and the metrics file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import CompressError
from compressor.training.observers import LogFile, MetricsFile, Terminal

RECORD: dict[str, Any] = {
    "epoch": 2,
    "train": {"loss": 0.51236, "top1": 81.5, "top5": 99.0},
    "val": {"loss": 0.6, "top1": 80.125, "top5": 98.5},
    "losses": {"data": 0.51236},
    "lr": 0.01,
    "sparsity": 0.256,
    "sparsity_all": 0.25,
    "seconds": 1.25,
}


def test_the_metrics_file_gets_a_json_line_an_epoch(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    for epoch in (0, 1):
        metrics.on_epoch({**RECORD, "epoch": epoch})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{**RECORD, "epoch": 0}, {**RECORD, "epoch": 1}]


@pytest.mark.parametrize(
    ("before", "done", "after"),
    [
        ("", 0, ""),
        ("a\nb\nc\n", 3, "a\nb\nc\n"),
        ("a\nb\nc\n", 2, "a\nb\n"),
        ("a\nb\nc\n", 0, ""),
        ("a\nb\nc", 2, "a\nb\n"),
        ("a\nb\n{torn", 2, "a\nb\n"),
    ],
)
def test_the_metrics_file_is_cut_back_to_the_epochs_that_are_done(
    tmp_path: Path, before: str, done: int, after: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(before)
    MetricsFile(path, done)
    assert path.read_text() == after


def test_a_log_line_has_a_date_and_the_figures(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log.txt", epochs=10)
    log.say("two\nlines")
    log.on_epoch(RECORD)
    first, second, third = (tmp_path / "log.txt").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d two", first)
    assert second.endswith(" lines")
    for figure in ("3/10", "0.5124", "81.50", "0.6000", "80.12", "25.60", "0.01", "1.2 s"):
        assert figure in third


def test_a_log_is_continued(tmp_path: Path) -> None:
    for text in ("first", "second"):
        LogFile(tmp_path / "log.txt", epochs=1).say(text)
    assert [line.split()[-1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["first", "second"]


def test_without_validation_the_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(epochs=10, steps=5).on_epoch({**RECORD, "val": {}})
    assert "no validation" in capsys.readouterr().out


def test_a_log_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    terminal = Terminal(epochs=10, steps=5)
    for step in range(5):
        terminal.on_step(2, step, torch.tensor(0.5))
    terminal.on_epoch(RECORD)
    captured = capsys.readouterr()
    assert (captured.out.count("\n"), captured.err) == (1, "")
    assert "\r" not in captured.out


def test_files_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(CompressError, match=r"log\.txt: cannot be written: Is a directory"):
        LogFile(tmp_path / "log.txt", epochs=1).say("hello")
