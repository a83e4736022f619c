"""Files of weights: every bit, each tensor with a storage of its own, read as others read them."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import raw
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.copying import blank
from compressor.errors import CompressError
from compressor.exports import FORMATS, Model, write

IMAGES = torch.linspace(-1, 1, 72).reshape(4, 2, 3, 3)
ABOUT = {"class_names": ["grün", "b"], "mean": [0.1, 0.2], "nothing": None}


class Tied(nn.Module):
    """Two layers with one weight, a weight that is stored in another order, zeros of both signs, an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 2, 1).to(memory_format=torch.channels_last)
        self.second, self.third = nn.Linear(18, 2, bias=False), nn.Linear(18, 2)
        self.third.weight = self.second.weight
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4).t()[1:])
        with torch.no_grad():
            self.first.bias.copy_(torch.tensor([-0.0, 1e-40]))

    def forward(self, images: Tensor) -> Tensor:
        flat = self.first(images).flatten(1)
        logits: Tensor = self.second(flat) - 2 * self.third(flat)
        return logits


def read(format: str, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if format == "safetensors":
        with safe_open(path, "pt") as file:
            return load_file(path), file.metadata()
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        about = json.loads(file.read("archive/extra/metadata.json"))
    return torch.load(path, weights_only=True), {key: json.dumps(value) for key, value in about.items()}


@pytest.mark.parametrize("format", ["safetensors", "state-dict"])
def test_every_bit_is_there_and_loads_strictly(tmp_path: Path, format: str) -> None:
    network, path = Tied().eval(), tmp_path / "a"
    thin = {"third": {"in_features": 18, "out_features": 2}}
    made = write(Model("tied", network, (2, 3, 3), ABOUT, lambda: blank(network), thin), FORMATS[format], path, IMAGES)
    assert made.largest_difference == 0
    assert made.latency is None  # it is torch that runs it
    tensors, about = read(format, path)
    assert {name: (value.dtype, value.shape, raw(value)) for name, value in tensors.items()} == {
        name: (value.dtype, value.shape, raw(value)) for name, value in network.state_dict().items()
    }
    Tied().load_state_dict(tensors, strict=True)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    del about["format" if format == "safetensors" else "nothing"]
    about.pop("nothing", None)
    assert {key: json.loads(value) for key, value in about.items()} == {
        "class_names": ["grün", "b"],
        "mean": [0.1, 0.2],
        "architecture": thin,
    }


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("format", ["safetensors", "state-dict"])
def test_what_does_not_load_strictly_is_not_written(tmp_path: Path, format: str) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(18, 2))
    model = Model("tied", Tied().eval(), (2, 3, 3), {}, lambda: other)
    with pytest.raises(CompressError, match=r"does not load strictly into a new tied: .*Missing key"):
        write(model, FORMATS[format], tmp_path / "a", IMAGES)
    assert list(tmp_path.iterdir()) == []
