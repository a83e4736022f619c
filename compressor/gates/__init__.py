"""Gates: weights that are random or shared while they are trained, one in each file."""

from compressor.gates.gate import Gate, Installed, Place, Site

__all__ = ["Gate", "Installed", "Place", "Site"]
