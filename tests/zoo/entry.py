"""A network of the zoo, and what is expected of it: written with a pencil from its text, before the code is run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from compressor.importing import import_all

Build = TypeVar("Build", bound=Callable[[], nn.Module])
Widths = Mapping[str, int | tuple[int, ...]]

_ENTRIES: dict[str, "Entry"] = {}


@dataclass(frozen=True)
class Entry:
    """A network with its expectations, where half of the filters of every layer but `heads` are pruned.

    `widths`: what is left after thinning: the number of outputs of each layer, by path (that of a block: of every layer
    in it), or the shape of a parameter or buffer that belongs to no such layer, by name. What is not named keeps its
    size. `stays`: a word of the reason why zero filters stay, by path (or that of a block). `trained`: those entries of
    `widths` that differ if the network is thinned in mid-training, where constants are not absorbed. `output` is
    `model.output` of a network that gives several tensors; `heads` are the modules that make logits.
    """

    name: str
    kind: str
    make: Callable[[], nn.Module]
    widths: Widths = field(default_factory=dict)
    stays: Mapping[str, str] = field(default_factory=dict)
    trained: Widths = field(default_factory=dict)
    heads: tuple[str, ...] = ("head",)
    image: tuple[int, ...] = (3, 16, 16)
    output: str | int | None = None

    @property
    def verdict(self) -> str:
        """Return whether everything that is zero goes, a part of it, or nothing."""
        if not self.widths:
            return "stays"
        return "thins in part" if self.stays else "thins"


def expect(**of: Any) -> Callable[[Build], Build]:
    """Enter the class (or function) of a network into the zoo, with the expectations of `Entry`."""

    def enter(make: Build) -> Build:
        name = of.pop("name", make.__name__)
        assert name not in _ENTRIES, name
        _ENTRIES[name] = Entry(name, make.__module__.rpartition(".")[2].replace("_", " "), make, **of)
        return make

    return enter


def entries() -> dict[str, Entry]:
    """Return all networks, by name."""
    import_all("zoo.networks")
    return dict(_ENTRIES)
