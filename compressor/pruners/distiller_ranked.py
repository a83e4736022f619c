"""Distiller's pruners that rank structures, by norms, by data or at random: its names and arguments, as parts.

Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (L1 over filters). At once, or with AGP's sparsity.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from compressor.component import Settings, Targets
from compressor.component import Weights as Selection
from compressor.criteria import APoZ, Chance, Criterion, GradientCriterion, L1Norm, L2Norm, MeanActivation
from compressor.pruners.part import Part
from compressor.pruners.parts_pruner import PartsPruner
from compressor.rates import AgpRate, BernoulliRate, ConstantRate, RandomRate, Rate, Sparsity
from compressor.sparsity import Rounding
from compressor.sparsity.structures import Blocks, Structure, plain_structures
from compressor.timing import Window

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


class BlockShape(Settings):
    """The shape of blocks."""

    block_shape: list[int] = Field(
        min_length=4,
        max_length=4,
        description="[filters, channels, 1, 1]: size of a block, at one position of the kernel",
    )

    @model_validator(mode="after")
    def _at_one_place(self) -> Self:
        if min(self.block_shape) < 1 or self.block_shape[2:] != [1, 1]:
            raise ValueError(f"block_shape should be [filters, channels, 1, 1], got {self.block_shape}")
        return self


class Noise(Settings):
    """Noise on the scores of a ranker: a number is its relative deviation.

    In a version 1 schedule the number is a probability, as in Distiller: a ranking is drawn at random with it.
    """

    deviation: float = Field(
        default=0.0,
        ge=0,
        description="relative deviation: each score is multiplied by 1 + deviation * N(0, 1); default 0: none",
    )
    probability: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that a weight's structures are ranked at random, drawn at each event; default 0:"
        " never",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_number(cls, given: Any) -> Any:
        return given if isinstance(given, (Mapping, Noise)) else {"deviation": given}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        fields = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [{"type": "number", "minimum": 0}, fields]}


class RankedStructurePruner(PartsPruner):
    """Prune the structures of smallest score; at least one of each weight stays.

    Weights that share their channels, as in residual additions, are ranked as one by the sum of their scores.
    """

    by: ClassVar[Criterion] = L1Norm()

    group_type: Literal["Filters", "3D", "Channels", "Rows", "Cols", "Blocks"] = Field(
        description="the unit that is pruned; `Rows` in a version 1 schedule are stored columns, as in Distiller"
    )
    weights: Selection = Field(
        description="weights whose structures are pruned: a name, a glob, re:EXPRESSION, type:CLASS or '*', or a"
        " list of them"
    )
    group_dependency: Literal["Leader"] | None = Field(
        default=None,
        description="Leader: weights that share channels are ranked by the first of them; default: by the sum of"
        " their scores",
    )
    kwargs: BlockShape | None = Field(
        default=None,
        description="size of blocks, for `group_type: Blocks`: {block_shape: [filters, channels, 1, 1]}; default: none",
    )
    noise: Noise = Field(
        default=Noise(),
        description="relative noise on the scores: each is multiplied by 1 + noise * N(0, 1); in a version 1"
        " schedule the probability of a random ranking, as in Distiller; default: none",
    )
    group_size: int = Field(
        default=1, ge=1, description="structures are pruned in multiples of this number; default 1: any number"
    )
    rounding_fn: Rounding = Field(
        default="floor",
        description="how sparsity x number of structures becomes a whole number: down, up, or to the nearest",
    )

    @model_validator(mode="after")
    def _blocks(self) -> Self:
        if (self.group_type == "Blocks") != (self.kwargs is not None):
            raise ValueError("`kwargs: {block_shape: [filters, channels, 1, 1]}` belongs to `group_type: Blocks`")
        return self

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        arguments, said = _noise_of_version_1(arguments)
        if arguments.get("group_type") != "Rows":
            return arguments, said
        rows = "`group_type: Rows` ranks stored columns (inputs) in version 1, as Distiller's rankers do"
        return {**arguments, "group_type": "Cols"}, f"{rows}; {said}" if said else rows

    @property
    def reads_order(self) -> bool:
        return self.group_dependency == "Leader"

    @property
    def unit(self) -> Structure:
        if self.kwargs is not None:
            return Blocks(filters=self.kwargs.block_shape[0], depth=self.kwargs.block_shape[1])
        return plain_structures()[self.group_type]

    @property
    def rate(self) -> Rate:
        """Return the rate: how much is pruned."""
        raise TypeError(f"{type(self).__name__} has no rate")

    def parts(self, targets: Targets) -> list[Part]:
        return [
            Part(
                targets["weights"],
                self.rate,
                self.by,
                self.unit,
                rounding=self.rounding_fn,
                group_size=self.group_size,
                noise=self.noise.deviation,
                at_random=self.noise.probability,
                leader=self.group_dependency == "Leader",
            )
        ]

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        return self.rate.threshold(window, time)

    def scale(self, window: Window, time: int) -> float | None:
        return self.rate.scale(window, time)


def _noise_of_version_1(arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the arguments with `noise` as Distiller means it, and a remark where there is noise."""
    noise = arguments.get("noise", 0)
    if noise == 0:
        return arguments, None
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 1:
        return {**arguments, "noise": {"probability": noise}}, None  # a fault, which is said at its place
    said = f"`noise: {noise}` is in version 1 the probability of a random ranking, as in Distiller"
    return {**arguments, "noise": {"probability": noise}}, said


