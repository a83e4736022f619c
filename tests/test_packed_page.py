"""docs/packed.md: its reader, which knows nothing of this package, reads what is written; its bytes are right."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.storage import pack, unpack

PAGE = (Path(__file__).parents[1] / "docs" / "packed.md").read_text(encoding="utf-8")


def example() -> dict[str, Tensor]:
    """A tensor for each form, with few and with many -0.0."""
    draws = torch.Generator().manual_seed(0)
    dense, mask = torch.randn(80, 90, generator=draws), torch.rand(80, 90, generator=draws) < 0.1
    regular = torch.zeros(2000)
    regular[1::2] = dense.flatten()[:1000]
    halves = (dense[:40] > 0).float()
    few = dense.where(mask, 0.0)
    few[3, 3:5] = -0.0
    return {
        "rice": dense.where(mask, 0.0),
        "signs": dense * mask,
        "few": few,
        "relative": regular,
        "bitmask": halves,
        "dense": dense,
        "none": torch.zeros(700),
        "steps": torch.tensor(3),
        "on": torch.tensor([True, False]),
    }


def test_the_reader_of_the_page_reads_every_form(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(import hashlib.*?)```", PAGE, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    tensors = example()
    tensors["tied"] = tensors["rice"]
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack(tensors, {"note": "x"}))
    packed = unpack(path.read_bytes()).tensors
    assert {(packed[name].form, packed[name].signs) for name in packed} >= {
        ("rice", False),
        ("rice", True),
        ("relative", False),
        ("bitmask", False),
        ("dense", False),
    }
    found = namespace["tensors"](path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].shape == tuple(tensor.shape), name
        assert np.array_equal(found[name].reshape(-1).view("u1"), tensor.reshape(-1).view(torch.uint8).numpy()), name


def test_the_bytes_of_the_page_are_those_of_the_tensor() -> None:
    (shown,) = re.findall(r"```\n((?:[0-9A-F]{2} +)+[0-9A-F]{2})\n```", PAGE)
    weight = torch.zeros(2, 32)
    weight[0, 3], weight[0, 4], weight[1, 0], weight[1, 31] = 1.0, 2.0, 3.0, 4.0
    stored = unpack(pack({"w": weight}, {})).tensors["w"]
    assert (stored.form, stored.parameter) == ("relative", 5)
    assert bytes(stored.data) == bytes.fromhex(shown)
