"""A checkpoint is used with the data it was trained on and in the run that wrote it, or the difference is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import Result, compress, interrupted, saved, succeed
from PIL import Image

import compressor
from compressor.experiment import building, loading
from compressor.experiment.identity import same_data

CONFIG = """\
model: {name: mlp, hidden: [4], inputs: 64}
data: {name: imagefolder, channels: 1, batch: 4, validation: 0.25}
optimizer: {name: sgd, lr: 0.1}
epochs: 2
report: {html: false}
"""
TRAIN = ("train", "-c", "own", "--data", "images")


def _draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def write_images(folder: Path) -> None:
    """own.yaml, and 16 training and 8 test images of two classes."""
    (folder / "own.yaml").write_text(CONFIG)
    for split, count in (("train", 8), ("test", 4)):
        for number in range(2 * count):
            _draw(folder / "images" / split / "ab"[number % 2] / f"{number}.png", number)


@pytest.fixture(autouse=True)
def images(work: Path) -> Path:
    """The folder of images of every test."""
    write_images(work)
    return work / "images"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs over such images: one stopped in its second epoch, and one that is finished."""
    folder = tmp_path_factory.mktemp("runs")
    write_images(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        interrupted(*TRAIN[1:], "--out", "stopped", epoch=1, step=1)
        succeed(*TRAIN, "--out", "done")
    return folder


@pytest.fixture
def run(runs: Path, work: Path) -> Callable[[str], Path]:
    """`run(name)`: a copy of a run, in the working directory."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(runs / name, work / name))

    return copied


def refused(result: Result, *words: str) -> None:
    """It is exit 2, in one line with these words."""
    assert (result.code, result.err.count("\n"), "Traceback" in result.err) == (2, 1, False), result.err
    assert [word for word in words if word not in result.err] == []


def changed(path: Path, **entries: Any) -> None:
    """Give a checkpoint other entries; None: without it."""
    whole = {**saved(path), **entries}
    torch.save({key: value for key, value in whole.items() if value is not None}, path)


# --- data ------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_has_classes_normalization_input_size_and_fingerprint(runs: Path) -> None:
    for name in ("done/checkpoint.pt", "done/best.pt", "stopped/checkpoint.pt"):
        whole = saved(runs / name)
        assert (whole["format"], whole["classes"], whole["shape"]) == (3, ["a", "b"], [1, 8, 8])
        # ImageNet's values as one grey value, by Pillow's weights of the colours (19595, 38470, 7471) / 65536
        mean = (0.485 * 19595 + 0.456 * 38470 + 0.406 * 7471) / 65536
        assert whole["normalization"]["mean"] == pytest.approx([mean], rel=1e-12)
        assert whole["data"]["counts"] == {"train": [8, 8], "test": [4, 4]}
        assert {len(digest) for digest in whole["data"]["content"].values()} == {64}


def test_eval_and_thin_use_the_same_data_without_a_word(run: Callable[[str], Path]) -> None:
    run("done")
    result = compress("eval", "done/checkpoint.pt", "--data", "images", "--json")
    assert (result.code, result.err) == (0, "")
    tested = saved(Path("done/checkpoint.pt"))["metrics"]["test"]
    assert json.loads(result.out) == {"schema": 1, **tested}


@pytest.mark.parametrize("command", ["eval", "thin"])
def test_other_images_are_refused_with_the_difference(run: Callable[[str], Path], images: Path, command: str) -> None:
    run("done")
    _draw(images / "test" / "a" / "0.png", 99)
    (images / "train" / "b" / "1.png").unlink()
    result = compress(command, "done", "--data", "images")
    refused(result, "done", "other data", "train images by class: 'b' had 8, has 7", "the test images", "--other-data")


def test_other_images_are_accepted_by_a_flag_with_a_message(run: Callable[[str], Path], images: Path) -> None:
    run("done")
    for path in (images / "test").rglob("*.png"):
        _draw(path, 99)
    result = compress("eval", "done", "--data", "images", "--other-data", "--json")
    assert result.code == 0
    assert result.err.startswith("warning: done was trained on other data than imagefolder here (--other-data): ")
    assert json.loads(result.out)["loss"] != saved(Path("done/checkpoint.pt"))["metrics"]["test"]["loss"]


def test_a_class_that_was_renamed_is_refused(run: Callable[[str], Path], images: Path) -> None:
    run("done")
    for split in ("train", "test"):
        (images / split / "a").rename(images / split / "z")  # now b is class 0
    refused(compress("eval", "done", "--data", "images"), "the classes have other names: 'a' gone, 'z' new")


def test_classes_in_another_order_are_refused_also_in_a_file_of_format_2(run: Callable[[str], Path]) -> None:
    run("done")
    changed(Path("done/checkpoint.pt"), classes=["b", "a"])
    refused(compress("eval", "done", "--data", "images"), "in another order: 0 was 'b', is 'a', 1 was 'a', is 'b'")
    changed(Path("done/checkpoint.pt"), format=2, data=None, normalization=None)
    result = compress("eval", "done", "--data", "images")
    assert (result.code, "in another order" in result.err) == (2, True)


def test_another_number_of_classes_is_refused_whatever_the_flags(run: Callable[[str], Path], images: Path) -> None:
    run("done")
    for split in ("train", "test"):
        _draw(images / split / "c" / "0.png", 1)
    refused(compress("eval", "done", "--data", "images", "--other-data"), "in 2 classes", "in 3")


def test_a_file_without_a_fingerprint_is_read_with_one_warning(run: Callable[[str], Path]) -> None:
    run("done")
    changed(Path("done/checkpoint.pt"), format=2, data=None, normalization=None)
    result = compress("eval", "done/checkpoint.pt", "--data", "images")
    assert result.code == 0
    assert result.err == (
        "warning: done/checkpoint.pt has no fingerprint of its data (an older version wrote it): only classes are"
        " compared\n"
    )


@pytest.mark.parametrize("number", [1, 2])
def test_every_command_reads_older_formats_and_resume_refuses_them(run: Callable[[str], Path], number: int) -> None:
    for name in ("done", "stopped"):
        changed(run(name) / "checkpoint.pt", format=number, data=None, normalization=None)
    assert "fc1.weight" in succeed("report", "done")
    thinned = compress("thin", "done", "--data", "images", "--out", "thin.pt")
    assert (thinned.code, "nothing to remove" in thinned.out) == (0, True)
    assert compressor.load("done").training is False
    succeed(*TRAIN, "--init", "done/checkpoint.pt", "--out", "new")
    refused(compress(*TRAIN, "--out", "stopped", "--resume"), f"checkpoint format {number}", "only runs of format 3")


def test_the_normalization_is_that_of_the_training_whatever_the_data_say_now(run: Callable[[str], Path]) -> None:
    path = run("done") / "checkpoint.pt"
    changed(path, normalization={"mean": [0.25], "std": [0.75]})
    loaded = loading.load(path)
    dataset = building.load_data(loaded.config, Path("images"))
    used = same_data(dataset, loaded.saved, path, other_data=False, say=pytest.fail)
    assert (used.mean, used.std) == ((0.25,), (0.75,))
    changed_loss = json.loads(succeed("eval", "done", "--data", "images", "--json"))["loss"]
    assert changed_loss != saved(path)["metrics"]["test"]["loss"]


# --- resuming --------------------------------------------------------------------------------------------------------


def test_resume_refuses_other_images_and_accepts_them_by_a_flag(run: Callable[[str], Path], images: Path) -> None:
    path = run("stopped") / "checkpoint.pt"
    changed(path, normalization={"mean": [0.25], "std": [0.75]})  # as if the first images had been darker
    before, bytes_before = saved(path), path.read_bytes()
    _draw(images / "train" / "a" / "0.png", 99)
    refused(compress(*TRAIN, "--out", "stopped", "--resume"), "stopped/checkpoint.pt", "the train images")
    assert path.read_bytes() == bytes_before
    result = compress(*TRAIN, "--out", "stopped", "--resume", "--other-data")
    assert (result.code, result.err) == (0, "")
    assert "(--other-data): the train images" in result.out
    assert "(--other-data): the train images" in Path("stopped/log.txt").read_text()
    now = saved(path)
    assert now["finished"] is True
    assert now["data"]["content"]["train"] != before["data"]["content"]["train"]
    assert now["data"]["content"]["test"] == before["data"]["content"]["test"]
    assert now["normalization"] == before["normalization"]


def test_other_data_without_resume_is_a_wrong_use() -> None:
    result = compress(*TRAIN, "--other-data")
    assert (result.code, "--resume" in result.err) == (2, True)


OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "seed": ({"seed": 5}, ["seed is 0 now, 5 there"]),
    "model": ({"model": {"name": "mlp", "hidden": [5], "inputs": 64}}, ["model.hidden.0 is 4 now, 5 there"]),
    "two keys": ({"label_smoothing": 0.5, "best": "loss"}, ["label_smoothing is 0.0", "best is 'top1' now"]),
    "schedule": ({}, ["schedule is None now, {"]),
}
"""What another run's configuration has, and the words of the refusal."""


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("file", ["checkpoint.pt", "best.pt"])
def test_resume_refuses_another_run_s_files_with_the_keys(run: Callable[[str], Path], other: str, file: str) -> None:
    path = run("stopped") / file
    entries, words = OTHERS[other]
    schedule = Path("prune.yaml").read_text() if other == "schedule" else None
    changed(path, config={**saved(path)["config"], **entries}, schedule=schedule)
    before = {kept.name: kept.read_bytes() for kept in path.parent.iterdir()}
    refused(compress(*TRAIN, "--out", "stopped", "--resume"), f"stopped/{file}", "another run", *words)
    assert {kept.name: kept.read_bytes() for kept in path.parent.iterdir()} == before


def test_a_finished_checkpoint_of_another_run_is_not_taken_for_the_end_of_this_one(run: Callable[[str], Path]) -> None:
    path = run("stopped") / "checkpoint.pt"
    whole = saved(run("done") / "checkpoint.pt")
    torch.save({**whole, "config": {**whole["config"], "seed": 5}}, path)
    refused(compress(*TRAIN, "--out", "stopped", "--resume"), "stopped/checkpoint.pt", "seed is 0 now, 5 there")


def test_epochs_alone_may_differ(run: Callable[[str], Path]) -> None:
    path = run("stopped") / "checkpoint.pt"
    changed(path, config={**saved(path)["config"], "epochs": 7})
    succeed(*TRAIN, "--out", "stopped", "--resume")
    assert saved(path)["finished"] is True


def test_keys_that_a_configuration_lacks_have_their_defaults(run: Callable[[str], Path]) -> None:
    path = run("stopped") / "checkpoint.pt"
    changed(path, config={key: value for key, value in saved(path)["config"].items() if key != "label_smoothing"})
    written = yaml.safe_load(Path("stopped/config.yaml").read_text())
    Path("stopped/config.yaml").write_text(yaml.safe_dump({k: v for k, v in written.items() if k != "best"}))
    succeed(*TRAIN, "--out", "stopped", "--resume")
