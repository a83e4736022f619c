"""The parts of a batch: their sizes, what each counts for, and the smallest one of a run."""

import pytest
import torch
from loop import Loop
from torch import nn
from torch.nn import functional as F

from compressor.config import Config
from compressor.training.parts import equal_parts, fewest_at_once, part_sizes


@pytest.mark.parametrize(
    ("images", "accumulate", "least", "sizes"),
    [
        (10, 1, 1, [10]),
        (10, 2, 1, [5, 5]),
        (10, 4, 1, [3, 3, 3, 1]),
        (10, 4, 2, [3, 3, 4]),
        (7, 2, 2, [4, 3]),
        (3, 2, 1, [2, 1]),
        (3, 2, 2, [3]),
        (5, 4, 2, [2, 3]),
        (5, 8, 1, [1, 1, 1, 1, 1]),
        (5, 8, 2, [2, 3]),
        (4, 8, 2, [2, 2]),
        (2, 8, 2, [2]),
        (1, 8, 1, [1]),
        (1, 1, 2, [1]),
    ],
)
def test_the_parts_of_a_batch(images: int, accumulate: int, least: int, sizes: list[int]) -> None:
    assert part_sizes(images, accumulate, least) == sizes


def normalized() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("batches", "accumulate", "parts"),
    [([5], 4, [[2, 3]]), ([10, 3], 4, [[3, 3, 4], [3]]), ([8, 5], 4, [[2, 2, 2, 2], [2, 3]])],
)
def test_a_batch_norm_never_sees_a_single_image(batches: list[int], accumulate: int, parts: list[list[int]]) -> None:
    draws = torch.Generator().manual_seed(1)
    data = [(torch.randn(n, 4, generator=draws), torch.randint(0, 3, (n,), generator=draws)) for n in batches]
    fed = {"name": "none", "batch": batches[0]}
    run = Loop(normalized(), data, optimizer={"lr": 0.1, "accumulate": accumulate}, data=fed)
    seen: list[int] = []
    run.model.register_forward_pre_hook(lambda model, given: seen.append(len(given[0])) if model.training else None)
    run.run()
    assert seen == [size for sizes in parts for size in sizes]
    # By hand: each part's mean loss counts as its images do.
    own = normalized().double().train()
    for (images, labels), sizes in zip(data, parts, strict=True):
        own.zero_grad()
        for part, truth in zip(images.double().split(sizes), labels.split(sizes), strict=True):
            torch.autograd.backward(F.cross_entropy(own(part), truth, reduction="sum") / len(labels))
        with torch.no_grad():
            for parameter in own.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    for ours, theirs in zip(run.model.parameters(), own.parameters(), strict=True):
        # The statistics of two images magnify rounding from step to step.
        assert torch.allclose(ours.double(), theirs, rtol=0, atol=1e-6 if len(batches) == 1 else 1e-4)


@pytest.mark.parametrize(
    ("batch", "accumulate", "images", "with_norm", "fewest"),
    [
        (8, 1, None, True, 8),
        (8, 4, None, True, 2),
        (5, 4, None, True, 2),
        (5, 4, None, False, 1),
        (8, 8, None, True, 1),  # one image in every part is what is asked for
        (8, 1, 3, True, 3),
        (8, 1, 17, True, 8),  # a last batch of one is left out
        (8, 1, 18, True, 2),
        (8, 4, 19, True, 2),
        (8, 4, 19, False, 1),
        (8, 1, 1, True, 1),
        (1, 1, 9, True, 1),
    ],
)
def test_the_fewest_images_at_once(
    batch: int, accumulate: int, images: int | None, with_norm: bool, fewest: int
) -> None:
    config = Config.model_validate(
        {
            "model": {"name": "none"},
            "data": {"name": "none", "batch": batch},
            "optimizer": {"lr": 0.1, "accumulate": accumulate},
            "epochs": 1,
        }
    )
    network = normalized() if with_norm else nn.Linear(4, 3)
    assert fewest_at_once(network, config, images) == fewest


@pytest.mark.parametrize(
    ("images", "processes", "accumulate", "fewest"),
    [
        (None, 2, 1, 8),
        (None, 2, 4, 2),
        (None, 8, 2, 1),  # one image in every part is what is asked for
        (16 + 5, 2, 1, 2),  # shares of two and three images
        (16 + 3, 2, 1, 3),  # too few to share: each process has all three
    ],
)
def test_the_fewest_images_at_once_in_several_processes(
    images: int | None, processes: int, accumulate: int, fewest: int
) -> None:
    config = Config.model_validate(
        {
            "model": {"name": "none"},
            "data": {"name": "none", "batch": 16},
            "optimizer": {"lr": 0.1, "accumulate": accumulate},
            "epochs": 1,
        }
    )
    assert fewest_at_once(normalized(), config, images, processes) == fewest


@pytest.mark.parametrize(
    ("images", "smallest", "least", "sizes"),
    [(7, 6, 1, [3, 2, 2]), (6, 6, 1, [2, 2, 2]), (4, 3, 2, [4]), (3, 3, 2, [3]), (2, 2, 1, [1, 1])],
)
def test_processes_have_as_many_parts(images: int, smallest: int, least: int, sizes: list[int]) -> None:
    assert equal_parts(images, smallest, 3, least) == sizes
