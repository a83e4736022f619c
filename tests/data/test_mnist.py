"""MNIST and Fashion-MNIST: the real files, and small or damaged ones."""

import struct
from pathlib import Path

import pytest
import torch
import torchvision

from compressor.config import DataConfig
from compressor.data import load
from compressor.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_real_set(real: Path, name: str, kind: str) -> None:
    data = load(DataConfig(name=name), real, 0)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.shape == (1, 28, 28)
    assert data.test.labels.bincount().sum() == 10_000
    reference = getattr(torchvision.datasets, kind)(real, train=False)
    _, images, labels = next(data.test.batches(torch.arange(10_000), 10_000, CPU))
    assert torch.equal(images[:, 0], reference.data)
    assert torch.equal(labels, reference.targets)
    _, images, _ = next(data.train.batches(torch.arange(60_000), 60_000, CPU))
    assert float(images.float().mean()) / 255 == pytest.approx(data.mean[0], abs=5e-4)
    assert float(images.float().std()) / 255 == pytest.approx(data.std[0], abs=5e-4)


def test_compress_data_names_the_root(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_DATA", str(real))
    assert len(load(DataConfig(name="mnist"), None, 0).test) == 10_000


def _idx(path: Path, magic: int, shape: tuple[int, ...], content: bytes) -> None:
    path.write_bytes(struct.pack(f">I{len(shape)}I", magic, *shape) + content)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A set of 20 + 10 images of 4x4."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        _idx(raw / f"{prefix}-images-idx3-ubyte", 0x803, (count, 4, 4), bytes(k % 256 for k in range(16 * count)))
        _idx(raw / f"{prefix}-labels-idx1-ubyte", 0x801, (count,), bytes(k % 10 for k in range(count)))
    return tmp_path


def test_a_small_set_by_hand(small: Path) -> None:
    data = load(DataConfig(name="mnist", channels=3, mean=[0.5], std=[0.1, 0.2, 0.3]), small, 0)
    assert data.shape == (3, 4, 4)
    assert data.mean == (0.5, 0.5, 0.5)
    assert data.std == (0.1, 0.2, 0.3)
    _, images, labels = next(data.train.batches(torch.tensor([3]), 1, CPU))
    assert images[0, 2].flatten().tolist() == list(range(48, 64))
    assert labels.tolist() == [3]


def _fails(root: Path | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(DataConfig(name="mnist"), root, 0)


def test_missing(tmp_path: Path, small: Path) -> None:
    _fails(
        None, r"train-images-idx3-ubyte, .* not found in .*cwd/data/MNIST/raw.*--data or COMPRESS_DATA.*download=True"
    )
    _fails(tmp_path / "nowhere", "nowhere/MNIST/raw")
    (small / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    _fails(small, r"mnist: t10k-labels-idx1-ubyte not found in")


def test_damaged_files_are_named(small: Path) -> None:
    images, labels = (small / "MNIST/raw" / name for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"))
    whole = images.read_bytes()
    images.write_bytes(whole[:-5])
    _fails(small, r"train-images-idx3-ubyte: damaged: .* 20 x 4 x 4 = 320 bytes, 315 follow")
    images.write_bytes(whole + b"x")
    _fails(small, r"train-images-idx3-ubyte: damaged")
    images.write_bytes(b"\x1f\x8b\x08\x00 compressed, say, or an error page")
    _fails(small, r"train-images-idx3-ubyte: not an IDX file of 3-dimensional bytes.*00000803, got 1f8b0800")
    images.write_bytes(b"")
    _fails(small, r"got an empty file")
    _idx(images, 0x803, (0, 4, 4), b"")
    _idx(labels, 0x801, (0,), b"")
    _fails(small, r"train-images-idx3-ubyte: there are no images")
    images.write_bytes(whole)
    _idx(labels, 0x801, (19,), bytes(19))
    _fails(small, r"train-images-idx3-ubyte has 20 images, .*train-labels-idx1-ubyte has 19 labels")
    _idx(labels, 0x801, (20,), bytes([10] * 20))
    _fails(small, r"train-labels-idx1-ubyte: damaged: labels must be 0..9, one is 10")
    _idx(labels, 0x801, (20,), bytes(k % 9 for k in range(20)))
    _fails(small, r"mnist: class '9' without training images")
