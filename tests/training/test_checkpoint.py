"""What is read as a checkpoint, and what is refused."""

import os
import random
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import difference

from compressor import models
from compressor.errors import UserError
from compressor.models.preact_resnet_cifar import PreactResNetCifar
from compressor.thinning import describe
from compressor.training import checkpoint, load_weights

WHOLE: dict[str, Any] = {
    "format": checkpoint.FORMAT,
    "model": {"fc.weight": torch.tensor([[1.5, -0.0]])},
    "config": {},
    "shape": [1, 8, 8],
    "classes": ["a", "b"],
    "metrics": {},
}


def test_what_was_saved_is_loaded_in_the_same_bits(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", WHOLE)
    assert difference(checkpoint.load(tmp_path / "c.pt"), WHOLE) is None
    assert difference(torch.load(tmp_path / "c.pt", weights_only=True), WHOLE) is None


def test_the_format_is_two_until_the_layout_changes_again() -> None:
    assert checkpoint.FORMAT == 2


def test_the_weights_of_format_one_can_still_be_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {**WHOLE, "format": 1})
    assert checkpoint.load(tmp_path / "c.pt")["format"] == 1


@pytest.mark.parametrize("key", WHOLE)
def test_a_file_without_one_of_the_entries_is_refused(tmp_path: Path, key: str) -> None:
    checkpoint.save(tmp_path / "c.pt", {name: value for name, value in WHOLE.items() if name != key})
    with pytest.raises(UserError, match=r"c\.pt: not a checkpoint"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_checkpoint_of_another_format_is_refused_by_number(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {**WHOLE, "format": 77})
    with pytest.raises(UserError, match=r"77.*1"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", WHOLE)
    whole = (tmp_path / "c.pt").read_bytes()
    for length in range(0, len(whole), max(len(whole) // 25, 1)):
        (tmp_path / "torn.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"torn\.pt"):
            checkpoint.load(tmp_path / "torn.pt")


FLIPS, PAGES, PAGE = int(os.environ.get("FLIPS", "40")), int(os.environ.get("PAGES", "10")), 4096
LARGE = {**WHOLE, "model": {"fc.weight": torch.arange(1.0, 8001.0)}, "metrics": {"test": {"top1": 97.5}}}
"""Eight pages on the disk."""


def damaged(whole: bytes) -> list[bytes]:
    """The file with one bit flipped (a bit of each of FLIPS bytes), and with one page of zeros (PAGES of them)."""
    draws = random.Random(0)
    files = []
    for place in draws.sample(range(len(whole)), FLIPS):
        file = bytearray(whole)
        file[place] ^= 1 << draws.randrange(8)
        files.append(bytes(file))
    for _ in range(PAGES):
        file = bytearray(whole)
        start = PAGE * draws.randrange(-(-len(whole) // PAGE))
        file[start : start + PAGE] = bytes(len(file[start : start + PAGE]))
        files.append(bytes(file))
    return files


@pytest.mark.counted
@pytest.mark.parametrize("summed", [True, False], ids=["with its sum", "as older versions wrote it"])
def test_a_damaged_file_is_refused_unless_it_holds_the_same(tmp_path: Path, summed: bool) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, LARGE) if summed else torch.save(LARGE, path)
    assert difference(checkpoint.load(path), LARGE) is None
    refused = 0
    files = damaged(path.read_bytes())
    for content in files:
        path.write_bytes(content)
        try:
            assert difference(checkpoint.load(path), LARGE) is None
        except UserError as error:
            assert str(error).startswith(f"{path}: not a checkpoint, or a damaged one (")  # noqa: PT017
            refused += 1
    assert refused == len(files) if summed else refused > 0.8 * len(files)


def test_the_sum_is_the_comment_of_a_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, WHOLE)
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment
        assert archive.testzip() is None
    content = path.read_bytes()
    assert content.endswith(comment)
    bare = tmp_path / "bare.pt"
    bare.write_bytes(content[: -len(comment) - 2] + bytes(2))
    sha256 = subprocess.run(["sha256sum", bare], capture_output=True, text=True, check=True).stdout.split()[0]
    assert comment.decode() == f"SHA-256 {sha256}"
    assert difference(torch.load(path, weights_only=True, mmap=True), WHOLE) is None
    torch.save(torch.load(path, weights_only=True), path)  # by its owner, without a sum
    assert difference(checkpoint.load(path), WHOLE) is None


def test_the_message_names_the_newest_older_copy_that_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a b.pt"
    for version in range(4):
        checkpoint.save(path, {**WHOLE, "epoch": version}, keep=4)
    older = [tmp_path / f"a b.{number}.pt" for number in (1, 2, 3)]
    assert [checkpoint.load(copy)["epoch"] for copy in older] == [2, 1, 0]
    (tmp_path / "a b.best.pt").write_bytes(older[0].read_bytes())
    for file in (path, older[0]):
        file.write_bytes(file.read_bytes()[:-100] + b"!" + file.read_bytes()[-99:])
    with pytest.raises(UserError, match=r"a b\.2\.pt, is whole.* run `mv '.*a b\.2\.pt' '.*a b\.pt'` and") as error:
        checkpoint.load(path)
    assert str(error.value).count("\n") == 0
    subprocess.run(["bash", "-c", str(error.value).split("`")[1]], check=True)
    assert checkpoint.load(path)["epoch"] == 1
    with pytest.raises(UserError, match=r"a b\.3\.pt, is whole"):
        checkpoint.load(older[0])
    path.unlink()
    older[2].write_bytes(b"")
    with pytest.raises(UserError, match=r"no such checkpoint; .*a b\.1\.pt and .*a b\.3\.pt: damaged, too"):
        checkpoint.load(path)


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was here",))

    torch.save({**WHOLE, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("name", ["nowhere.pt", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(tmp_path / name)


@pytest.mark.parametrize("thinned", [False, True])
def test_the_pre_activation_resnets_of_earlier_versions_are_refused_in_one_message(thinned: bool) -> None:
    earlier = PreactResNetCifar(3, 10, convolves=True)
    saved = {**WHOLE, "model": earlier.state_dict(), **({"architecture": describe(earlier)} if thinned else {})}
    with pytest.raises(UserError) as refused:
        load_weights(models.build("preact_resnet20_cifar"), saved, "c.pt")
    [line] = str(refused.value).splitlines()
    assert line.startswith("c.pt: written by an earlier version, whose pre-activation ResNets had convolutions")
    assert "layer2.0.downsample.0" in line
    assert "train the network again" in line
    load_weights(models.build("preact_resnet20_cifar"), {**saved, **now()}, "c.pt")


def now() -> dict[str, Any]:
    network = models.build("preact_resnet20_cifar")
    return {"model": network.state_dict(), "architecture": describe(network)}
