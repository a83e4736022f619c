"""Sparse tensors in fewer bits, and the number of bits."""
