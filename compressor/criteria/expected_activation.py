"""The mean output of a relu after a batch norm, if its input were normal (Bartoldson et al., NeurIPS 2020)."""

from torch import Tensor

from compressor.criteria.bn_scale import BatchNormScale
from compressor.criteria.criterion import BatchNorm
from compressor.sparsity import expected_relu


class ExpectedActivation(BatchNormScale, name="expected_activation"):
    """Score E relu(N(beta, gamma^2)) of the batch norm that follows a layer; the sum where several read its outputs."""

    def of(self, norm: BatchNorm) -> Tensor:
        return expected_relu(norm.shift, norm.scale.abs())
