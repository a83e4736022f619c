"""Weights that are random or shared while they are trained."""
