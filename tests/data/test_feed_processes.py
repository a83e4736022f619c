"""Sets that are decoded while they are fed: the same images from any number of processes, which stay between passes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from compressor.config import DataConfig
from compressor.data import DataFeed, load, memory
from compressor.data.ahead import copied_ahead
from compressor.data.draws import TRANSFORM, draw
from compressor.data.memory import InMemory
from compressor.data.streamed import Streamed
from compressor.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

CPU = torch.device("cpu")
CROP: dict[str, Any] = {"RandomResizedCrop": {"size": 8}}
RECIPE: dict[str, Any] = {"size": 8, "batch": 6, "augment": [CROP, "RandAugment", "flip"], "random_erase": 0.5}
MakeFolders = Callable[..., Path]


@dataclass(frozen=True)
class Processes:
    """Images whose pixels are the number of the process that made them; image 9 cannot be read."""

    shape: tuple[int, int, int] = (3, 2, 2)

    def image(self, index: int) -> Tensor:
        if index == 9:
            raise UserError("9 is broken")
        number = os.getpid()
        return torch.tensor([number >> 16 & 255, number >> 8 & 255, number & 255]).byte()[:, None, None].expand(3, 2, 2)

    whole = image


def batches(feed: DataFeed, epoch: int) -> list[Tensor]:
    return [images for images, _ in feed.train(epoch, 0)]


def test_the_images_do_not_depend_on_the_number_of_processes(
    folders: MakeFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LIMIT", 0)
    root = folders(train={"cat": 11, "dog": 10}, test={"cat": 1, "dog": 1}, size=(19, 13))
    seen = {}
    for workers in (0, 1, 3):
        config = DataConfig(name="imagefolder", workers=workers, **{**RECIPE, "validation": 0.15})
        feed = DataFeed(load(config, root, 0), config, 5, CPU)
        first = batches(feed, 2)
        held_out = [images for images, _ in feed.validation()]
        seen[workers] = [*first, *held_out, *batches(feed, 3), *batches(feed, 2)]
        assert [len(images) for images in first] == [6, 6, 6]
        assert len(torch.cat(held_out)) == 3
        order = feed._order(2, 0)
        # Two ranks have a half of each batch.
        halves = [order.view(3, 2, 3)[:, rank].reshape(-1) for rank in (0, 1)]
        parts = [[images for images, _ in feed._batches(half, 2, 3)] for half in halves]
        assert all(torch.equal(torch.cat(pair), own) for pair, own in zip(zip(*parts, strict=True), first, strict=True))
    for workers in (1, 3):
        assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[workers], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[0][:3], seen[0][-3:], strict=True))
    assert not torch.equal(seen[0][0], seen[0][4])  # another epoch


def test_processes_stay_for_the_next_pass_and_an_inner_pass_has_its_own() -> None:
    images = Streamed(Processes(), torch.zeros(9, dtype=torch.int64), workers=1, seed=0)

    def process(epoch: int | None = None) -> list[int]:
        read = images.batches(torch.arange(8), 4, CPU, epoch)
        return [int(pixels[0, :, 0, 0].long() @ torch.tensor([65536, 256, 1])) for _, pixels, _ in read]

    first = process()
    assert first[0] == first[1] != os.getpid()
    assert process(3) == process() == first
    outer = images.batches(torch.arange(8), 4, CPU)
    next(outer)
    inner = process()
    assert inner[0] == inner[1] != first[0]
    assert len(list(outer)) == 1
    next(images.batches(torch.arange(8), 4, CPU))  # a pass that is left: its processes end
    assert process() == process() != first


def test_an_image_that_cannot_be_read_ends_a_pass_and_not_the_next_one() -> None:
    images = Streamed(Processes(), torch.zeros(10, dtype=torch.int64), workers=2, seed=0)
    for _ in range(2):
        with pytest.raises(UserError, match="9 is broken"):
            list(images.batches(torch.arange(10), 2, CPU))
        assert len(list(images.batches(torch.arange(8), 2, CPU))) == 4


def test_a_resized_crop_at_the_front_cuts_its_part_out_of_the_stored_image(folders: MakeFolders) -> None:
    root = folders(train={"cat": 2, "dog": 2}, test={"cat": 2, "dog": 2}, size=(40, 20))
    config = DataConfig(name="imagefolder", size=8, batch=4, validation=0, augment=[CROP])
    data = load(config, root, 0)
    assert isinstance(data.train, Streamed)  # though it is small
    assert isinstance(load(replace_augment(config, ["flip"]), root, 0).train, InMemory)
    plain = replace(data, mean=(0.0,) * 3, std=(1 / 255,) * 3)  # pixels in 0..255
    feed = DataFeed(plain, config, 5, CPU)
    (images,) = batches(feed, 1)
    for image, index in zip(images, feed._order(1, 0).tolist(), strict=True):
        file = sorted((root / "train").glob("*/*.png"))[index]
        torch.manual_seed(int(draw(torch.tensor([index]), TRANSFORM, 5, 1)[0]))
        cut = v2.RandomResizedCrop(8)(v2.functional.pil_to_tensor(Image.open(file)))
        assert torch.allclose(image, cut.float(), atol=1e-3)
    held_out = next(data.train.batches(torch.arange(4), 4, CPU))[1]
    assert held_out.shape == (4, 3, 8, 8)


def replace_augment(config: DataConfig, augment: list[Any]) -> DataConfig:
    return config.model_copy(update={"augment": augment})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_copied_to_a_device_in_their_order() -> None:
    device = torch.device("cuda")
    images = torch.arange(5 * 12, dtype=torch.uint8).reshape(5, 1, 3, 4)
    made = ((torch.tensor([n]), images[n : n + 1].repeat(512, 1, 1, 1), torch.tensor([n])) for n in range(5))
    for n, (indices, copied, labels) in enumerate(copied_ahead(made, device)):
        assert (copied.is_cuda, labels.is_cuda, indices.item(), labels.item()) == (True, True, n, n)
        assert torch.equal(copied.cpu(), images[n : n + 1].repeat(512, 1, 1, 1))
