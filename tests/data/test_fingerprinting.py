"""What is the same data set and what is another one, and how the difference is told."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.config import DataConfig
from compressor.data import DataSet, differences, fingerprint, fingerprinting, load, memory
from compressor.data.images import Batch
from compressor.data.memory import InMemory, in_memory
from compressor.errors import UserError

MakeFolders = Callable[..., Path]
TWO = {"cat": 5, "dog": 4}


def _folders(root: Path, **config: Any) -> DataSet:
    return load(DataConfig(name="imagefolder", **config), root, 0)


def _set(images: torch.Tensor, labels: torch.Tensor, **config: Any) -> DataSet:
    wanted = DataConfig(name="x", **config)
    return in_memory("x", (images, labels), (images[:2], labels[:2]), ("a", "b"), wanted)


IMAGES = torch.arange(4 * 16, dtype=torch.uint8).reshape(4, 1, 4, 4)
LABELS = torch.tensor([0, 1, 1, 0])


def test_a_fingerprint_is_the_classes_the_counts_and_a_digest_of_labels_and_pixels() -> None:
    found = fingerprint(_set(IMAGES, LABELS))
    digest = hashlib.sha256(b"torch.uint8 [4, 1, 4, 4]\x004\0")
    digest.update(np.array([0, 1, 1, 0], "<i8").tobytes() + bytes(range(64)))
    assert found["classes"] == ["a", "b"]
    assert found["counts"] == {"train": [2, 2], "test": [1, 1]}
    assert found["content"]["train"] == digest.hexdigest()


def test_it_does_not_depend_on_how_the_images_are_resized_held_or_split() -> None:
    plain = fingerprint(_set(IMAGES, LABELS))
    for config in ({"size": 7}, {"channels": 3}, {"validation": 0.5}, {"mean": [0.1], "std": [0.2]}):
        assert fingerprint(_set(IMAGES, LABELS, **config)) == plain
    transposed = IMAGES.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # as CIFAR's batches are
    assert fingerprint(_set(transposed, LABELS)) == plain


def test_one_pixel_one_label_or_the_order_make_another() -> None:
    plain = fingerprint(_set(IMAGES, LABELS))
    pixel = IMAGES.clone()
    pixel[3, 0, 3, 3] += 1
    order = torch.tensor([1, 0, 2, 3])
    said = "the train images: as many of each class, but other ones, or in another order"
    assert differences(plain, fingerprint(_set(pixel, LABELS))) == [said]
    assert differences(plain, fingerprint(_set(IMAGES[order], LABELS[order])))[0] == said
    assert differences(plain, fingerprint(_set(IMAGES, torch.tensor([0, 1, 0, 1])))) == [said]
    assert differences(plain, fingerprint(_set(IMAGES, torch.tensor([0, 1, 1, 1])))) == [
        "the number of train images by class: 'a' had 2, has 1, 'b' had 2, has 3"
    ]
    assert differences(plain, plain) == []


def test_of_a_large_split_a_fixed_sample_is_hashed_and_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprinting, "WHOLE", 63)
    monkeypatch.setattr(fingerprinting, "SAMPLED", 3)
    assert fingerprinting._sample(9, 3).tolist() == [0, 4, 8]
    assert fingerprinting._sample(2, 3).tolist() == [0, 1]
    assert fingerprinting._sample(1, 3).tolist() == [0]
    sampled = fingerprinting._sample(4, 3).tolist()  # of four: 0, 1, 3
    plain = fingerprinting.of_tensors(IMAGES, LABELS)
    for index in range(4):
        other = IMAGES.clone()
        other[index] = 9
        assert (fingerprinting.of_tensors(other, LABELS) == plain) is (index not in sampled)
    assert fingerprinting.of_tensors(IMAGES, torch.tensor([0, 1, 0, 1])) != plain


# --- folders of image files ----------------------------------------------------------------------------------------


def test_folders_are_known_by_names_sizes_and_bytes_and_not_by_how_they_are_read(
    folders: MakeFolders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = folders(train=TWO, test=TWO)
    plain = fingerprint(_folders(root))
    assert plain["counts"] == {"train": [5, 4], "test": [5, 4]}
    assert fingerprint(_folders(root, size=4)) == plain
    root.rename(tmp_path / "moved")
    root = tmp_path / "moved"
    with monkeypatch.context() as patch:
        patch.setattr(memory, "LIMIT", 0)
        assert fingerprint(_folders(root, size=8)) == plain
    (root / "train/cat/000.png").rename(root / "train/cat/9.png")
    assert differences(plain, fingerprint(_folders(root)))
    (root / "train/cat/9.png").rename(root / "train/cat/000.png")
    Image.new("RGB", (8, 8)).save(root / "test/dog/001.png")
    [said] = differences(plain, fingerprint(_folders(root)))
    assert said.startswith("the test images: ")


def test_of_many_files_a_sample_is_read_but_all_names_and_sizes_count(
    folders: MakeFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folders(train=TWO, test=TWO)
    monkeypatch.setattr(fingerprinting, "WHOLE", 300)
    monkeypatch.setattr(fingerprinting, "SAMPLED", 3)  # the first, fifth and last of nine; 100 bytes of each
    plain = fingerprint(_folders(root))

    def changed(file: str, at: int) -> bool:
        content = bytearray((root / file).read_bytes())
        (root / file).write_bytes(bytes([*content[:at], content[at] ^ 1, *content[at + 1 :]]))
        listing = fingerprinting.of_files(root / "train", *_listing(root / "train"))
        (root / file).write_bytes(bytes(content))
        return listing != plain["content"]["train"]

    assert changed("train/cat/004.png", 99)
    assert not changed("train/cat/004.png", 100)
    assert not changed("train/cat/001.png", 50)
    with open(root / "train/cat/001.png", "ab") as file:
        file.write(b"\0")
    assert differences(plain, fingerprint(_folders(root)))


def test_of_small_but_many_files_a_sample_is_read(folders: MakeFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(train={"cat": 3}, test={"cat": 3})
    monkeypatch.setattr(fingerprinting, "SAMPLED", 2)  # the first and the last
    for most, noticed in ((3, True), (2, False)):
        monkeypatch.setattr(fingerprinting, "MOST_FILES", most)
        before = fingerprint(_folders(root))
        middle = root / "test/cat/001.png"
        content = middle.read_bytes()
        Image.new("RGB", (8, 8), (most, 0, 0)).save(middle)
        middle.write_bytes(middle.read_bytes().ljust(len(content), b"\0"))
        assert bool(differences(before, fingerprint(_folders(root)))) is noticed


def _listing(folder: Path) -> tuple[list[str], list[int], torch.Tensor]:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    return files, [(folder / file).stat().st_size for file in files], torch.tensor([0] * 5 + [1] * 4)


def test_a_file_that_goes_while_it_is_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
        fingerprinting.of_files(tmp_path, ["gone.png"], [3], torch.tensor([0]))


def test_names_that_are_no_text_are_hashed(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    os.rename(root / "train/cat/000.png", os.fsencode(root) + b"/train/cat/\xff.png")
    assert len(fingerprint(_folders(root))["content"]["train"]) == 64


# --- classes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["a", "b", "c"], ["a", "b", "c"], None),
        (["a", "b", "c"], ["a", "c", "b"], "the classes are in another order: 1 was 'b', is 'c', 2 was 'c', is 'b'"),
        (["a", "b", "c"], ["a", "b", "d"], "the classes have other names: 'c' gone, 'd' new"),
        (list("abcdef"), list("uvwxyf"), "'a', 'b', 'c', ... (5 in all) gone, 'u', 'v', 'w', ... (5 in all) new"),
        (["a", "a", "b"], ["a", "b", "b"], "the classes are in another order: 1 was 'a', is 'b'"),
    ],
)
def test_the_difference_of_classes_is_told(before: list[str], now: list[str], said: str | None) -> None:
    found = differences({"classes": before}, {"classes": now, "counts": {}, "content": {}})
    assert found == [] if said is None else said in found[0]


def test_a_fingerprint_without_counts_and_content_compares_the_classes_alone() -> None:
    here = fingerprint(_set(IMAGES, LABELS))
    assert differences({"classes": ["a", "b"]}, here) == []
    assert differences({"classes": ["b", "a"]}, here) != []


# --- a factory's own DataSet ---------------------------------------------------------------------------------------


class Counted(InMemory):
    """Images that count how many of them are asked for."""

    asked = 0

    def batches(self, order: torch.Tensor, batch: int, device: torch.device) -> Any:
        self.asked += len(order)
        made: list[Batch] = list(super().batches(order, batch, device))
        return iter(made)


def test_of_a_set_that_only_feeds_images_a_few_are_read() -> None:
    images = torch.randint(0, 256, (100, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(100) % 2
    own = DataSet("own", Counted(images, labels), Counted(images, labels), ("a", "b"), (1, 4, 4), (0.5,), (0.5,))
    found = fingerprint(own)
    assert isinstance(own.train, Counted)
    assert own.train.asked == fingerprinting.FED == 32
    assert found == fingerprint(own)
    other = images.clone()
    other[99] = 0
    assert differences(found, fingerprint(replace(own, train=Counted(other, labels)))) != []
