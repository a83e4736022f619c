"""The images that a user's loop gives to policies: batches for statistics, and validation images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from compressor.context import Batches
from compressor.errors import UserError
from compressor.evaluating import evaluating
from compressor.importing import random_state_kept
from compressor.session import Session, rng
from compressor.training import Meters

_IMAGES, _LABELS = ("pixel_values", "images", "image", "inputs", "x"), ("labels", "label", "targets", "target", "y")
"""The keys of a batch that is a mapping."""


def pair(batch: Any, what: str) -> tuple[Tensor, Tensor]:
    """Return the images and the labels of a batch: the first two of a sequence, or those of a mapping.

    Raises `UserError` where it is neither; `what` gave it.
    """
    images = labels = None
    if isinstance(batch, Mapping):
        images = next((batch[key] for key in _IMAGES if key in batch), None)
        labels = next((batch[key] for key in _LABELS if key in batch), None)
    elif isinstance(batch, list | tuple) and len(batch) >= 2:
        images, labels = batch[0], batch[1]
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        got = f"a mapping with {', '.join(map(repr, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        raise UserError(
            f"{what} gave {got}: each batch should be (images, labels), two tensors, or a mapping with"
            f" {_IMAGES[0]!r} and {_LABELS[0]!r}"
        )
    return images, labels


class Calibration:
    """The first batches of an iterable; always the same ones, whatever random numbers the loop has drawn.

    An iterable that can be iterated again is iterated from its beginning under the session's seed: a loader that
    shuffles gives the same batches after a resume, too. Of an iterator, which can be
    used once, the batches are kept.
    """

    def __init__(self, batches: Iterable[Any], device: Callable[[], torch.device], seed: int) -> None:
        self._source, self._device, self._seed = batches, device, seed
        self._once = isinstance(batches, Iterator)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._whole = False

    def __call__(self, count: int) -> Batches:
        """Return `count` batches, or as many as there are, on the model's device. Raises `UserError` without any."""
        if count > len(self._kept) and not self._whole:
            self._fetch(count)
        if not self._kept:
            raise UserError("calibration gave no batch: it should give (images, labels)")
        device = self._device()
        return [(images.to(device), labels.to(device)) for images, labels in self._kept[:count]]

    def _fetch(self, count: int) -> None:
        with random_state_kept():
            rng.seed_all(self._seed)
            if self._once:
                for batch in islice(self._source, count - len(self._kept)):
                    self._kept.append(pair(batch, "calibration"))
            else:
                self._kept = [pair(batch, "calibration") for batch in islice(self._source, count)]
        self._whole = len(self._kept) < count


def accuracies(session: Session, batches: Iterable[Any]) -> dict[str, float]:
    """Return loss, top-1 and top-5 (percent) of the network that would be shipped now on the validation images."""
    device = session.network.device
    meters = Meters(device)
    own = session.own_inference() if session.has_own_inference else nullcontext()
    with random_state_kept(), session.as_shipped(), own, torch.no_grad(), evaluating(session.model):
        for batch in batches:
            images, labels = pair(batch, "validation")
            logits = session.model(images.to(device))
            if not isinstance(logits, Tensor):
                raise UserError(
                    f"the model returns {type(logits).__name__}, not its logits: validation cannot be evaluated; give"
                    " the figures of your own validation at the end of each epoch"
                )
            meters.add(logits.float(), labels.to(device))
    figures = meters.means()
    if not figures:
        raise UserError("validation gave no batch: it should give (images, labels)")
    return figures
