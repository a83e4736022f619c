"""Penalties on weights, one in each file, with their gradients in closed form."""

from compressor.regularizers.regularizer import Regularizer

__all__ = ["Regularizer"]
