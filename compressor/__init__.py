"""Compress image classifiers from a schedule file."""

from importlib.metadata import version

__version__ = version("compressor")
