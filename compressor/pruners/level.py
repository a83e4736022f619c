"""Pruning to a share of zeros: the smallest |w| go, exactly floor(s * n) of them."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from compressor.component import Selects, Targets, Weights
from compressor.pruners.pruner import Pruner
from compressor.rates.agp import agp
from compressor.rates.window import Window
from compressor.sparsity.topk import pruned_count, smallest

Level = Annotated[float, Field(ge=0, le=1)]


class LevelPruner(Pruner):
    """Magnitude pruning, tensor by tensor, to the sparsities of `goals`."""

    def keep(
        self,
        weights: Mapping[str, Tensor],
        targets: Targets,
        window: Window,
        epoch: int,
        memory: dict[str, Any],
    ) -> dict[str, Tensor]:
        goals = self.goals(targets, window, epoch)
        return {
            name: ~smallest(weights[name].abs(), pruned_count(sparsity, weights[name].numel()))
            for name, sparsity in goals.items()
        }


class SparsityLevelParameterPruner(LevelPruner, name="SparsityLevelParameterPruner"):
    """Prunes each weight to a constant sparsity, the smallest magnitudes first (Distiller)."""

    example: ClassVar[str] = """
    pruners:
      level: {class: SparsityLevelParameterPruner, levels: {conv1.weight: 0.5, 'fc*.weight': 0.9}}
    policies:
      - {pruner: {instance_name: level}, epochs: [0]}
    """

    levels: Annotated[dict[str, Level], Selects()] = Field(min_length=1)

    def goals(self, targets: Targets, window: Window, epoch: int) -> dict[str, float]:
        return dict(targets["levels"])


class AutomatedGradualPruner(LevelPruner, name="AutomatedGradualPruner"):
    """Automated gradual pruning (Zhu and Gupta 2017, arXiv 1710.01878): sparsity rises along a cubic, fast at first."""

    example: ClassVar[str] = """
    pruners:
      fine: {class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 0.8, weights: '*'}
    policies:
      - {pruner: {instance_name: fine}, starting_epoch: 0, ending_epoch: 20, frequency: 2}
    """

    initial_sparsity: Level = 0.0
    final_sparsity: Level
    weights: Weights

    def goals(self, targets: Targets, window: Window, epoch: int) -> dict[str, float]:
        sparsity = agp(self.initial_sparsity, self.final_sparsity, window, epoch)
        return dict.fromkeys(targets["weights"], sparsity)