class OneShot(RankedStructurePruner):
    """Prune to the whole sparsity at the first event."""

    desired_sparsity: Sparsity = Field(description="fraction of the structures that is pruned, at the first event")

    @property
    def rate(self) -> Rate:
        return ConstantRate(sparsity=self.desired_sparsity)


class Gradual(RankedStructurePruner):
    """A sparsity that rises along AGP's cubic."""

    initial_sparsity: Sparsity = Field(
        default=0.0, description="sparsity at the first event of the window, a fraction; default 0: none"
    )
    final_sparsity: Sparsity = Field(
        description="sparsity from the last event of the window on: the fraction that is zero"
    )

    @property
    def rate(self) -> Rate:
        return AgpRate(initial_sparsity=self.initial_sparsity, final_sparsity=self.final_sparsity)


class L1RankedStructureParameterPruner(OneShot, name="L1RankedStructureParameterPruner"):
    """Prune a fraction of the filters (or channels, rows, columns, blocks), of smallest L1 norm (Li et al. 2017)."""

    example: ClassVar[str] = _example("L1RankedStructureParameterPruner")


class L2RankedStructureParameterPruner(OneShot, name="L2RankedStructureParameterPruner"):
    """Prune a fraction of the filters (or channels, rows, columns, blocks), of smallest L2 norm."""

    by: ClassVar[Criterion] = L2Norm()
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
    """Prune structures of smallest L1 norm, with the sparsity of automated gradual pruning (Zhu and Gupta 2017)."""

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
    """Prune structures of smallest L2 norm, with the sparsity of automated gradual pruning (Zhu and Gupta 2017)."""

    by: ClassVar[Criterion] = L2Norm()
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


class _OfFilters(RankedStructurePruner):
    group_type: Literal["Filters", "3D"] = Field(
        description="unit that is pruned: filters, ranked by their outputs (3D is Distiller's other name)"
    )
    kwargs: None = Field(
        default=None, description="not used by this ranking: filters have no block shape; leave it out"
    )
    batches: int = Field(
        default=8, ge=1, description="number of calibration batches on which the score is measured, at each event"
    )

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        return _noise_of_version_1(arguments)  # `Rows` are refused by that name

    @property
    def measured(self) -> Criterion:
        return self.by

    @property
    def images(self) -> int:
        return self.batches


class ActivationAPoZRankedFilterPruner(_OfFilters, OneShot, name="ActivationAPoZRankedFilterPruner"):
    """Prune a fraction of the filters, those whose activations are most often zero (APoZ, Hu et al. 2016)."""

    by: ClassVar[Criterion] = APoZ()
    example: ClassVar[str] = _example("ActivationAPoZRankedFilterPruner")


class ActivationAPoZRankedFilterPrunerAgp(_OfFilters, Gradual, name="ActivationAPoZRankedFilterPruner_AGP"):
    """Prune the filters whose activations are most often zero (Hu et al. 2016), with AGP's sparsity."""

    by: ClassVar[Criterion] = APoZ()
    example: ClassVar[str] = _example("ActivationAPoZRankedFilterPruner_AGP")


