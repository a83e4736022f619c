"""The channels of a network, followed through one forward pass: `follow`; a file for each kind of operation."""

from compressor.thinning.following.notes import model_line
from compressor.thinning.following.passes import follow
from compressor.thinning.following.states import Fix, Followed

__all__ = ["Fix", "Followed", "follow", "model_line"]
