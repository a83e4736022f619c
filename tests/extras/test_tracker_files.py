"""TensorBoard, MLflow and Weights & Biases: what a run wrote there is read back by the library itself."""

import importlib.util
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import compress, metrics, succeed, work  # noqa: F401

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]

SHORT = ("-s", "prune", "--out", "run", "--set", "data.images=64", "--set", "report.html=false")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:  # noqa: F811
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(work))


def needs(name: str) -> None:
    """Skip where a package is not installed; where CI=true that is a failure."""
    if importlib.util.find_spec(name) is None:
        assert os.environ.get("CI") != "true", f"{name} is not installed"
        pytest.skip(f"{name} is not installed: make test-extras installs it")


def train(name: str, *more: str) -> None:
    said = succeed("train", *SHORT, "--set", f"logging.{name}=true", *more)
    assert "warning" not in said, said  # a tracker that fails does not end the run


def interrupt_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run end as if by Ctrl-C after so many epochs."""
    from compressor.training import Trainer

    original = Trainer.__init__

    def init(self: Any, *arguments: Any, **settings: Any) -> None:
        original(self, *arguments, **settings)
        self._stop_signal = lambda: 2 if self.progress.epoch == epochs and self.progress.step == 0 else None

    monkeypatch.setattr(Trainer, "__init__", init)


def resumed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was interrupted after two of its four epochs, and continued."""
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        result = compress("train", *SHORT, "--set", f"logging.{name}=true")
        assert result.code == 130, result.err
    train(name, "--resume")


def test_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("tensorboard")
    resumed("tensorboard", monkeypatch)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("run/tensorboard")
    events.Reload()
    lines = metrics(Path("run"))
    for tag, values in {
        "train/loss": [line["train"]["loss"] for line in lines],
        "val/top1": [line["val"]["top1"] for line in lines],
        "lr": [line["lr"] for line in lines],
        "sparsity": [line["sparsity"] for line in lines],
        "layer_sparsity/fc1.weight": [0.0, 0.25, 0.6875, 0.75],
    }.items():
        found = events.Scalars(tag)
        assert [one.step for one in found] == [0, 1, 2, 3], tag
        assert [one.value for one in found] == pytest.approx(values), tag
    assert events.Scalars("test/top1")[0].step == 3
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "optimizer.momentum: 0.9" in text
    assert "schedule: prune" in text


def test_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mlflow")
    resumed("mlflow", monkeypatch)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=Path("mlruns").absolute().as_uri())
    experiment = client.get_experiment_by_name("compressor")
    (run,) = client.search_runs([experiment.experiment_id])  # one: the resumed run went on in it
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert (run.data.params["optimizer.momentum"], run.data.params["schedule"]) == ("0.9", "prune")
    history = sorted(client.get_metric_history(run.info.run_id, "layer_sparsity/fc1.weight"), key=lambda one: one.step)
    assert [(one.step, one.value) for one in history] == [(0, 0.0), (1, 0.25), (2, 0.6875), (3, 0.75)]
    lines = metrics(Path("run"))
    history = sorted(client.get_metric_history(run.info.run_id, "train/loss"), key=lambda one: one.step)
    assert [one.value for one in history] == [line["train"]["loss"] for line in lines]
    assert run.data.metrics["lr"] == lines[-1]["lr"]
    assert "test/top1" in run.data.metrics


def records(content: bytes) -> Iterator[bytes]:
    """The records of a file of wandb: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield whole
            whole = b""


def finished(path: Path, read: Callable[[bytes], Any]) -> list[Any]:
    """The records of a file to the one of the run's end: a process of wandb's own writes them, maybe later than we."""
    until = time.monotonic() + 30
    while True:
        found = [read(data) for data in records(path.read_bytes())]
        if any(one.HasField("exit") for one in found):
            return found
        assert time.monotonic() < until, f"{path} has {len(found)} records, and none of the run's end"
        time.sleep(0.1)


def test_wandb() -> None:
    needs("wandb")
    train("wandb")
    from wandb.proto import wandb_internal_pb2

    (path,) = Path("run/wandb").glob("offline-run-*/run-*.wandb")
    history: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    for record in finished(path, wandb_internal_pb2.Record.FromString):
        for item in record.history.item:
            history.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
        for update in record.run.config.update:
            config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
    assert history["_step"] == [0, 1, 2, 3]
    assert history["layer_sparsity/fc1.weight"] == [0.0, 0.25, 0.6875, 0.75]
    assert history["train/loss"] == [line["train"]["loss"] for line in metrics(Path("run"))]
    assert len(history["test/top1"]) == 1
    assert (config["optimizer.momentum"], config["schedule"]) == ("0.9", "prune")


def test_a_run_with_trackers_has_the_same_bits_as_one_without() -> None:
    for name in ("tensorboard", "mlflow", "wandb"):
        needs(name)
    train("tensorboard", "--set", "logging.mlflow=true", "--set", "logging.wandb=true")
    succeed("train", *SHORT, "--out", "plain")
    assert metrics(Path("run")) == metrics(Path("plain"))
