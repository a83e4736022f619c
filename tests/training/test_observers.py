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


A, B, C = ('{"epoch": 0, "lr": 1}\n', '{"epoch": 1}\n', '{"epoch": 2}\n')


@pytest.mark.parametrize(
    ("before", "done", "after", "lost"),
    [
        ("", 0, "", ""),
        (A + B + C, 3, A + B + C, ""),
        (A + B + C, 2, A + B, ""),
        (A + B + C, 0, "", ""),
        (A + B + C[:5], 2, A + B, ""),
        (A + B + C[:-1], 3, A + B + C, ""),  # whole but for the end of its line
        (A + B[:5] + "\n" + C, 3, A + C, "1 of 3 lines torn or lost (epoch 1)"),
        (A + B[:5] + C, 3, A, "2 of 3 lines torn or lost (epoch 1, 2)"),
        (A + C + C, 3, A + C, "1 of 3 lines torn or lost (epoch 1)"),
        (A + "\x00" * 10 + "\n[]\n7\n{}\n" + "[" * 99_999 + "\n" + B + "\udcff", 2, A + B, ""),
        (None, 9, "", "9 of 9 lines torn or lost (epoch 0, 1, 2, 3, 4, ...)"),
    ],
)
def test_the_metrics_file_is_cut_back_to_the_epochs_that_are_done_and_torn_lines_are_told(
    tmp_path: Path, before: str | None, done: int, after: str, lost: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    if before is not None:
        path.write_bytes(before.encode(errors="surrogateescape"))
    metrics = MetricsFile(path, done)
    assert path.read_text() == after
    assert metrics.lost == (lost and f"{path}: {lost}")


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


def test_a_log_that_cannot_be_written_is_told_once_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.txt"
    path.symlink_to("/dev/full")
    log = LogFile(path, epochs=1)
    for _ in range(3):
        log.say("hello")
    assert capsys.readouterr() == (
        "",
        f"warning: {path}: cannot be written: no space left on /dev, 26 bytes needed; the run goes on without it\n",
    )
    path.unlink()
    log.say("there is space again")
    assert path.read_text().endswith("there is space again\n")


def test_metrics_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CompressError, match=r"metrics\.jsonl: cannot be written: Is a directory"):
        metrics.on_epoch(RECORD)
