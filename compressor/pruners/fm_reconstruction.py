"""Distiller's pruner of input channels that reconstructs the feature maps behind them.

He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017: step (ii) of it, least
squares; which channels go is not asked of a LASSO but of the L1 norms (Li et al. 2017). `channel_pruning` has both.
"""

from typing import ClassVar, Literal

from pydantic import Field

from compressor.pruners.distiller_ranked import OneShot
from compressor.pruners.pruner import Fit


class FMReconstructionChannelPruner(OneShot, name="FMReconstructionChannelPruner"):
    """Prunes a share of the input channels of smallest L1 norm; what stays is fitted to the old outputs (Distiller).

    Once, at the beginning of its epochs: W' = argmin ||Y - X W^T - b||_F^2 over training images, X what the layer is
    given at the channels that stay, Y what it gave; a bias is fitted where there is one. Layers are fitted one after
    the other, in the network's order. Filters that nobody reads any more go, too.
    """

    example: ClassVar[str] = """
    pruners:
      inputs:
        class: FMReconstructionChannelPruner
        group_type: Channels
        desired_sparsity: 0.5
        weights: [conv2.weight]
        batches: 2
    policies:
      - {pruner: {instance_name: inputs}, epochs: [0]}
    """

    group_type: Literal["Channels"] = Field(description="input channels")
    kwargs: None = None
    batches: int = Field(default=40, ge=1, description="training batches that are looked at")
    points: int = Field(default=10, ge=1, description="random positions of each image's map")

    @property
    def fit(self) -> Fit:
        return Fit(self.batches, self.points)
