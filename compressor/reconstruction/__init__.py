"""Reconstruction: least squares on layer outputs for the weights that stay, channels chosen by LASSO."""

from compressor.reconstruction.event import Event, check_reconstruction, pruned_inputs, reconstruction_misfits
from compressor.reconstruction.input_channels import InputChannels
from compressor.reconstruction.least_squares import Selection

__all__ = ["Event", "InputChannels", "Selection", "check_reconstruction", "pruned_inputs", "reconstruction_misfits"]
