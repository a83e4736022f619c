"""WHICH weights are pruned: a pruner says its parts, from which the masks are made; one with another mechanism a file.

`distiller` and `distiller_ranked` are tables of Distiller's names.
"""

from compressor.pruners.part import Part
from compressor.pruners.parts_pruner import PartsPruner
from compressor.pruners.pruner import Asked, Goal, PrunerBase

__all__ = ["Asked", "Goal", "Part", "PartsPruner", "PrunerBase"]
