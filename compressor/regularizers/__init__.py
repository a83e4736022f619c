"""Penalties, one a file: their gradients in closed form."""
