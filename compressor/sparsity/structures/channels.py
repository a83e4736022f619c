"""All weights that read one input channel."""

from typing import ClassVar

from compressor.sparsity.structures.structure import Structure


class ChannelSlices(Structure, name="Channels"):
    """All weights that read one input channel."""

    members: ClassVar[tuple[int, ...]] = (0, 2, 3, 4)
    dim: ClassVar[int | None] = 1
