"""Sizes, channels and statistics by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compressor.data import memory
from compressor.data.memory import InMemory
from compressor.data.pixels import convert, measure, per_channel, planes


def _image(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.uint8)[None, None]


def test_twice_the_size_is_bilinear() -> None:
    # Without aligned corners the centres lie at 1/4 and 3/4 between pixels: weights 3/4 and 1/4, edges repeat.
    out = convert(_image([[0, 100], [200, 60]]), 4, None)[0, 0]
    assert out[0].tolist() == [0, 25, 75, 100]
    assert out[3].tolist() == [200, 165, 95, 60]
    assert out[1].tolist() == [50, 60, 80, 90]


def test_half_the_size_is_antialiased() -> None:
    # A triangle of radius 2 around 3.0 weighs the pixels at 1.5, 2.5, 3.5 with 1/4, 3/4, 3/4 of 7/4: 70 * 3 / 7 = 30.
    out = convert(_image([[0, 0, 0, 70]] * 4), 2, None)[0, 0]
    assert out.tolist() == [[0, 30], [0, 30]]


def test_the_centred_square_is_kept() -> None:
    assert convert(_image([[1, 2, 3, 4, 5]] * 3), 3, None)[0, 0].tolist() == [[2, 3, 4]] * 3
    assert convert(_image([[1, 2, 3, 4, 5]] * 3), None, None)[0, 0].tolist() == [[1, 2, 3, 4, 5]] * 3


def test_floats_are_rounded_to_bytes() -> None:
    assert convert(torch.tensor([[[[-3.0, 0.6, 254.4, 300.0]]]]), None, None).flatten().tolist() == [0, 1, 254, 255]


def test_grey_is_pillows_grey() -> None:
    colours = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    colours[0, :, 0, :3] = torch.eye(3, dtype=torch.uint8) * 255
    grey = convert(colours, None, 1)[0, 0]
    assert grey[0, :3].tolist() == [76, 150, 29]  # 0.299, 0.587 and 0.114 of 255
    pillow = Image.fromarray(colours[0].permute(1, 2, 0).contiguous().numpy()).convert("L")
    assert np.array_equal(grey.numpy(), np.array(pillow))


def test_grey_becomes_three_equal_planes() -> None:
    out = planes(_image([[1, 2], [3, 4]]), 3)
    assert out.shape == (1, 3, 2, 2)
    assert (out == out[:, :1]).all()


def test_statistics_by_hand() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 51]]], [[[0, 255]], [[51, 153]]]], dtype=torch.uint8)
    mean, std = measure(images)
    assert mean == pytest.approx((0.5, 0.3))
    assert std == pytest.approx((0.5, 0.03**0.5))  # values 0.2, 0.2, 0.2, 0.6: 0.4 / 4 * sqrt(3)


def test_statistics_for_other_channels() -> None:
    assert per_channel((0.5,), 3) == (0.5, 0.5, 0.5)
    assert per_channel((1.0, 0.0, 0.0), 1) == pytest.approx((0.299,), abs=1e-4)
    assert per_channel((0.1, 0.2, 0.3), 3) == (0.1, 0.2, 0.3)


def test_sets_too_large_resized_are_resized_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30)
    eager = InMemory(images, labels, 20, 3)
    monkeypatch.setattr(memory, "LIMIT", 100)
    late = InMemory(images, labels, 20, 3)
    assert eager.images.shape[-1] == 20
    assert late.images.shape[-1] == 8
    assert eager.shape == late.shape == (3, 20, 20)
    order = torch.tensor([5, 29, 0, 7, 7])
    for a, b in zip(*(part.batches(order, 2, torch.device("cpu")) for part in (eager, late)), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert a[1].shape[1:] == (3, 20, 20)
        assert a[1].is_contiguous()
