"""Files that are either the old one or the new one, whatever happens between."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from compressor.errors import CompressError


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file, sync, rename, sync the folder.

    Raises `CompressError`; then the old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CompressError(f"{path}: cannot be written: {reason}") from error


def replace_text(path: Path, text: str) -> None:
    """Replace a text file in the same way."""
    replace(path, lambda file: file.write(text.encode()))
