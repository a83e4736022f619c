"""The unit that is pruned: a set of entries of a weight that are kept or pruned together.

A weight of a convolution is (filters N, channels C, kernel height, kernel width), that of a linear layer (outputs,
inputs); that of a transposed convolution is turned first (`outputs_first`). A structure is a `view` of the weight and
the dims of that view over which one unit extends, so that norms are reductions and masks are broadcasts.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from compressor.component import REGISTRY, Component, Named
from compressor.sparsity.entries import magnitudes

Norm = Literal["l1", "l2"]

Shape = Sequence[int]

ANY = (2, 3, 4, 5)
"""The dims of the weights of linear layers and convolutions."""
CONVOLUTIONS = ANY[1:]


class Structure(Component):
    """A way to divide a weight into equal parts.

    The three class variables define most structures; `Blocks` shows how a view of another shape is made.
    """

    section: ClassVar[str] = "structures"
    weight_dims: ClassVar[tuple[int, ...]] = ANY
    """The numbers of dims that a weight may have."""
    members: ClassVar[tuple[int, ...]] = ()
    """The dims of the view that lie inside one structure; negative ones count from its end."""
    dim: ClassVar[int | None] = None
    """The dim of the weight whose entries the structures are (0: filters, rows; 1: channels, columns), or None."""

    @property
    def single(self) -> bool:
        """Return whether the entries of a weight are pruned one by one."""
        return not self.members

    @property
    def whole(self) -> bool:
        """Return whether the whole weight is one structure."""
        return {0, 1} <= set(self.members)

    @property
    def of_outputs(self) -> bool:
        """Return whether whole outputs of a layer are pruned, with their companion parameters."""
        return self.dim == 0 or self.whole

    def holds_outputs(self, shape: Shape) -> bool:
        """Return whether one structure has all weights of an output (dim 0) of a weight of this shape."""
        if self.of_outputs:
            return True
        if self.single or self.size(shape) < math.prod(shape[1:]):
            return False
        first = torch.zeros(self.index_shape(shape), dtype=torch.bool)
        first.view(-1)[:1] = True
        return bool(self.expand(first, shape).flatten(1).all(1).any())

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        """Return the shape in which `members` are whole dims.

        Args:
            shape: the weight's shape, outputs first.

        Returns:
            A shape of as many entries, by default the weight's own.
        """
        return tuple(shape)

    def misfit(self, shape: Shape) -> str | None:
        """Return why a weight cannot be divided like this.

        Args:
            shape: the weight's shape, outputs first.

        Returns:
            A sentence for the user; None where it can.
        """
        if len(shape) in self.weight_dims:
            return None
        kinds = {2: "linear layers", 3: "1-d convolutions", 4: "convolutions", 5: "3-d convolutions"}
        wanted = " and ".join(kinds[rank] for rank in self.weight_dims if rank in kinds)
        return f"{self.name} are structures of weights of {wanted}, this weight's shape is {'x'.join(map(str, shape))}"

    def _inside(self, shape: Shape) -> tuple[int, ...]:
        rank = len(self.view_shape(shape))
        return tuple(sorted(dim % rank for dim in self.members if -rank <= dim < rank))

    def index_shape(self, shape: Shape) -> tuple[int, ...]:
        """Return the shape of a tensor with one entry for each structure of a weight.

        Args:
            shape: the weight's shape, outputs first.

        Returns:
            The sides of `view_shape` that are not in `members`.
        """
        inside = self._inside(shape)
        return tuple(side for dim, side in enumerate(self.view_shape(shape)) if dim not in inside)

    def count(self, shape: Shape) -> int:
        """Return how many structures a weight has."""
        return math.prod(self.index_shape(shape))

    def size(self, shape: Shape) -> int:
        """Return how many entries one structure has."""
        return math.prod(self.view_shape(shape)) // max(self.count(shape), 1)

    def view(self, weight: Tensor) -> Tensor:
        """Return the weight in `view_shape`."""
        return weight.reshape(self.view_shape(weight.shape))

    @torch.no_grad()
    def norms(self, weight: Tensor, norm: Norm = "l2") -> Tensor:
        """Return the norm of each structure.

        Args:
            weight: the weight, outputs first.
            norm: `l1` or `l2`.

        Returns:
            A tensor in `index_shape`.
        """
        inside = self._inside(weight.shape)
        weight = weight.detach()
        if not inside:
            return magnitudes(weight)
        order = 1 if norm == "l1" else 2
        norms: Tensor = torch.linalg.vector_norm(self.view(weight), order, dim=inside)
        return norms

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each structure.

        Args:
            values: a tensor in the weight's shape.

        Returns:
            A tensor in `index_shape`.
        """
        inside = self._inside(values.shape)
        return self.view(values).sum(inside) if inside else values

    def largest(self, values: Tensor) -> Tensor:
        """Return the largest value in each structure.

        Args:
            values: a tensor in the weight's shape.

        Returns:
            A tensor in `index_shape`.
        """
        inside = self._inside(values.shape)
        return self.view(values).amax(inside) if inside else values

    def expand(self, index: Tensor, shape: Shape) -> Tensor:
        """Return one value for each entry of the weight from one value for each structure.

        Args:
            index: a tensor in `index_shape`.
            shape: the weight's shape, outputs first.

        Returns:
            A tensor in that shape.
        """
        view = self.view_shape(shape)
        inside = self._inside(shape)
        wide = index.reshape([1 if dim in inside else side for dim, side in enumerate(view)]).expand(view)
        return wide.reshape(tuple(shape))


AnyStructure = Annotated[Structure, Named("structure", "structures")]
"""A field that names a structure."""


def plain_structures() -> dict[str, Structure]:
    """Return the structures that take no arguments, by every name that they have."""
    made: dict[type[Component], Structure] = {}
    for cls in REGISTRY["structures"].values():
        if not cls.model_fields and issubclass(cls, Structure):
            made[cls] = cls()
    return {name: made[cls] for name, cls in REGISTRY["structures"].items() if cls in made}
