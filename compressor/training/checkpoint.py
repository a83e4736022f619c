"""Checkpoints on disk: tensors and plain values only, so that `torch.load(weights_only=True)` reads them.

A file is torch's zip file with a comment: the SHA-256 of everything before it. It is verified at every load.
"""

import hashlib
import os
import shlex
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from compressor.errors import UserError
from compressor.files import older_copies, replace
from compressor.training.contents import check_contents

FORMAT, READABLE = 3, (1, 2, 3)
"""The format that is written, and the formats whose weights can be read; 1 had another layout of `state`, 2 no
`normalization` and no `data`."""

Checkpoint = dict[str, Any]
"""`format`, `model` (the plain state dict), `config`, `schedule` (text), `shape` (C, H, W of the network's input),
`classes` (their names, in the order of the outputs), `normalization` (`mean` and `std` per channel, as used), `data`
(`counts` and `content` of the data set's fingerprint), `epoch`, `metrics`, and in a run's own checkpoint `state` (what
resuming needs) and `finished`."""

_NEEDED = ("format", "model", "config", "shape", "classes", "metrics")
_NEEDED_SINCE_3 = ("normalization", "data")


_MARK = b"SHA-256 "
_COMMENT = len(_MARK) + 2 * hashlib.sha256().digest_size
_LENGTH = struct.pack("<H", _COMMENT)
"""The last two bytes of a zip file before its comment."""


def save(path: Path, checkpoint: Checkpoint, keep: int = 1) -> None:
    """Write a checkpoint completely or not at all; the `keep - 1` before it stay, as NAME.1.pt and so on.

    Raises `CompressError` where the disk refuses it.
    """
    replace(path, lambda file: _write(checkpoint, file), keep)


def load(path: Path) -> Checkpoint:
    """Load a checkpoint to the CPU. Raises `UserError` where the file is missing, damaged or something else; the
    message names the newest older copy that is whole.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint{older_copy(path)}")
    try:
        with open(path, "rb") as file:  # opened once: a run that goes on replaces it at any time
            _verify(file)
            file.seek(0)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torn zip, foreign pickle, text: a dozen different types
        reason = str(error) if isinstance(error, _Damaged) else type(error).__name__
        raise UserError(f"{path}: not a checkpoint, or a damaged one ({reason}){older_copy(path)}") from None
    needed = (*_NEEDED, *(_NEEDED_SINCE_3 if isinstance(checkpoint, dict) and _newest(checkpoint) else ()))
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in needed):
        raise UserError(f"{path}: not a checkpoint of compress train (it should hold {', '.join(needed)})")
    if not _well_formed(checkpoint):
        raise UserError(f"{path}: a damaged checkpoint: its {', '.join(needed)} have wrong types")
    if type(checkpoint["format"]) is not int or checkpoint["format"] not in READABLE:
        known = ", ".join(map(str, READABLE))
        raise UserError(f"{path}: checkpoint format {checkpoint['format']!r}, this version reads the formats {known}")
    check_contents(checkpoint, str(path))
    return checkpoint


def check_resumable(checkpoint: Checkpoint, path: Path) -> None:
    """Raise `UserError` where a run cannot be continued from a checkpoint: it has no state, or an older format."""
    if not isinstance(checkpoint.get("state", {}).get("progress"), dict):
        raise UserError(f"{path}: this checkpoint has no state to resume from")
    if checkpoint["format"] != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {checkpoint['format']}: only runs of format {FORMAT} are resumed; older ones"
            f" can be started from (`--init`), evaluated and thinned"
        )


def finished(path: Path) -> bool:
    """Return whether a run's checkpoint marks the run as complete; a damaged one does not."""
    try:
        return path.is_file() and bool(load(path).get("finished"))
    except UserError:
        return False


