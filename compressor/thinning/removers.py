"""Distiller's extensions, which remove channels that pruners have set to zero."""

from typing import ClassVar, Literal

from pydantic import Field

from compressor.component import Component
from compressor.thinning.stays import Way


class Remover(Component):
    """WHAT is removed physically. A policy says at the beginning of which epochs."""

    section: ClassVar[str] = "extensions"
    round_to: int = Field(
        default=1, ge=1, description="numbers of channels stay multiples of this; default 1: any number"
    )
    thinning_func_str: Literal["remove_filters", "remove_channels", "contract_model"] = Field(
        default="contract_model",
        description="what is removed: channels that are zero, channels that no layer reads, or both (Distiller's"
        " names)",
    )

    @property
    def ways(self) -> frozenset[Way]:
        """Return the reasons for which a channel may be removed."""
        return _WAYS[self.thinning_func_str]


class FilterRemover(Remover, name="FilterRemover"):
    """Remove filters that are all zero, with their companions, from the network and the optimizer (Distiller)."""

    example: ClassVar[str] = """
    extensions:
      thinner: {class: FilterRemover, thinning_func_str: remove_filters}
    policies:
      - {extension: {instance_name: thinner}, epochs: [10]}
    """

    thinning_func_str: Literal["remove_filters"] = Field(
        default="remove_filters",
        description="what is removed: filters that are all zero (Distiller's name of the function)",
    )


class ChannelRemover(Remover, name="ChannelRemover"):
    """Remove channels that no layer reads, and the filters that make them (Distiller)."""

    example: ClassVar[str] = """
    extensions:
      thinner: {class: ChannelRemover, thinning_func_str: remove_channels}
    policies:
      - {extension: {instance_name: thinner}, epochs: [10]}
    """

    thinning_func_str: Literal["remove_channels"] = Field(
        default="remove_channels",
        description="what is removed: channels that no layer reads (Distiller's name of the function)",
    )


class StructureRemover(Remover, name="StructureRemover"):
    """Remove channels that are zero or that no layer reads, until nothing changes (Distiller)."""

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
