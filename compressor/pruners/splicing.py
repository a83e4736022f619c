"""Distiller's version of dynamic network surgery (Guo, Yao and Chen, NIPS 2016): prune, and restore (splice)."""

import operator
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.pruners.pruner import PrunerBase, Request
from compressor.sparsity import compare, magnitudes
from compressor.timing import Window


class SplicingPruner(PrunerBase, name="SplicingPruner"):
    """Prune |w| < low base and restore |w| >= hi base; base = mean(|w|) + s std(|w|), taken once (Distiller).

    Between the two a weight stays as it is. Mean and deviation belong to the instance, the mask to the policy. It needs
    `use_double_copies`, so that pruned weights are still trained.
    """

    example: ClassVar[str] = """
    pruners:
      surgery:
        class: SplicingPruner
        low_thresh_mult: 0.9
        hi_thresh_mult: 1.1
        sensitivities: {conv1.weight: -0.5, 'fc*.weight': 0.5}
    policies:
      - pruner:
          instance_name: surgery
          args: {use_double_copies: true, mini_batch_pruning_frequency: 4, keep_mask: true}
        starting_epoch: 0
        ending_epoch: 10
    """

    needs_double_copies: ClassVar[bool] = True

    sensitivities: Annotated[dict[str, float], Selects()] = Field(
        min_length=1, description="s of each weight, the number of deviations above the mean |w|: {selector: s}"
    )
    low_thresh_mult: float = Field(ge=0, description="factor on the base below which a weight is pruned")
    hi_thresh_mult: float = Field(ge=0, description="factor on the base from which a weight is restored")
    sensitivity_multiplier: float = Field(
        default=0.0, ge=0, description="m, the growth of s by epoch: s becomes s (1 + m (t - t0)); default 0: constant"
    )

    def threshold(self, targets: Targets, window: Window, time: int) -> str:
        values = sorted({f"mean + {self._at(s, window, time):g} std" for s in targets["sensitivities"].values()})
        return f"{self.low_thresh_mult:g}..{self.hi_thresh_mult:g} x ({', '.join(values)})"

    def _at(self, sensitivity: float, window: Window, time: int) -> float:
        return sensitivity * (1 + self.sensitivity_multiplier * (time - window.first))

    def keep(self, request: Request) -> dict[str, Tensor]:
        masks: dict[str, Tensor] = {}
        memory = request.memory
        for name, sensitivity in request.targets["sensitivities"].items():
            magnitude = magnitudes(request.weights[name])
            if name not in memory:
                memory[name] = {"mean": float(magnitude.mean()), "std": float(magnitude.std())}
            base = memory[name]["mean"] + self._at(sensitivity, request.window, request.time) * memory[name]["std"]
            kept = request.before(name)
            stays = compare(magnitude, operator.lt, self.low_thresh_mult * base).logical_not_()
            if kept is not None:
                spliced = compare(magnitude, operator.ge, self.hi_thresh_mult * base)
                stays.logical_and_(spliced.logical_or_(kept))
            masks[name] = stays
        return masks
