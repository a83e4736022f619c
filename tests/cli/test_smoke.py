"""`compress train --smoke`: every epoch in two small steps."""

import math
from pathlib import Path

import pytest
import torch
from helpers import compress, metrics, saved, succeed

from compressor.config import DataConfig
from compressor.data.loading import load
from compressor.data.smoke import SmokeFeed, random_set
from compressor.errors import UserError
from compressor.timing.window import Window


def smoke(work: Path, *arguments: object) -> Path:
    """A smoke run's folder."""
    succeed("train", "--smoke", *arguments)
    [folder] = sorted((work / "runs").glob("smoke-*"))
    return folder


def test_every_epoch_is_kept_and_has_two_steps(work: Path) -> None:
    folder = smoke(work, "-s", "prune", "-c", "tiny")
    assert folder.name == "smoke-prune-tiny-1"
    lines = metrics(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert saved(folder / "checkpoint.pt")["state"]["meters"]["count"] == 16
    # AGP reaches its target as in the full run: 0.25, 0.6875, 0.75 of 1024 + 160 weights.
    assert lines[-1]["sparsity"] == pytest.approx(0.75, abs=1e-3)


def test_only_the_last_epoch_is_validated_unless_a_policy_watches(work: Path) -> None:
    assert [bool(line["val"]) for line in metrics(smoke(work, "-s", "prune", "-c", "tiny"))] == [False] * 3 + [True]
    (work / "plateau.yaml").write_text(
        "policies:\n  - lr_scheduler: {class: ReduceLROnPlateau, patience: 0, threshold: 9.0, threshold_mode: abs}\n"
    )
    succeed("train", "--smoke", "-s", "plateau.yaml", "-c", "tiny", "--out", "watched")
    assert [bool(line["val"]) for line in metrics(work / "watched")] == [True] * 4


def test_it_ends_with_what_the_full_run_will_take(work: Path) -> None:
    last = succeed("train", "--smoke", "-s", "prune", "-c", "tiny").splitlines()[-1]
    assert "the full run is expected to take" in last
    assert all(word in last for word in ("second", "memory", "on disk"))


def test_a_missed_target_is_not_judged(work: Path) -> None:
    late = "policies:\n  - pruner: {class: SparsityLevelParameterPruner, levels: {'*': 0.5}}\n    epochs: [9]\n"
    (work / "late.yaml").write_text(late)
    assert compress("train", "-s", "late.yaml", "-c", "tiny").code == 1
    assert compress("train", "--smoke", "-s", "late.yaml", "-c", "tiny").code == 0


def test_it_is_never_resumed(work: Path) -> None:
    folder = smoke(work, "-s", "prune", "-c", "tiny")
    result = compress("train", "--resume", "--out", folder)
    assert result.code == 2
    assert "smoke run" in result.err
    result = compress("train", "--smoke", "--resume", "-s", "prune", "-c", "tiny")
    assert result.code == 2
    assert "--smoke" in result.err
    # and a run of the same files begins at its beginning
    out = succeed("train", "--resume", "-s", "prune", "-c", "tiny")
    assert "continuing" not in out


def test_two_smoke_runs_give_the_same_bits(work: Path) -> None:
    for name in ("a", "b"):
        succeed("train", "--smoke", "-s", "prune", "-c", "tiny", "--out", name)
    ours, theirs = (saved(work / name / "checkpoint.pt") for name in ("a", "b"))
    assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in ours["model"])


def test_without_the_files_random_images_of_the_sets_shape_stand_for_them(work: Path) -> None:
    config = (work / "tiny.yaml").read_text().replace("digits, size: 8", "mnist, size: 8")
    (work / "mnist.yaml").write_text(config)
    assert compress("train", "-c", "mnist.yaml", "--data", "nowhere").code == 2
    folder = smoke(work, "-s", "prune", "-c", "mnist.yaml", "--data", "nowhere")
    assert saved(folder / "checkpoint.pt")["shape"] == [1, 8, 8]
    assert len(saved(folder / "checkpoint.pt")["classes"]) == 10


def test_where_only_the_files_tell_the_shape_the_files_are_asked_for(work: Path) -> None:
    (work / "folders.yaml").write_text((work / "tiny.yaml").read_text().replace("digits, size: 8", "imagefolder"))
    result = compress("train", "--smoke", "-c", "folders.yaml", "--data", "nowhere")
    assert result.code == 2
    assert "nowhere" in result.err


def test_a_smoke_feed_has_the_full_runs_counts_and_its_first_images() -> None:
    config = DataConfig(name="digits", size=8, batch=64, validation=0.1)
    feed = SmokeFeed(load(config, None, 0), config, 0, torch.device("cpu"))
    assert (feed.images, feed.held_out, feed.full_steps, feed.steps_per_epoch) == (1293, 144, 21, 2)
    assert feed.pace == 21 / 2
    assert [len(labels) for _, labels in feed.train(0, 0)] == [8, 8]
    assert sum(len(labels) for _, labels in feed.validation()) == 16
    assert sum(len(labels) for _, labels in feed.test()) == 16
    data, count = random_set(DataConfig(name="mnist", validation=0.1), None, 0)
    random = SmokeFeed(data, DataConfig(name="mnist", validation=0.1), 0, torch.device("cpu"), count)
    assert (random.images, random.held_out, random.full_steps) == (54_000, 6_000, math.ceil(54_000 / 128))
    with pytest.raises(UserError, match="shape"):
        random_set(DataConfig(name="imagefolder"), None, 0)


def test_times_in_steps_are_scaled() -> None:
    window = Window(starting_step=100, ending_step=400, step_frequency=10).at_pace(20.0)
    assert (window.first, window.end, window.step) == (5, 20, 1)
    assert Window(starting_step=1, ending_step=2).at_pace(50.0).end == 1  # at least one step
    assert Window(starting_epoch=2, ending_epoch=5).at_pace(50.0) == Window(starting_epoch=2, ending_epoch=5)


def test_a_rate_by_steps_ends_where_the_full_run_ends(work: Path) -> None:
    # 4 epochs of 21 steps: at the end 84 steps are over, in a smoke run after 8.
    text = """\
version: 2
policies:
  - lr_scheduler: {class: LinearLR, start_factor: 0.5, total_iters: 84, args: {interval: step}}
"""
    (work / "linear.yaml").write_text(text)
    rates = [line["lr"] for line in metrics(smoke(work, "-s", "linear.yaml", "-c", "tiny"))]
    assert rates == pytest.approx([0.1 * (0.5 + 0.5 * done / 4) for done in (1, 2, 3, 4)])
