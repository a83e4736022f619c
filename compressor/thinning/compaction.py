"""Compaction: matrix products without the zero rows and columns of a weight, for inference only.

A convolution is a product of two matrices (im2col): the weight with a row for each filter and a column for each tap,
which is one (channel, row, column) of the kernels, times the image with a row for each tap. Intra-kernel strided
pruning (Anwar, Hwang and Sung 2017) makes whole columns zero, SSL's filter-wise and shape-wise sparsity (Wen et al.,
NIPS 2016) rows and columns: without them both matrices are smaller, and the outputs are equal. Where whole channels can
be removed, thinning is better; what it has to leave is compacted here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.copying import copied
from compressor.errors import CompressError, UserError
from compressor.evaluating import evaluating
from compressor.sparsity import computed
from compressor.thinning.equivalence import thin

FEW_COLUMNS, LESS_WORK = 0.6, 0.75
"""Limits of what is faster on a CPU (benchmarks/compaction.py): columns are gathered where at most this fraction of
those of the live channels is left; a layer is replaced where at most this fraction of its products is left."""

_IN_CACHE = 2**19
"""Bytes of gathered columns that are multiplied at once: more do not fit into the cache."""


class Compact(nn.Module):
    """A layer with the `matrix` of its non-zero rows and columns, and the `bias` of all its outputs."""

    rows: Tensor
    live: Tensor
    bias: nn.Parameter | None
    _live_bias: Tensor | None

    def __init__(self, layer: nn.Conv2d | nn.Linear, rows: Tensor, columns: Tensor) -> None:
        """Keep the rows and columns that are true in `rows` [outputs] and `columns` [the other dims of the weight]."""
        super().__init__()
        weight, bias = layer.weight.detach(), layer.bias
        self.register_buffer("rows", rows.nonzero().flatten())
        self.register_buffer("live", rows.reshape(-1, *[1] * columns.dim()) & columns)
        self.matrix = nn.Parameter(weight[self.live].reshape(len(self.rows), int(columns.sum())), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.register_buffer("_live_bias", None if bias is None else bias.detach()[self.rows], persistent=False)

    @property
    def weight(self) -> Tensor:
        """Return the whole weight, for code that reads it without the layer's forward pass."""
        return self.matrix.new_zeros(self.live.shape).masked_scatter_(self.live, self.matrix)

    def _all_outputs(self, live: Tensor, dim: int) -> Tensor:
        """Return all outputs: those of the kept rows, and the bias for the others."""
        if len(self.rows) == len(self.live):
            return live
        shape = list(live.shape)
        shape[dim] = len(self.live)
        bias = live.new_zeros(1) if self.bias is None else self.bias.to(live.dtype)
        side = (-1, *[1] * (-1 - dim))
        return bias.reshape(side).expand(shape).clone().index_copy_(dim, self.rows, live)


