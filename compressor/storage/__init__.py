"""Sparse tensors in fewer bits, and how many those are."""
