"""Distiller's pruner of input channels that reconstructs the feature maps of the layers.

He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017: step (ii) of it, least
squares. The channels are not chosen by a LASSO but by L1 norms (Li et al. 2017). `channel_pruning` has both.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from compressor.pruners.distiller_ranked import OneShot
from compressor.pruners.pruner import ReconstructionData


class FMReconstructionChannelPruner(OneShot, name="FMReconstructionChannelPruner"):
    """Prune the input channels of smallest L1 norm and reconstruct the layer's outputs by least squares (Distiller).

    Once, at the beginning of its epochs: W' = argmin ||Y - X W^T - b||_F^2 over training images, X the layer's inputs
    at the channels that stay, Y its old outputs; a bias is reconstructed where there is one. Layers are treated one
    after the other, in the network's order. Filters that no layer reads any more are pruned, too.
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

    group_type: Literal["Channels"] = Field(description="unit that is pruned: input channels")
    kwargs: None = Field(
        default=None, description="not used by this pruner: input channels have no block shape; leave it out"
    )
    batches: int = Field(default=40, ge=1, description="number of calibration batches whose outputs are reconstructed")
    points: int = Field(
        default=10, ge=1, description="number of random positions of each image's map at which outputs are compared"
    )

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        if "noise" not in arguments:  # the name that this one class of Distiller has for it
            arguments = {("noise" if key == "ranking_noise" else key): value for key, value in arguments.items()}
        return super().of_version_1(arguments)

    @property
    def reconstruction(self) -> ReconstructionData:
        return ReconstructionData(self.batches, self.points)
