"""Weights of files, put into networks."""

from compressor.training.weights.fitting import load_weights, restore_live

__all__ = ["load_weights", "restore_live"]