def epoch(path: Path) -> int | None:
    """Return the epoch that a checkpoint says it is of, without reading its tensors; None where it says none."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("epoch")
    except Exception:  # missing, damaged: whoever reads its weights says so
        return None
    return found if type(found) is int else None


def is_signed(path: Path) -> bool:
    """Return whether a file is one that `save` wrote, or the rest of one: it ends with a SHA-256, or any comment."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _COMMENT, 0))
        if _MARK in file.read():
            return True
        try:
            with zipfile.ZipFile(file) as archive:
                return bool(archive.comment)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return False


def older_copy(path: Path) -> str:
    """Return what to do where `path` cannot be used: the end of a message that names the newest older copy that is
    whole. Empty where there are no copies.
    """
    copies = older_copies(path)
    for copy in copies:
        try:
            with open(copy, "rb") as file:
                _verify(file)
        except Exception:
            continue
        move = f"mv {shlex.quote(str(copy))} {shlex.quote(str(path))}"
        return f"; the checkpoint before it, {copy}, is whole: to go on from there, run `{move}` and this command again"
    return f"; {' and '.join(map(str, copies))}: damaged, too" if copies else ""


class _Damaged(Exception):
    """Raised where the bytes of a file are not those that were written."""


def _write(checkpoint: Checkpoint, file: BinaryIO) -> None:
    summed = _Summed(file)
    torch.save(checkpoint, cast(BinaryIO, summed))
    file.seek(-len(_LENGTH), os.SEEK_END)
    file.write(_LENGTH + _comment(summed.sum.hexdigest()))


def _verify(file: BinaryIO) -> None:
    """Raise an exception where the file is not as it was written.

    A file without a comment was written by an older version, or by torch alone: zip's own checksums of its records.
    """
    with zipfile.ZipFile(file) as archive:
        comment = archive.comment
        if not comment and (record := archive.testzip()) is not None:
            raise _Damaged(f"the checksum of its record {record} is wrong")
    if comment and comment != _comment(_sum(file)):
        raise _Damaged("its SHA-256 is not the one it was written with")


def _comment(digest: str) -> bytes:
    return _MARK + digest.encode()


def _sum(file: BinaryIO) -> str:
    """Return the SHA-256 of a zip file as if it had no comment, in hexadecimal digits."""
    digest = hashlib.sha256()
    left = file.seek(0, os.SEEK_END) - _COMMENT - len(_LENGTH)
    file.seek(0)
    while left > 0 and (data := file.read(min(left, 2**20))):
        digest.update(data)
        left -= len(data)
    length = file.read(len(_LENGTH))
    digest.update(bytes(len(_LENGTH)) if length == _LENGTH else length)
    return digest.hexdigest()


class _Summed:
    """A file whose content is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.sum = hashlib.sha256()
        self._file = file

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _newest(checkpoint: Checkpoint) -> bool:
    written = checkpoint.get("format")
    return type(written) is int and written == FORMAT


def _well_formed(checkpoint: Checkpoint) -> bool:
    model, shape, classes = checkpoint["model"], checkpoint["shape"], checkpoint["classes"]
    return (
        isinstance(model, dict)
        and all(isinstance(tensor, torch.Tensor) for tensor in model.values())
        and isinstance(shape, list)
        and len(shape) == 3
        and all(isinstance(side, int) and side > 0 for side in shape)
        and isinstance(classes, list)
        and len(classes) > 0
        and isinstance(checkpoint["config"], dict)
        and isinstance(checkpoint["metrics"], dict)
        and isinstance(checkpoint.get("state", {}), dict)
        and (not _newest(checkpoint) or _knows_its_data(checkpoint))
    )


def _knows_its_data(checkpoint: Checkpoint) -> bool:
    used, data, channels = checkpoint["normalization"], checkpoint["data"], checkpoint["shape"][0]
    return (
        isinstance(used, dict)
        and all(_floats(used.get(key), channels) for key in ("mean", "std"))
        and isinstance(data, dict)
        and _by_split(data.get("counts"), list)
        and _by_split(data.get("content"), str)
    )


def _by_split(values: Any, kind: type) -> bool:
    return isinstance(values, dict) and [type(values.get(split)) for split in ("train", "test")] == [kind, kind]


def _floats(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(isinstance(value, float) for value in values)
