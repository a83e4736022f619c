"""Distiller's StructureParameterPruner: structures below a threshold go."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.errors import did_you_mean
from compressor.pruners.pruner import Asked, PrunerBase, Shapes
from compressor.rates.window import Window
from compressor.sparsity.structures import BY_NAME, ELEMENTS


def _known(group: str) -> str:
    if group not in BY_NAME or BY_NAME[group] is ELEMENTS:
        raise ValueError(f"no group {group!r}: {did_you_mean(group, set(BY_NAME) - {'Elements'})}")
    return group


Regim = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[str, AfterValidator(_known)]], Field(strict=False)]
"""A threshold and a group."""


class StructureParameterPruner(PrunerBase, name="StructureParameterPruner"):
    """Prunes the structures whose largest (Max) or mean (Mean_Abs) |w| is at most a threshold (Distiller).

    Whole outputs go with their biases and batch norms. `Rows` are stored dim 0 in both versions, as in Distiller.
    """

    example: ClassVar[str] = """
    pruners:
      small: {class: StructureParameterPruner, reg_regims: {conv2.weight: [0.08, 3D]}, threshold_criteria: Mean_Abs}
    policies:
      - {pruner: {instance_name: small}, epochs: [0]}
    """

    reg_regims: Annotated[dict[str, Regim], Selects()] = Field(min_length=1, description="weight: [threshold, group]")
    threshold_criteria: Literal["Max", "Mean_Abs"]

    def misfits(self, targets: Targets, shapes: Shapes) -> list[str]:
        found = [(name, BY_NAME[group].misfit(shapes[name])) for name, (_, group) in targets["reg_regims"].items()]
        return [f"{name}: {why}" for name, why in found if why is not None]

    def whole_outputs(self, targets: Targets, names: Sequence[str]) -> list[str]:
        return [name for name, (_, group) in targets["reg_regims"].items() if BY_NAME[group].dim == 0]

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        values = sorted({threshold for threshold, _ in targets["reg_regims"].values()})
        return f"{self.threshold_criteria} {', '.join(f'{value:g}' for value in values)}"

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        masks = {}
        for name, (threshold, group) in asked.targets["reg_regims"].items():
            structure, weight = BY_NAME[group], asked.weights[name].detach()
            magnitude = weight.abs()
            if self.threshold_criteria == "Max":
                found = structure.largest(magnitude)
            else:
                found = structure.sums(magnitude) / structure.size(weight.shape)
            masks[name] = structure.expand(found > threshold, weight.shape)
        return masks
