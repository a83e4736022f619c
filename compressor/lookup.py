"""Schedules and configurations by path or name: in the working directory, in schedules/ or configs/, in the package.

The shell's completion uses it: nothing large is imported here.
"""

from pathlib import Path

from compressor.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).parent
CLAIM = ".expect.yaml"
"""The end of the name of a file that has the claim of the version 1 schedule beside it."""


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
        if not path.name.endswith(CLAIM)
    }


def names(kind: str, *beside: Path) -> set[str]:
    """Return the bare names that `find` takes here."""
    known = {name for folder in (Path(kind), shipped(kind)) if folder.is_dir() for name in _files(folder)}
    flat = (path for folder in (*beside, Path()) for path in folder.glob("*.yaml"))
    return known | {path.stem for path in flat if not path.name.endswith(CLAIM)}


def find(name: str, kind: str, *beside: Path) -> Path:
    """Return the file that `name` means; `beside`: folders that are searched first.

    Raises `UserError` with the folders that were searched and the names in them.
    """
    folders = list(dict.fromkeys([*beside, Path(), Path(kind), shipped(kind)]))
    candidates = [folder / (name + suffix) for folder in folders for suffix in ("", ".yaml", ".yml")]
    try:
        for candidate in candidates:
            if candidate.is_file():
                return candidate
    except (OSError, ValueError):  # a name that no file can have
        pass
    looked = ", ".join(str(folder.absolute()) for folder in folders)
    raise UserError(f"no {kind.removesuffix('s')} {name!r} in {looked}: {did_you_mean(name, names(kind, *beside))}")
