"""The held-out share."""

from pathlib import Path

import pytest
import torch
from helpers import TINY, compress

from compressor import data
from compressor.config import DataConfig
from compressor.data import split
from compressor.data.feed import DataFeed
from compressor.errors import UserError


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(60_000, 0.1, 6_000), (1437, 0.1, 144), (10, 0.25, 2), (14, 0.25, 4), (2, 0.5, 1), (7, 0.0, 0)],
)
def test_number_held_out(count: int, share: float, held: int) -> None:
    # 143.7 -> 144; 2.5 -> 2 and 3.5 -> 4: halves go to the even number.
    train, validation = split(count, share, seed=3)
    assert (len(train), len(validation)) == (count - held, held)


def test_parts_are_sorted_disjoint_and_complete() -> None:
    train, validation = split(1000, 0.3, seed=5)
    assert train.dtype == validation.dtype == torch.int64
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(1000))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(validation, validation.sort().values)


def test_function_of_count_share_and_seed_alone() -> None:
    torch.manual_seed(1)
    first = split(500, 0.2, seed=0)
    before = torch.get_rng_state()
    again = split(torch.zeros(500), 0.2, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first[1], split(500, 0.2, seed=1)[1])


def test_spread_over_the_whole_set() -> None:
    _, validation = split(10_000, 0.1, seed=0)
    tenths = torch.bincount(validation // 1000, minlength=10)
    assert (tenths - 100).abs().max() < 50  # 5 standard deviations of about 9.5


@pytest.mark.parametrize(("count", "share", "empty"), [(4, 0.1, "validation"), (4, 0.9, "training"), (1, 0.5, "valid")])
def test_an_empty_part_is_refused(count: int, share: float, empty: str) -> None:
    with pytest.raises(UserError, match=rf"data.validation: {share} of {count} images leaves no image for {empty}"):
        split(count, share, seed=0)


# --- a limited number of images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "share", "held"),
    [(10_000, 0.2, 2_000), (1_000, 0.1, 100), (10, 0.25, 2), (7, 0.0, 0), (60_000, 0.1, 6_000)],
)
def test_both_parts_are_of_so_many_images(images: int, share: float, held: int) -> None:
    train, validation = split(60_000, share, seed=3, images=images)
    assert (len(train), len(validation)) == (images - held, held)
    both = torch.cat([train, validation])
    assert len(set(both.tolist())) == images
    assert (int(both.min()) >= 0, int(both.max()) < 60_000) == (True, True)
    for part in (train, validation):
        assert torch.equal(part, part.sort().values)
        assert part.dtype == torch.int64


def test_all_of_the_images_are_what_there_is_without_a_number() -> None:
    for ours, plain in zip(split(500, 0.2, seed=1, images=500), split(500, 0.2, seed=1), strict=True):
        assert torch.equal(ours, plain)


def test_the_images_used_are_drawn_by_the_seed_from_the_whole_set_and_fewer_are_some_of_more() -> None:
    def used(images: int, seed: int) -> set[int]:
        return set(torch.cat(split(10_000, 0.2, seed, images)).tolist())

    assert used(1_000, 0) == used(1_000, 0) < used(2_000, 0)
    assert used(1_000, 1) != used(1_000, 0)
    tenths = torch.bincount(torch.tensor(sorted(used(1_000, 0))) // 1_000, minlength=10)
    assert (tenths - 100).abs().max() < 50


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_more_images_than_there_are_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"data.images: there are 100 training images, fewer than 101"):
        split(100, share, seed=0, images=101)


def test_an_empty_part_of_so_many_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.validation: 0.1 of 4 images leaves no image for validation"):
        split(1000, 0.1, seed=0, images=4)


def test_a_run_trains_and_validates_on_so_many_images_and_tests_on_all() -> None:
    config = DataConfig(name="digits", size=8, batch=30, images=100, validation=0.2)
    digits = data.load(config, None, 0)
    feed = DataFeed(digits, config, 0, torch.device("cpu"))
    assert (feed.images, feed.held_out, feed.steps_per_epoch) == (80, 20, 3)
    epochs = [torch.cat([images for images, _ in feed.train(epoch, 0)]) for epoch in (0, 1)]
    validation = torch.cat([images for images, _ in feed.validation()])
    assert [len(images) for images in (*epochs, validation)] == [80, 80, 20]
    rows = [{tuple(image.flatten().tolist()) for image in images} for images in (*epochs, validation)]
    assert rows[0] == rows[1]
    assert not rows[0] & rows[2]
    assert sum(len(labels) for _, labels in feed.test()) == len(digits.test)


@pytest.mark.parametrize(
    ("images", "sizes"), [(61, [30, 30]), (62, [30, 30, 2]), (60, [30, 30]), (1, [1]), (2, [2]), (31, [30])]
)
def test_a_last_batch_of_one_image_is_left_out(images: int, sizes: list[int]) -> None:
    config = DataConfig(name="digits", size=8, batch=30, images=images, validation=0.0)
    feed = DataFeed(data.load(config, None, 0), config, 0, torch.device("cpu"))
    assert [len(labels) for _, labels in feed.train(0, 0)] == sizes
    assert feed.steps_per_epoch == len(sizes)


@pytest.mark.parametrize(("images", "code", "said"), [(1438, 2, "there are 1437 training"), (0, 2, "data.images")])
def test_the_command_says_where_there_are_not_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    result = compress("train", "-c", "tiny", "--set", f"data.images={images}")
    assert (result.code, said in result.err, "Traceback" in result.err) == (code, True, False)
    assert not (tmp_path / "runs").exists()
