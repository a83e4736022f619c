"""Runs whose numbers of images, batches and parts do not divide."""

from pathlib import Path

import pytest
import torch
from helpers import compress, metrics, succeed

from compressor.config import DataConfig
from compressor.data.expected import expected_images, expected_steps
from compressor.data.smoke import SmokeFeed, random_set

NET = """\
from torch import nn
from torch.nn import functional as F

class Own(nn.Module):
    def forward(self, x):
        return F.batch_norm(x, None, None, training=True) if self.training else x

def make(num_classes, own=False):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Own() if own else nn.BatchNorm1d(8), nn.Linear(8, num_classes))
"""

CONFIG = """\
model: {name: 'normed:make'}
data: {name: digits, size: 8, batch: 5, images: 13, validation: 0}
optimizer: {name: sgd, lr: 0.1, accumulate: 4}
epochs: 1
report: {html: false}
"""


@pytest.fixture(autouse=True)
def files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    (work / "normed.py").write_text(NET)
    (work / "c.yaml").write_text(CONFIG)


def test_a_run_of_numbers_that_do_not_divide(work: Path) -> None:
    """13 images: 5, 5, 3, in 2 + 3, 2 + 3 and 3."""
    succeed("train", "-c", "c.yaml", "--out", "o")
    right = metrics(work / "o")[0]["train"]["top1"] * 13 / 100  # every image counts once
    assert right == pytest.approx(round(right))


@pytest.mark.parametrize(
    ("sets", "fails"),
    [
        (["data.images=1"], True),
        (["data.batch=1"], True),
        (["data.batch=4"], True),  # 4 parts of one image
        (["model.own=true"], True),  # not a batch norm by its class: the last part has one image
        (["data.batch=8", "model.own=true"], True),  # of 8 and 5 images: 2 2 2 2, 2 2 1
        (["data.batch=8"], False),
        (["data.images=2", "data.batch=9"], False),
    ],
)
def test_a_single_image_is_refused_before_there_is_a_folder(work: Path, sets: list[str], fails: bool) -> None:
    result = compress("train", "-c", "c.yaml", "--out", "o", *(word for one in sets for word in ("--set", one)))
    assert result.code == (2 if fails else 0), result.err
    assert (work / "o").exists() != fails
    if fails:
        assert "in training mode (1 at once): Expected more than 1 value per channel" in result.err


@pytest.mark.parametrize(
    ("batch", "images", "validation", "trained", "steps"),
    [
        (128, 10, 0.0, 10, 1),  # fewer images than a batch
        (128, 1, 0.0, 1, 1),
        (9, 10, 0.0, 10, 1),  # a last one of one image is left out
        (8, 10, 0.0, 10, 2),
        (5, 10, 0.0, 10, 2),
        (1, 10, 0.0, 10, 10),
        (4, 10, 0.25, 8, 2),  # 2.5 images are 2: halves are rounded to the even number
        (4, 10, 0.1, 9, 2),
    ],
)
def test_the_steps_of_an_epoch(batch: int, images: int, validation: float, trained: int, steps: int) -> None:
    config = DataConfig(name="digits", batch=batch, images=images, validation=validation)
    assert (expected_images(config), expected_steps(config)) == (trained, steps)


@pytest.mark.parametrize(("images", "batch"), [(3, 2), (2, 2), (3, 8), (5, 4), (64, 2)])
def test_a_smoke_run_has_two_images_in_a_step_where_the_full_run_has(images: int, batch: int) -> None:
    data, count = random_set(DataConfig(name="digits", size=8), None, 0)
    assert count > images
    feed = SmokeFeed(data, DataConfig(name="digits", batch=batch, images=images, validation=0), 0, torch.device("cpu"))
    sizes = [len(labels) for _, labels in feed.train(0, 0)]
    assert len(sizes) == feed.steps_per_epoch
    assert min(sizes) >= 2
