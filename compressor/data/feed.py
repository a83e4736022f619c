"""The batches of a run: order, split, normalization and augmentation of a data set."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from compressor.config import KINDS, DataConfig, named
from compressor.data.ahead import copied_ahead
from compressor.data.draws import ORDER, draw
from compressor.data.images import Batch, DataSet, Images
from compressor.data.mixing import Erasing, Mixing
from compressor.data.pipeline import augment, prepare
from compressor.data.splitting import split
from compressor.data.streamed import Streamed
from compressor.data.transforms import Transforms, transforming
from compressor.world import World

Batches = Iterator[tuple[Tensor, Tensor]]
OwnBatches = Iterator[tuple[Tensor, Tensor, float, int]]

_SMALL = 64 * 64


class DataFeed:
    """Prepared (images, labels) on the device. An epoch's batches depend on (seed, epoch) alone.

    A last batch of a single image is left out: batch normalization cannot be trained on it. Several processes share
    each batch, and the images for evaluation.
    """

    def __init__(
        self, data: DataSet, config: DataConfig, seed: int, device: torch.device, world: World | None = None
    ) -> None:
        self._world = world or World()
        self._data, self._config, self._seed, self._device = data, config, seed, device
        self._train, self._held_out = split(len(data.train), config.validation, seed, config.images)
        self.images, self.held_out = len(self._train), len(self._held_out)
        self._batch = config.batch
        self.steps_per_epoch = epoch_steps(len(self._train), config.batch)
        # Crops and flips at the end of the list change whole batches, on the device.
        names = [named(item)[0] for item in config.augment]
        last = len(list(takewhile(KINDS.__contains__, reversed(names))))
        self._first = config.augment[: len(names) - last]
        self._kinds = [name for name in names[len(names) - last :] if name not in names[: len(names) - last]]
        self.pace = 1.0
        """The number of steps of the full run that one step stands for."""
        # Evaluation does not depend on the batch; small images are faster in large ones.
        small = data.shape[1] * data.shape[2] <= _SMALL
        self._evaluation_batch = max(config.batch, 256) if small else config.batch

    def train(self, epoch: int, first_step: int) -> Batches:
        """Return the training batches of an epoch from `first_step` on, whole ones on each process."""
        return self._batches(self._order(epoch, first_step), epoch, self._batch)

    def of_process(self, epoch: int, first_step: int) -> OwnBatches:
        """Return this process's part of the same batches: a slice of each, with the factor of its mean loss (the mean
        over all processes is then that over the batch) and the number of processes that have the same images.

        The slices of a last, smaller batch differ by at most one image; where that would leave a process fewer than
        two, each has the whole of it.
        """
        world, order = self._world, self._order(epoch, first_step)
        each, whole = self._batch // world.size, len(order) // self._batch
        rest = order[whole * self._batch :]
        parts = order[: whole * self._batch].view(whole, world.size, each)[:, world.rank].reshape(-1)
        shared = len(rest) // world.size > 1
        own = torch.tensor_split(rest, world.size)[world.rank] if shared else rest
        last = (len(own) * world.size / len(rest), 1) if shared else (1.0, world.size)
        if len(own) <= each:  # then it follows the others in one turn, which starts the workers once
            parts, own = torch.cat([parts, own]), own[:0]
        for step, (images, labels) in enumerate(self._batches(parts, epoch, each)):
            yield images, labels, *((1.0, 1) if step < whole else last)
        if len(own):
            for images, labels in self._batches(own, epoch, len(own)):
                yield images, labels, *last

    def _order(self, epoch: int, first_step: int) -> Tensor:
        """Return the training images of an epoch from a step on, in their order."""
        order = self._train[torch.from_numpy(np.argsort(draw(self._train, ORDER, self._seed, epoch), kind="stable"))]
        return order[first_step * self._batch : self.steps_per_epoch * self._batch]

    def _batches(self, order: Tensor, epoch: int, batch: int) -> Batches:
        for indices, images, labels in self._changed(order, epoch, batch):
            change = partial(augment, indices=indices, seed=self._seed, epoch=epoch, kinds=self._kinds)
            mirrors = self._kinds == ["flip"]  # the same on bytes, of which there are a quarter
            prepared = prepare(change(images) if mirrors else images, self._data.mean, self._data.std)
            if self._kinds and not mirrors:
                prepared = change(prepared)
            yield prepared if self._erasing is None else self._erasing(prepared, indices, epoch), labels

    @cached_property
    def _erasing(self) -> Erasing | None:
        return Erasing(self._config.random_erase, self._seed) if self._config.random_erase else None

    @cached_property
    def _mixing(self) -> Mixing | None:
        config = self._config
        several = config.mixup_alpha or config.cutmix_alpha
        return Mixing(config, len(self._data.classes), self._seed) if several else None

    def mixed(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return a training batch as a step takes it: mixed, with the weights of the classes in place of the labels,
        where the configuration says so; else as it is.
        """
        return (images, labels) if self._mixing is None else self._mixing(images, labels, epoch, step)

    @cached_property
    def _transforms(self) -> Transforms | None:
        """Return the changes of single images; None where there are only crops and flips at the end."""
        return Transforms(self._first, self._data.shape, self._data.mean, self._seed) if self._first else None

    @cached_property
    def _images(self) -> Images:
        """Return the training images. One object reads them for all passes: its processes stay."""
        train, transforms = self._data.train, self._transforms
        return replace(train, change=transforms) if isinstance(train, Streamed) and transforms else train

    def _changed(self, order: Tensor, epoch: int, batch: int) -> Iterator[Batch]:
        """Return the batches of the training images, each image changed by the transforms."""
        train, transforms = self._images, self._transforms
        if transforms is None:
            return train.batches(order, batch, self._device)
        if isinstance(train, Streamed):
            return train.batches(order, batch, self._device, epoch)
        plain = train.batches(order, batch, torch.device("cpu"))
        return copied_ahead(self._each(plain, transforms, epoch), self._device)

    @staticmethod
    def _each(batches: Iterator[Batch], transforms: Transforms, epoch: int) -> Iterator[Batch]:
        for indices, images, labels in batches:
            pairs = zip(images, indices.tolist(), strict=True)
            with transforming():
                changed = [transforms(image, index, epoch) for image, index in pairs]
            yield indices, torch.stack(changed), labels

    def validation(self) -> Batches:
        """Return the validation images, not augmented; nothing where `validation` is 0. Of several processes each has
        its own ones, and one that is alone (`World.alone`) all of them.
        """
        return self._plain(self._images, self._held_out)

    def test(self) -> Batches:
        """Return the test images, in order; of several processes each has its own ones, as for validation."""
        return self._plain(self._data.test, torch.arange(len(self._data.test)))

    def _plain(self, images: Images, order: Tensor) -> Batches:
        if not self._world.alone:  # each image on one process
            order = torch.tensor_split(order, self._world.size)[self._world.rank]
        for _, batch, labels in images.batches(order, self._evaluation_batch, self._device):
            yield prepare(batch, self._data.mean, self._data.std), labels


def epoch_steps(images: int, batch: int) -> int:
    """Return the number of steps of an epoch: a rest of one image is left out, unless it is all there is."""
    count, rest = divmod(images, batch)
    return count + (1 if rest > 1 or count == 0 else 0)
