"""Sparse tensors in fewer bits: the number of bits in each format, and the packed file."""

from compressor.storage.bits import StoredBits, dense_bits, stored_bits
from compressor.storage.container import is_packed, shown
from compressor.storage.packed import Packed, most_bytes, pack, unpack

__all__ = ["Packed", "StoredBits", "dense_bits", "is_packed", "most_bytes", "pack", "shown", "stored_bits", "unpack"]
