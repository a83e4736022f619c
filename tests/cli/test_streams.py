"""A terminal that has gone, a reader that has gone, a full disk behind stdout or stderr."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import compress, environment, run_difference, saved

from compressor.cli import streams


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `compress` is this one."""
    line = f'compress() {{ "{sys.executable}" -m compressor "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


def test_a_run_without_any_stream_ends_as_any_other(work: Path) -> None:
    run = ("train", "-c", "tiny", "--set", "epochs=2", "--out")
    assert compress(*run, "whole").code == 0
    done = shell(f"(trap '' HUP; compress {' '.join(run)} run <&- >&- 2>/dev/full)", work)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run_difference(work / "run", work / "whole") is None
    assert saved(work / "run" / "checkpoint.pt")["finished"] is True
    texts = [(work / name / "log.txt").read_text().splitlines() for name in ("run", "whole")]
    assert len(texts[0]) == len(texts[1])


def test_closed_streams_are_not_the_next_files_that_are_opened(work: Path) -> None:
    ask = "import os; from compressor.cli import streams; streams.prepare(); print(os.open('mine', os.O_CREAT) > 2)"
    done = shell(f'"{sys.executable}" -c "{ask}" <&- 2>&-', work)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"])
def test_an_error_that_nobody_can_read_keeps_its_exit_code(work: Path, stderr: str) -> None:
    done = shell(f"compress nonsense {stderr}", work)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_an_answer_that_cannot_be_written_is_an_error(work: Path) -> None:
    done = shell("compress --help >/dev/full", work)
    assert done.returncode == 1
    assert done.stderr == f"error: the output cannot be written: {os.strerror(28)}\n"


def test_what_a_dead_terminal_does_not_take_is_dropped() -> None:
    terminal, end = os.openpty()
    os.close(terminal)
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor in (end, writer, full):
        with pytest.raises(OSError, match=r"Errno (5|28|32)"):
            os.write(descriptor, b"lost")
        stream = streams._dropping(descriptor, None)
        print("lost " * 10_000, file=stream, flush=True)
        assert stream.isatty() is False
        stream.close()
        os.close(descriptor)


def test_what_can_be_written_is_written(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        stream = streams._dropping(file.fileno(), None)
        print("für\n" * 9_999, file=stream, flush=True)
    assert (tmp_path / "out").read_text() == "für\n" * 9_999 + "\n"
