"""The batches of a run: order, split, normalization and augmentation of a data set."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data.draws import ORDER, draw
from compressor.data.images import DataSet, Images
from compressor.data.pipeline import augment, prepare
from compressor.data.splitting import split

Batches = Iterator[tuple[Tensor, Tensor]]

_SMALL = 64 * 64


class DataFeed:
    """Prepared (images, labels) on the device. An epoch's batches depend on (seed, epoch) alone.

    A last batch of a single image is left out: batch normalization cannot be trained on it.
    """

    def __init__(self, data: DataSet, config: DataConfig, seed: int, device: torch.device) -> None:
        self._data, self._config, self._seed, self._device = data, config, seed, device
        self._train, self._held_out = split(len(data.train), config.validation, seed, config.images)
        self.images, self.held_out = len(self._train), len(self._held_out)
        self._batch = config.batch
        self.steps_per_epoch = epoch_steps(len(self._train), config.batch)
        self.pace = 1.0
        """The number of steps of the full run that one step stands for."""
        # Evaluation does not depend on the batch; small images are faster in large ones.
        small = data.shape[1] * data.shape[2] <= _SMALL
        self._evaluation_batch = max(config.batch, 256) if small else config.batch

    def train(self, epoch: int, first_step: int) -> Batches:
        """Return the training batches of an epoch from `first_step` on."""
        order = self._train[torch.from_numpy(np.argsort(draw(self._train, ORDER, self._seed, epoch), kind="stable"))]
        order = order[first_step * self._batch : self.steps_per_epoch * self._batch]
        for indices, images, labels in self._data.train.batches(order, self._batch, self._device):
            prepared = prepare(images, self._data.mean, self._data.std)
            kinds = self._config.augment
            yield augment(prepared, indices, seed=self._seed, epoch=epoch, kinds=kinds) if kinds else prepared, labels

    def validation(self) -> Batches:
        """Return the validation images, not augmented; nothing where `validation` is 0."""
        return self._plain(self._data.train, self._held_out)

    def test(self) -> Batches:
        """Return the test images, in order."""
        return self._plain(self._data.test, torch.arange(len(self._data.test)))

    def _plain(self, images: Images, order: Tensor) -> Batches:
        for _, batch, labels in images.batches(order, self._evaluation_batch, self._device):
            yield prepare(batch, self._data.mean, self._data.std), labels


def epoch_steps(images: int, batch: int) -> int:
    """Return the number of steps of an epoch: a rest of one image is left out, unless it is all there is."""
    count, rest = divmod(images, batch)
    return count + (1 if rest > 1 or count == 0 else 0)
