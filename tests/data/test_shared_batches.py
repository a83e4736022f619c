"""The parts of a batch that several processes have: together the batch, and a mean over them is that over the batch."""

import pytest
import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data import DataFeed, load
from compressor.world import World

CPU = torch.device("cpu")


class OneOf(World):
    """One of several processes."""

    def __init__(self, rank: int, size: int, alone: bool = False) -> None:
        self.rank, self.size, self.alone = rank, size, alone


def feed(images: int, batch: int, world: World | None = None, validation: float = 0) -> DataFeed:
    config = DataConfig(name="digits", size=8, batch=batch, images=images, validation=validation)
    return DataFeed(load(config, None, 0), config, 3, CPU, world)


@pytest.mark.parametrize(
    ("images", "batch", "size", "last"),
    [
        (48, 12, 3, [4, 4, 4]),  # no smaller batch
        (56, 12, 3, [3, 3, 2]),  # 8 images are left
        (53, 12, 3, [5, 5, 5]),  # 5 images: each process has all of them
        (38, 8, 4, [6, 6, 6, 6]),  # 6 images, of which each has all: more than its part of a whole batch
        (9, 8, 2, [4, 4]),  # a rest of one image is left out
        (1, 8, 2, [1, 1]),  # unless it is all there is
    ],
)
def test_the_parts_of_all_processes_are_the_batch(images: int, batch: int, size: int, last: list[int]) -> None:
    whole = list(feed(images, batch).train(1, 0))
    parts = [list(feed(images, batch, OneOf(rank, size)).of_process(1, 0)) for rank in range(size)]
    assert [len(each) for each in parts] == [len(whole)] * size
    assert [len(each[-1][1]) for each in parts] == last
    for step, (pixels, labels) in enumerate(whole):
        own = [each[step] for each in parts]
        copies = own[0][3]
        assert copies in (1, size)
        together = torch.cat([mine for mine, *_ in own]) if copies == 1 else own[-1][0]
        assert torch.equal(together, pixels)
        assert sum(len(mine) for _, mine, *_ in own) == copies * len(labels)
        means = [factor * mine.mean() for mine, _, factor, _ in own]
        assert float(sum(means, torch.zeros(())) / size) == pytest.approx(float(pixels.mean()), abs=1e-6)


def test_the_parts_go_on_in_mid_epoch() -> None:
    every = list(feed(56, 12, OneOf(1, 3)).of_process(2, 0))
    later = list(feed(56, 12, OneOf(1, 3)).of_process(2, 3))
    assert len(later) == 2
    assert all(torch.equal(a[0], b[0]) and a[2:] == b[2:] for a, b in zip(every[3:], later, strict=True))


def test_each_image_is_evaluated_by_one_process_and_by_one_that_is_alone_all_of_them() -> None:
    def labels(world: World | None = None) -> list[Tensor]:
        made = feed(105, 8, world, validation=0.1)
        return [torch.cat([mine for _, mine in part]) for part in (made.validation(), made.test())]

    whole, parts = labels(), [labels(OneOf(rank, 3)) for rank in range(3)]
    for which in (0, 1):
        assert torch.equal(torch.cat([each[which] for each in parts]), whole[which])
        assert torch.equal(labels(OneOf(2, 3, alone=True))[which], whole[which])
