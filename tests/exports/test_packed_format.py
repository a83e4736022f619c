"""Packed files by `compress export`: what is read back before the file gets its name, and what is said."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.copying import blank
from compressor.errors import CompressError
from compressor.exports import FORMATS, Model, packed, write
from compressor.storage import pack, unpack

IMAGES = torch.linspace(-1, 1, 800).reshape(4, 2, 10, 10)


def network(weight: Tensor) -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(200, 50), nn.Linear(50, 200), nn.Linear(200, 50))
    made[1].weight.data, made[3].weight = weight, made[1].weight
    return made.eval()


def written(path: Path, weight: Tensor) -> list[str]:
    """What is said while the file is written."""
    said: list[str] = []
    made = network(weight)
    model = Model("net", made, (2, 10, 10), {"class_names": ["a"]}, lambda: blank(made), {"1": {"in_features": 200}})
    write(model, FORMATS["packed"], path, IMAGES, say=said.append)
    return said


def masked(*, multiplied: bool) -> Tensor:
    torch.manual_seed(0)
    weight, keep = torch.randn(50, 200), torch.rand(50, 200) < 0.1
    return weight * keep if multiplied else weight.where(keep, 0.0)


def test_tied_tensors_are_stored_once_and_the_architecture_is_there(tmp_path: Path) -> None:
    assert written(tmp_path / "a", masked(multiplied=False)) == []
    found = unpack((tmp_path / "a").read_bytes())
    assert found.tied == {"3.weight": "1.weight"}
    assert found.metadata == {"class_names": '["a"]', "architecture": '{"1": {"in_features": 200}}'}


def test_many_negative_zeros_are_named(tmp_path: Path) -> None:
    said = written(tmp_path / "a", masked(multiplied=True))
    assert said == [
        "1 tensor has many zeros that are -0.0, as a multiplied mask makes them: the sign of each zero takes a bit"
    ]


def test_a_file_with_another_bit_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(tensors: dict[str, Tensor], about: dict[str, str]) -> bytes:
        other = tensors["1.weight"].clone()
        other[other == 0] = -0.0
        return pack({**tensors, "2.weight": tensors["2.weight"] * 1, "1.weight": other, "3.weight": other}, about)

    monkeypatch.setattr(packed, "pack", wrong)
    with pytest.raises(CompressError, match=r"read back, 1\.weight has other bits than in the network"):
        written(tmp_path / "a", masked(multiplied=False))
    assert list(tmp_path.iterdir()) == []
