"""The general form: any criterion, any structure, any rate."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import Settings, Targets
from compressor.component import Weights as Selection
from compressor.pruners.level import Level, LevelPruner
from compressor.pruners.pruner import Goal, Remembered, Weights
from compressor.pruners.threshold import keep_above_deviation
from compressor.rates.agp import agp
from compressor.rates.baidu import baidu
from compressor.rates.window import Window


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
    """How much: exactly one of a sparsity (`sparsity`, `agp`) or a threshold (`threshold`, `baidu`, `std`)."""

    sparsity: Level | None = Field(default=None, description="a constant share of zeros")
    agp: AgpRate | None = None
    threshold: Annotated[float, Field(ge=0)] | None = Field(default=None, description="prunes |w| <= threshold")
    baidu: BaiduRate | None = None
    std: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="prunes |w| <= q std(w), of the weight as it is when first asked"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self


class Pruner(LevelPruner, name="Pruner"):
    """Any criterion x any structure x any rate. So far: magnitude (`l1`) of single elements."""

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

    criterion: Literal["l1"] = "l1"
    structure: Literal["Elements"] = "Elements"
    weights: Selection
    rate: Rate

    @model_validator(mode="after")
    def _scope_fits(self) -> Self:
        if self.scope == "global" and (self.rate.threshold is not None or self.rate.baidu):
            raise ValueError("`scope: global` takes weights together; this threshold is the same for all anyway")
        return self

    def levels_at(self, targets: Targets, window: Window, time: int) -> dict[str, float]:
        rate = self.rate
        if rate.agp is not None:
            return dict.fromkeys(
                targets["weights"], agp(rate.agp.initial_sparsity, rate.agp.final_sparsity, window, time)
            )
        return dict.fromkeys(targets["weights"], rate.sparsity or 0.0)

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        by_sparsity = self.rate.agp is not None or self.rate.sparsity is not None
        return super().goals(targets, window, time) if by_sparsity else []

    def _epsilon(self, window: Window, time: int) -> float:
        if self.rate.baidu is None:
            return self.rate.threshold or 0.0
        ramp = self.rate.baidu
        return baidu(ramp.q, ramp.ramp_epoch_offset, ramp.ramp_slope_mult, window, time)

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        if self.rate.std is not None:
            return f"{self.rate.std:g} std"
        by_threshold = self.rate.threshold is not None or self.rate.baidu is not None
        return f"{self._epsilon(window, time):.5g}" if by_threshold else None

    def keep(
        self, weights: Weights, targets: Targets, window: Window, time: int, memory: Remembered
    ) -> dict[str, Tensor]:
        if self.goals(targets, window, time):
            return super().keep(weights, targets, window, time, memory)
        names = targets["weights"]
        if self.rate.std is not None:
            return keep_above_deviation(weights, dict.fromkeys(names, self.rate.std), self.scope, memory)
        epsilon = self._epsilon(window, time)
        return {name: weights[name].detach().abs() > epsilon for name in names}
