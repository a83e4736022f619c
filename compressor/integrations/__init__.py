"""Callbacks that attach a schedule to the loops of other libraries: one module for each."""
