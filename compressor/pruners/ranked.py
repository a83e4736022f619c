"""Distiller's ranked structure pruners: the filters (channels, rows, blocks ...) of smallest norm go.

Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (L1 over filters). At once, or with AGP's sparsity.
"""

import math
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import Settings, Targets
from compressor.component import Weights as Selection
from compressor.pruners.level import Level
from compressor.pruners.pruner import Asked, Goal, PrunerBase
from compressor.pruners.ranking import Rounding, keep_best, structures_to_prune
from compressor.rates.agp import agp
from compressor.rates.window import Window
from compressor.sparsity.structures import BY_NAME, Blocks, Criterion, Structure


class BlockShape(Settings):
    """The shape of blocks."""

    block_shape: list[int] = Field(
        min_length=4, max_length=4, description="[filters, channels, 1, 1]: blocks at one place of the kernel"
    )

    @model_validator(mode="after")
    def _at_one_place(self) -> Self:
        if min(self.block_shape) < 1 or self.block_shape[2:] != [1, 1]:
            raise ValueError(f"block_shape should be [filters, channels, 1, 1], got {self.block_shape}")
        return self

    def structure(self) -> Structure:
        return Blocks(filters=self.block_shape[0], depth=self.block_shape[1])


class RankedStructurePruner(PrunerBase):
    """The structures of smallest norm go; one of each weight is always spared.

    Weights that share their channels, as residual additions make them, are ranked as one by the sum of their norms.
    """

    criterion: ClassVar[Criterion] = "l1"

    group_type: Literal["Filters", "3D", "Channels", "Rows", "Cols", "Blocks"] = Field(
        description="what is ranked; `Rows` of a schedule of version 1 are stored columns, as in Distiller"
    )
    weights: Selection
    group_dependency: Literal["Leader"] | None = Field(
        default=None, description="Leader: weights that share channels are pruned as the first of them ranks"
    )
    kwargs: BlockShape | None = Field(default=None, description="for Blocks: `{block_shape: [r, d, 1, 1]}`")
    noise: float = Field(default=0.0, ge=0, description="each score is multiplied by 1 + noise * N(0, 1)")
    group_size: int = Field(default=1, ge=1, description="structures go in multiples of this")
    rounding_fn: Rounding = Field(default="floor", description="how sparsity x structures becomes a whole number")

    @model_validator(mode="after")
    def _blocks(self) -> Self:
        if (self.group_type == "Blocks") != (self.kwargs is not None):
            raise ValueError("`kwargs: {block_shape: [filters, channels, 1, 1]}` belongs to `group_type: Blocks`")
        return self

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        if arguments.get("group_type") != "Rows":
            return arguments, None
        said = "`group_type: Rows` ranks stored columns (inputs) in version 1, as Distiller's rankers do"
        return {**arguments, "group_type": "Cols"}, said

    @property
    def ranks(self) -> Structure:
        return BY_NAME[self.group_type] if self.kwargs is None else self.kwargs.structure()

    def sparsity_at(self, window: Window, time: int) -> float:
        """The share of structures that are gone at `time`."""
        raise TypeError(f"{type(self).__name__} has no sparsity")

    def count(self, sparsity: float, total: int) -> int:
        """How many of so many structures go."""
        return structures_to_prune(sparsity, total, self.rounding_fn, self.group_size)

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        sparsity = self.sparsity_at(window, time)
        return [Goal((name,), sparsity, self.ranks, self.count) for name in targets["weights"]]

    def scores(self, asked: Asked, name: str) -> Tensor:
        """A number for each structure of a weight; the smallest go."""
        return self.ranks.norms(asked.weights[name], self.criterion)

    def _noisy(self, asked: Asked, name: str) -> Tensor:
        found = self.scores(asked, name)
        if not self.noise:
            return found
        noisy = found * (1 + self.noise * torch.randn_like(found))
        return torch.where(found == 0, -math.inf, noisy)  # what is gone goes first, whatever the noise

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        sparsity = self.sparsity_at(asked.window, asked.time)
        return keep_best(
            asked,
            asked.targets["weights"],
            self.ranks,
            lambda name: self._noisy(asked, name),
            lambda total: self.count(sparsity, total),
            leader=self.group_dependency == "Leader",
        )


class OneShot(RankedStructurePruner):
    """A share at once."""

    desired_sparsity: Level

    def sparsity_at(self, window: Window, time: int) -> float:
        return self.desired_sparsity


class Gradual(RankedStructurePruner):
    """A share that rises along AGP's cubic."""

    initial_sparsity: Level = 0.0
    final_sparsity: Level

    def sparsity_at(self, window: Window, time: int) -> float:
        return agp(self.initial_sparsity, self.final_sparsity, window, time)


class L1RankedStructureParameterPruner(OneShot, name="L1RankedStructureParameterPruner"):
    """Prunes a share of the filters (or channels, rows, columns, blocks) of smallest L1 norm (Li et al. 2017)."""

    example: ClassVar[str] = """
    pruners:
      filters:
        class: L1RankedStructureParameterPruner
        group_type: Filters
        desired_sparsity: 0.5
        weights: ['conv*.weight']
    policies:
      - {pruner: {instance_name: filters}, epochs: [0]}
    """


class L2RankedStructureParameterPruner(OneShot, name="L2RankedStructureParameterPruner"):
    """Prunes a share of the filters (or channels, rows, columns, blocks) of smallest L2 norm."""

    criterion: ClassVar[Criterion] = "l2"
    example: ClassVar[str] = """
    pruners:
      inputs:
        class: L2RankedStructureParameterPruner
        group_type: Channels
        desired_sparsity: 0.5
        weights: [conv2.weight]
    policies:
      - {pruner: {instance_name: inputs}, epochs: [0]}
    """


class L1RankedStructureParameterPrunerAgp(Gradual, name="L1RankedStructureParameterPruner_AGP"):
    """L1 ranking of structures with the share of automated gradual pruning (Zhu and Gupta 2017)."""

    example: ClassVar[str] = """
    pruners:
      filters:
        class: L1RankedStructureParameterPruner_AGP
        initial_sparsity: 0.05
        final_sparsity: 0.5
        group_type: Filters
        weights: ['conv*.weight']
    policies:
      - {pruner: {instance_name: filters}, starting_epoch: 0, ending_epoch: 10}
    """


class L2RankedStructureParameterPrunerAgp(Gradual, name="L2RankedStructureParameterPruner_AGP"):
    """L2 ranking of structures with the share of automated gradual pruning (Zhu and Gupta 2017)."""

    criterion: ClassVar[Criterion] = "l2"
    example: ClassVar[str] = """
    pruners:
      inputs:
        class: L2RankedStructureParameterPruner_AGP
        final_sparsity: 0.5
        group_type: Cols
        weights: [fc2.weight]
    policies:
      - {pruner: {instance_name: inputs}, starting_epoch: 0, ending_epoch: 10}
    """
