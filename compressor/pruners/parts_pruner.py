"""Pruners that consist of parts: a criterion, a structure, an allocation and a rate for some weights."""

from collections.abc import Sequence

from torch import Tensor

from compressor.component import Targets
from compressor.pruners.part import Part
from compressor.pruners.pruner import Goal, PrunerBase, Request, Shapes
from compressor.pruners.ranking import masks_of_parts
from compressor.sparsity.structures import Structure
from compressor.timing import Window


class PartsPruner(PrunerBase):
    """A pruner that defines its parts; everything else is derived from them."""

    def parts(self, targets: Targets) -> Sequence[Part]:
        """Return the ways in which the selected weights are pruned."""
        raise TypeError(f"{type(self).__name__} has no parts")

    def cuts(self, targets: Targets) -> dict[str, Structure]:
        return {name: part.structure for part in self.parts(targets) for name in part.names}

    def goals(self, targets: Targets, window: Window, time: int, shapes: Shapes | None = None) -> list[Goal]:
        return [goal for part in self.parts(targets) for goal in part.goals(window, time, shapes)]

    def unknown(self, targets: Targets) -> dict[str, str]:
        found = [(part.names, part.rate.unknown()) for part in self.parts(targets)]
        return {name: why for names, why in found if why is not None for name in names}

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        said = {part.rate.threshold(window, time) for part in self.parts(targets)} - {None}
        return ", ".join(sorted(filter(None, said))) or None

    def keep(self, request: Request) -> dict[str, Tensor]:
        return masks_of_parts(request, self.parts(request.targets))
