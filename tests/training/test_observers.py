"""The log and the metrics file."""

import io
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import compress, interrupted, work  # noqa: F401
from tqdm import tqdm

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


class Clock:
    """A clock that is set by hand, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("width", "left_out"), [(200, []), (108, ["lr"]), (80, ["lr", "1.2 s", "train"])])
def test_the_line_of_an_epoch_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, left_out: list[str]
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    Terminal(epochs=10, steps=5).on_epoch(RECORD)
    line = screen.getvalue().rstrip("\n")
    assert len(line) <= width
    assert line.startswith("epoch  3/10  ")
    assert "val loss 0.6000 top-1  80.12 %  sparsity 25.60 %" in line
    assert [part for part in ("lr", "1.2 s", "train") if part not in line] == left_out


def train(terminal: Terminal, clock: Clock, epochs: range, steps: int, seconds: float) -> None:
    """Take steps of so many seconds each."""
    import torch

    for epoch in epochs:
        for step in range(steps):
            clock.now += seconds
            terminal.on_step(epoch, step, torch.tensor(0.5))
        terminal.on_epoch({**RECORD, "epoch": epoch})


def test_without_a_terminal_a_long_epoch_says_every_minute_how_long_the_run_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    train(Terminal(epochs=3, steps=10, clock=clock), clock, range(2), steps=10, seconds=20)
    lines = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    # Of 30 steps of 20 s. The first one ends at 20 s; a minute later 4 are done, 26 are left: 520 s.
    assert lines == [
        "epoch 1/3, step 4 of 10: loss 0.5000, about 8.7 minutes left",
        "epoch 1/3, step 7 of 10: loss 0.5000, about 7.7 minutes left",
        "epoch 1/3, step 10 of 10: loss 0.5000, about 6.7 minutes left",
        "epoch 2/3, step 3 of 10: loss 0.5000, about 5.7 minutes left",
        "epoch 2/3, step 6 of 10: loss 0.5000, about 4.7 minutes left",
        "epoch 2/3, step 9 of 10: loss 0.5000, about 3.7 minutes left",
    ]


def test_a_run_that_is_resumed_counts_the_steps_of_its_own_process(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    train(Terminal(epochs=4, steps=2, clock=clock), clock, range(2, 4), steps=2, seconds=3600)
    lines = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    assert lines == [
        "epoch 3/4, step 2 of 2: loss 0.5000, about 2.0 hours left",
        "epoch 4/4, step 1 of 2: loss 0.5000, about 60.0 minutes left",
        "epoch 4/4, step 2 of 2: loss 0.5000, about 0 seconds left",
    ]


def test_a_terminal_gets_a_bar_with_the_time_of_the_whole_run_and_no_other_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen, clock = Screen(), Clock()
    monkeypatch.setattr(sys, "stderr", screen)
    train(Terminal(epochs=3, steps=10, clock=clock), clock, range(2), steps=10, seconds=120)
    shown = screen.getvalue()
    assert "epoch 1/3: " in shown
    assert "loss 0.5000, about 56.0 minutes left" in shown  # 28 of the 30 steps
    assert "loss 0.5000, about 20.0 minutes left" in shown  # a whole epoch is left, not an end of this one
    assert shown.rpartition("\r")[2] == ""
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_bar_is_gone_before_an_error_and_after_ctrl_c_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "StringIO", Screen)
    failed = compress("train", "-c", "tiny", "--set", "optimizer.lr=1e9", "--out", "failed")
    assert failed.code == 1
    stopped = interrupted("-c", "tiny", "--out", "stopped", number=signal.SIGINT)
    for result in (failed, stopped):
        assert "epoch 1/4: " in result.err
        assert re.match(r"\s+\rerror: ", result.err.rpartition("| ")[2].partition("\r")[2]), result.err[-300:]
    assert not tqdm._instances


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
