"""The mean activation, a baseline of P. Molchanov et al., ICLR 2017."""

from torch import Tensor

from compressor.criteria.activations import ActivationCriterion


class MeanActivation(ActivationCriterion, name="mean_activation"):
    """Score the mean output of the activation (Molchanov et al. 2017)."""

    def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
        return maps.flatten(2).mean(2)
