"""What every pruner answers: which entries of which weights stay."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from compressor.component import Component, Targets
from compressor.rates.window import Window


class Pruner(Component):
    """WHICH weights go. A pruner is asked by a policy, which knows when."""

    section: ClassVar[str] = "pruners"

    def init(self, weights: Mapping[str, Tensor], targets: Targets) -> dict[str, Any]:
        """What the pruner must remember from the weights as they are at the start."""
        return {}

    def goals(self, targets: Targets, window: Window, epoch: int) -> dict[str, float]:
        """Sparsity by weight name that the pruner imposes at `epoch`; empty for pruners that go by threshold."""
        return {}

    def keep(
        self,
        weights: Mapping[str, Tensor],
        targets: Targets,
        window: Window,
        epoch: int,
        memory: dict[str, Any],
    ) -> dict[str, Tensor]:
        """Boolean masks by weight name, true = stays."""
        raise TypeError(f"{type(self).__name__} does not say what it keeps")
