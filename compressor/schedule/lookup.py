"""Schedules and configurations by path or name: in the working directory, in schedules/ or configs/, in the package."""

from pathlib import Path

import compressor
from compressor.errors import UserError, did_you_mean

_PACKAGE = Path(compressor.__file__).parent


def shipped(kind: str) -> Path:
    """Return the folder of the files that come with the package; `kind` is `schedules` or `configs`."""
    installed = _PACKAGE / "shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def find(name: str, kind: str) -> Path:
    """Return the file that `name` means.

    Raises `UserError` with the folders that were searched and the names in them.
    """
    folders = [Path(), Path(kind), shipped(kind)]
    candidates = [folder / (name + suffix) for folder in folders for suffix in ("", ".yaml", ".yml")]
    try:
        for candidate in candidates:
            if candidate.is_file():
                return candidate
    except (OSError, ValueError):  # a name that no file can have
        pass
    known = {
        str(path.relative_to(folder).with_suffix(""))
        for folder in folders[1:]
        if folder.is_dir()
        for path in folder.rglob("*.yaml")
    } | {path.stem for path in Path().glob("*.yaml")}
    looked = ", ".join(str(folder.absolute()) for folder in folders)
    raise UserError(f"no {kind.removesuffix('s')} {name!r} in {looked}: {did_you_mean(name, known)}")
