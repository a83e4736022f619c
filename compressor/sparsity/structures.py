"""The structures that weights are pruned by, as views of a tensor.

A weight of a convolution is (filters N, channels C, kernel height, kernel width), that of a linear layer (outputs,
inputs). A structure is a set of entries that live and die together; every structure here is a `view` of the weight and
the dims of that view over which one structure runs, so that norms are reductions and masks are broadcasts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["l1", "l2"]

Shape = Sequence[int]


@dataclass(frozen=True)
class Structure:
    """A way to cut a weight into equal parts.

    `dim` is the dim of the weight whose entries the structures are (0: filters, rows; 1: channels, columns), None where
    they are not the slices of one dim.
    """

    name: str
    ranks: tuple[int, ...]
    """How many dims a weight may have that is cut this way."""
    members: tuple[int, ...] = ()
    """The dims of the view that run inside one structure; negative ones count from its end."""
    dim: int | None = None

    @property
    def of_outputs(self) -> bool:
        """Whether outputs of a layer go as wholes, with all that makes them."""
        return self.dim == 0 or {0, 1} <= set(self.members)

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        """The shape in which `members` are whole dims."""
        return tuple(shape)

    def misfit(self, shape: Shape) -> str | None:
        """Why a weight of this shape cannot be cut so; None where it can."""
        if len(shape) in self.ranks:
            return None
        kinds = {2: "linear layers", 3: "1-d convolutions", 4: "convolutions", 5: "3-d convolutions"}
        wanted = " and ".join(kinds[rank] for rank in self.ranks if rank in kinds)
        return f"{self.name} are structures of the weights of {wanted}, this one is {'x'.join(map(str, shape))}"

    def _inside(self, shape: Shape) -> tuple[int, ...]:
        rank = len(self.view_shape(shape))
        return tuple(sorted(dim % rank for dim in self.members if -rank <= dim < rank))

    def index_shape(self, shape: Shape) -> tuple[int, ...]:
        """How the structures of a weight are indexed."""
        inside = self._inside(shape)
        return tuple(side for dim, side in enumerate(self.view_shape(shape)) if dim not in inside)

    def count(self, shape: Shape) -> int:
        """How many structures there are."""
        return math.prod(self.index_shape(shape))

    def size(self, shape: Shape) -> int:
        """How many entries one of them has."""
        return math.prod(self.view_shape(shape)) // max(self.count(shape), 1)

    def view(self, weight: Tensor) -> Tensor:
        """The weight in `view_shape`."""
        return weight.reshape(self.view_shape(weight.shape))

    @torch.no_grad()
    def norms(self, weight: Tensor, criterion: Criterion = "l2") -> Tensor:
        """The L1 or L2 norm of each structure, in `index_shape`."""
        inside = self._inside(weight.shape)
        weight = weight.detach()
        if not inside:
            return weight.abs()
        order = 1 if criterion == "l1" else 2
        norms: Tensor = torch.linalg.vector_norm(self.view(weight), order, dim=inside)
        return norms

    def sums(self, values: Tensor) -> Tensor:
        """The sum over each structure of a tensor in the weight's shape, in `index_shape`."""
        inside = self._inside(values.shape)
        return self.view(values).sum(inside) if inside else values

    def largest(self, values: Tensor) -> Tensor:
        """The largest value in each structure of a tensor in the weight's shape, in `index_shape`."""
        inside = self._inside(values.shape)
        return self.view(values).amax(inside) if inside else values

    def expand(self, index: Tensor, shape: Shape) -> Tensor:
        """One value a structure (in `index_shape`) to one an entry of the weight."""
        view = self.view_shape(shape)
        inside = self._inside(shape)
        wide = index.reshape([1 if dim in inside else side for dim, side in enumerate(view)]).expand(view)
        return wide.reshape(tuple(shape))


_ANY = (2, 3, 4, 5)
_CONV = (3, 4, 5)

