"""What a task on another node does, without Ray: a run's files are sent with each checkpoint, and fetched again."""

import time
from pathlib import Path

import pytest

from compressor.experiment import ray_queue
from compressor.experiment.ray_queue import Store, changed, mirrored, write


def filled(path: Path) -> Path:
    (path / "tensorboard").mkdir(parents=True)
    for name in ("best.pt", "checkpoint.pt", "config.yaml", "tensorboard/events", ".lock", ".best.pt.partial"):
        (path / name).write_text(f"old {name}")
    return path


def test_the_checkpoint_is_read_first_and_what_is_half_written_is_left_out(tmp_path: Path) -> None:
    path, known = filled(tmp_path / "run"), {}
    found = changed(path, known)
    assert list(found) == ["checkpoint.pt", "best.pt", "config.yaml", "tensorboard/events"]
    assert found["tensorboard/events"] == b"old tensorboard/events"
    assert changed(path, known) == {}
    (path / "best.pt").write_text("new")
    assert changed(path, known) == {"best.pt": b"new"}


def test_the_checkpoint_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(ray_queue, "replace", lambda path, write: written.append(path.name))
    write(tmp_path / "run", {"checkpoint.pt": b"", "a/b": b"", "best.pt": b""})
    assert written[-1] == "checkpoint.pt"
    assert sorted(written) == ["b", "best.pt", "checkpoint.pt"]


def test_files_are_sent_while_a_run_goes_on_and_at_its_end(tmp_path: Path) -> None:
    path, sent = filled(tmp_path / "run"), list[dict[str, bytes]]()
    with mirrored(path, sent.append):
        (path / "metrics.jsonl").write_text("1")
        time.sleep(3 * ray_queue._POLL)
        assert sent == [], "without a new checkpoint there is nothing to go on from"
        (path / "checkpoint.pt").write_text("newer")
        ended = time.monotonic() + 20
        while not sent and time.monotonic() < ended:
            time.sleep(0.01)
        assert sent == [{"checkpoint.pt": b"newer", "metrics.jsonl": b"1"}]
        (path / "report.html").write_text("done")
    assert sent[1:] == [{"report.html": b"done"}]


def test_what_a_lost_start_of_a_run_still_sends_is_dropped(tmp_path: Path) -> None:
    filled(tmp_path / "run")
    store = Store(str(tmp_path))
    first, files = store.begin("run")
    assert files["checkpoint.pt"] == b"old checkpoint.pt"
    store.keep("run", first, {"checkpoint.pt": b"epoch 1"})
    second, files = store.begin("run")
    assert files["checkpoint.pt"] == b"epoch 1"
    store.keep("run", second, {"checkpoint.pt": b"epoch 2"})
    store.keep("run", first, {"checkpoint.pt": b"epoch 1"})
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == b"epoch 2"
