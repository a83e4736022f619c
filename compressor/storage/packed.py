"""The packed file: the tensors of a network in one `.safetensors` file, each in its shortest form.

`docs/packed.md` has the layout to the byte. A tensor has one entry of its own name: dense tensors as in any file of
that kind, others as bytes (`U8`) whose record stands in the metadata under `tensors`:

    {"form": "rice", "parameter": 3, "shape": [64, 3, 7, 7], "values": {"type": "float32", "count": 940}}

`values` has the type of the values. Another type (codes of k bits with a table) would have more keys there, and the
bytes of its codes instead of the numbers. A type that is not known is refused by its name.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from compressor import strict_json
from compressor.errors import CompressError, did_you_mean
from compressor.storage import container
from compressor.storage.container import Entry, shown
from compressor.storage.forms import DENSE, PARAMETERS, decode, encode, smallest
from compressor.storage.tied import first_names

FORMAT = 1
"""Of the records. The number rises when a file of it could be misread by a reader of the one before."""

_TYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The types of values."""
_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn, "I16": torch.int16, "U16": torch.uint16, "F16": torch.float16,
    "BF16": torch.bfloat16, "I32": torch.int32, "U32": torch.uint32, "F32": torch.float32, "I64": torch.int64,
    "U64": torch.uint64, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
_WORDS = {dtype: word for word, dtype in _DTYPES.items()}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}

_ANY, _TIMES = 2**30, 1000
"""A file may be of tensors of as many bytes as this, whatever its size, and of so many times its own size."""


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: str
    count: int = Field(ge=0)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    form: str
    parameter: int = Field(default=0, ge=0)
    signs: bool = False
    shape: list[int] = Field(max_length=64)
    values: _Values


@dataclass(frozen=True)
class Stored:
    """A tensor of a file that is not decoded yet."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    form: str
    parameter: int
    entries: int
    data: bytes | memoryview
    signs: bool = False

    @property
    def bytes(self) -> int:
        """Return the bytes of the tensor in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self) -> Tensor:
        """Return the tensor, on the CPU. Raises `CompressError` where the bytes are none of it."""
        content = np.frombuffer(self.data, np.uint8)
        if self.form != DENSE:
            how = (self.form, self.parameter, self.entries, self.dtype, self.shape)
            return decode(content, *how, signs=self.signs)
        if self.dtype == torch.bool and content.size and content.max() > 1:
            raise CompressError("a truth value should be 0 or 1")
        return torch.from_numpy(content.copy()).view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Packed:
    """What a packed file holds. `tied`: by a name that has no tensor the name whose tensor it shares."""

    tensors: dict[str, Stored]
    tied: dict[str, str]
    metadata: dict[str, str]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name. Raises `CompressError` that names the tensor whose bytes are none of it."""
        found = {}
        for name, stored in self.tensors.items():
            try:
                found[name] = stored.tensor()
            except CompressError as error:
                raise CompressError(f"{shown(name)}: {error}") from None
        return found | {name: found[other] for name, other in self.tied.items()}


def most_bytes(size: int) -> int:
    """Return the bytes of the largest network that is read from a file of `size` bytes: zeros alone take no bytes."""
    return max(_ANY, _TIMES * size)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the packed file of a state dict; the same tensors and texts give the same bytes.

    A tied tensor is stored once. Raises `CompressError` where numbers are of a type that such files cannot hold.
    """
    first = first_names(tensors)
    own = {name: tensors[name] for name in dict.fromkeys(first.values())}
    layouts = {name: smallest(tensor) for name, tensor in own.items()}
    dense = {name: _dense(name, own[name]) for name, layout in layouts.items() if layout.form == DENSE}
    # The largest numbers first: then all of them are aligned.
    entries = dict(sorted(dense.items(), key=lambda item: -container.SIZES[item[1].dtype]))
    records = {}
    for name, layout in layouts.items():
        if layout.form == DENSE:
            continue
        content = encode(own[name], layout.form, layout.parameter, signs=layout.signs)
        entries[name] = Entry("U8", (len(content),), content)
        parameter = {"parameter": layout.parameter} if layout.form != "bitmask" else {}
        values = {"type": _NAMES[own[name].dtype], "count": layout.entries}
        signs = {"signs": True} if layout.signs else {}
        shape = list(own[name].shape)
        records[name] = {"form": layout.form, **parameter, **signs, "shape": shape, "values": values}
    texts = {"tensors": strict_json.dumps(records, compact=True)}
    if tied := {name: other for name, other in first.items() if name != other}:
        texts["tied"] = strict_json.dumps(tied, compact=True)
    return container.write(entries, str(FORMAT), {**texts, **metadata})


