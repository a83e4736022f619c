"""CIFAR from torchvision's batches (small ones, with their own checksums) and from image folders."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from compressor.config import DataConfig
from compressor.data import load
from compressor.errors import UserError

MakeFolders = Callable[..., Path]

CPU = torch.device("cpu")
CLASSES = dict.fromkeys("airplane automobile bird cat deer dog frog horse ship truck".split(), 2)


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 + 10 images in torchvision's format; their checksums stand in for the published ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def part(name: str, first: int, count: int) -> list[str]:
        pixels = np.random.default_rng(first).integers(0, 256, (count, 3072), dtype=np.uint8)
        return [name, write(name, {"data": pixels, "labels": [k % 10 for k in range(count)]})]

    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [part("data_batch_1", 1, 10), part("data_batch_2", 2, 10)])
    monkeypatch.setattr(kind, "test_list", [part("test_batch", 3, 10)])
    md5 = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(kind, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})
    return tmp_path


def test_torchvisions_batches(batches: Path) -> None:
    data = load(DataConfig(name="cifar10"), batches, 0)
    assert (len(data.train), len(data.test), data.shape) == (20, 10, (3, 32, 32))
    assert data.classes == tuple(CLASSES)
    _, images, labels = next(data.train.batches(torch.tensor([12]), 1, CPU))
    expected = np.random.default_rng(2).integers(0, 256, (10, 3072), dtype=np.uint8)[2].reshape(3, 32, 32)
    assert np.array_equal(images[0].numpy(), expected)
    assert labels.tolist() == [2]
    assert load(DataConfig(name="cifar10", channels=1), batches, 0).mean == pytest.approx((0.4809,), abs=2e-3)


def test_damaged_batches_are_named_and_never_unpickled(batches: Path) -> None:
    path = batches / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="data_batch_2 is damaged"):
        load(DataConfig(name="cifar10"), batches, 0)
    path.unlink()
    with pytest.raises(UserError, match="data_batch_2 is missing"):
        load(DataConfig(name="cifar10"), batches, 0)


@pytest.mark.parametrize("inside", ["", "cifar10"])
def test_image_folders(folders: MakeFolders, inside: str) -> None:
    root = folders(size=(32, 32), train=CLASSES, test=CLASSES)
    if inside:
        (root / inside).mkdir()
        for split in ("train", "test"):
            (root / split).rename(root / inside / split)
    data = load(DataConfig(name="cifar10"), root, 0)
    assert data.classes == tuple(CLASSES)
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.train.labels.tolist() == [k // 2 for k in range(20)]


def test_wrong_number_of_classes(folders: MakeFolders) -> None:
    root = folders(train={"a": 1, "b": 1}, test={"a": 1, "b": 1})
    with pytest.raises(UserError, match=r"cifar10 has 10 classes, .*train has 2; .* `name: imagefolder`"):
        load(DataConfig(name="cifar10"), root, 0)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cifar100: not found; looked for .*cifar-100-python and .*COMPRESS_DATA.*CIFAR100"
    ):
        load(DataConfig(name="cifar100"), tmp_path, 0)
