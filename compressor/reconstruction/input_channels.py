"""The input channels of a layer: which inputs each has, as a flattened map has many; and which are pruned."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.context.context import Context
from compressor.errors import UserError
from compressor.sparsity.topk import structures_to_prune

Array = NDArray[np.float64]


class InputChannels:
    """`places` [channels, inputs]: the inputs of a weight's dim 1 that each channel has, `cells` what the graph calls
    it (-1: of no layer). Raises `UserError` where some channels have more inputs than others."""

    def __init__(self, ctx: Context, name: str) -> None:
        self.name, self._weight, graph = name, ctx.parameters[name], ctx.network.graph()
        cells = None if graph is None else graph.channels.cells.get((name, 1))
        if cells is None:
            cells = torch.full((self._weight.shape[1],), -1)
        together: dict[int, list[int]] = {}
        for place, cell in enumerate(cells.tolist()):
            together.setdefault(cell if cell >= 0 else -1 - place, []).append(place)
        sizes = {len(places) for places in together.values()}
        if len(sizes) > 1:
            raise UserError(f"{name} has channels of {min(sizes)} and of {max(sizes)} inputs: they cannot be compared")
        self.places = torch.tensor(list(together.values()))
        self.cells = cells[self.places[:, 0]]
        self.dense = int(ctx.network.dense.get(name, self._weight.shape)[1]) // self.places.shape[1]

    def alive(self) -> Tensor:
        """[channels]: those for which the weight has more than zeros."""
        inputs: Tensor = (self._weight.detach() != 0).transpose(0, 1).flatten(1).any(1).cpu()
        return inputs[self.places].any(1)

    def kept_by(self, mask: Tensor) -> Tensor:
        """[channels]: those that a mask of the weight leaves something of."""
        return mask.transpose(0, 1).flatten(1).any(1).cpu()[self.places].any(1)

    def due(self, sparsity: float) -> int:
        """How many are to be left of the dense network's."""
        return self.dense - structures_to_prune(sparsity, self.dense)

    def gather(self, values: Tensor, channels: Tensor) -> Array:
        """[first dim, channels, positions] of some channels, from [first dim, inputs, ...]."""
        found = values.detach().cpu().flatten(2) if values.dim() > 2 else values.detach().cpu().unsqueeze(2)
        return found[:, self.places[channels]].flatten(2).double().numpy()

    @torch.no_grad()
    def put(self, values: Array, channels: Tensor) -> None:
        """Let the weight be `values` [outputs, channels, positions] at some channels, and 0 at the others."""
        full = torch.zeros(len(self._weight), self._weight.shape[1], self._weight[0, 0].numel(), dtype=torch.float64)
        inputs = self.places[channels].flatten()
        full[:, inputs] = torch.from_numpy(values).reshape(len(full), len(inputs), -1)
        self._weight.copy_(full.view_as(self._weight))

    def keep(self, channels: Tensor) -> Tensor:
        """A mask of the weight that keeps some channels."""
        inputs = torch.zeros(self._weight.shape[1], dtype=torch.bool)
        inputs[self.places[channels].flatten()] = True
        return inputs.reshape(1, -1, *[1] * (self._weight.dim() - 2)).expand(self._weight.shape)
