"""The running score of B. Bartoldson et al., NeurIPS 2020 (their code)."""

from typing import ClassVar

from torch import Tensor

from compressor.criteria.criterion import Given
from compressor.criteria.feature_map import FeatureMap
from compressor.sparsity.structures import Structure


class RunningFeatureMap(FeatureMap, name="running_feature_map"):
    """Score `feature_map` as a running mean in training: every tenth step r <- 0.9 r + 0.1 x (Bartoldson et al.
    2020).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"running_statistics"})

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        return given.running_statistics(name)
