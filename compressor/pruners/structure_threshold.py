"""Distiller's StructureParameterPruner: structures below a threshold go."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.errors import did_you_mean
from compressor.pruners.pruner import Asked, PrunerBase
from compressor.rates.window import Window
from compressor.sparsity.structures import BY_NAME, ELEMENTS, Structure

GROUPS = {name: structure for name, structure in BY_NAME.items() if structure is not ELEMENTS}


def _known(group: str) -> str:
    if group not in GROUPS:
        raise ValueError(f"no group {group!r}: {did_you_mean(group, GROUPS)}")
    return group


def _is_pair(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("should be [threshold, group]")
    return value


_SCHEMA = {
    "type": "array",
    "minItems": 2,
    "maxItems": 2,
    "items": {"anyOf": [{"type": "number", "minimum": 0}, {"enum": list(GROUPS)}]},
}

Regim = Annotated[
    tuple[Annotated[float, Field(ge=0)], Annotated[str, AfterValidator(_known)]],
    Field(strict=False),
    BeforeValidator(_is_pair),
    WithJsonSchema(_SCHEMA),
]
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

    def cuts(self, targets: Targets) -> dict[str, Structure]:
        return {name: GROUPS[group] for name, (_, group) in targets["reg_regims"].items()}

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        values = sorted({threshold for threshold, _ in targets["reg_regims"].values()})
        return f"{self.threshold_criteria} {', '.join(f'{value:g}' for value in values)}"

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        masks = {}
        for name, (threshold, group) in asked.targets["reg_regims"].items():
            structure, weight = GROUPS[group], asked.weights[name].detach()
            magnitude = weight.abs()
            if self.threshold_criteria == "Max":
                found = structure.largest(magnitude)
            else:
                found = structure.sums(magnitude) / structure.size(weight.shape)
            masks[name] = structure.expand(found > threshold, weight.shape)
        return masks
