"""By what structures are ranked: the one of the smallest score goes first."""

from typing import Literal

from torch import Tensor

from compressor.pruners.pruner import Asked
from compressor.sparsity.structures import Structure

CriterionName = Literal[
    "l1",
    "l2",
    "gradient",
    "taylor",
    "apoz",
    "mean_activation",
    "feature_map",
    "running_feature_map",
    "bn_scale",
    "expected_activation",
]

NORMS = ("l1", "l2")
OF_BATCH_NORMS = ("bn_scale", "expected_activation")
"""Those that are numbers of the batch norm behind a layer."""
BEHIND_ACTIVATIONS = ("taylor", "apoz", "mean_activation")
"""Those that are numbers of what an activation gives."""
OF_OUTPUTS = tuple(name for name in CriterionName.__args__ if name not in (*NORMS, "gradient"))  # type: ignore[attr-defined]
"""Those that have one number for each output of a layer: for filters and rows alone."""

MEANING = (
    "l1, l2: the structure's norm; gradient: |sum of w dL/dw|; and of the outputs of a layer: taylor: the mean over"
    " images of |mean over positions of a dL/da| (Molchanov 2017); apoz: 1 - the share of zeros behind the activation"
    " (Hu 2016); mean_activation: the mean there; feature_map: the mean of sum |x| before it, running_feature_map: its"
    " running mean in training (Bartoldson 2020); bn_scale: |gamma| (Liu 2017); expected_activation: E relu(N(beta,"
    " gamma^2)) of the batch norm behind"
)


def score(asked: Asked, name: str, structure: Structure, criterion: CriterionName) -> Tensor:
    """A number for each structure of a weight."""
    weight = asked.weights[name]
    if criterion == "l1" or criterion == "l2":
        return structure.norms(weight, criterion)
    found = asked.statistics(criterion, name)
    if criterion == "gradient":
        return structure.sums(weight.detach() * found.to(weight.device)).abs()
    return 1 - found if criterion == "apoz" else found
