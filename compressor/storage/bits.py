"""The number of bits of a network, stored in each of the usual ways.

Han, Pool, Tran, Dally 2015, Learning both Weights and Connections: 5-bit relative indices for linear layers, 8-bit ones
for convolutions. Every bit that decoding needs is counted, also fillers and headers. V: bits of a value.

    dense             V for each weight
    relative indices  one stream for each tensor (`relative_index`), of the width with the fewest bits, or of Han's
    CSR               V + ceil(log2(columns)) for each non-zero, 32 for each row and 32 more; row: filter or output
    bitmask           V for each non-zero, 1 for each weight
    Golomb-Rice       V + k + 1 for each non-zero, 1 for each 2^k zeros of a gap; the best k for each tensor (`forms`)
    packed            the packed file without its header: the form with the fewest bytes for each tensor (`packed`)
    entropy bound     V for each non-zero, n H(p) for a tensor of n weights, p of them not zero

H(p) = -p log2(p) - (1 - p) log2(1 - p) bits are the fewest, on average, that say which weights are zero where these lie
independently of each other. Whole filters or rows of zeros do not: they may take less.

Tensors that are not prunable weights (biases, batch norms, its running statistics) are stored densely in all of them
but the packed file and the bound, which know no difference (integers are dense there). CSR, bitmask and Golomb-Rice
have the header of a stream, too; the dense form, the file and the bound have none: a file's own is one for all.
"""

import math
from collections.abc import Container, Mapping

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from compressor.storage import relative_index
from compressor.storage.bit_patterns import DTYPES
from compressor.storage.forms import counted, smallest
from compressor.storage.tied import first_names

HAN_LINEAR, HAN_CONVOLUTION = 5, 8
"""Bits of an index (Han et al. 2015)."""


class StoredBits(BaseModel):
    """Bits of a whole network, in each format.

    `widths`: the narrowest and the widest index that `relative` (the best width for each tensor) uses; None where every
    tensor is shorter without an index. `relative_han`: 5 bits for an index in linear layers, 8 in convolutions.
    `rice`, `packed`, `entropy` (the bound): None in reports that were written before they were counted.
    """

    model_config = ConfigDict(frozen=True)

    dense: int
    relative: int
    widths: tuple[int, int] | None
    relative_han: int
    csr: int
    bitmask: int
    rice: int | None = None
    packed: int | None = None
    entropy: int | None = None

    @property
    def bytes(self) -> dict[str, int]:
        """Return whole bytes by format in words, without the bound; of an old report those that it has."""
        low, high = self.widths or (0, 0)
        width = "none" if self.widths is None else f"{low} bits" if low == high else f"{low} to {high} bits"
        formats = {
            "dense": self.dense,
            "CSR": self.csr,
            "bitmask": self.bitmask,
            f"relative index, {HAN_LINEAR} bits (convolutions {HAN_CONVOLUTION})": self.relative_han,
            f"relative index, best widths ({width})": self.relative,
            "Golomb-Rice gaps": self.rice,
            "packed file (best by tensor)": self.packed,
        }
        return {name: -(-bits // 8) for name, bits in formats.items() if bits is not None}

    @property
    def rate(self) -> float:
        """Return the size of the dense form divided by that of `relative`; 1 where there is nothing to store."""
        return self.dense / self.relative if self.relative else 1.0


def dense_bits(tensors: Mapping[str, Tensor]) -> int:
    """Return the bits of a state dict as it is; a tied tensor counts once (on the meta device with `keep_vars=True`
    only).
    """
    return sum(8 * tensor.element_size() * tensor.numel() for tensor in _untied(tensors).values())


def stored_bits(tensors: Mapping[str, Tensor], weights: Container[str]) -> StoredBits:
    """Return the bits of a state dict; `weights` are the names of the prunable ones. A tied tensor counts once."""
    dense = relative = han = csr = bitmask = rice = packed = 0
    entropy = 0.0
    widths = set()
    for name, tensor in _untied(tensors).items():
        bits = 8 * tensor.element_size()
        plain = bits * tensor.numel()
        dense += plain
        counts = counted(tensor) if tensor.dtype in DTYPES else None
        packed += 8 * smallest(tensor, counts).size
        entropy += plain if counts is None else _entropy(counts[1][0], tensor.numel(), bits)
        if name not in weights:
            relative, han, csr, bitmask, rice = (total + plain for total in (relative, han, csr, bitmask, rice))
            continue
        nonzero, fillers = relative_index.count(tensor) if counts is None else counts[1]
        of_width = [
            relative_index.stream_bits(tensor.dim(), nonzero + int(more), width, bits)
            for width, more in enumerate(fillers)
        ]
        best = relative_index.best_width(nonzero, fillers, bits)
        widths.add(best)
        relative += of_width[best]
        han += of_width[HAN_LINEAR if tensor.dim() == 2 else HAN_CONVOLUTION]
        header = relative_index.stream_bits(tensor.dim(), 0, 0, bits)
        columns = math.prod(tensor.shape[1:])
        csr += header + nonzero * (bits + max(columns - 1, 0).bit_length()) + 32 * (tensor.shape[0] + 1)
        bitmask += header + nonzero * bits + tensor.numel()
        rice += header + nonzero * bits + min(nonzero * (k + 1) + int(more) for k, more in enumerate(fillers))
    widths.discard(0)
    return StoredBits(
        dense=dense,
        relative=relative,
        widths=(min(widths), max(widths)) if widths else None,
        relative_han=han,
        csr=csr,
        bitmask=bitmask,
        rice=rice,
        packed=packed,
        entropy=math.ceil(entropy),
    )


def _entropy(nonzero: int, numbers: int, bits: int) -> float:
    """Return the entropy bound of a tensor, in bits."""
    counts = [count for count in (nonzero, numbers - nonzero) if count]
    return nonzero * bits + sum(count * math.log2(numbers / count) for count in counts)


def _untied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without those that are an earlier one under another name."""
    return {name: tensors[name] for name, first in first_names(tensors).items() if name == first}
