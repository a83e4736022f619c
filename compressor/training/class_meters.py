"""Accuracy by class, and how well the probabilities of a network say how often it is right."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.reports import recorded
from compressor.training.meters import Meters
from compressor.world import World

BINS = 15
"""The number of equal bins of confidence (Guo et al., ICML 2017, section 5)."""


class ClassMeters(Meters):
    """Sums of loss and hits, also by class and by confidence."""

    def __init__(self, device: torch.device, classes: Sequence[str]) -> None:
        super().__init__(device)
        self._classes = classes
        self._images = torch.zeros(len(classes), dtype=torch.int64, device=device)
        self._correct = torch.zeros_like(self._images)
        self._bins = torch.zeros(BINS, 3, dtype=torch.float64, device=device)
        """Sums by bin: of the confidence, of the images that are right, of all images."""

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, loss: Tensor | None = None) -> None:
        """Count one batch."""
        super().add(logits, labels, loss)
        chosen = logits.topk(1, dim=1).indices
        right = (chosen[:, 0] == labels).long()
        self._images.index_add_(0, labels, torch.ones_like(labels))
        self._correct.index_add_(0, labels, right)
        confidence = logits.double().softmax(1).gather(1, chosen)[:, 0].nan_to_num(0.0)
        # The bin ((m - 1) / M, m / M] of each image, as a column of zeros and a one: sums of products have one order.
        places = F.one_hot((confidence * BINS).ceil().long().clamp(1, BINS) - 1, BINS).double()
        self._bins += places.T @ torch.stack([confidence, right.double(), torch.ones_like(confidence)], 1)

    def gather(self, world: World) -> None:
        """Add what the other processes have counted, on each of them."""
        super().gather(world)
        self._images, self._correct, self._bins = map(world.sum, (self._images, self._correct, self._bins))

    def evaluation(self) -> recorded.Evaluation | None:
        """Return all figures; None where nothing was counted."""
        means = self.means()
        if not means:
            return None
        counted = zip(self._classes, self._images.tolist(), self._correct.tolist(), strict=True)
        return recorded.Evaluation(
            images=self._count,
            **means,
            classes=[recorded.ClassAccuracy(name=name, images=n, correct=c) for name, n, c in counted],
            calibration=_calibration(self._bins.tolist(), self._count),
        )


def _calibration(sums: Sequence[Sequence[float]], images: int) -> recorded.Calibration:
    bins, error = [], 0.0
    for confidence, right, count in sums:
        error += abs(right - confidence) / images
        means = (confidence / count, right / count) if count else (None, None)
        bins.append(recorded.Bin(confidence=means[0], accuracy=means[1], images=int(count)))
    return recorded.Calibration(error=error, bins=bins)