class CompactLinear(Compact):
    """A linear layer without the outputs and inputs whose weights are all zero."""

    columns: Tensor

    def __init__(self, layer: nn.Linear, rows: Tensor, columns: Tensor) -> None:
        super().__init__(layer, rows, columns)
        self.register_buffer("columns", columns.nonzero().flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (..., out_features) of inputs (..., in_features)."""
        if len(self.columns) < self.live.shape[1]:
            x = x.index_select(-1, self.columns)
        return self._all_outputs(functional.linear(x, self.matrix, self._live_bias), -1)


class CompactConv2d(Compact):
    """A convolution without the filters and taps whose weights are all zero: gathered taps, one product, biases.

    Where whole channels are kept it is the library's convolution of them, which multiplies the same matrices without
    storing the second one.
    """

    _inputs: Tensor
    _channel: Tensor
    _row: Tensor
    _column: Tensor

    def __init__(self, layer: nn.Conv2d, rows: Tensor, columns: Tensor) -> None:
        super().__init__(layer, rows, columns)
        self._stride, self._dilation = layer.stride, layer.dilation
        self._mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        self._sides = tuple(layer._reversed_padding_repeated_twice)
        channels = columns.flatten(1).any(1)
        self.gathers = not bool(channels.any() and columns[channels].all())
        self.register_buffer("_inputs", channels.nonzero().flatten())
        for name, places in zip(("_channel", "_row", "_column"), columns.nonzero(as_tuple=True), strict=True):
            self.register_buffer(name, places)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, out_inputs, H', W') of images (N, in_inputs, H, W); also of one image without N."""
        if x.dim() == 3:
            return self(x.unsqueeze(0)).squeeze(0)  # type: ignore[no-any-return]
        if not self.gathers and len(self._inputs) < self.live.shape[1]:
            x = x.index_select(1, self._inputs)
        if any(self._sides):
            x = functional.pad(x, self._sides, self._mode)
        if self.gathers:
            return self._all_outputs(self._gathered(x), -3)
        kernels = self.matrix.reshape(len(self.rows), len(self._inputs), *self.live.shape[2:])
        out = functional.conv2d(x, kernels, self._live_bias, self._stride, 0, self._dilation)
        return self._all_outputs(out, -3)

    def _gathered(self, x: Tensor) -> Tensor:
        kernel, stride, dilation, by = self.live.shape[2:], self._stride, self._dilation, x.stride()
        size = [(x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
        steps = (by[2] * dilation[0], by[3] * dilation[1], by[2] * stride[0], by[3] * stride[1])
        windows = x.as_strided((*x.shape[:2], *kernel, *size), (*by[:2], *steps))
        bytes_of_one = self.matrix.shape[1] * size[0] * size[1] * x.element_size()
        images = len(x) if x.is_cuda else max(1, _IN_CACHE // max(bytes_of_one, 1))
        if len(x) <= images:
            return self._product(windows)
        return torch.cat([self._product(part) for part in torch.split(windows, images)])

    def _product(self, windows: Tensor) -> Tensor:
        columns = windows[:, self._channel, self._row, self._column]
        shape = (len(windows), len(self.rows), *columns.shape[2:])
        matrix, columns = self.matrix.expand(len(windows), -1, -1), columns.flatten(2)
        if self._live_bias is None:
            return torch.bmm(matrix, columns).reshape(shape)
        return torch.baddbmm(self._live_bias[:, None], matrix, columns).reshape(shape)


def compact(network: nn.Module, *, if_it_pays: bool = False) -> nn.Module:
    """Return a copy whose convolutions (2-d, one group) and linear layers have no zero rows and columns.

    With `if_it_pays` only the layers that become faster: where many taps are left, the library's convolution of the
    live filters and channels is faster than a gathered product.
    """
    own = copied(network).eval()
    made: dict[int, Compact | None] = {}
    for path, module in list(own.named_modules(remove_duplicate=False)):
        if id(module) not in made:
            made[id(module)] = _compacted(module, if_it_pays)
        found = made[id(module)]
        if found is not None and not path:
            return found
        if found is not None:
            parent, _, name = path.rpartition(".")
            setattr(own.get_submodule(parent), name, found)
    return own


def compact_layers(network: nn.Module) -> dict[str, Compact]:
    """Return the layers of a network that are compact, by path."""
    return {path: module for path, module in network.named_modules() if isinstance(module, Compact)}


def _compacted(module: nn.Module, if_it_pays: bool) -> Compact | None:
    """Return the compact form of a layer; None where it has none. Subclasses may compute something else."""
    if type(module) not in (nn.Conv2d, nn.Linear) or getattr(module, "groups", 1) > 1:
        return None
    assert isinstance(module, (nn.Conv2d, nn.Linear))
    nonzero = module.weight.detach() != 0
    rows, columns = nonzero.flatten(1).any(1), nonzero.any(0)
    if isinstance(module, nn.Conv2d) and if_it_pays:
        whole = columns.flatten(1).any(1)[:, None, None].expand_as(columns)
        if int(columns.sum()) > FEW_COLUMNS * int(whole.sum()):
            columns = whole
    left = int(rows.sum()) * int(columns.sum())
    if left == nonzero.numel() or (if_it_pays and left > LESS_WORK * nonzero.numel()):
        return None
    return (
        CompactLinear(module, rows, columns) if isinstance(module, nn.Linear) else CompactConv2d(module, rows, columns)
    )


@dataclass(frozen=True)
class Compaction:
    """The fastest form of a network, whether channels were removed first, and the largest difference of a logit.

    `stays`: the zero filters and channels that thinning left, and why; or why it removed nothing.
    """

    network: nn.Module
    thinned: bool
    largest_difference: float
    stays: tuple[str, ...] = ()


@torch.no_grad()
def thin_and_compact(network: nn.Module, images: Tensor) -> Compaction | None:
    """Return the network thinned; then zero rows and columns are removed.

    None where there are none left, where layers compute their weights (weight_norm, ...), or where the network cannot
    be copied.
    """
    try:
        if computed(network) or not compact_layers(compact(network, if_it_pays=True)):
            return None
        own = copied(network)
    except UserError:  # it cannot be copied: a report goes on without this stage
        return None
    try:
        found = thin(own, images)
        found.cut.model(own)
        thinned, stays = bool(found.cut), tuple(map(str, found.stays))
    except CompressError as error:  # its channels cannot be followed
        own, thinned, stays = network, False, (str(error),)
    form = compact(own, if_it_pays=True)
    if not compact_layers(form):
        return None
    with evaluating(network):
        return Compaction(form, thinned, float((form(images) - network(images)).abs().max()), stays)
