"""What masks and substitutions need of a removal of channels."""

from typing import Protocol

from torch import Tensor


class Cutter(Protocol):
    """Removes channels from a tensor."""

    def tensor(self, name: str, value: Tensor) -> Tensor:
        """Return the kept entries of a tensor that has the old shape of the parameter `name`."""
