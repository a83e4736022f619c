"""Weights of files, put into networks."""

from compressor.training.weights.fitting import fit, load_weights, narrower_layers, restore_live
from compressor.training.weights.reading import Found, read

__all__ = ["Found", "fit", "load_weights", "narrower_layers", "read", "restore_live"]
