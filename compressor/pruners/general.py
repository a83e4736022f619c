"""The general form: any criterion, any structure, any rate."""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import Settings, Targets
from compressor.component import Weights as Selection
from compressor.pruners.criteria import MEANING, NORMS, OF_BATCH_NORMS, OF_OUTPUTS, CriterionName, score
from compressor.pruners.level import Level, keep_largest
from compressor.pruners.pruner import Asked, Goal, PrunerBase, Scope, Shapes
from compressor.pruners.ranking import Order, keep_best, keep_best_of_all, preference, structures_to_prune
from compressor.pruners.threshold import keep_above_deviation
from compressor.rates.agp import agp
from compressor.rates.baidu import baidu
from compressor.rates.events import left_after
from compressor.rates.window import Window
from compressor.sparsity.structures import BY_NAME, CHANNELS, FILTERS, Blocks, Structure
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
    """How much: a sparsity (`sparsity`, `agp`, `events`, `random`) or a threshold (the others)."""

    sparsity: Level | None = Field(default=None, description="a constant share of zeros")
    agp: AgpRate | None = None
    events: Level | None = Field(
        default=None,
        description="this share of zeros in equal parts, one each time the window fires; what is pruned stays pruned",
    )
    random: Annotated[list[Level], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="[least, most]: a share drawn evenly between them, anew each time (Distiller)"
    )
    threshold: Annotated[float, Field(ge=0)] | None = Field(default=None, description="prunes |w| <= threshold")
    baidu: BaiduRate | None = None
    std: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="prunes |w| <= q std(w), of the weight as it is when first asked"
    )
    survivors_std: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="prunes |w| <= q std of the weights that are not zero, anew at each event (Han et al.)",
    )

    @property
    def by_threshold(self) -> bool:
        """Whether it is a threshold."""
        return all(share is None for share in (self.sparsity, self.agp, self.events, self.random))

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        if self.random is not None and self.random[0] > self.random[1]:
            raise ValueError(f"random should be [least, most], got {self.random}")
        return self


