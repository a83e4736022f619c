"""Distiller's pruners that rank filters by what they do on training images, or by nothing at all."""

from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import Targets
from compressor.pruners.criteria import CriterionName, score
from compressor.pruners.level import Level
from compressor.pruners.pruner import Asked, Goal
from compressor.pruners.ranked import Gradual, OneShot, RankedStructurePruner
from compressor.pruners.ranking import keep_best
from compressor.rates.window import Window

_EXAMPLE = """
    pruners:
      filters:
        class: {name}
        group_type: Filters
        {rate}
        weights: ['conv*.weight']
    policies:
      - {{pruner: {{instance_name: filters{args}}}, {window}}}
    """


def _example(name: str, args: str = "") -> str:
    gradual = name.endswith("_AGP")
    rate = "final_sparsity: 0.5" if gradual else "desired_sparsity: 0.5"
    window = "ending_epoch: 10" if gradual else "epochs: [0]"
    return _EXAMPLE.format(name=name, rate=rate, window=window, args=f", args: {{{args}}}" if args else "")


class _OfFilters(RankedStructurePruner):
    by: ClassVar[CriterionName]

    group_type: Literal["Filters", "3D"] = Field(description="what is ranked: filters, by their outputs")
    kwargs: None = None
    batches: int = Field(default=8, ge=1, description="of training images, which the network is looked at with")

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        return arguments, None  # `Rows` are refused by that name

    @property
    def statistic(self) -> str | None:
        return self.by

    @property
    def images(self) -> int:
        return self.batches

    def scores(self, asked: Asked, name: str) -> Tensor:
        return score(asked, name, self.ranks, self.by)


class _ApoZ(_OfFilters):
    by: ClassVar[CriterionName] = "apoz"


class _MeanActivation(_OfFilters):
    by: ClassVar[CriterionName] = "mean_activation"


class _Gradient(_OfFilters):
    by: ClassVar[CriterionName] = "gradient"


class _Random(RankedStructurePruner):
    ignores: ClassVar[tuple[str, ...]] = ("noise",)

    @model_validator(mode="after")
    def _takes_them_all(self) -> Self:
        for key in self.ignores:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{self.name} goes by chance: {key!r} has no place beside it")
        return self

    def scores(self, asked: Asked, name: str) -> Tensor:
        weight = asked.weights[name]
        drawn = torch.rand(self.ranks.index_shape(weight.shape), dtype=torch.float64)
        # What a draw before has zeroed goes first: behind a relu, without bias and batch norm, it would not come back.
        return torch.where(self.ranks.norms(weight).cpu() == 0, -1.0, drawn)


class ActivationAPoZRankedFilterPruner(_ApoZ, OneShot, name="ActivationAPoZRankedFilterPruner"):
    """Prunes a share of the filters whose activations are most often zero (APoZ, Hu et al. 2016)."""

    example: ClassVar[str] = _example("ActivationAPoZRankedFilterPruner")


class ActivationAPoZRankedFilterPrunerAgp(_ApoZ, Gradual, name="ActivationAPoZRankedFilterPruner_AGP"):
    """The filters whose activations are most often zero (Hu et al. 2016), with AGP's share."""

    example: ClassVar[str] = _example("ActivationAPoZRankedFilterPruner_AGP")


class ActivationMeanRankedFilterPruner(_MeanActivation, OneShot, name="ActivationMeanRankedFilterPruner"):
    """Prunes a share of the filters of lowest mean activation (Molchanov et al. 2017)."""

    example: ClassVar[str] = _example("ActivationMeanRankedFilterPruner")


class ActivationMeanRankedFilterPrunerAgp(_MeanActivation, Gradual, name="ActivationMeanRankedFilterPruner_AGP"):
    """The filters of lowest mean activation (Molchanov et al. 2017), with AGP's share."""

    example: ClassVar[str] = _example("ActivationMeanRankedFilterPruner_AGP")


class GradientRankedFilterPruner(_Gradient, OneShot, name="GradientRankedFilterPruner"):
    """Prunes a share of the filters of smallest |sum of w dL/dw|: what the loss would change, to first order."""

    example: ClassVar[str] = _example("GradientRankedFilterPruner")


