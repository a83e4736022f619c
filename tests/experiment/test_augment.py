"""Transforms in a run: where their faults stand, whose code is run, and that nobody can tell a resumed run."""

from pathlib import Path

import pytest
from helpers import compress, interrupted, run_difference, saved, succeed

CONFIG = """\
model: {name: mlp, hidden: [4], inputs: 64}
data:
  name: digits
  size: 8
  images: 100
  augment:
    - crop
    - RandomRotation: {degrees: 10}
    - flip
optimizer: {name: sgd, lr: 0.1}
epochs: 2
report: {html: false}
"""


@pytest.fixture(autouse=True)
def files(work: Path) -> None:
    (work / "c.yaml").write_text(CONFIG)


def test_a_run_resumed_in_mid_epoch_has_the_same_bits(work: Path) -> None:
    keys = ("batch=30", "random_erase=0.5", "mixup_alpha=0.4", "cutmix_alpha=1")
    sets = [word for key in keys for word in ("--set", f"data.{key}")]
    succeed("train", "-c", "c.yaml", "--out", "whole", *sets)
    interrupted("-c", "c.yaml", "--out", "run", *sets, epoch=1, step=0)
    succeed("train", "--resume", "--out", "run", "-c", "c.yaml", *sets)
    assert run_difference(work / "run", work / "whole") is None
    assert saved(work / "run" / "checkpoint.pt")["config"]["data"]["augment"][1] == {"RandomRotation": {"degrees": 10}}


def test_each_fault_stands_at_its_item(work: Path) -> None:
    (work / "c.yaml").write_text(CONFIG.replace("- crop", "- MixUp").replace("degrees", "degree"))
    result = compress("train", "-c", "c.yaml", "--out", "o")
    assert result.code == 2
    assert result.err.splitlines() == [
        "error: c.yaml:7:7: data.augment: MixUp mixes images and their labels: set data.mixup_alpha",
        "c.yaml:8:7: data.augment: RandomRotation has no argument 'degree': did you mean 'degrees'?",
    ]
    assert not (work / "o").exists()


def test_code_of_ones_own_needs_the_flag(work: Path) -> None:
    (work / "own_augment.py").write_text("def make(by=1):\n    return lambda image: (image + by).clamp(max=255)\n")
    (work / "c.yaml").write_text(CONFIG.replace("RandomRotation: {degrees: 10}", "'own_augment:make': {by: 0}"))
    result = compress("train", "-c", "c.yaml", "--out", "o")
    assert (result.code, (work / "o").exists()) == (2, False)
    assert result.err.startswith("error: c.yaml:8:7: data.augment.1: this would import the module 'own_augment'")
    succeed("train", "-c", "c.yaml", "--out", "o", "--allow-plugins")
    assert compress("eval", "o").code == 2
    assert "top-1" in succeed("eval", "o", "--allow-plugins")


def test_the_shape_of_images_may_be_known_late(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    (work / "late_images.py").write_text(
        "import torch\n"
        "def make():\n"
        "    part = torch.utils.data.TensorDataset(torch.rand(20, 1, 8, 8), torch.arange(20) % 10)\n"
        "    return part, part\n"
    )
    text = CONFIG.replace("digits\n  size: 8\n  images: 100", "late_images:make").replace(
        "RandomRotation: {degrees: 10}", "RandomCrop: {size: 6}"
    )
    (work / "c.yaml").write_text(text)
    result = compress("train", "-c", "c.yaml", "--out", "o")
    assert (result.code, (work / "o").exists()) == (2, False)
    assert "c.yaml:6:7: data.augment: RandomCrop makes 1x6x6 of an image of 1x8x8" in result.err
