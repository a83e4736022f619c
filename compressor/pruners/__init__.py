"""WHICH weights are pruned: most pruners consist of parts, from which masks are made; others are one in each file.

`distiller` and `distiller_ranked` are tables of Distiller's names.
"""

from compressor.pruners.part import Part
from compressor.pruners.parts_pruner import PartsPruner
from compressor.pruners.pruner import Goal, PrunerBase, Request, Scope
from compressor.pruners.ranking import Within, keep_largest, within_budget

__all__ = ["Goal", "Part", "PartsPruner", "PrunerBase", "Request", "Scope", "Within", "keep_largest", "within_budget"]