class GradientRankedFilterPrunerAgp(_Gradient, Gradual, name="GradientRankedFilterPruner_AGP"):
    """The filters of smallest |sum of w dL/dw|, with AGP's share."""

    example: ClassVar[str] = _example("GradientRankedFilterPruner_AGP")


class RandomRankedFilterPruner(_Random, OneShot, name="RandomRankedFilterPruner"):
    """Prunes a share of the filters (or channels, rows, columns, blocks), drawn anew each time: a baseline."""

    example: ClassVar[str] = _example("RandomRankedFilterPruner")


class RandomRankedFilterPrunerAgp(_Random, Gradual, name="RandomRankedFilterPruner_AGP"):
    """A share of the structures drawn anew each time, with AGP's share."""

    example: ClassVar[str] = _example("RandomRankedFilterPruner_AGP")


class RandomLevelStructureParameterPruner(_Random, name="RandomLevelStructureParameterPruner"):
    """Prunes randomly drawn structures, a share of them that is drawn, too: evenly from a range (Distiller)."""

    example: ClassVar[str] = """
    pruners:
      filters:
        class: RandomLevelStructureParameterPruner
        group_type: Filters
        sparsity_range: [0.1, 0.5]
        weights: ['conv*.weight']
    policies:
      - {pruner: {instance_name: filters}, epochs: [0]}
    """

    sparsity_range: list[Level] = Field(min_length=2, max_length=2, description="[least, most]")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.sparsity_range[0] > self.sparsity_range[1]:
            raise ValueError(f"sparsity_range should be [least, most], got {self.sparsity_range}")
        return self

    def sparsity_at(self, window: Window, time: int) -> float:
        return self.sparsity_range[0]  # what is sure

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        return f"a share drawn between {self.sparsity_range[0]:g} and {self.sparsity_range[1]:g}"

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        least, most = self.sparsity_range
        drawn = least + (most - least) * float(torch.rand(()))
        return keep_best(
            asked,
            asked.targets["weights"],
            self.ranks,
            lambda name: self.scores(asked, name),
            lambda total: self.count(drawn, total),
            leader=self.group_dependency == "Leader",
        )


class _Bernoulli(_Random):
    ignores: ClassVar[tuple[str, ...]] = ("noise", "group_size", "rounding_fn")

    def scores(self, asked: Asked, name: str) -> Tensor:
        return torch.rand(self.ranks.index_shape(asked.weights[name].shape), dtype=torch.float64)  # whatever was before

    def scale(self, window: Window, time: int) -> float | None:
        share = self.sparsity_at(window, time)
        return 1 / (1 - share) if share < 1 else 1.0

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        return []  # a number that is drawn is no promise

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        return f"each with probability {self.sparsity_at(window, time):g}"

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        share = self.sparsity_at(asked.window, asked.time)
        return keep_best(
            # Each by itself: what was removed counts for nothing, and the groups of a convolution need not be equal.
            replace(asked, dense={}, channels=lambda: replace(asked.channels(), part=None)),
            asked.targets["weights"],
            self.ranks,
            lambda name: self.scores(asked, name),
            lambda total: int((torch.rand(total) < share).sum()),  # so many, any of them
            leader=self.group_dependency == "Leader",
        )


class BernoulliFilterPruner(_Bernoulli, OneShot, name="BernoulliFilterPruner"):
    """Drops each filter with a probability, anew at each draw: DropFilter (Chen et al. 2018), as Distiller has it.

    Chen, Niu and Tian, arXiv 1810.09849. Where a draw lives for one step (`discard_masks_at_minibatch_end`) what stays
    is scaled by 1 / (1 - p) in it, and comes back as it was with `use_double_copies`, without from 0.
    """

    example: ClassVar[str] = _example("BernoulliFilterPruner")


class BernoulliFilterPrunerAgp(_Bernoulli, Gradual, name="BernoulliFilterPruner_AGP"):
    """Drops each filter with a probability that rises as AGP's share does."""

    example: ClassVar[str] = _example("BernoulliFilterPruner_AGP", "use_double_copies: true, keep_mask: true")
