"""Narang et al., "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017: a threshold that rises twice."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from compressor.component import Targets
from compressor.component import Weights as Selection
from compressor.pruners.pruner import Asked, PrunerBase
from compressor.rates.baidu import baidu
from compressor.rates.window import Window


class BaiduRNNPruner(PrunerBase, name="BaiduRNNPruner"):
    """Prunes |w| <= eps(t), which rises gently and, from the ramp on, `ramp_slope_mult` times as fast (Narang 2017)."""

    example: ClassVar[str] = """
    pruners:
      ramp: {class: BaiduRNNPruner, q: 0.05, ramp_epoch_offset: 3, ramp_slope_mult: 2, weights: ['fc*.weight']}
    policies:
      - {pruner: {instance_name: ramp}, starting_epoch: 0, ending_epoch: 20}
    """

    q: float = Field(ge=0, description="the magnitude that decides where the slopes end")
    ramp_epoch_offset: int = Field(ge=0)
    ramp_slope_mult: float = Field(ge=0)
    weights: Selection

    def _epsilon(self, window: Window, time: int) -> float:
        return baidu(self.q, self.ramp_epoch_offset, self.ramp_slope_mult, window, time)

    def threshold(self, targets: Targets, window: Window, time: int) -> str:
        return f"{self._epsilon(window, time):.5g}"

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        epsilon = self._epsilon(asked.window, asked.time)
        return {name: asked.weights[name].detach().abs() > epsilon for name in asked.targets["weights"]}
