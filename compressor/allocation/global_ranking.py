"""One ranking of all layers."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from compressor.allocation.allocation import Allocation, Goal, Layer
from compressor.sparsity import joined, smallest


class Global(Allocation, name="global"):
    """Prune the smallest scores of all layers together; each layer keeps its best structure."""

    needs_scores: ClassVar[bool] = True

    def counts(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor] | None = None) -> list[int]:
        assert scores is not None
        chosen = self.chosen(layers, goal, scores)
        return [int(pruned.sum()) + layer.removed for pruned, layer in zip(chosen, layers, strict=True)]

    def chosen(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor]) -> list[Tensor]:
        every = joined(scores)
        due = goal.count(sum(layer.count for layer in layers)) - sum(layer.removed for layer in layers)
        if any(layer.spare for layer in layers):
            free = torch.ones(len(every), dtype=torch.bool, device=every.device)
            end = 0
            for layer, score in zip(layers, scores, strict=True):
                end += len(score)
                if layer.spare:
                    free[end - 1 - int(score.flip(0).argmax())] = False
            pruned = torch.zeros_like(free)
            pruned[free] = smallest(every[free], due)
        else:
            pruned = smallest(every, due)
        return list(torch.split(pruned, [len(score) for score in scores]))
