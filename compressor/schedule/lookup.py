"""Schedules and configurations by path or name: in the working directory, in schedules/ or configs/, in the package."""

from pathlib import Path

import compressor
from compressor.errors import UserError, did_you_mean
from compressor.schedule import claim

_PACKAGE = Path(compressor.__file__).parent


def shipped(kind: str) -> Path:
    """Return the folder of the files that come with the package; `kind` is `schedules` or `configs`."""
    installed = _PACKAGE / "shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def shipped_files(kind: str) -> dict[str, Path]:
    """Return the files that come with the package, by the name that `find` takes; claims of schedules are left out."""
    return _files(shipped(kind))


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.yaml"))
        if not claim.is_claim(path)
    }


def find(name: str, kind: str, beside: Path = Path()) -> Path:
    """Return the file that `name` means; `beside`: a folder that is searched first.

    Raises `UserError` with the folders that were searched and the names in them.
    """
    folders = list(dict.fromkeys([beside, Path(), Path(kind), shipped(kind)]))
    candidates = [folder / (name + suffix) for folder in folders for suffix in ("", ".yaml", ".yml")]
    try:
        for candidate in candidates:
            if candidate.is_file():
                return candidate
    except (OSError, ValueError):  # a name that no file can have
        pass
    known = {name for folder in folders[-2:] if folder.is_dir() for name in _files(folder)}
    known |= {path.stem for folder in folders[:-2] for path in folder.glob("*.yaml") if not claim.is_claim(path)}
    looked = ", ".join(str(folder.absolute()) for folder in folders)
    raise UserError(f"no {kind.removesuffix('s')} {name!r} in {looked}: {did_you_mean(name, known)}")
