"""Penalties on weights, one in each file, with their gradients in closed form."""
