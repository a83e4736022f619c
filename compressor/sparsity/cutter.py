"""What masks and substitutions need of a removal of channels."""

from collections.abc import Mapping
from typing import Protocol

from torch import Size, Tensor


class Cutter(Protocol):
    """Removes channels from a tensor."""

    @property
    def shapes(self) -> Mapping[str, Size]:
        """Return the old shapes of the parameters and buffers that change."""

    def tensor(self, name: str, value: Tensor) -> Tensor:
        """Return the kept entries of a tensor that has the old shape of the parameter `name`."""
