"""What a format of exported files is: how a network is written, and how the file is run to verify it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.evaluating import evaluating
from compressor.importing import late

Say = Callable[[str], None]
Pass = Callable[[Tensor], Tensor]
"""A forward pass: images [B, C, H, W] to logits [B, classes], both on the CPU."""


@dataclass(frozen=True)
class Model:
    """A network that goes out, on the CPU: every call of it gives logits alone."""

    name: str
    network: nn.Module
    shape: tuple[int, int, int]
    """C, H, W of an image."""
    about: Mapping[str, Any]
    """What the file says of itself: a plain value for JSON by key."""
    fresh: Callable[[], nn.Module]
    """Makes the same network with other weights, into which those of the file are loaded strictly."""
    architecture: Mapping[str, Any] | None = None
    """The numbers of channels of a thinned network."""


class Format(ABC):
    """One format."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    needs: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The libraries that it needs, by the extra of `compressor` that installs them."""

    @abstractmethod
    def write(self, model: Model, path: Path, say: Say) -> int | None:
        """Write the network to `path`; return the only number of images that the file takes at once, None for any.

        Raises `CompressError` where the format cannot hold the network.
        """

    @abstractmethod
    def outputs(self, model: Model, path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of the file for each batch of images. Raises `CompressError` where it cannot be run."""

    @property
    @abstractmethod
    def reader(self) -> str:
        """Return what runs the file in `outputs`, in words."""

    def forward(self, path: Path) -> Pass | None:
        """Return a forward pass of the file whose time is worth a comparison with torch's; None where it is torch's."""
        return None

    def check_installed(self) -> None:
        """Raise `UserError` with the command that installs what is missing."""
        for extra, libraries in self.needs.items():
            missing = [name for name in libraries if not _installed(name)]
            if missing:
                raise UserError(f"--format {self.name} needs {', '.join(missing)}: pip install 'compressor[{extra}]'")


def _installed(library: str) -> bool:
    try:
        late(library)
    except ImportError:
        return False
    return True


@torch.no_grad()
def logits(network: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the logits of a network in eval mode for each batch of images."""
    with evaluating(network):
        return [network(batch) for batch in batches]