ELEMENTS = Structure("Elements", (1, *_ANY))
KERNELS = Structure("2D", _CONV, members=(2, 3, 4))
FILTERS = Structure("Filters", _ANY, members=(1, 2, 3, 4), dim=0)
CHANNELS = Structure("Channels", _ANY, members=(0, 2, 3, 4), dim=1)
ROWS = Structure("Rows", (2,), members=(1,), dim=0)
COLS = Structure("Cols", (2,), members=(0,), dim=1)
LAYER = Structure("4D", _ANY, members=(0, 1, 2, 3, 4))
SHAPES = Structure("Shapes", _ANY, members=(0,))
"""SSL's fibers: the weights of all filters at one (channel, row, column), a column of the im2col matrix."""

BY_NAME = {
    **{structure.name: structure for structure in (ELEMENTS, KERNELS, FILTERS, CHANNELS, ROWS, COLS, LAYER, SHAPES)},
    "Kernels": KERNELS,
    "3D": FILTERS,
    "Layer": LAYER,
}
"""Every structure without parameters, by all names that schedules give it (2D, 3D and 4D are Distiller's)."""


@dataclass(frozen=True)
class Blocks(Structure):
    """Blocks of `filters` x `depth`: so many neighbouring filters and channels at one place of the kernel."""

    name: str = "Blocks"
    ranks: tuple[int, ...] = _ANY
    members: tuple[int, ...] = (1, 3)
    filters: int = 1
    depth: int = 1

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        return (shape[0] // self.filters, self.filters, shape[1] // self.depth, self.depth, *shape[2:])

    def misfit(self, shape: Shape) -> str | None:
        if (said := super().misfit(shape)) is not None:
            return said
        if shape[0] % self.filters or shape[1] % self.depth:
            return f"blocks of {self.filters} filters x {self.depth} channels do not divide {shape[0]} x {shape[1]}"
        return None


@dataclass(frozen=True)
class Taps(Structure):
    """Strided taps (Anwar et al. 2017): of one channel, in all filters, the taps k, k + stride, ... in raster order."""

    name: str = "Taps"
    ranks: tuple[int, ...] = _CONV
    members: tuple[int, ...] = (0, 2)
    stride: int = 2

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        taps = math.prod(shape[2:])
        return (shape[0], shape[1], -(-taps // self.stride), self.stride)

    def misfit(self, shape: Shape) -> str | None:
        if (said := super().misfit(shape)) is not None:
            return said
        taps = math.prod(shape[2:])
        return f"a kernel of {taps} taps has no stride of {self.stride}" if self.stride > taps else None

    def size(self, shape: Shape) -> int:
        """Of the smallest ones: where the stride does not divide the taps, the later ones have a tap less a filter."""
        return int(shape[0]) * (math.prod(shape[2:]) // self.stride)

    def view(self, weight: Tensor) -> Tensor:
        filters, channels, rows, stride = self.view_shape(weight.shape)
        flat = weight.reshape(filters, channels, -1)
        missing = rows * stride - flat.shape[2]
        return torch.nn.functional.pad(flat, (0, missing)).reshape(filters, channels, rows, stride)

    def expand(self, index: Tensor, shape: Shape) -> Tensor:
        filters, channels, rows, stride = self.view_shape(shape)
        wide = index.reshape(1, channels, 1, stride).expand(filters, channels, rows, stride)
        taps = math.prod(shape[2:])
        return wide.reshape(filters, channels, -1)[:, :, :taps].reshape(tuple(shape))


@dataclass(frozen=True)
class Fibers(Structure):
    """Runs of `length` neighbouring channels of one filter at one place of the kernel: the M of N:M sparsity."""

    name: str = "N:M"
    ranks: tuple[int, ...] = _ANY
    members: tuple[int, ...] = (2,)
    length: int = 4

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        return (shape[0], shape[1] // self.length, self.length, *shape[2:])

    def misfit(self, shape: Shape) -> str | None:
        if (said := super().misfit(shape)) is not None:
            return said
        return f"runs of {self.length} channels do not divide {shape[1]}" if shape[1] % self.length else None


def largest_of_runs(weight: Tensor, count: int, length: int) -> Tensor:
    """N:M sparsity (Zhou et al. 2021): true at the `count` largest |w| of every run; of equal ones the later stay."""
    runs = Fibers(length=length)
    score = runs.view(weight.detach().abs())
    order = score.argsort(dim=2, stable=True)
    keep = torch.zeros_like(score, dtype=torch.bool)
    keep.scatter_(2, order.narrow(2, length - count, count), True)
    return keep.reshape(weight.shape)
