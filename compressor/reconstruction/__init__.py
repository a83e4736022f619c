"""Weights that stay are fitted to what their layers gave: least squares on layer outputs, channels chosen by LASSO."""
