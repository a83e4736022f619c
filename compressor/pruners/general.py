"""The general form: any criterion, any structure, any rate."""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import Settings, Targets
from compressor.component import Weights as Selection
from compressor.pruners.level import Level, keep_largest
from compressor.pruners.pruner import Asked, Goal, PrunerBase, Scope, Shapes
from compressor.pruners.ranking import keep_best, keep_best_of_all, structures_to_prune
from compressor.pruners.threshold import keep_above_deviation
from compressor.rates.agp import agp
from compressor.rates.baidu import baidu
from compressor.rates.window import Window
from compressor.sparsity.structures import BY_NAME, CHANNELS, FILTERS, Blocks, Criterion, Structure
from compressor.sparsity.topk import pruned_count

StructureName = Literal[
    "Elements", "2D", "Kernels", "Filters", "3D", "Channels", "Rows", "Cols", "4D", "Layer", "Shapes", "Blocks"
]
BlockSides = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]


class AgpRate(Settings):
    """Zhu and Gupta's cubic."""

    initial_sparsity: Level = 0.0
    final_sparsity: Level


class BaiduRate(Settings):
    """Narang's two slopes."""

    q: float = Field(ge=0)
    ramp_epoch_offset: int = Field(ge=0)
    ramp_slope_mult: float = Field(ge=0)


class Rate(Settings):
    """How much: a sparsity (`sparsity`, `agp`) or a threshold (`threshold`, `baidu`, `std`, `survivors_std`)."""

    sparsity: Level | None = Field(default=None, description="a constant share of zeros")
    agp: AgpRate | None = None
    threshold: Annotated[float, Field(ge=0)] | None = Field(default=None, description="prunes |w| <= threshold")
    baidu: BaiduRate | None = None
    std: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="prunes |w| <= q std(w), of the weight as it is when first asked"
    )
    survivors_std: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="prunes |w| <= q std of the weights that are not zero, anew at each event (Han et al.)",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self


