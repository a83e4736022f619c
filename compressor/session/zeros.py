"""The zeros with which a run begins: how many there are, and the masks that hold them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.context import Network
from compressor.sparsity import bias_of, count_nonzero

SUBSTANTIAL = 0.01
"""The smallest fraction of zeros of a weight that counts: the padding row of an embedding does not."""


def zero_weights(parameters: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of zeros of every weight in which a substantial fraction of the entries is zero.

    A weight has two or more dims. Vectors do not count: biases and the gammas of batch norms may begin at 0, while no
    weight that was trained is exactly 0 by chance.
    """
    zeros = {name: tensor.numel() - count_nonzero(tensor) for name, tensor in parameters.items() if tensor.dim() > 1}
    return {
        name: count for name, count in zeros.items() if count > 0 and count >= SUBSTANTIAL * parameters[name].numel()
    }


@torch.no_grad()
def masks_of_zeros(network: Network) -> dict[str, Tensor]:
    """Return keep masks (true = stays) that hold all zeros of weights, and those of their companions.

    Of vectors only the entries are held that are zero together with a whole filter: its bias, and gamma and beta of the
    batch norms that read nothing else. Trained again, they would make the pruned channel a constant one.
    """
    keep = {name: p.detach() != 0 for name, p in network.parameters.items() if p.dim() > 1}
    keep = {name: mask for name, mask in keep.items() if not bool(mask.all())}
    pruned = {name: ~network.outputs_first(name, mask).flatten(1).any(1) for name, mask in keep.items()}
    pruned = {name: gone for name, gone in pruned.items() if bool(gone.any())}
    for name, gone in _companions(network, pruned).items():
        parameter = network.parameters.get(name)
        if parameter is not None and parameter.dim() == 1:
            keep[name] = ~(gone.to(parameter.device) & (parameter.detach() == 0))
    return {name: mask for name, mask in keep.items() if not bool(mask.all())}


def _companions(network: Network, pruned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the companions of filters (true = goes with them); without a graph the biases of their own layers."""
    graph = network.graph() if pruned else None
    if graph is None:
        return {bias_of(name): gone for name, gone in pruned.items()}
    return graph.companions(pruned)
