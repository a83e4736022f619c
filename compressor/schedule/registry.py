"""The registry of all components: the files of the component packages are imported once and register their classes."""

from functools import cache
from importlib.metadata import entry_points

from compressor.component import REGISTRY, Component
from compressor.importing import import_all, import_installed, import_module

ENTRY_POINTS = "compressor.components"
"""The entry-point group in which an installed package names modules with components."""

_ROOMS = "sparsity.structures criteria allocation rates pruners regularizers gates thinning policies"
_PACKAGES = tuple(f"compressor.{room}" for room in _ROOMS.split())

SECTIONS = ("pruners", "regularizers", "quantizers", "lr_schedulers", "extensions")
"""The sections of a version 1 schedule that hold components."""

AXES = ("criteria", "structures", "allocations", "rates")
"""The kinds of components that other components name in a field; a schedule has no section for them."""


@cache
def _import_shipped() -> None:
    for package in _PACKAGES:
        import_all(package)


@cache
def _import_all() -> None:
    _import_shipped()
    for entry in entry_points(group=ENTRY_POINTS):
        import_installed(entry.value.partition(":")[0], f"the plugin {entry.value!r}")


def plug_in(module: str) -> None:
    """Import the components of a module that a schedule names.

    Raises `UserError` where the user does not allow it or the import fails, whatever the reason.
    """
    _import_shipped()  # first, so that a plugin cannot take one of our names
    import_module(module.partition(":")[0], f"the plugin {module!r}")


def components(section: str) -> dict[str, type[Component]]:
    """Return the components of a section by the name that a schedule gives them."""
    _import_all()
    return REGISTRY.get(section, {})
