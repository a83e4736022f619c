"""A few images an epoch, for a run that only shows that everything works; random ones without the files."""

import torch

from compressor.config import DataConfig
from compressor.data.feed import Batches, DataFeed, epoch_steps
from compressor.data.images import DataSet
from compressor.data.loading import normalized
from compressor.data.memory import fits, in_memory
from compressor.data.registry import class_count, image_shape, training_images
from compressor.errors import UserError

STEPS, IMAGES, VALIDATED = 2, 8, 16
"""Steps of an epoch, largest number of images of a step, and images for validation or test."""

_RANDOM = 64
"""The number of random images of a split, or of classes where there are more."""

_SIDE = 64
"""The height and width of random images that would not fit into memory in full size."""


class SmokeFeed(DataFeed):
    """The first images of each epoch of a full feed, in `STEPS` steps; `pace`: the full steps that one of them
    stands for.

    `images` and `held_out` are those of the full run, because penalties are divided by them. `count` is the number of
    training images of the set, where `data` has random ones instead.
    """

    def __init__(
        self, data: DataSet, config: DataConfig, seed: int, device: torch.device, count: int | None = None
    ) -> None:
        super().__init__(data, config if count is None else config.model_copy(update={"images": None}), seed, device)
        if count is not None:
            used = min(count, config.images or count)
            self.held_out = round(used * config.validation)
            self.images = used - self.held_out
        self.full_steps = epoch_steps(self.images, config.batch)
        # Two at least, where the full run has as many: batch norms may need them.
        self._batch = max(min(IMAGES, config.batch, len(self._train) // STEPS), min(2, config.batch))
        self.steps_per_epoch = min(STEPS, self.full_steps)
        self.pace = self.full_steps / self.steps_per_epoch

    def validation(self) -> Batches:
        """Return the first validation images."""
        return self._plain(self._data.train, self._held_out[:VALIDATED])

    def test(self) -> Batches:
        """Return the first test images."""
        return self._plain(self._data.test, torch.arange(min(VALIDATED, len(self._data.test))))


def random_set(config: DataConfig, classes: int | None, seed: int) -> tuple[DataSet, int]:
    """Return random images of a set's shape and classes, and the number of training images of the set itself.

    Raises `UserError` where the set's shape, classes or number of images are only known from its files.
    """
    shape, known, count = image_shape(config), class_count(config.name), training_images(config.name)
    classes = known or classes
    if shape is None or not classes or count is None:
        facts = (("shape", shape), ("number of classes", classes), ("number of images", count))
        missing = " and ".join(name for name, value in facts if not value)
        raise UserError(
            f"{config.name}: its files were not found, and only they have the {missing}: give the folder with --data"
        )
    size = max(_RANDOM, classes)
    draws = torch.Generator().manual_seed(seed)
    large = not fits(size, shape)  # those are drawn small, and resized when they are fed
    drawn = (size, shape[0], _SIDE, _SIDE) if large else (size, *shape)
    splits = [torch.randint(0, 256, drawn, generator=draws, dtype=torch.uint8) for _ in range(2)]
    labels = torch.arange(size) % classes
    names = tuple(str(number) for number in range(classes))
    plain = config.model_copy(update={"size": None, "channels": None})
    mean, std = [0.5] * shape[0], [0.25] * shape[0]
    pairs = [(images, labels) for images in splits]
    made = in_memory(
        config.name, pairs[0], pairs[1], names, plain, size=config.size if large else None, mean=mean, std=std
    )
    return normalized(made, config), count
