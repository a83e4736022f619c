"""Weights of files, put into networks."""

from compressor.training.weights.fitting import fit, load_weights, restore_live

__all__ = ["fit", "load_weights", "restore_live"]