class Pruner(PrunerBase, name="Pruner"):
    """Any criterion x any structure x any rate: the single weights, filters, blocks ... of smallest norm go."""

    example: ClassVar[str] = """
    policies:
      - pruner:
          class: Pruner
          criterion: l1
          structure: Elements
          scope: global
          weights: '*'
          rate: {agp: {initial_sparsity: 0.1, final_sparsity: 0.9}}
        starting_epoch: 0
        ending_epoch: 10
    """

    criterion: Criterion = Field(default="l1", description="the norm that ranks structures")
    structure: StructureName = "Elements"
    block_shape: BlockSides | None = Field(default=None, description="for Blocks: [filters, channels]")
    scope: Literal["layer", "global", "coupled"] = Field(
        default="layer",
        description="layer: each weight by itself (with those that it shares channels with, if they are selected);"
        " global: all together, by mean norms, not in equal groups;"
        " coupled: as layer, with all that shares channels with the selected",
    )
    weights: Selection
    rate: Rate

    @model_validator(mode="after")
    def _fits(self) -> Self:
        by_threshold = self.rate.agp is None and self.rate.sparsity is None
        own = (self.rate.threshold, self.rate.baidu, self.rate.survivors_std)
        if self.scope == "global" and any(rate is not None for rate in own):
            raise ValueError("`scope: global` takes weights together; this threshold is the same for all anyway")
        if by_threshold and self.structure != "Elements":
            raise ValueError("structures are ranked: their rate is `sparsity` or `agp`, not a threshold")
        if self.scope == "coupled" and (self.structure == "Blocks" or BY_NAME[self.structure].dim is None):
            raise ValueError(f"`scope: coupled` is for whole filters, channels, rows or columns, not {self.structure}")
        if self.structure in ("4D", "Layer") and self.scope != "global":
            raise ValueError("a weight is one layer: `scope: global` ranks layers")
        if (self.structure == "Blocks") != (self.block_shape is not None):
            raise ValueError("`block_shape: [filters, channels]` belongs to `structure: Blocks`")
        return self

    @property
    def ranks(self) -> Structure:
        if self.block_shape is not None:
            return Blocks(filters=self.block_shape[0], depth=self.block_shape[1])
        if self.extends:  # rows may share their channels with a convolution's filters
            return {0: FILTERS, 1: CHANNELS}[BY_NAME[self.structure].dim or 0]
        return BY_NAME[self.structure]

    def misfits(self, targets: Targets, shapes: Shapes) -> list[str]:
        structure = BY_NAME.get(self.structure, self.ranks)
        found = [(name, structure.misfit(shapes[name])) for name in targets["weights"]]
        return [f"{name}: {why}" for name, why in found if why is not None]

    @property
    def extends(self) -> bool:
        return self.scope == "coupled"

    def _sparsity(self, window: Window, time: int) -> float:
        rate = self.rate.agp
        return (
            self.rate.sparsity or 0.0 if rate is None else agp(rate.initial_sparsity, rate.final_sparsity, window, time)
        )

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        if self.rate.agp is None and self.rate.sparsity is None:
            return []
        sparsity, names = self._sparsity(window, time), targets["weights"]
        count = pruned_count if self.structure == "Elements" else structures_to_prune
        if self.scope == "global":
            return [Goal(tuple(names), sparsity, self.ranks, count)]
        return [Goal((name,), sparsity, self.ranks, count) for name in names]

    def _epsilon(self, window: Window, time: int) -> float:
        if self.rate.baidu is None:
            return self.rate.threshold or 0.0
        ramp = self.rate.baidu
        return baidu(ramp.q, ramp.ramp_epoch_offset, ramp.ramp_slope_mult, window, time)

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        if self.rate.std is not None:
            return f"{self.rate.std:g} std"
        if self.rate.survivors_std is not None:
            return f"{self.rate.survivors_std:g} std of the survivors"
        by_threshold = self.rate.threshold is not None or self.rate.baidu is not None
        return f"{self._epsilon(window, time):.5g}" if by_threshold else None

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        names = asked.targets["weights"]
        goals = self.goals(asked.targets, asked.window, asked.time)
        if not goals:
            return self._above_threshold(asked)
        if self.structure == "Elements":
            return {name: mask for goal in goals for name, mask in keep_largest(asked, goal).items()}
        sparsity = self._sparsity(asked.window, asked.time)
        if self.scope == "global":
            return keep_best_of_all(
                asked, names, self.ranks, self._mean_norm, lambda total: structures_to_prune(sparsity, total)
            )
        if self.extends:
            names = asked.channels().closure(names, self.ranks.dim or 0)
        return keep_best(
            asked,
            names,
            self.ranks,
            lambda weight: self.ranks.norms(weight, self.criterion),
            lambda total: structures_to_prune(sparsity, total),
        )

    def _mean_norm(self, weight: Tensor) -> Tensor:
        """Norms that do not favour large structures: divided by the size (l1) or its root (l2)."""
        size = self.ranks.size(weight.shape)
        return self.ranks.norms(weight, self.criterion) / (size if self.criterion == "l1" else math.sqrt(size))

    def _above_threshold(self, asked: Asked) -> dict[str, Tensor]:
        names = asked.targets["weights"]
        if self.rate.std is not None:
            scope: Scope = "global" if self.scope == "global" else "layer"
            return keep_above_deviation(asked, dict.fromkeys(names, self.rate.std), scope)
        if self.rate.survivors_std is not None:
            return {name: _above_survivors(asked.weights[name], self.rate.survivors_std) for name in names}
        epsilon = self._epsilon(asked.window, asked.time)
        return {name: asked.weights[name].detach().abs() > epsilon for name in names}


def _above_survivors(weight: Tensor, factor: float) -> Tensor:
    """|w| > factor * std of what is not zero."""
    weight = weight.detach()
    alive = weight[weight != 0]
    return weight.abs() > factor * float(alive.std()) if alive.numel() > 1 else weight != 0
