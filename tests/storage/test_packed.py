"""Packed files: the same bits, the same bytes each time, and what is refused before anything is made of it."""

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from compressor.errors import CompressError
from compressor.storage import pack, unpack

Edit = Callable[[dict[str, Any]], Any]


def sparse(*shape: int, density: float = 0.1, dtype: torch.dtype = torch.float32) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return (torch.randn(*shape, generator=draws) * (torch.rand(*shape, generator=draws) < density)).to(dtype)


def same_bits(one: Tensor, other: Tensor) -> bool:
    kinds = one.dtype == other.dtype and one.shape == other.shape
    return kinds and one.contiguous().flatten().view(torch.uint8).equal(other.contiguous().flatten().view(torch.uint8))


def example() -> dict[str, Tensor]:
    return {"conv.weight": sparse(8, 4, 3, 3, density=0.08), "conv.bias": torch.arange(8.0), "steps": torch.tensor(3)}


def taken_apart(file: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", file[:8])[0]
    return json.loads(file[8 : 8 + length]), file[8 + length :]


def sealed(header: dict[str, Any] | str, data: bytes) -> bytes:
    """A file with this header, with the checksum as the page on the format has it: over zeros in its own place."""
    text = (header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))).encode()
    file = bytearray(struct.pack("<Q", len(text)) + text + data)
    file[35:99] = b"0" * 64
    file[35:99] = hashlib.sha256(bytes(file)).hexdigest().encode()
    return bytes(file)


def edited(edit: Edit, records: Edit = lambda records: None) -> bytes:
    """The example with its header changed, and the records of its tensors, by hand, under a right checksum."""
    header, data = taken_apart(pack(example(), {}))
    there = json.loads(header["__metadata__"]["tensors"])
    there = records(there) or there
    header["__metadata__"]["tensors"] = json.dumps(there)
    return sealed(edit(header) or header, data)


BITS = st.lists(st.sampled_from([0] * 6 + [1, 0x80, 0x7F, 0xFF, 0xC0, 0x3F, 0x42]), min_size=0, max_size=3000)
DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e4m3fn),
    *(torch.float8_e5m2, torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64),
]


@given(BITS, st.sampled_from(DTYPES), st.integers(1, 400))
@settings(max_examples=60)
def test_any_bits_of_any_type_come_back(content: list[int], dtype: torch.dtype, zeros: int) -> None:
    raw = bytes(content) + bytes(8 * zeros)
    raw = raw[: len(raw) // dtype.itemsize * dtype.itemsize]
    tensor = torch.from_numpy(np.frombuffer(raw, np.uint8).copy()).view(dtype)
    tensors = {"a": tensor, "b": tensor[:7].clone(), "mask": torch.tensor([True, False])}
    found = unpack(pack(tensors, {"note": "größer"}))
    assert found.metadata == {"note": "größer"}
    assert {name: same_bits(tensors[name], back) for name, back in found.state_dict().items()} == {
        "a": True,
        "b": True,
        "mask": True,
    }


def test_the_library_reads_it_and_dense_tensors_have_their_types_there() -> None:
    tensors = example()
    found = load(pack(tensors, {}))
    assert found.keys() == tensors.keys()
    assert found["conv.weight"].dtype == torch.uint8
    assert all(same_bits(found[name], tensors[name]) for name in ("conv.bias", "steps"))


def test_each_byte_is_where_the_page_says() -> None:
    """4 of 64 weights: two files of a header by hand."""
    weight = torch.zeros(2, 32)
    weight[0, 3], weight[0, 4], weight[1, 0], weight[1, 31] = 1.0, 2.0, 3.0, 4.0
    bias = torch.tensor([0.5, -0.5])
    file = pack({"w": weight, "b": bias}, {"note": "x"})
    # Gaps of 3, 0, 27 and 30, in five bits each; k = 4 of Golomb-Rice takes 22 bits, which are three bytes, too.
    content = struct.pack("<4f", 1, 2, 3, 4) + (3 + 27 * 2**10 + 30 * 2**15).to_bytes(3, "little")
    records = '{\\"w\\":{\\"form\\":\\"relative\\",\\"parameter\\":5,\\"shape\\":[2,32],'
    records += '\\"values\\":{\\"type\\":\\"float32\\",\\"count\\":4}}}'
    header = '{"__metadata__":{"sha256":"' + "0" * 64 + f'","packed":"1","tensors":"{records}","note":"x"}},'
    header += '"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    header += f'"w":{{"dtype":"U8","shape":[{len(content)}],"data_offsets":[8,{8 + len(content)}]}}}}'
    header += " " * (-len(header) % 8)
    assert file == sealed(header, struct.pack("<2f", 0.5, -0.5) + content)


