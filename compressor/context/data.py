"""The images of a run, as policies ask for them."""

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
    """What went through the network last: images, labels and logits of one part of a batch, where they were given."""

    images: Tensor | None = None
    labels: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class Data:
    """Training images for statistics, accuracies, and how many images there are."""

    batches: Callable[[int], Batches] = _none
    """Returns so many batches of training images with their labels, always the same."""
    evaluate: Callable[[str], Mapping[str, float]] = _unknown
    """Returns the accuracies of the network as it is now, on the `validation` or the `test` images."""
    images: int = 1
    """How many images are trained on."""
    held_out: int = 0
    """How many images are held out for validation."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """The figures of the last validation."""
    part: Part = field(default_factory=Part)

    def sample(self) -> Tensor:
        """Return a batch of training images."""
        return self.batches(1)[0][0]
