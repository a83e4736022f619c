"""Two processes train what one process trains, and one of them writes; what no process may begin is refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from helpers import TINY, compress, metrics, saved, succeed
from two_ranks import free_port, rank_0, train_in

from compressor import torchrun
from compressor.errors import CompressError, Interrupted
from compressor.experiment.joining import check_batch
from compressor.experiment.specification import specification
from compressor.schedule import Faults
from compressor.world import World

# 9 steps an epoch, the last one of 55 images (28 and 27), each step in two parts.
CONFIG = f"""\
{TINY.replace(", dropout: [0.2]", "").replace("epochs: 4", "epochs: 3").replace("batch: 64", "batch: 72, images: 701")}
test_every_epoch: true
checkpoint: {{keep: 4}}
"""
SCHEDULE = """\
version: 2
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.75, weights: '*'}
regularizers:
  shrink: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}}
policies:
  - {pruner: {instance_name: fine}, starting_epoch: 1, ending_epoch: 3}
  - {regularizer: {instance_name: shrink}, starting_epoch: 0, ending_epoch: 3}
"""
RUN = ("-s", "pruned", "-c", "plain", "--set", "optimizer.accumulate=2", "--out")


@pytest.fixture(autouse=True)
def _files(work: Path) -> None:
    (work / "plain.yaml").write_text(CONFIG)
    (work / "pruned.yaml").write_text(SCHEDULE)


def test_two_processes_train_what_one_does_and_a_run_goes_on_in_another_number_of_them(work: Path) -> None:
    shown = train_in(2, *RUN, "two", cwd=work)
    assert "9 steps on 2 processes (cpu)" in shown
    with rank_0(1, free_port()):
        succeed("train", *RUN, "one")
    assert {path.name for path in (work / "two").iterdir()} == {path.name for path in (work / "one").iterdir()}
    for name, tolerance in (("checkpoint.3.pt", 1e-5), ("checkpoint.2.pt", 1e-4), ("checkpoint.pt", 1e-3)):
        two, one = (saved(work / run / name) for run in ("two", "one"))
        for key, weight in one["model"].items():
            assert torch.allclose(two["model"][key], weight, rtol=0, atol=tolerance), (name, key)
        if name == "checkpoint.2.pt":  # after the first event
            masks = [
                {key: weight == 0 for key, weight in run["model"].items() if "weight" in key} for run in (two, one)
            ]
            assert all(torch.equal(masks[0][key], mask) for key, mask in masks[1].items())
            assert sum(int(mask.sum()) for mask in masks[1].values()) > 100
    for ours, theirs in zip(metrics(work / "two"), metrics(work / "one"), strict=True):
        for part in ("train", "val", "test"):
            assert ours[part]["top1"] == pytest.approx(theirs[part]["top1"], abs=1.5)
            assert ours[part]["loss"] == pytest.approx(theirs[part]["loss"], rel=1e-3)
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
    # What two processes have begun, one goes on with, without torchrun, too.
    shutil.copytree(work / "two", work / "late")
    (work / "late" / "checkpoint.pt").write_bytes((work / "two" / "checkpoint.2.pt").read_bytes())
    said = succeed("train", *RUN, "late", "--resume")
    assert "continuing in epoch 3 after 0 steps" in said
    late, two = (saved(work / run / "checkpoint.pt") for run in ("late", "two"))
    for key, weight in two["model"].items():
        assert torch.allclose(late["model"][key], weight, rtol=0, atol=1e-4), key


@pytest.mark.parametrize(
    ("batch", "accumulate", "size", "said"),
    [
        (72, 2, 3, None),
        (72, 1, 1, None),
        (71, 1, 1, None),
        (70, 1, 3, "70 images cannot be shared equally by 3 processes: set data.batch to a multiple of 3, as 72"),
        (72, 8, 2, "72 images cannot be shared equally by 2 processes in 8 parts: set data.batch to a multiple of 16"),
    ],
)
def test_a_batch_is_shared_equally(batch: int, accumulate: int, size: int, said: str | None) -> None:
    world, faults = World(), Faults()
    world.size = size
    sets = [("data.batch", str(batch)), ("optimizer.accumulate", str(accumulate))]
    check_batch(specification(None, "plain", sets), world, faults)
    assert bool(faults) == (said is not None)
    assert said is None or said in faults.lines[0]


@pytest.mark.parametrize("error", [Interrupted(15), Interrupted(2, begun=False), CompressError("no space")])
def test_what_stops_rank_0_is_the_same_on_all_ranks(error: CompressError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.exit_code) == (type(error), str(error), error.exit_code)


def test_a_lost_connection_is_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    torn = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    assert not torchrun.is_loss(torn)  # in one process
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    wrapped = ValueError("step failed")
    wrapped.__cause__ = torn
    assert torchrun.is_loss(torn)
    assert torchrun.is_loss(wrapped)
    assert not torchrun.is_loss(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_one_process_of_torchrun_goes_on_when_it_is_started_again(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rank_0(1, free_port()):
        assert compress("train", "-c", "plain", "--set", "epochs=1", "--out", "again").code == 0
        assert compress("list", "models").code == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with rank_0(1, free_port()):
        assert "finished already" in succeed("train", "-c", "plain", "--set", "epochs=1", "--out", "again")
    assert json.loads((work / "again" / "environment.json").read_text())["starts"][1:] == []
