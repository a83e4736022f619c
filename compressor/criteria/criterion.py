"""The base class of all criteria: a score for each structure of a weight; the smallest scores are pruned first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor

from compressor.component import Component, Named
from compressor.sparsity.structures import Shape, Structure

PROVIDED = (
    "weights",
    "gradient",
    "gradient_sums",
    "activation_sums",
    "running_statistics",
    "batch_norms",
    "optimizer_state",
)
"""The data that a criterion may need: each is an attribute or a method of `Given`."""
_OF_ACTIVATIONS = {"activation_sums", "running_statistics"}
_OF_IMAGES = {"gradient", "gradient_sums", *_OF_ACTIVATIONS}


@dataclass(frozen=True)
class BatchNorm:
    """Entries of a batch norm, in double precision; `outputs` [entries]: the output of the layer that each reads."""

    scale: Tensor
    shift: Tensor
    outputs: Tensor


class Given:
    """The data that a criterion may use: the weights as they are now, and what the policy provides.

    This class has the weights only; all else raises `LookupError`. `kind` is the criterion's name; random numbers are
    drawn from `stream` (None: torch's own generator).
    """

    def __init__(self, weights: Mapping[str, Tensor], kind: str, stream: torch.Generator | None = None) -> None:
        self.weights, self.kind, self.stream = weights, kind, stream

    def gradient(self, name: str) -> Tensor:
        """Return dL/dw on one calibration batch, of masked weights, too.

        Args:
            name: the weight's name.

        Returns:
            A tensor in the weight's shape.

        Raises:
            LookupError: there are no images, or `needs` does not name it.
        """
        raise self._missing(name)

    def gradient_sums(self, name: str) -> Tensor:
        """Return dL/dw of the mean loss over all calibration batches, of masked weights, too.

        Args:
            name: the weight's name.

        Returns:
            A tensor in the weight's shape.

        Raises:
            LookupError: there are no images, or `needs` does not name it.
        """
        raise self._missing(name)

    def activation_sums(self, name: str) -> Tensor:
        """Return the mean of `ActivationCriterion.summed` over the images of the calibration batches.

        Args:
            name: the weight's name.

        Returns:
            A vector with a number for each output of the weight's layer.

        Raises:
            LookupError: there are no images, or `needs` does not name it.
        """
        raise self._missing(name)

    def running_statistics(self, name: str) -> Tensor:
        """Return a running mean of the same in training; before its first step, that of the calibration batches.

        Args:
            name: the weight's name.

        Returns:
            A vector with a number for each output of the weight's layer.

        Raises:
            LookupError: there are no images, or `needs` does not name it.
        """
        raise self._missing(name)

    def batch_norms(self, name: str) -> list[BatchNorm]:
        """Return the batch norms that read the outputs of the weight's layer.

        Args:
            name: the weight's name.

        Returns:
            At least one batch norm, with its scale and shift and the outputs that it reads.

        Raises:
            UserError: there is none.
        """
        raise self._missing(name)

    def optimizer_state(self, name: str) -> Mapping[str, Tensor]:
        """Return the optimizer's state of a weight.

        Args:
            name: the weight's name.

        Returns:
            Tensors by the optimizer's names (`exp_avg`, `momentum_buffer`, ...); empty before the first step.
        """
        raise self._missing(name)

    def _missing(self, name: str) -> LookupError:
        return LookupError(f"there are no images to take {self.kind} of {name} from")


class Criterion(Component):
    """The score of a structure. Structures of high score stay.

    `needs`: names of `PROVIDED`, the data that `score` uses.
    """

    section: ClassVar[str] = "criteria"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    of_outputs: ClassVar[bool] = False
    """Whether there is one score for each output of a layer: structures are filters or rows then."""
    behind_activation: ClassVar[bool] = False
    """Whether it reads the output of an activation."""
    counts_zeros: ClassVar[bool] = False
    """Whether it is useful only where that output has exact zeros."""

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        """Return a number for each structure of a weight; those of the smallest numbers are pruned first.

        Args:
            given: what the criterion may use; only what `needs` names is there.
            name: the weight's name.
            structure: the unit that is pruned.

        Returns:
            A tensor in `structure.index_shape(weight.shape)`; NaN counts as the largest number.
        """
        raise TypeError(f"{type(self).__name__} has no score: define `score`")

    def comparable(self, score: Tensor, structure: Structure, shape: Shape) -> Tensor:
        """Return the scores of a weight so that they can be compared with those of other weights.

        Args:
            score: what `score` has returned.
            structure: the unit that is pruned.
            shape: the weight's shape.

        Returns:
            A tensor of the same shape, by default the scores as they are.
        """
        return score

    def is_magnitude(self, structure: Structure) -> bool:
        """Return whether the score of such a structure is a magnitude of its weights, to be compared with a
        threshold.
        """
        return False

    @property
    def needs_images(self) -> bool:
        """Return whether the criterion is computed from training images."""
        return bool(self.needs & _OF_IMAGES)

    @model_validator(mode="after")
    def _is_provided(self) -> Self:
        missing = sorted(self.needs - set(PROVIDED))
        if missing:
            raise ValueError(f"{self.name} needs {', '.join(missing)}: provided are {', '.join(PROVIDED)}")
        if self.needs & _OF_ACTIVATIONS and not hasattr(self, "summed"):
            raise ValueError(f"{self.name} needs sums of activations: its class should be an ActivationCriterion")
        return self


AnyCriterion = Annotated[Criterion, Named("criterion", "criteria")]
"""A field that names a criterion."""


def unit_length(score: Tensor) -> Tensor:
    """Return scores divided by their L2 norm over the layer (Molchanov et al. 2017)."""
    return score / score.double().square().sum().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
