"""Sparse tensors in fewer bits, and the number of bits."""

from compressor.storage.bits import StoredBits, dense_bits, stored_bits

__all__ = ["StoredBits", "dense_bits", "stored_bits"]
