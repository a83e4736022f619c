"""The input columns of each channel of a layer (a flattened map has several), and which channels are pruned."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.context import Context
from compressor.errors import UserError
from compressor.sparsity import structures_to_prune

Array = NDArray[np.float64]


def inputs_by_channel(cells: Tensor) -> list[list[int]]:
    """Return the inputs of each channel, given the cells of a layer's inputs (-1: a channel of its own)."""
    together: dict[int, list[int]] = {}
    for place, cell in enumerate(cells.tolist()):
        together.setdefault(cell if cell >= 0 else -1 - place, []).append(place)
    return list(together.values())


def uneven(name: str, places: Sequence[Sequence[int]]) -> str | None:
    """Return in words why channels with these inputs cannot be compared; None where all have the same number."""
    sizes = {len(of_one) for of_one in places}
    if len(sizes) < 2:
        return None
    return f"{name} has channels of {min(sizes)} and of {max(sizes)} inputs: they cannot be compared"


class InputChannels:
    """The input channels of a weight. Raises `UserError` where some channels have more inputs than others.

    `places` [channels, inputs]: the inputs in the weight's dim 1 of each channel, `cells` their cells in the graph (-1:
    of no layer).
    """

    def __init__(self, ctx: Context, name: str) -> None:
        self.name, self._weight, graph = name, ctx.parameters[name], ctx.network.graph()
        cells = None if graph is None else graph.channels.cells.get((name, 1))
        if cells is None:
            cells = torch.full((self._weight.shape[1],), -1)
        together = inputs_by_channel(cells)
        if (why := uneven(name, together)) is not None:
            raise UserError(why)
        self.places = torch.tensor(together)
        self.cells = cells[self.places[:, 0]]
        self.dense = int(ctx.network.dense.get(name, self._weight.shape)[1]) // self.places.shape[1]

    def alive(self) -> Tensor:
        """Return [channels]: those for which the weight is not all zero."""
        inputs: Tensor = (self._weight.detach() != 0).transpose(0, 1).flatten(1).any(1).cpu()
        return inputs[self.places].any(1)

    def kept_by(self, mask: Tensor) -> Tensor:
        """Return [channels]: those of which a mask of the weight keeps something."""
        return mask.transpose(0, 1).flatten(1).any(1).cpu()[self.places].any(1)

    def due(self, sparsity: float) -> int:
        """Return how many channels of the dense network stay."""
        return self.dense - structures_to_prune(sparsity, self.dense)

    def gather(self, values: Tensor, channels: Tensor) -> Array:
        """Return [first dim, channels, positions] of some channels, from [first dim, inputs, ...]."""
        found = values.detach().cpu().flatten(2) if values.dim() > 2 else values.detach().cpu().unsqueeze(2)
        return found[:, self.places[channels]].flatten(2).double().numpy()

    @torch.no_grad()
    def put(self, values: Array, channels: Tensor) -> None:
        """Set the weight to `values` [outputs, channels, positions] at some channels, and to 0 at the others."""
        full = torch.zeros(len(self._weight), self._weight.shape[1], self._weight[0, 0].numel(), dtype=torch.float64)
        inputs = self.places[channels].flatten()
        full[:, inputs] = torch.from_numpy(values).reshape(len(full), len(inputs), -1)
        self._weight.copy_(full.view_as(self._weight))

    def keep(self, channels: Tensor) -> Tensor:
        """Return a mask of the weight that keeps some channels."""
        inputs = torch.zeros(self._weight.shape[1], dtype=torch.bool)
        inputs[self.places[channels].flatten()] = True
        return inputs.reshape(1, -1, *[1] * (self._weight.dim() - 2)).expand(self._weight.shape)
