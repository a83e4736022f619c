"""Distiller's pruners of single weights, and of structures by threshold: its names and arguments, as parts."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from compressor.allocation import Global, Uniform
from compressor.component import Selects, Targets
from compressor.component import Weights as Selection
from compressor.criteria import Largest, MeanAbs
from compressor.pruners.part import Part
from compressor.pruners.parts_pruner import PartsPruner
from compressor.pruners.pruner import Scope
from compressor.rates import AgpRate, BaiduRate, ConstantRate, ConstantThreshold, Positive, Sparsity, StdRate
from compressor.sparsity.structures import Group, Pair, groups
from compressor.timing import Window


class SparsityLevelParameterPruner(PartsPruner, name="SparsityLevelParameterPruner"):
    """Prune each weight to a constant sparsity, the smallest magnitudes first (Distiller)."""

    example: ClassVar[str] = """
    pruners:
      level: {class: SparsityLevelParameterPruner, levels: {conv1.weight: 0.5, 'fc*.weight': 0.9}}
    policies:
      - {pruner: {instance_name: level}, epochs: [0]}
    """

    scope: Scope = Field(
        default="layer",
        description="layer: each weight reaches the sparsity by itself; global: all weights together, ranked as one",
    )
    levels: Annotated[dict[str, Sparsity], Selects()] = Field(
        min_length=1, description="sparsity of each weight, a fraction: {selector: sparsity}"
    )

    def parts(self, targets: Targets) -> list[Part]:
        levels = targets["levels"]
        if self.scope == "layer":
            return [Part([name], ConstantRate(sparsity=level)) for name, level in levels.items()]
        together = {level: [name for name in levels if levels[name] == level] for level in levels.values()}
        return [Part(names, ConstantRate(sparsity=level), allocation=Global()) for level, names in together.items()]


class AutomatedGradualPruner(PartsPruner, name="AutomatedGradualPruner"):
    """Prune to a sparsity that rises along a cubic, fast at first (Zhu and Gupta 2017, arXiv 1710.01878)."""

    example: ClassVar[str] = """
    pruners:
      fine: {class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 0.8, weights: '*'}
    policies:
      - {pruner: {instance_name: fine}, starting_epoch: 0, ending_epoch: 20, frequency: 2}
    """

    scope: Scope = Field(
        default="layer",
        description="layer: each weight reaches the sparsity by itself; global: all weights together, ranked as one",
    )
    initial_sparsity: Sparsity = Field(
        default=0.0, description="sparsity at the first event of the window, a fraction; default 0: none"
    )
    final_sparsity: Sparsity = Field(
        description="sparsity from the last event of the window on: the fraction that is zero"
    )
    weights: Selection = Field(
        description="weights that are pruned: a name, a glob, re:EXPRESSION, type:CLASS or '*', or a list of them"
    )

    def parts(self, targets: Targets) -> list[Part]:
        rate = AgpRate(initial_sparsity=self.initial_sparsity, final_sparsity=self.final_sparsity)
        return [Part(targets["weights"], rate, allocation=Global() if self.scope == "global" else Uniform())]


class MagnitudeParameterPruner(PartsPruner, name="MagnitudeParameterPruner"):
    """Prune the weights with |w| <= threshold (Distiller)."""

    example: ClassVar[str] = """
    pruners:
      small: {class: MagnitudeParameterPruner, thresholds: {'*': 0.01, conv1.weight: 0.02}}
    policies:
      - {pruner: {instance_name: small}, starting_epoch: 0, ending_epoch: 10}
    """

    thresholds: Annotated[dict[str, Positive], Selects()] = Field(
        min_length=1, description="largest |w| that is pruned, in each weight: {selector: threshold}"
    )

    def parts(self, targets: Targets) -> list[Part]:
        return [Part([name], ConstantThreshold(value=value)) for name, value in targets["thresholds"].items()]


class SensitivityPruner(PartsPruner, name="SensitivityPruner"):
    """Prune |w| <= s * std(w), the deviation taken once, at the first event (Han et al. 2015; Distiller).

    With `scope: global` the deviation is that of all the weights together.
    """

    example: ClassVar[str] = """
    pruners:
      sensitivity: {class: SensitivityPruner, sensitivities: {conv1.weight: 0.25, 'fc*.weight': 0.5}}
    policies:
      - {pruner: {instance_name: sensitivity}, starting_epoch: 0, ending_epoch: 10, frequency: 2}
    """

    scope: Scope = Field(
        default="layer",
        description="whose deviation counts; layer: each weight's own; global: that of all of them together",
    )
    sensitivities: Annotated[dict[str, Positive], Selects()] = Field(
        min_length=1, description="s, the threshold in standard deviations, of each weight: {selector: s}"
    )

    def parts(self, targets: Targets) -> list[Part]:
        factors = targets["sensitivities"]
        together = list(factors) if self.scope == "global" else []
        return [Part([name], StdRate(factor=factor), together=together) for name, factor in factors.items()]


class BaiduRNNPruner(PartsPruner, name="BaiduRNNPruner"):
    """Prune |w| <= eps(t), which rises slowly and, from the ramp on, `ramp_slope_mult` times as fast (Narang 2017)."""

    example: ClassVar[str] = """
    pruners:
      ramp: {class: BaiduRNNPruner, q: 0.05, ramp_epoch_offset: 3, ramp_slope_mult: 2, weights: ['fc*.weight']}
    policies:
      - {pruner: {instance_name: ramp}, starting_epoch: 0, ending_epoch: 20}
    """

    q: float = Field(
        ge=0,
        description="q of the paper, from which the slopes of the threshold follow; there it is the 90th percentile"
        " of |w| of a trained dense network",
    )
    ramp_epoch_offset: int = Field(ge=0, description="number of epochs from the window's beginning to the ramp")
    ramp_slope_mult: float = Field(ge=0, description="factor on the threshold's slope from the ramp on")
    weights: Selection = Field(
        description="weights that are pruned: a name, a glob, re:EXPRESSION, type:CLASS or '*', or a list of them"
    )

    def parts(self, targets: Targets) -> list[Part]:
        offset, slope = self.ramp_epoch_offset, self.ramp_slope_mult
        return [Part(targets["weights"], BaiduRate(q=self.q, ramp_epoch_offset=offset, ramp_slope_mult=slope))]


ThresholdAndGroup = Annotated[tuple[Positive, Group], Field(strict=False), Pair("[threshold, group]")]


class StructureParameterPruner(PartsPruner, name="StructureParameterPruner"):
    """Prune the structures whose largest (Max) or mean (Mean_Abs) |w| is at most a threshold (Distiller).

    Whole outputs are pruned with their biases and batch norms. `Rows` are stored dim 0 in both versions, as in
    Distiller.
    """

    example: ClassVar[str] = """
    pruners:
      small: {class: StructureParameterPruner, reg_regims: {conv2.weight: [0.08, 3D]}, threshold_criteria: Mean_Abs}
    policies:
      - {pruner: {instance_name: small}, epochs: [0]}
    """

    reg_regims: Annotated[dict[str, ThresholdAndGroup], Selects()] = Field(
        min_length=1,
        description="threshold and unit of each weight: {selector: [threshold, group]}; groups: 2D, 3D, 4D,"
        " Channels, Rows, Cols, Filters",
    )
    threshold_criteria: Literal["Max", "Mean_Abs"] = Field(
        description="which |w| of a structure is compared with the threshold: the largest or the mean"
    )

    def parts(self, targets: Targets) -> list[Part]:
        criterion, known = Largest() if self.threshold_criteria == "Max" else MeanAbs(), groups()
        return [
            Part([name], ConstantThreshold(value=value), criterion, known[group])
            for name, (value, group) in targets["reg_regims"].items()
        ]

    def threshold(self, targets: Targets, window: Window, time: int) -> str:
        return f"{self.threshold_criteria} {super().threshold(targets, window, time)}"
