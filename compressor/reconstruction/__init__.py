"""Reconstruction: least squares on layer outputs for the weights that stay, channels chosen by LASSO."""