class Pruner(PrunerBase, name="Pruner"):
    """Any criterion x any structure x any rate: the single weights, filters, blocks ... of smallest score go.

    With `order: largest` or `random` and `rate: {events: s}` it is Prune_L and Prune_R, else Prune_S, of Bartoldson et
    al. 2020, "The Generalization-Stability Tradeoff In Neural Network Pruning".
    """

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

    criterion: CriterionName = Field(default="l1", description=MEANING)
    order: Order = Field(
        default="smallest", description="what goes first; other than by the smallest, what is pruned stays pruned"
    )
    batches: int = Field(
        default=8, ge=1, description="of training images, for the criteria that look at what the network makes of them"
    )
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
        by_threshold = self.rate.by_threshold
        own = (self.rate.threshold, self.rate.baidu, self.rate.survivors_std)
        if self.scope == "global" and any(rate is not None for rate in own):
            raise ValueError("`scope: global` takes weights together; this threshold is the same for all anyway")
        if by_threshold and self.structure != "Elements":
            raise ValueError("structures are ranked: their rate is one of `sparsity`, `agp`, `events`, `random`")
        if by_threshold and (self.order != "smallest" or self.criterion not in NORMS):
            raise ValueError("a threshold is one of |w|: `criterion` and `order` have no place beside it")
        given = self.model_fields_set
        if self.order == "random" and "criterion" in given:
            raise ValueError("`order: random` goes by no score: `criterion` has no place beside it")
        if "batches" in given and (self.statistic is None or self.criterion in OF_BATCH_NORMS):
            raise ValueError("`batches` is for criteria that look at images: it has no place beside others")
        if self.criterion in OF_OUTPUTS and (self.structure == "Blocks" or BY_NAME[self.structure].dim != 0):
            raise ValueError(
                f"`criterion: {self.criterion}` scores the outputs of a layer: structure should be Filters or Rows,"
                f" not {self.structure}"
            )
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

    @property
    def statistic(self) -> str | None:
        return None if self.criterion in NORMS or self.order == "random" else self.criterion

    @property
    def images(self) -> int:
        return self.batches

    def _going(
        self, window: Window, time: int, drawn: float | None = None
    ) -> tuple[float, Callable[[float, int], int]]:
        """The share of zeros (of a random one what is `drawn`, or else the least), and how many structures that is."""
        rate = self.rate.agp
        count: Callable[[float, int], int] = pruned_count if self.structure == "Elements" else structures_to_prune
        if rate is not None:
            return agp(rate.initial_sparsity, rate.final_sparsity, window, time), count
        if self.rate.random is not None:
            return self.rate.random[0] if drawn is None else drawn, count
        if self.rate.events is None:
            return self.rate.sparsity or 0.0, count
        final, number, firings = self.rate.events, window.number(time), window.firings
        spared = 0 if self.structure == "Elements" else 1
        return final * (number / firings), lambda _, total: min(
            total - left_after(final, total, number, firings), max(total - spared, 0)
        )

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        return self._goals(targets, window, time)

    def _goals(self, targets: Targets, window: Window, time: int, drawn: float | None = None) -> list[Goal]:
        if self.rate.by_threshold:
            return []
        names = targets["weights"]
        sparsity, count = self._going(window, time, drawn)
        if self.scope == "global":
            return [Goal(tuple(names), sparsity, self.ranks, count)]
        return [Goal((name,), sparsity, self.ranks, count) for name in names]

    def _epsilon(self, window: Window, time: int) -> float:
        if self.rate.baidu is None:
            return self.rate.threshold or 0.0
        ramp = self.rate.baidu
        return baidu(ramp.q, ramp.ramp_epoch_offset, ramp.ramp_slope_mult, window, time)

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        if self.rate.random is not None:
            return f"a share drawn between {self.rate.random[0]:g} and {self.rate.random[1]:g}"
        if self.rate.std is not None:
            return f"{self.rate.std:g} std"
        if self.rate.survivors_std is not None:
            return f"{self.rate.survivors_std:g} std of the survivors"
        by_threshold = self.rate.threshold is not None or self.rate.baidu is not None
        return f"{self._epsilon(window, time):.5g}" if by_threshold else None

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        names = asked.targets["weights"]
        span = self.rate.random
        drawn = None if span is None else span[0] + (span[1] - span[0]) * float(torch.rand(()))
        goals = self._goals(asked.targets, asked.window, asked.time, drawn)
        if not goals:
            return self._above_threshold(asked)
        final = self.rate.events is not None or self.order != "smallest"
        if self.structure == "Elements":
            rank = self._rank_of_elements if final or self.criterion not in NORMS else None
            score_of = None if rank is None else lambda name: rank(asked, name, final=final)
            return {name: mask for goal in goals for name, mask in keep_largest(asked, goal, score_of).items()}
        sparsity, count = self._going(asked.window, asked.time, drawn)
        if self.scope == "global":
            return keep_best_of_all(
                asked,
                names,
                self.ranks,
                lambda name: self._mean_score(asked, name),
                lambda total: count(sparsity, total),
                order=self.order,
                final=final,
            )
        if self.extends:
            names = asked.channels().closure(names, self.ranks.dim or 0)
        return keep_best(
            asked,
            names,
            self.ranks,
            lambda name: self._score(asked, name),
            lambda total: count(sparsity, total),
            order=self.order,
            final=final,
        )

    def _score(self, asked: Asked, name: str) -> Tensor:
        if self.order == "random":  # what they would have scored is not looked at
            return torch.zeros(self.ranks.index_shape(asked.weights[name].shape))
        return score(asked, name, self.ranks, self.criterion)

    def _rank_of_elements(self, asked: Asked, name: str, *, final: bool) -> Tensor:
        keep = asked.before(name) if final else None
        return preference(self._score(asked, name), self.order, None if keep is None else ~keep)

    def _mean_score(self, asked: Asked, name: str) -> Tensor:
        """Scores that do not favour large structures: norms divided by the size (l1) or its root (l2).

        Of the other criteria those that sum over a layer are divided by their L2 norm over it (Molchanov et al. 2017).
        """
        found = self._score(asked, name)
        size = self.ranks.size(asked.weights[name].shape)
        if self.criterion in NORMS:
            return found / (size if self.criterion == "l1" else math.sqrt(size))
        if self.criterion in ("taylor", "gradient", "feature_map", "running_feature_map"):
            return found / found.double().square().sum().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        return found

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
