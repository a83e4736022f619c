"""A `.safetensors` file with a checksum over all of it, written and read to the byte.

The library `safetensors` reads these files. They are written and parsed here for three reasons: the same tensors give
the same bytes (the library writes metadata in any order), a checksum has its place, and nothing of a damaged or hostile
file is believed before it is checked.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor import strict_json
from compressor.errors import CompressError

PREFIX = b'{"__metadata__":{"sha256":"'
"""The first bytes of the header: the digits of the checksum follow, at bytes 35 to 98 of the file."""
_NEXT = b'","packed":'
"""What follows them."""
_DIGITS = slice(8 + len(PREFIX), 8 + len(PREFIX) + 64)
_NONE = b"0" * 64
_LARGEST_HEADER = 100_000_000
"""Bytes of a header, as the library `safetensors` allows."""
_MOST_DIMS = 64
"""Of a tensor of torch."""
_ALIGNMENT = 8
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}
"""Bytes of a number, by dtype."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its dtype in the file's word for it, its shape, its bytes in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def write(entries: Mapping[str, Entry], format: str, metadata: Mapping[str, str]) -> bytes:
    """Return the file: entries in their order; the checksum and the format's number in front of the metadata."""
    header: dict[str, Any] = {"__metadata__": {"sha256": _NONE.decode(), "packed": format, **metadata}}
    end = 0
    for name, entry in entries.items():
        begin, end = end, end + len(entry.data)
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [begin, end]}
    text = strict_json.dumps(header, compact=True).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file = b"".join([len(text).to_bytes(8, "little"), text, *(entry.data for entry in entries.values())])
    return file[: _DIGITS.start] + _digest(file).encode() + file[_DIGITS.stop :]


def is_packed(path: Path) -> bool:
    """Return whether a file begins as packed files do."""
    with open(path, "rb") as file:
        return _begins(file.read(_DIGITS.stop + len(_NEXT)))


def read(file: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the entries and the metadata, without the checksum.

    Raises `CompressError`, with the reason alone, where the file is another one, or not as it was written. Entries are
    views of the file: nothing is copied.
    """
    length = int.from_bytes(file[:8], "little")
    if not _begins(file):
        raise CompressError("not a packed file")
    if length > min(len(file) - 8, _LARGEST_HEADER):
        raise CompressError(f"damaged: a header of {length:,} bytes, the file has {len(file):,}")
    if file[_DIGITS] != _digest(file).encode():
        raise CompressError("damaged or altered: its SHA-256 is not the one it was written with")
    try:
        header = strict_json.loads(file[8 : 8 + length].decode())
    except (UnicodeDecodeError, ValueError) as error:
        raise CompressError(f"its header cannot be read: {error}") from None
    metadata = header.pop("__metadata__")  # the prefix has both
    if not all(isinstance(text, str) for text in metadata.values()):
        raise CompressError("its metadata should be texts")
    del metadata["sha256"]
    return _entries(header, memoryview(file)[8 + length :]), metadata


def _begins(file: bytes) -> bool:
    return file[8 : _DIGITS.start] == PREFIX and file[_DIGITS.stop :].startswith(_NEXT)


def shown(found: Any) -> str:
    """Return what stands in a file for a message: on one line, not too long."""
    text = found if isinstance(found, str) and found.isprintable() else repr(found)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _entries(header: dict[str, Any], data: memoryview) -> dict[str, Entry]:
    """Return the entries; they lie one behind the other, and there is nothing else."""
    found, end = {}, 0
    for name, record in header.items():
        begin, last = _offsets(name, record)
        dtype, shape = record["dtype"], record["shape"]
        if not isinstance(dtype, str) or dtype not in SIZES:
            raise CompressError(f"{shown(name)}: numbers of the type {shown(dtype)}: known are {', '.join(SIZES)}")
        size = math.prod(shape) * SIZES[dtype]
        if begin != end or last != begin + size or last > len(data):
            raise CompressError(
                f"{shown(name)}: {dtype} of shape {shown(shape)} at the bytes {begin:,} to {last:,} of {len(data):,};"
                f" it should begin at {end:,} and have {size:,} bytes"
            )
        found[name] = Entry(dtype, tuple(shape), data[begin:last])
        end = last
    if end != len(data):
        raise CompressError(f"{len(data) - end:,} bytes at its end belong to nothing")
    return found


def _offsets(name: str, record: Any) -> tuple[int, int]:
    """Return where an entry begins and ends."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(record, dict) or record.keys() != keys:
        raise CompressError(f"{shown(name)}: its record should have {', '.join(sorted(keys))}")
    numbers = record["data_offsets"]
    for key in ("shape", "data_offsets"):
        value = record[key]
        if (
            not isinstance(value, list)
            or len(value) > _MOST_DIMS
            or not all(type(one) is int and 0 <= one < 2**63 for one in value)
        ):
            raise CompressError(f"{shown(name)}: its {key} should be a list of numbers from 0")
    if len(numbers) != 2:
        raise CompressError(f"{shown(name)}: its data_offsets should be two numbers")
    return numbers[0], numbers[1]


def _digest(file: bytes) -> str:
    """Return the SHA-256 of a file in which the digits of the checksum are zeros, in hexadecimal digits."""
    digest = hashlib.sha256(file[: _DIGITS.start])
    digest.update(_NONE)
    digest.update(memoryview(file)[_DIGITS.stop :])
    return digest.hexdigest()
