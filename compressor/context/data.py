"""The images of a run, for policies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

Batches = Sequence[tuple[Tensor, Tensor]]
"""Images and labels."""


def _none(count: int) -> Batches:
    raise LookupError("there are no images here")


def _unknown(part: str) -> Mapping[str, float]:
    raise LookupError("there are no images here")


@dataclass
class Part:
    """The images, labels and logits of the last part of a batch that went through the network, where they were
    given.
    """

    images: Tensor | None = None
    labels: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class Data:
    """Training images for statistics, accuracies, and the numbers of images."""

    batches: Callable[[int], Batches] = _none
    """Returns the given number of batches of training images with their labels, always the same ones: whole batches, of
    which no process has a part.
    """
    evaluate: Callable[[str], Mapping[str, float]] = _unknown
    """Returns the accuracies of the network as it is now, on the `validation` or the `test` images. All processes call
    it, and have the same.
    """
    images: int = 1
    """The number of training images, of all processes."""
    held_out: int = 0
    """The number of validation images."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """The figures of the last validation."""
    part: Part = field(default_factory=Part)
    shape: tuple[int, ...] | None = None
    """C, H, W of the images; None: it is that of a sample, and nothing is said of classes that are lost."""
    classes: Sequence[str] = ()
    """The names of the classes."""

    def image_shape(self) -> tuple[int, ...]:
        """Return C, H, W of the images."""
        return self.shape or tuple(self.sample().shape[1:])

    def sample(self) -> Tensor:
        """Return a batch of training images."""
        return self.batches(1)[0][0]
