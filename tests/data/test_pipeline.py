"""Normalization by hand; augmentation against a loop over samples and pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.data import augment, prepare
from compressor.data.draws import AUGMENT, draw
from compressor.data.pipeline import drawn
from compressor.errors import UserError


def test_prepare_by_hand() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    out = prepare(images, (0.5, 0.2, 0.5), (0.25, 0.1, 0.5))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.flatten(), torch.tensor([-2.0, 0.0, 1.0]))
    assert images.flatten().tolist() == [0, 51, 255]


def test_prepare_normalizes() -> None:
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean = (images / 255).mean((0, 2, 3)).tolist()
    std = (images / 255).std((0, 2, 3), correction=0).tolist()
    out = prepare(images, mean, std)
    assert out.is_contiguous()
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def _by_loops(images: Tensor, indices: Tensor, seed: int, epoch: int, kinds: tuple[str, ...]) -> Tensor:
    out = torch.zeros_like(images)
    _, channels, height, width = images.shape
    for k, index in enumerate(indices.tolist()):
        bits = int(draw(torch.tensor([index]), AUGMENT, seed, epoch)[0])
        parts = [(bits >> 20 * i) % 2**20 / 2**20 for i in range(3)]
        dy = int(parts[0] * (2 * (height // 8) + 1)) - height // 8 if "crop" in kinds else 0
        dx = int(parts[1] * (2 * (width // 8) + 1)) - width // 8 if "crop" in kinds else 0
        mirrored = "flip" in kinds and parts[2] >= 0.5
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    from_y, from_x = y + dy, (width - 1 - x if mirrored else x) + dx
                    if 0 <= from_y < height and 0 <= from_x < width:
                        out[k, c, y, x] = images[k, c, from_y, from_x]
    return out


@pytest.mark.parametrize("kinds", [("crop",), ("flip",), ("crop", "flip"), ("flip", "crop"), ()])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 20), (1, 4, 4)])
def test_augment_is_the_loop_over_samples(kinds: tuple[str, ...], shape: tuple[int, int, int]) -> None:
    images = torch.randn(10, *shape, generator=torch.Generator().manual_seed(0))
    indices = torch.tensor([3, 99, 0, 1, 60_000, 3, 8, 12, 5, 1_281_166])
    kept = images.clone()
    out = augment(images, indices, seed=11, epoch=4, kinds=kinds)
    assert torch.equal(out, _by_loops(images, indices, 11, 4, kinds))
    assert out.is_contiguous()
    assert torch.equal(images, kept)


def test_a_sample_gets_the_same_draw_in_any_batch() -> None:
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    draws = {"seed": 1, "epoch": 2, "kinds": ["crop", "flip"]}
    whole = augment(images, torch.arange(40), **draws)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for batch in (1, 7, 16):
        parts = [augment(images[some], some, **draws) for some in order.split(batch)]
        assert torch.equal(torch.cat(parts), whole[order])


def test_epochs_and_seeds_differ_and_nothing_global_is_drawn() -> None:
    images = torch.randn(64, 1, 32, 32)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index]
    outs = [
        augment(images, torch.arange(64), seed=seed, epoch=epoch, kinds=["crop", "flip"])
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    for i, one in enumerate(outs):
        for other in outs[:i]:
            assert (one != other).flatten(1).any(1).sum() > 55  # 1 in 162 draws repeats
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # type: ignore[index]


def test_shifts_are_uniform_over_all_81_and_half_are_mirrored() -> None:
    count, side = 8100, 32
    places = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side).expand(count, 1, side, side)
    shifted = augment(places, torch.arange(count), seed=0, epoch=0, kinds=["crop"])[:, 0, 16, 16].long()
    shifts = (shifted // side - 16) * 100 + shifted % side - 16
    values, counts = shifts.unique(return_counts=True)
    assert values.tolist() == [dy * 100 + dx for dy in range(-4, 5) for dx in range(-4, 5)]
    assert (counts - 100).abs().max() < 50  # 5 standard deviations of 10
    both = augment(places, torch.arange(count), seed=0, epoch=0, kinds=["crop", "flip"])[:, 0, 16, 15:17]
    mirrored = both[:, 0] > both[:, 1]
    assert abs(int(mirrored.sum()) - count // 2) < 5 * 45
    assert torch.bincount(shifted, weights=mirrored.double()).gt(0).sum() == 81  # independent of the shift


def test_what_is_shifted_in_is_zero() -> None:
    out = augment(torch.ones(200, 1, 16, 16), torch.arange(200), seed=0, epoch=0, kinds=["crop"])
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert out[:, :, 2:14, 2:14].min() == 1  # 16 // 8 = 2 pixels at most


def test_unknown_kind() -> None:
    with pytest.raises(UserError, match=r"data.augment: there is no 'flop': did you mean 'flip'"):
        augment(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), seed=0, epoch=0, kinds=["flop"])


@pytest.mark.parametrize("side", [8, 70])  # as a batch, and one by one
def test_mirrored_bytes_are_mirrored_normalized_images(side: int) -> None:
    images = torch.randint(0, 256, (6, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before, indices, affine = images.clone(), torch.arange(6), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    late = augment(prepare(images, *affine), indices, seed=1, epoch=2, kinds=["flip"])
    early = augment(images, indices, seed=1, epoch=2, kinds=["flip"])
    assert torch.equal(images, before)
    assert torch.equal(prepare(early, *affine), late)
    which = drawn(indices, 1, 2, images.shape, images.device)[2].bool()
    assert 0 < which.sum() < 6
    assert torch.equal(early, torch.stack([one.flip(-1) if m else one for one, m in zip(images, which, strict=True)]))
