"""The general form: any criterion, any structure, any allocation, any rate."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compressor.allocation import Allocation, AnyAllocation, Global, Uniform
from compressor.component import Targets
from compressor.component import Weights as Selection
from compressor.criteria import AnyCriterion, Criterion, L1Norm
from compressor.importing import import_all
from compressor.pruners.part import Order, Part
from compressor.pruners.parts_pruner import PartsPruner
from compressor.pruners.pruner import Shapes
from compressor.rates import AnyRate, Budget, BudgetGoal
from compressor.sparsity.structures import CHANNELS, ELEMENTS, FILTERS, AnyStructure, Blocks, Structure
from compressor.timing import Window

for _room in ("criteria", "allocation", "rates"):
    import_all(f"compressor.{_room}")  # so that each may be named

BlockSides = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]


class Pruner(PartsPruner, name="Pruner"):
    """Prune by any criterion x any structure x any rate: the single weights, filters, blocks ... of smallest score.

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

    criterion: AnyCriterion = Field(
        default=L1Norm(), description="score of a structure; those of smallest score are pruned first"
    )
    order: Order = Field(
        default="smallest",
        description="which structures are pruned first, by score; with largest and random, pruned structures stay"
        " pruned",
    )
    batches: int = Field(default=8, ge=1, description="number of calibration batches, for criteria that need them")
    structure: AnyStructure = Field(default=ELEMENTS, description="unit that is pruned; default: single weights")
    block_shape: BlockSides | None = Field(
        default=None, description="[filters, channels]: size of a block, for `structure: Blocks`; default: none"
    )
    scope: Literal["layer", "global", "coupled"] = Field(
        default="layer",
        description="layer: each weight by itself (coupled weights together, if they are selected);"
        " global: all together, by mean norms, not in equal groups;"
        " coupled: with all weights that share channels with the selected ones",
    )
    allocation: AnyAllocation | None = Field(
        default=None,
        description="how the sparsity is shared over layers, in place of `scope: layer` (uniform) and `global`;"
        " default: as `scope` says",
    )
    weights: Selection = Field(
        description="weights that are pruned: a name, a glob, re:EXPRESSION, type:CLASS or '*', or a list of them"
    )
    rate: AnyRate = Field(
        description="how much is pruned, by time: a sparsity, a threshold, or what is left after thinning"
    )

    @model_validator(mode="after")
    def _scope_or_allocation(self) -> Self:
        if self.allocation is not None and "scope" in self.model_fields_set and self.scope != "coupled":
            raise ValueError(
                f"`scope: {self.scope}` means `allocation: {self._allocation_of_scope.name}`: give one of the two keys"
            )
        return self

    @model_validator(mode="after")
    def _block_shape(self) -> Self:
        blocks = isinstance(self.structure, Blocks)
        if self.block_shape is not None and (not blocks or self.structure.model_fields_set):
            raise ValueError("`block_shape: [filters, channels]` belongs to `structure: Blocks`")
        if blocks and self.block_shape is None and not self.structure.model_fields_set:
            raise ValueError("`structure: Blocks` needs `block_shape: [filters, channels]`")
        return self

    @model_validator(mode="after")
    def _threshold(self) -> Self:
        if not self.rate.by_threshold:
            return self
        name, structure, allocation = self.rate.name, self.structure, self._allocation
        if not isinstance(allocation, Uniform) and not (self.rate.by_all and isinstance(allocation, Global)):
            raise ValueError(
                f"`rate: {name}` is a threshold that does not depend on the other weights: remove"
                f" `{self._written_allocation}`"
            )
        if self.order != "smallest" or not self.criterion.is_magnitude(structure):
            raise ValueError(
                f"`rate: {name}` is a threshold of magnitudes: with structure {structure.name} it needs `order:"
                f" smallest` and a criterion that is one (of Elements l1, of others max or mean_abs), or a rate that is"
                f" a sparsity"
            )
        return self

    @model_validator(mode="after")
    def _saves_time(self) -> Self:
        if isinstance(self.rate, Budget) and self.structure.dim is None:
            raise ValueError(
                f"`rate: {self.rate.name}` is what is left after thinning, and no channel is removed with structure"
                f" {self.structure.name}: its zeros save no time; use Filters, Channels, Rows or Cols"
            )
        return self

    @model_validator(mode="after")
    def _criterion_fits(self) -> Self:
        given = self.model_fields_set
        if self.order == "random" and "criterion" in given:
            raise ValueError("`order: random` does not use a score: remove `criterion`")
        if "batches" in given and (self.order == "random" or not self.criterion.needs_images):
            raise ValueError("`batches` is for criteria that need images: remove it")
        if self.criterion.of_outputs and self._structure.dim != 0:
            raise ValueError(
                f"`criterion: {self.criterion.name}` scores the outputs of a layer: structure should be Filters or"
                f" Rows, not {self.structure.name}"
            )
        return self

    @model_validator(mode="after")
    def _structure_fits(self) -> Self:
        if self.extends and self.structure.dim is None:
            raise ValueError(
                f"`scope: coupled` is for whole filters, channels, rows or columns, not {self.structure.name}"
            )
        if self.structure.whole and not self._allocation.needs_scores:
            raise ValueError("each weight is one structure: use `scope: global`, which ranks layers")
        return self

    @property
    def _allocation_of_scope(self) -> Allocation:
        return Global() if self.scope == "global" else Uniform()

    @property
    def _allocation(self) -> Allocation:
        return self._allocation_of_scope if self.allocation is None else self.allocation

    @property
    def _written_allocation(self) -> str:
        return f"scope: {self.scope}" if self.allocation is None else f"allocation: {self.allocation.name}"

    @property
    def _structure(self) -> Structure:
        if self.block_shape is not None:
            return Blocks(filters=self.block_shape[0], depth=self.block_shape[1])
        return self.structure

    @property
    def unit(self) -> Structure:
        if self.extends:  # rows may share their channels with a convolution's filters
            return {0: FILTERS, 1: CHANNELS}[self.structure.dim or 0]
        return self._structure

    @property
    def extends(self) -> bool:
        return self.scope == "coupled"

    @property
    def measured(self) -> Criterion | None:
        return None if self.order == "random" or self.criterion.needs <= {"weights"} else self.criterion

    @property
    def images(self) -> int:
        return self.batches

    def parts(self, targets: Targets) -> list[Part]:
        names = targets["weights"]
        return [
            Part(
                names,
                self.rate,
                criterion=None if self.order == "random" else self.criterion,
                structure=self.unit,
                allocation=self._allocation,
                order=self.order,
                extends=self.extends,
                together=names if self.rate.by_all and isinstance(self._allocation, Global) else (),
            )
        ]

    def budget(self, window: Window, time: int) -> BudgetGoal | None:
        return self.rate.now(window, time) if isinstance(self.rate, Budget) else None

    def misfits(self, targets: Targets, shapes: Shapes) -> list[str]:
        found = [(name, self._structure.misfit(shapes[name])) for name in targets["weights"]]
        return [f"{name}: {why}" for name, why in found if why is not None]

    def scale(self, window: Window, time: int) -> float | None:
        return self.rate.scale(window, time)
