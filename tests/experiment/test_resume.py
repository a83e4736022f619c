"""`--resume`: which run it continues, what it refuses, and that nobody can tell afterwards."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers import compress, difference, interrupted, metrics, run_difference, saved, succeed
from torch import Tensor

from compressor.data import DataFeed
from compressor.experiment import folder

SCHEDULE = ("-s", "prune")
RESUME = ("train", *SCHEDULE, "--resume")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    from helpers import write_tiny

    work = tmp_path_factory.mktemp("reference")
    write_tiny(work)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        succeed("train", *SCHEDULE, "--out", "reference")
    return work / "reference"


def is_finished(run: str) -> bool:
    """Whether the run in `runs/` went to its end."""
    return bool(saved(Path("runs", run, "checkpoint.pt"))["finished"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_writes_the_checkpoint_and_ends_with_its_number(
    work: Path, reference: Path, number: int
) -> None:
    before = signal.getsignal(signal.SIGINT)  # who starts pytest in the background has it ignored
    result = interrupted(*SCHEDULE, "--out", "run", epoch=2, step=9, number=number)
    assert (result.err.count("\n"), "Traceback" in result.err) == (1, False)
    assert "--resume" in result.err
    checkpoint = saved(work / "run" / "checkpoint.pt")
    assert (checkpoint["state"]["progress"]["epoch"], checkpoint["state"]["progress"]["step"]) == (2, 10)
    assert checkpoint["finished"] is False
    assert signal.getsignal(signal.SIGINT) is before
    succeed(*RESUME, "--out", "run")
    assert run_difference(work / "run", reference) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_test_images_are_used_ends_the_run_too(work: Path, reference: Path, number: int) -> None:
    plain = DataFeed.test

    def interrupting(self: DataFeed) -> Iterator[tuple[Tensor, Tensor]]:
        os.kill(os.getpid(), number)
        yield from plain(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataFeed, "test", interrupting)
        result = compress("train", *SCHEDULE, "--out", "run")
    assert (result.code, result.err.count("\n"), "--resume" in result.err) == (128 + number, 1, True)
    assert saved(work / "run" / "checkpoint.pt")["finished"] is False
    succeed(*RESUME, "--out", "run")
    assert run_difference(work / "run", reference) is None


def test_a_run_stopped_again_and_again_gives_the_same_bits(work: Path, reference: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run", epoch=0, step=0)
    for epoch, step in [(0, 1), (0, 20), (1, 0), (1, 20), (3, 19)]:
        interrupted(*SCHEDULE, "--out", "run", "--resume", epoch=epoch, step=step)
    succeed(*RESUME, "--out", "run")
    assert run_difference(work / "run", reference) is None


def test_resume_continues_the_newest_unfinished_run(work: Path, reference: Path) -> None:
    for _ in range(2):
        interrupted(*SCHEDULE)
    succeed("train", *SCHEDULE)
    interrupted("-c", "tiny")  # of another name: none of our business
    assert [is_finished(f"prune-tiny-{n}") for n in (1, 2, 3)] == [False, False, True]
    assert "prune-tiny-2" in succeed(*RESUME)
    assert [is_finished(f"prune-tiny-{n}") for n in (1, 2, 3)] == [False, True, True]
    assert "prune-tiny-1" in succeed(*RESUME)
    assert [is_finished(f"prune-tiny-{n}") for n in (1, 2, 3)] == [True, True, True]
    assert all(run_difference(work / "runs" / f"prune-tiny-{n}", reference) is None for n in (1, 2, 3))


def test_the_tenth_run_is_newer_than_the_ninth(work: Path) -> None:
    for number in (9, 10):
        interrupted(*SCHEDULE, "--out", f"runs/prune-tiny-{number}")
    succeed(*RESUME)
    assert [is_finished(f"prune-tiny-{n}") for n in (9, 10)] == [False, True]


def test_resume_without_any_run_starts_afresh(work: Path, reference: Path) -> None:
    assert "prune-tiny-1" in succeed(*RESUME)
    assert run_difference(work / "runs" / "prune-tiny-1", reference) is None
    succeed(*RESUME, "--out", "fresh/deep")
    assert run_difference(work / "fresh" / "deep", reference) is None


def test_resume_of_a_run_that_has_no_checkpoint_yet_starts_it_afresh(work: Path, reference: Path) -> None:
    interrupted(*SCHEDULE, epoch=1)
    run = work / "runs" / "prune-tiny-1"
    for path in run.glob("checkpoint*.pt"):
        path.unlink()
    said = succeed(*RESUME)
    assert said.startswith("runs/prune-tiny-1 has no checkpoint.pt: the run begins again\n")
    assert run_difference(run, reference) is None
    assert [path.name for path in (work / "runs").iterdir()] == ["prune-tiny-1"]


@pytest.mark.parametrize("out", [(), ("--out", "runs/prune-tiny-1")])
def test_resume_of_a_finished_run_says_so_and_touches_nothing(work: Path, out: tuple[str, ...]) -> None:
    succeed("train", *SCHEDULE)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (work / "runs").rglob("*.*")}
    assert len(before) == 13
    result = compress(*RESUME, *out)
    assert (result.code, result.err) == (0, "")
    assert "finished" in result.out
    assert "prune-tiny-1" in result.out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (work / "runs").rglob("*.*")} == before


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (["--set", "data.batch=32"], "data.batch"),
        (["--set", "optimizer.lr=0.2"], "optimizer.lr"),
        (["--set", "model.hidden=[8]"], "model.hidden"),
        (["--seed", "1"], "seed"),
        (["--set", "schedule.pruners.fine.final_sparsity=0.5"], "pruners.fine.final_sparsity"),
        (["--set", "schedule.policies.0.ending_epoch=3"], "policies.0.ending_epoch"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("out", [(), ("--out", "runs/prune-tiny-1")], ids=["newest", "out"])
def test_resume_under_another_schedule_or_config_is_exit_2_and_names_the_key(
    work: Path, change: list[str], key: str, out: tuple[str, ...]
) -> None:
    interrupted(*SCHEDULE)
    before = (work / "runs" / "prune-tiny-1" / "checkpoint.pt").read_bytes()
    result = compress(*RESUME, *change, *out)
    assert result.code == 2
    assert key in result.err
    assert "prune-tiny-1" in result.err
    assert (work / "runs" / "prune-tiny-1" / "checkpoint.pt").read_bytes() == before
    assert len(list((work / "runs").iterdir())) == 1


def test_resume_without_the_schedule_of_the_run_is_exit_2(work: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    result = compress("train", "-c", "tiny", "--out", "run", "--resume")
    assert (result.code, "schedule" in result.err) == (2, True)
    interrupted("-c", "tiny", "--out", "dense")
    result = compress(*RESUME, "--out", "dense")
    assert (result.code, "schedule" in result.err) == (2, True)


def test_resume_under_a_finished_run_s_name_but_another_config_is_exit_2(work: Path) -> None:
    succeed("train", *SCHEDULE, "--out", "run")
    result = compress(*RESUME, "--out", "run", "--set", "data.batch=32")
    assert (result.code, "data.batch" in result.err) == (2, True)


def test_comments_and_spelling_of_the_schedule_may_change(work: Path, reference: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    text = (work / "prune.yaml").read_text()
    (work / "renamed.yaml").write_text("# the same thing\n" + text.replace("0.75", "7.5e-1"))
    succeed("train", "-s", "renamed", "--out", "run", "--resume")
    ours, theirs = saved(work / "run" / "checkpoint.pt"), saved(reference / "checkpoint.pt")
    assert difference(ours["model"], theirs["model"]) is None
    assert difference(ours["state"], theirs["state"]) is None


@pytest.mark.parametrize("out", [(), ("--out", "runs/prune-tiny-1")], ids=["newest", "out"])
def test_the_report_may_change_at_a_resume(work: Path, reference: Path, out: tuple[str, ...]) -> None:
    interrupted(*SCHEDULE)
    succeed(*RESUME, *out, "--set", f"report.reference={reference}", "--set", "report.html=true")
    run = work / "runs" / "prune-tiny-1"
    ours, theirs = saved(run / "checkpoint.pt"), saved(reference / "checkpoint.pt")
    assert difference(ours["model"], theirs["model"]) is None
    assert yaml.safe_load((run / "config.yaml").read_text())["report"] == {"html": True, "reference": str(reference)}
    assert f"of {reference.name}" in (run / "report.html").read_text()
    assert len(list((work / "runs").iterdir())) == 1
    assert "finished already" in succeed(*RESUME, *out)


def test_resume_with_out_alone_takes_the_run_s_own_files(work: Path, reference: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    (work / "tiny.yaml").unlink()
    (work / "prune.yaml").unlink()
    succeed("train", "--out", "run", "--resume")
    assert run_difference(work / "run", reference) is None


def test_resume_in_a_folder_that_is_no_run_is_exit_2(work: Path) -> None:
    (work / "mine").mkdir()
    (work / "mine" / "thesis.tex").write_text("years of work")
    result = compress(*RESUME, "--out", "mine")
    assert (result.code, "mine" in result.err) == (2, True)
    assert [path.name for path in (work / "mine").iterdir()] == ["thesis.tex"]


def test_resume_from_a_torn_checkpoint_is_exit_2(work: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    path = work / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    result = compress(*RESUME, "--out", "run")
    assert (result.code, "run/checkpoint.pt" in result.err) == (2, True)
    assert "Traceback" not in result.err


@pytest.mark.parametrize("gone", [False, True], ids=["damaged", "gone"])
@pytest.mark.parametrize("out", [(), ("--out", "runs/prune-tiny-1")])
def test_a_checkpoint_that_is_lost_is_told_and_the_one_before_it_is_taken_by_the_user(
    work: Path, reference: Path, out: tuple[str, ...], gone: bool
) -> None:
    interrupted(*SCHEDULE)
    run = Path("runs/prune-tiny-1")
    content = bytearray((run / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "checkpoint.pt").write_bytes(content)
    if gone:
        (run / "checkpoint.pt").unlink()
    names = {path: path.read_bytes() for path in run.iterdir()}
    for command in ([*RESUME, *out], ["report", run], ["eval", run]):
        result = compress(*command)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "checkpoint.1.pt, is whole" in result.err
        assert {path: path.read_bytes() for path in run.iterdir()} == names
    move = "mv runs/prune-tiny-1/checkpoint.1.pt runs/prune-tiny-1/checkpoint.pt"
    assert f"run `{move}`" in result.err
    os.replace(*move.split()[1:])
    succeed(*RESUME, *out)
    assert run_difference(run, reference) is None


def test_keep_is_the_number_of_checkpoints(work: Path) -> None:
    succeed("train", *SCHEDULE, "--set", "checkpoint.keep=3", "--out", "run")
    epochs = {path.name: saved(path)["state"]["progress"]["epoch"] for path in Path("run").glob("checkpoint*.pt")}
    assert epochs == {"checkpoint.pt": 4, "checkpoint.1.pt": 4, "checkpoint.2.pt": 3}  # the last one is saved twice
    assert [saved(Path("run", name))["finished"] for name in sorted(epochs)] == [False, False, True]
    succeed("train", "-c", "tiny", "--set", "checkpoint.keep=1", "--out", "one")
    assert [path.name for path in Path("one").glob("checkpoint*")] == ["checkpoint.pt"]


def test_two_processes_do_not_train_in_one_folder(work: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    with folder.held(work / "run"):
        result = compress(*RESUME, "--out", "run")
    assert (result.code, "another process" in result.err) == (2, True)
    succeed(*RESUME, "--out", "run")


def test_metrics_are_cut_back_to_the_checkpoint(work: Path, reference: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    path = work / "run" / "metrics.jsonl"
    assert [line["epoch"] for line in metrics(work / "run")] == [0, 1]
    with path.open("a") as file:  # what a killed run writes after its checkpoint, the last line torn
        file.write(json.dumps({"epoch": 2, "train": {}}) + '\n{"epoch": 3, "tra')
    succeed(*RESUME, "--out", "run")
    assert metrics(work / "run") == metrics(reference)


def test_a_torn_line_of_the_metrics_is_told_and_the_run_ends(work: Path, reference: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    path = work / "run" / "metrics.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first[:40]}\n{second}\n")
    out = succeed(*RESUME, "--out", "run")
    told = "warning: run/metrics.jsonl: 1 of 2 lines torn or lost (epoch 0); the run continues without them"
    assert out.count("warning") == 1
    assert told in out
    assert told in (work / "run" / "log.txt").read_text()
    assert metrics(work / "run") == metrics(reference)[1:]


@pytest.mark.parametrize("how", ["no such checkpoint", "a damaged one"])
def test_a_best_checkpoint_that_cannot_be_read_is_told_and_the_run_ends(work: Path, how: str) -> None:
    succeed("train", "-c", "tiny", "--out", "run")
    model = saved(Path("run/checkpoint.pt"))["model"]
    best, accuracies = Path("run/best.pt"), [line["val"]["top1"] for line in metrics(Path("run"))]

    def spoil() -> None:
        best.write_bytes(best.read_bytes()[:-1] + b"!")
        if how == "no such checkpoint":
            best.unlink()

    # All epochs are done, the test images were not used yet.
    os.replace("run/checkpoint.1.pt", "run/checkpoint.pt")
    spoil()
    out = succeed("train", "-c", "tiny", "--resume", "--out", "run")
    assert out.count("warning: run/best.pt: ") == 2
    assert how in out
    assert "best.pt will be the best of the epochs that are still to come" in out
    assert "the best epoch is not tested" in out
    assert difference(saved(Path("run/checkpoint.pt"))["model"], model) is None
    # Two epochs are still to come.
    interrupted("-c", "tiny", "--out", "again")
    best = Path("again/best.pt")
    spoil()
    out = succeed("train", "-c", "tiny", "--resume", "--out", "again")
    assert out.count("warning: again/best.pt: ") == 1
    assert saved(best)["epoch"] == 3 + accuracies[2:].index(max(accuracies[2:]))
    assert difference(saved(Path("again/checkpoint.pt"))["model"], model) is None


def test_temporary_files_of_a_killed_run_do_not_stay(work: Path, reference: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    names = {path.name for path in reference.iterdir()}
    (work / "run" / ".checkpoint.pt.partial").write_bytes(b"half a checkp")
    succeed(*RESUME, "--out", "run")
    assert {path.name for path in (work / "run").iterdir()} == names


def test_a_checkpoint_every_second_epoch_is_resumed_from_there(work: Path, reference: Path) -> None:
    rare = ["--set", "checkpoint.every_epochs=2"]
    written: list[int] = []
    original = os.replace

    def replace(source: Path, target: Path) -> None:
        original(source, target)
        if Path(target).name == "checkpoint.pt":
            written.append(saved(Path(target))["epoch"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        succeed("train", *SCHEDULE, *rare, "--set", "epochs=5", "--out", "run")
    assert written == [2, 4, 5, 5]  # every second epoch, the last one, and with its test figures


@pytest.mark.parametrize(
    "restores",
    [
        "torch.optim.SGD.load_state_dict",
        "compressor.sparsity.masks.Masks.load_state_dict",
        "compressor.session.rng.restore",
    ],
)
def test_a_run_that_does_not_restore_everything_differs(
    work: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, restores: str
) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    monkeypatch.setattr(restores, lambda *arguments: None)
    succeed(*RESUME, "--out", "run")
    found = run_difference(work / "run", reference)
    assert found is not None
    assert found.startswith("checkpoint.pt/model")
