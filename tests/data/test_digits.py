"""The embedded digits: 1,797 images of 8x8, counted by pencil."""

import pytest
import torch
from sklearn.datasets import load_digits

from compressor.config import DataConfig
from compressor.data import load, prepare

CPU = torch.device("cpu")


def test_counts_shapes_and_range() -> None:
    data = load(DataConfig(name="digits"), None, 0)
    assert (len(data.train), len(data.test)) == (1437, 360)  # 0, 5, ..., 1795 are 360
    assert data.shape == (1, 28, 28)
    assert data.classes == tuple("0123456789")
    _, images, labels = next(data.train.batches(torch.arange(1437), 2000, CPU))
    assert images.shape == (1437, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert torch.equal(labels, data.train.labels)


def test_every_fifth_image_is_a_test_image() -> None:
    data = load(DataConfig(name="digits", size=8), None, 0)
    source = load_digits()
    assert data.test.labels.tolist() == source.target[::5].tolist()
    assert data.train.labels[:5].tolist() == source.target[[1, 2, 3, 4, 6]].tolist()
    _, images, _ = next(data.test.batches(torch.arange(1), 1, CPU))
    # Image 0 begins 0 0 5 13 9 1 0 0; a sixteenth is 255 / 16 = 15.9375.
    assert images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_statistics_are_those_of_the_training_images() -> None:
    data = load(DataConfig(name="digits", size=8), None, 0)
    train = [i for i in range(1797) if i % 5]
    pixels = load_digits().images[train] / 16
    assert data.mean == pytest.approx((pixels.mean(),), abs=1e-3)
    assert data.std == pytest.approx((pixels.std(),), abs=1e-3)
    _, images, _ = next(data.train.batches(torch.arange(1437), 2000, CPU))
    prepared = prepare(images, data.mean, data.std)
    assert float(prepared.mean()) == pytest.approx(0, abs=1e-4)
    assert float(prepared.std()) == pytest.approx(1, abs=1e-3)


def test_size_and_channels() -> None:
    data = load(DataConfig(name="digits", size=64, channels=3), None, 0)
    assert data.shape == (3, 64, 64)
    assert len(data.mean) == len(data.std) == 3
    indices, images, _ = next(data.train.batches(torch.tensor([9, 3]), 5, CPU))
    assert indices.tolist() == [9, 3]
    assert images.shape == (2, 3, 64, 64)
    assert (images[:, :1] == images).all()


def test_batches_follow_the_order() -> None:
    data = load(DataConfig(name="digits"), None, 0)
    order = torch.randperm(1437, generator=torch.Generator().manual_seed(0))
    everything = next(data.train.batches(torch.arange(1437), 1437, CPU))[1]
    batches = list(data.train.batches(order, 100, CPU))
    assert [len(indices) for indices, _, _ in batches] == [100] * 14 + [37]
    for start, (indices, images, labels) in zip(range(0, 1437, 100), batches, strict=True):
        assert torch.equal(indices, order[start : start + 100])
        assert torch.equal(images, everything[indices])
        assert torch.equal(labels, data.train.labels[indices])
    rest = list(data.train.batches(order[500:], 100, CPU))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(rest, batches[5:], strict=True))
    assert list(data.train.batches(order[:0], 100, CPU)) == []
