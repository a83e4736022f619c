"""Pruning to a share of zeros: the smallest |w| go, exactly floor(s * n) of them."""

from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.component import Weights as Selection
from compressor.pruners.pruner import Asked, Goal, PrunerBase, Scope
from compressor.rates.agp import agp
from compressor.rates.window import Window
from compressor.sparsity.topk import smallest

Level = Annotated[float, Field(ge=0, le=1)]


class LevelPruner(PrunerBase):
    """Magnitude pruning to the sparsities of `goals`. With `scope: global` weights of one level are ranked together."""

    scope: Scope = "layer"

    def levels_at(self, targets: Targets, window: Window, time: int) -> dict[str, float]:
        """Sparsity by weight name at `time`."""
        raise TypeError(f"{type(self).__name__} has no levels")

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        levels = self.levels_at(targets, window, time)
        if self.scope == "layer":
            return [Goal((name,), level) for name, level in levels.items()]
        together: dict[float, list[str]] = defaultdict(list)
        for name, level in levels.items():
            together[level].append(name)
        return [Goal(tuple(names), level) for level, names in together.items()]

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = {}
        for goal in self.goals(asked.targets, asked.window, asked.time):
            masks.update(keep_largest(asked, goal))
        return masks


def keep_largest(asked: Asked, goal: Goal, score_of: Callable[[str], Tensor] | None = None) -> dict[str, Tensor]:
    """The masks that reach a goal over single entries: those of smallest score go, by default of smallest |w|.

    What was removed from the weights counts as zeros.
    """
    weights, removed = asked.weights, sum(map(asked.removed, goal.names))
    score_of = score_of or (lambda name: weights[name].detach().abs())
    if len(goal.names) == 1:
        score = score_of(goal.names[0])
        going = goal.count(goal.sparsity, score.numel() + removed) - removed
        return {goal.names[0]: smallest(score, going).logical_not_()}
    score = torch.cat([score_of(name).flatten() for name in goal.names])
    keep = smallest(score, goal.count(goal.sparsity, score.numel() + removed) - removed).logical_not_()
    parts = torch.split(keep, [weights[name].numel() for name in goal.names])
    return {name: part.view(weights[name].shape) for name, part in zip(goal.names, parts, strict=True)}


class SparsityLevelParameterPruner(LevelPruner, name="SparsityLevelParameterPruner"):
    """Prunes each weight to a constant sparsity, the smallest magnitudes first (Distiller)."""

    example: ClassVar[str] = """
    pruners:
      level: {class: SparsityLevelParameterPruner, levels: {conv1.weight: 0.5, 'fc*.weight': 0.9}}
    policies:
      - {pruner: {instance_name: level}, epochs: [0]}
    """

    levels: Annotated[dict[str, Level], Selects()] = Field(min_length=1)

    def levels_at(self, targets: Targets, window: Window, time: int) -> dict[str, float]:
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
    weights: Selection

    def levels_at(self, targets: Targets, window: Window, time: int) -> dict[str, float]:
        sparsity = agp(self.initial_sparsity, self.final_sparsity, window, time)
        return dict.fromkeys(targets["weights"], sparsity)
