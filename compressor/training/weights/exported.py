"""What a file that `compress export` wrote says of its network beside the tensors."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor import strict_json
from compressor.exports import METADATA
from compressor.thinning import Architecture

_MOST = 2**26
"""The largest number of bytes of a record that is read."""


def said_in_archive(path: Path) -> Mapping[str, Any]:
    """Return what a state dict's file says of its network; nothing where another tool wrote it."""
    if not zipfile.is_zipfile(path):  # torch before 1.6
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            if METADATA not in archive.namelist() or archive.getinfo(METADATA).file_size > _MOST:
                return {}
            found = _value(archive.read(METADATA).decode())
    except Exception:  # of a damaged archive; its tensors were read
        return {}
    return found if isinstance(found, dict) else {}


def architecture(said: Mapping[str, Any]) -> Architecture | None:
    """Return the numbers of channels of a thinned network; None where there are none, or other tools' words."""
    found = said.get("architecture")
    found = _value(found) if isinstance(found, str) else found
    if not isinstance(found, dict) or not all(isinstance(sizes, dict) for sizes in found.values()):
        return None
    numbers = all(type(size) is int for sizes in found.values() for size in sizes.values())
    return found if numbers else None


def _value(text: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError:
        return None