def unpack(file: bytes) -> Packed:
    """Return what a packed file holds, its records checked; tensors are decoded when they are asked for.

    Raises `CompressError`, with the reason alone, where it is another file, damaged, or its records cannot be.
    """
    entries, metadata = container.read(file)
    found = metadata.pop("packed", None)
    if found != str(FORMAT):
        raise CompressError(f"a packed file of the format {shown(found)}: this version reads the format {FORMAT}")
    records = _object(metadata, "tensors")
    tied = _object(metadata, "tied") if "tied" in metadata else {}
    if unknown := [name for name in records if name not in entries]:
        raise CompressError(f"{shown(unknown[0])}: it has a record, and no bytes")
    stored = {
        name: _encoded(name, entry, records[name]) if name in records else _plain(entry)
        for name, entry in entries.items()
    }
    for name, other in tied.items():
        if name in stored or not isinstance(other, str) or other not in stored:
            raise CompressError(f"{shown(name)}: it cannot share the tensor {shown(other)}")
    size, most = sum(one.bytes for one in stored.values()), most_bytes(len(file))
    if size > most:
        raise CompressError(f"tensors of {size:,} bytes: of a file of {len(file):,} bytes at most {most:,} are read")
    return Packed(stored, tied, metadata)


def _dense(name: str, tensor: Tensor) -> Entry:
    if tensor.dtype not in _WORDS or tensor.layout != torch.strided:
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
        raise CompressError(f"{name}: a packed file holds dense tensors of {', '.join(map(_plainly, _WORDS))}: {kind}")
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return Entry(_WORDS[tensor.dtype], tuple(tensor.shape), flat.numpy().tobytes())


def _plainly(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _plain(entry: Entry) -> Stored:
    dtype = _DTYPES[entry.dtype]
    return Stored(dtype, entry.shape, DENSE, 0, math.prod(entry.shape), entry.data)


def _encoded(name: str, entry: Entry, record: Any) -> Stored:
    """Return a tensor with a record. Raises `CompressError` where this version cannot read it, or where it is wrong."""
    if isinstance(record, dict):
        values = record.get("values")
        _known(name, "a tensor in the form", record.get("form"), PARAMETERS)
        _known(name, "values of the type", values.get("type") if isinstance(values, dict) else None, _TYPES)
    try:
        checked = _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        said = first["msg"].partition(" or instance of")[0].lower()
        raise CompressError(f"{shown(name)}: its record has a wrong {where or 'form'}: {said}") from None
    shape, most = tuple(checked.shape), PARAMETERS[checked.form]
    if entry.dtype != "U8" or len(entry.shape) != 1:
        raise CompressError(f"{shown(name)}: a tensor with a record should have bytes (U8), got {entry.dtype}")
    if any(not 0 <= side < 2**63 for side in shape) or checked.parameter > most:
        raise CompressError(
            f"{shown(name)}: a shape of {shown(checked.shape)} in the form {checked.form} with {checked.parameter}, at"
            f" most {most}"
        )
    dtype, count = _TYPES[checked.values.type], checked.values.count
    return Stored(dtype, shape, checked.form, checked.parameter, count, entry.data, checked.signs)


def _known(name: str, what: str, word: Any, known: Collection[str]) -> None:
    """Raise `CompressError` where a word is none that this version knows; what is no word is refused elsewhere."""
    if isinstance(word, str) and word not in known:
        said = f"{what} {shown(word)}, which this version cannot read: {did_you_mean(word, known)}"
        raise CompressError(f"{shown(name)}: {said}")


def _object(metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        found = strict_json.loads(metadata.pop(key, ""))
    except ValueError as error:
        raise CompressError(f"its {key} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise CompressError(f"its {key} should be an object of JSON, got {shown(found)}")
    return found