def test_dense_numbers_are_aligned() -> None:
    tensors = {"a": torch.tensor([True]), "b": torch.ones(3, dtype=torch.float16), "c": torch.tensor(7)}
    header, _ = taken_apart(pack({**tensors, "d": sparse(999), "e": torch.ones(3)}, {}))
    sizes = {"BOOL": 1, "F16": 2, "F32": 4, "I64": 8}
    places = {
        name: entry["data_offsets"][0] % sizes[entry["dtype"]] for name, entry in header.items() if name in "abce"
    }
    assert places == {"a": 0, "b": 0, "c": 0, "e": 0}


def test_the_same_tensors_give_the_same_bytes_in_any_layout() -> None:
    tensors = example()
    turned = {
        name: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in tensors.items()
    }
    assert pack(tensors, {"a": "1", "b": "2"}) == pack(turned, {"a": "1", "b": "2"})


def test_a_tied_tensor_is_stored_once() -> None:
    weight = sparse(100, 100)
    found = unpack(pack({"a": weight.detach(), "b": weight.detach(), "c": weight.clone()}, {}))
    assert (set(found.tensors), found.tied) == ({"a", "c"}, {"b": "a"})
    assert same_bits(found.state_dict()["b"], weight)


def test_numbers_of_a_type_that_files_have_not_are_refused() -> None:
    with pytest.raises(CompressError, match=r"z: a packed file holds dense tensors of bool, .*: complex128"):
        pack({"z": torch.zeros(3, dtype=torch.complex128)}, {})


def test_a_file_that_is_not_as_it_was_written_is_refused() -> None:
    file = pack(example(), {"classes": '["cat", "dog"]'})
    for at in range(0, len(file), 7):
        for bit in (1, 128):
            damaged = bytearray(file)
            damaged[at] ^= bit
            with pytest.raises(CompressError, match=r"damaged|not a packed file"):
                unpack(bytes(damaged))
    for cut in (*range(0, len(file), 11), len(file) - 1):
        with pytest.raises(CompressError, match=r"damaged|not a packed file"):
            unpack(file[:cut])
    for more in (b"\0", b" ", file):
        with pytest.raises(CompressError, match="damaged or altered"):
            unpack(file + more)


def test_other_files_are_none() -> None:
    for other in (b"", b"PK\3\4" + bytes(200), save({"a": torch.ones(50)}, {"sha256": "0" * 64})):
        with pytest.raises(CompressError, match="not a packed file"):
            unpack(other)


def weight(**changes: Any) -> bytes:
    """With another record of the weight."""
    return edited(lambda header: None, lambda there: {**there, "conv.weight": {**there["conv.weight"], **changes}})


def entry(name: str, **changes: Any) -> bytes:
    return edited(lambda header: {**header, name: {**header[name], **changes}})


def metadata(**changes: Any) -> bytes:
    return edited(lambda header: header["__metadata__"].update(changes))


