"""Changes of whole training batches by torchvision's classes: rectangles are erased, images and labels mixed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data.draws import ERASE, MIX, draw
from compressor.importing import late


class Erasing:
    """Sets a random rectangle of some normalized images to 0, the mean. Draws depend on (seed, epoch, index) alone."""

    def __init__(self, probability: float, seed: int) -> None:
        self._one, self._seed = late("torchvision.transforms.v2").RandomErasing(p=probability), seed

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """Return `images` [B, C, H, W], changed in place, of which the numbers in the set are `indices` [B]."""
        # The rectangles are drawn in a picture of ones, on the CPU: the class would wait for a device at each image.
        whole = torch.ones((1, *images.shape[2:]), dtype=torch.bool)
        with _own_draws() as generator:
            for image, bits in zip(images, draw(indices, ERASE, self._seed, epoch).tolist(), strict=True):
                generator.manual_seed(bits)
                stays = self._one(whole)
                if stays is not whole:
                    rows, columns = (_erased(stays[0].all(dim)) for dim in (1, 0))
                    image[:, rows, columns] = 0.0
        return images


class Mixing:
    """Mixes each image of a batch with the one before it, and their labels: by MixUp, by CutMix, or by one of both at
    random. Draws depend on (seed, epoch, step) alone.
    """

    def __init__(self, config: DataConfig, classes: int, seed: int) -> None:
        v2 = late("torchvision.transforms.v2")
        kinds = ((v2.MixUp, config.mixup_alpha), (v2.CutMix, config.cutmix_alpha))
        # As in torchvision's references/classification, also where there is only one.
        self._one = v2.RandomChoice([kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha > 0])
        self._seed = seed

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the mixed images [B, C, H, W], and the weights of the classes [B, classes] in place of labels [B]."""
        with _own_draws() as generator:
            generator.manual_seed(*draw(torch.tensor([step]), MIX, self._seed, epoch).tolist())
            mixed, weights = self._one(images, labels)
        return mixed, weights


def _erased(stays: Tensor) -> slice:
    """Return the place of the rectangle along a side, of which each row or column stays as a whole or does not."""
    lost = (~stays).nonzero().flatten().tolist()
    return slice(lost[0], lost[-1] + 1) if lost else slice(0, 0)


@contextmanager
def _own_draws() -> Iterator[torch.Generator]:
    """Return the CPU's global generator, from which torchvision draws; its state is put back after the block."""
    generator = torch.default_generator
    before = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(before)
