"""Distiller's extensions that remove what pruners have emptied."""

from typing import ClassVar, Literal

from pydantic import Field

from compressor.component import Component
from compressor.thinning.staying import Way


class Remover(Component):
    """WHAT is removed physically; a policy says at the beginning of which epochs."""

    section: ClassVar[str] = "extensions"
    arch: str | None = Field(default=None, description="Distiller's; read, and not needed")
    dataset: str | None = Field(default=None, description="Distiller's; read, and not needed")
    round_to: int = Field(default=1, ge=1, description="widths stay multiples of this")
    thinning_func_str: Literal["remove_filters", "remove_channels", "contract_model"] = "contract_model"

    @property
    def ways(self) -> frozenset[Way]:
        """Why a channel may go."""
        return _WAYS[self.thinning_func_str]


class FilterRemover(Remover, name="FilterRemover"):
    """Removes filters that are all zero, with what belongs to them, from the network and the optimizer (Distiller)."""

    example: ClassVar[str] = """
    extensions:
      thinner: {class: FilterRemover, thinning_func_str: remove_filters}
    policies:
      - {extension: {instance_name: thinner}, epochs: [10]}
    """

    thinning_func_str: Literal["remove_filters"] = "remove_filters"


class ChannelRemover(Remover, name="ChannelRemover"):
    """Removes channels that no layer reads, and the filters that make them (Distiller)."""

    example: ClassVar[str] = """
    extensions:
      thinner: {class: ChannelRemover, thinning_func_str: remove_channels}
    policies:
      - {extension: {instance_name: thinner}, epochs: [10]}
    """

    thinning_func_str: Literal["remove_channels"] = "remove_channels"


class StructureRemover(Remover, name="StructureRemover"):
    """Removes channels that are zero or that nobody reads, to the fix point (Distiller)."""

    example: ClassVar[str] = """
    extensions:
      thinner: {class: StructureRemover, thinning_func_str: contract_model}
    policies:
      - {extension: {instance_name: thinner}, epochs: [10]}
    """


_WAYS: dict[str, frozenset[Way]] = {
    "remove_filters": frozenset({"zero"}),
    "remove_channels": frozenset({"unread"}),
    "contract_model": frozenset({"zero", "unread"}),
}
