"""What is read as a checkpoint, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import difference

from compressor import models
from compressor.errors import UserError
from compressor.models.preact_resnet_cifar import PreactResNetCifar
from compressor.thinning import describe
from compressor.training import checkpoint, load_weights

WHOLE: dict[str, Any] = {
    "format": checkpoint.FORMAT,
    "model": {"fc.weight": torch.tensor([[1.5, -0.0]])},
    "config": {},
    "shape": [1, 8, 8],
    "classes": ["a", "b"],
    "metrics": {},
}


def test_what_was_saved_is_loaded_in_the_same_bits(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", WHOLE)
    assert difference(checkpoint.load(tmp_path / "c.pt"), WHOLE) is None
    assert difference(torch.load(tmp_path / "c.pt", weights_only=True), WHOLE) is None


def test_the_format_is_two_until_the_layout_changes_again() -> None:
    assert checkpoint.FORMAT == 2


def test_the_weights_of_format_one_can_still_be_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {**WHOLE, "format": 1})
    assert checkpoint.load(tmp_path / "c.pt")["format"] == 1


@pytest.mark.parametrize("key", WHOLE)
def test_a_file_without_one_of_the_entries_is_refused(tmp_path: Path, key: str) -> None:
    checkpoint.save(tmp_path / "c.pt", {name: value for name, value in WHOLE.items() if name != key})
    with pytest.raises(UserError, match=r"c\.pt: not a checkpoint"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_checkpoint_of_another_format_is_refused_by_number(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {**WHOLE, "format": 77})
    with pytest.raises(UserError, match=r"77.*1"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", WHOLE)
    whole = (tmp_path / "c.pt").read_bytes()
    for length in range(0, len(whole), max(len(whole) // 25, 1)):
        (tmp_path / "torn.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"torn\.pt"):
            checkpoint.load(tmp_path / "torn.pt")


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was here",))

    torch.save({**WHOLE, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("name", ["nowhere.pt", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.load(tmp_path / name)


@pytest.mark.parametrize("thinned", [False, True])
def test_the_pre_activation_resnets_of_earlier_versions_are_refused_in_one_message(thinned: bool) -> None:
    earlier = PreactResNetCifar(3, 10, convolves=True)
    saved = {**WHOLE, "model": earlier.state_dict(), **({"architecture": describe(earlier)} if thinned else {})}
    with pytest.raises(UserError) as refused:
        load_weights(models.build("preact_resnet20_cifar"), saved, "c.pt")
    [line] = str(refused.value).splitlines()
    assert line.startswith("c.pt: written by an earlier version, whose pre-activation ResNets had convolutions")
    assert "layer2.0.downsample.0" in line
    assert "train the network again" in line
    load_weights(models.build("preact_resnet20_cifar"), {**saved, **now()}, "c.pt")


def now() -> dict[str, Any]:
    network = models.build("preact_resnet20_cifar")
    return {"model": network.state_dict(), "architecture": describe(network)}