LIST = "should be a list of numbers from 0"
HOSTILE = [
    (
        weight(form="arithmetic"),
        "conv.weight: a tensor in the form arithmetic, which this version cannot read: there a",
    ),
    (
        weight(values={"type": "codes", "bits": 4, "count": 9, "table": [1.0]}),
        "conv.weight: values of the type codes, ",
    ),
    (weight(values={"type": "float23", "count": 9}), "did you mean 'float32'"),
    (weight(form=3), "conv.weight: its record has a wrong form"),
    (weight(values=None), "conv.weight: its record has a wrong values"),
    (weight(level=3), "conv.weight: its record has a wrong level"),
    (weight(values={"type": "float32", "count": True}), "wrong values.count"),
    (weight(values={"type": "float32", "count": -1}), "wrong values.count"),
    (weight(shape=[-8, -36]), "a shape of [-8, -36]"),
    (weight(form="rice", parameter=17), "in the form rice with 17, at most 16"),
    (weight(parameter=-1), "conv.weight: its record has a wrong parameter"),
    (weight(shape=[2**40]), "tensors of 4,398,046,511,1"),
    (weight(shape=[1] * 65), "conv.weight: its record has a wrong shape"),
    (metadata(tensors='{"more": {}}'), "more: it has a record, and no bytes"),
    (metadata(tensors='{"conv.weight": []}'), "conv.weight: its record has a wrong form"),
    (metadata(tensors="[]"), "its tensors should be an object of JSON, got []"),
    (metadata(tensors='{"a":1,"a":2}'), "its tensors cannot be read: the key 'a' stands there more than once"),
    (metadata(tensors=""), "its tensors cannot be read"),
    (metadata(packed="2"), "a packed file of the format 2: this version reads the format 1"),
    (metadata(tied='{"x":"x"}'), "x: it cannot share the tensor x"),
    (metadata(tied='{"x":"y","y":"x"}'), "x: it cannot share the tensor y"),
    (metadata(tied='{"steps":"conv.bias"}'), "steps: it cannot share the tensor conv.bias"),
    (metadata(tied='{"x":["conv.bias"]}'), "x: it cannot share the tensor ['conv.bias']"),
    (metadata(note=3), "its metadata should be texts"),
    (entry("conv.bias", dtype="F128"), "conv.bias: numbers of the type F128: known are BOOL"),
    (entry("conv.bias", dtype=["F32"]), "conv.bias: numbers of the type ['F32']"),
    (entry("conv.weight", dtype="I8"), "conv.weight: a tensor with a record should have bytes (U8), got I8"),
    (entry("conv.bias", data_offsets=[0, 8], shape=[2]), "it should begin at"),
    (entry("conv.bias", shape=[2**40]), "conv.bias: F32 of shape [1099511627776]"),
    (entry("conv.bias", shape=[2] * 65), f"conv.bias: its shape {LIST}"),
    (entry("conv.bias", shape=[8.0]), f"conv.bias: its shape {LIST}"),
    (entry("conv.bias", shape=[-8]), f"conv.bias: its shape {LIST}"),
    (entry("steps", data_offsets=[True, 8]), f"steps: its data_offsets {LIST}"),
    (entry("steps", data_offsets=[0]), "steps: its data_offsets should be two numbers"),
    (entry("steps", more=1), "steps: its record should have data_offsets, dtype, shape"),
    (edited(lambda header: {**header, "conv.weight": []}), "conv.weight: its record should have data_offsets"),
    (sealed({"__metadata__": taken_apart(pack({}, {}))[0]["__metadata__"]}, b"12345"), "5 bytes at its end belong to"),
]


@pytest.mark.parametrize(("file", "said"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_header_that_cannot_be_is_refused_in_one_line(file: bytes, said: str) -> None:
    with pytest.raises(CompressError) as error:
        unpack(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def raw(text: str) -> bytes:
    start = '{"__metadata__":{"sha256":"' + "0" * 64 + '","packed":"1"'
    return sealed(start + text, b"")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (raw(',"a":"b","a":"c"}}'), "the key 'a' stands there more than once"),
        (raw(',"sha256":"x"}}'), "the key 'sha256' stands there more than once"),
        (raw(',"packed":"1"}}'), "the key 'packed' stands there more than once"),
        (raw("},"), "its header cannot be read"),
        (raw('},"a":NaN}'), "NaN is no finite number"),
        (raw('},"a":1e999}'), "1e999 is no finite number"),
        (raw('},"a":' + "9" * 9000 + "}"), "its header cannot be read"),
        (raw('},"a":' + "[" * 200_000 + "]" * 200_000 + "}"), "nested too deeply"),
        (raw(f'}},"{"a" * 500}":1}}'), "its record should have data_offsets"),
        (raw('},"line\\nbreak":1}'), "'line\\nbreak': its record"),
        (b"\xff" * 7 + b"\x7f" + raw("}}")[8:], "damaged: a header of 9,223,372,036,854,775,807 bytes"),
    ],
    ids=range(11),
)
def test_a_text_that_is_no_header_is_refused_in_one_line(file: bytes, said: str) -> None:
    with pytest.raises(CompressError) as error:
        unpack(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_tensor_whose_bytes_are_none_of_it_is_named() -> None:
    damaged = weight(values={"type": "float32", "count": 3})
    with pytest.raises(CompressError, match=r"^conv\.weight: "):
        unpack(damaged).state_dict()
    header, _ = taken_apart(pack({"flag": torch.tensor([True])}, {}))
    with pytest.raises(CompressError, match="flag: a truth value should be 0 or 1"):
        unpack(sealed(header, b"\2")).state_dict()


def test_what_the_header_claims_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,024 MiB of zeros are within the limit: where the bytes are none of them, no memory is taken."""
    file = weight(shape=[2**28 - 100], values={"type": "float32", "count": 2**27})
    monkeypatch.setattr(torch, "zeros", None)
    with pytest.raises(CompressError, match=r"entries in .* bytes are too many"):
        unpack(file).state_dict()