class ActivationMeanRankedFilterPruner(_OfFilters, OneShot, name="ActivationMeanRankedFilterPruner"):
    """Prune a fraction of the filters, those of lowest mean activation (Molchanov et al. 2017)."""

    by: ClassVar[Criterion] = MeanActivation()
    example: ClassVar[str] = _example("ActivationMeanRankedFilterPruner")


class ActivationMeanRankedFilterPrunerAgp(_OfFilters, Gradual, name="ActivationMeanRankedFilterPruner_AGP"):
    """Prune the filters of lowest mean activation (Molchanov et al. 2017), with AGP's sparsity."""

    by: ClassVar[Criterion] = MeanActivation()
    example: ClassVar[str] = _example("ActivationMeanRankedFilterPruner_AGP")


class GradientRankedFilterPruner(_OfFilters, OneShot, name="GradientRankedFilterPruner"):
    """Prune a fraction of the filters, of smallest |sum of w dL/dw|: the change of the loss, to first order."""

    by: ClassVar[Criterion] = GradientCriterion()
    example: ClassVar[str] = _example("GradientRankedFilterPruner")


class GradientRankedFilterPrunerAgp(_OfFilters, Gradual, name="GradientRankedFilterPruner_AGP"):
    """Prune the filters of smallest |sum of w dL/dw|, with AGP's sparsity."""

    by: ClassVar[Criterion] = GradientCriterion()
    example: ClassVar[str] = _example("GradientRankedFilterPruner_AGP")


class _ByChance(RankedStructurePruner):
    by: ClassVar[Criterion] = Chance()
    ignores: ClassVar[tuple[str, ...]] = ("noise",)

    @model_validator(mode="after")
    def _takes_them_all(self) -> Self:
        for key in self.ignores:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{self.name} draws at random and does not use {key!r}: remove it")
        return self


class RandomRankedFilterPruner(_ByChance, OneShot, name="RandomRankedFilterPruner"):
    """Prune a fraction of the filters (or channels, rows, columns, blocks), drawn again each time: a baseline."""

    example: ClassVar[str] = _example("RandomRankedFilterPruner")


class RandomRankedFilterPrunerAgp(_ByChance, Gradual, name="RandomRankedFilterPruner_AGP"):
    """Prune structures drawn again each time, with AGP's sparsity."""

    example: ClassVar[str] = _example("RandomRankedFilterPruner_AGP")


class RandomLevelStructureParameterPruner(_ByChance, name="RandomLevelStructureParameterPruner"):
    """Prune randomly drawn structures, to a sparsity that is drawn evenly from a range (Distiller)."""

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

    sparsity_range: list[Sparsity] = Field(
        min_length=2, max_length=2, description="[least, most]: range from which the sparsity is drawn, at each event"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.sparsity_range[0] > self.sparsity_range[1]:
            raise ValueError(f"sparsity_range should be [least, most], got {self.sparsity_range}")
        return self

    @property
    def rate(self) -> Rate:
        return RandomRate(between=self.sparsity_range)


class _Bernoulli(_ByChance):
    by: ClassVar[Criterion] = Chance(zeros_first=False)
    ignores: ClassVar[tuple[str, ...]] = ("noise", "group_size", "rounding_fn")


class BernoulliFilterPruner(_Bernoulli, OneShot, name="BernoulliFilterPruner"):
    """Prune each filter with a probability, drawn again each time: DropFilter (Chen et al. 2018), as in Distiller.

    Chen, Niu and Tian, arXiv 1810.09849. Where a draw is used for one step (`discard_masks_at_minibatch_end`) the
    weights that stay are scaled by 1 / (1 - p) in it. Pruned weights return with their values with `use_double_copies`,
    else from 0.
    """

    example: ClassVar[str] = _example("BernoulliFilterPruner")

    @property
    def rate(self) -> Rate:
        return BernoulliRate(probability=self.desired_sparsity)


class BernoulliFilterPrunerAgp(_Bernoulli, Gradual, name="BernoulliFilterPruner_AGP"):
    """Prune each filter with a probability that rises as AGP's sparsity does."""

    example: ClassVar[str] = _example("BernoulliFilterPruner_AGP", "use_double_copies: true, keep_mask: true")

    @property
    def rate(self) -> Rate:
        return BernoulliRate(probability=self.final_sparsity, initial=self.initial_sparsity)
