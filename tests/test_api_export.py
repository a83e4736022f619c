"""`compressor.export`: of a run, of a model, of a session in a loop of one's own."""

import json
from pathlib import Path

import pytest
import torch
from helpers import raw, saved, succeed, write_tiny
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import compressor
from compressor.errors import CompressError, UserError

IMAGES = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
SCHEDULE = """\
version: 2
pruners:
  rows: {class: L1RankedStructureParameterPruner, group_type: Rows, desired_sparsity: 0.5, weights: ["1.weight"]}
policies:
  - {pruner: {instance_name: rows}, epochs: [0]}
"""


class Several(nn.Module):
    """A network that gives its logits beside something else."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"features": images.flatten(1), "logits": self.fc(images.flatten(1))}


def about(path: Path) -> dict[str, object]:
    with safe_open(path, "pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items() if key != "format"}


def test_a_model_goes_out_as_it_is_with_what_is_said_of_its_images(tmp_path: Path) -> None:
    model, path = Several().train(), tmp_path / "a.safetensors"
    made = compressor.export(
        model, format="safetensors", out=path, sample_input=IMAGES, class_names=["a", "b", "c"], mean=[0.5], std=[0.25]
    )
    assert (made.path, made.images, made.largest_difference) == (path, 32, 0)
    assert {name: raw(value) for name, value in load_file(path).items()} == {
        name: raw(value) for name, value in model.state_dict().items()
    }
    found = about(path)
    assert (found["class_names"], found["mean"], found["std"]) == (["a", "b", "c"], [0.5], [0.25])
    assert (found["image_size"], found["channels"], found["model"]) == ([4, 4], 1, {"name": "Several"})
    assert model.training
    assert isinstance(model(IMAGES), dict)


def test_a_session_gives_the_model_that_would_be_shipped_also_thin(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (tmp_path / "s.yaml").write_text(SCHEDULE)
    session = compressor.attach(
        tmp_path / "s.yaml", model, optimizer, epochs=1, steps_per_epoch=1, sample_input=IMAGES, say=lambda text: None
    )
    with session.epoch(0), session.step() as step:
        step.backward(model(IMAGES).square().mean())
    whole, thin = tmp_path / "whole.pth", tmp_path / "thin.pth"
    compressor.export(session, format="state-dict", out=whole)
    said: list[str] = []
    compressor.export(session, format="state-dict", out=thin, thin=True, say=said.append)
    assert saved(whole)["1.weight"].shape == (8, 16)
    assert int((saved(whole)["1.weight"] == 0).all(1).sum()) == 4
    assert saved(thin)["1.weight"].shape == (4, 16)
    assert any("163 parameters became 83" in line for line in said)
    assert model[1].weight.shape == (8, 16)
    nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3)).load_state_dict(saved(thin))


def test_a_run_goes_out_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    succeed("train", "-c", "tiny", "--out", "run", "--set", "epochs=1", "--set", "data.images=64")
    made = compressor.export("run", format="packed", say=lambda text: None)
    assert made.path == Path("run/model.packed.safetensors")
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(compressor.load_packed(made.path)(images), compressor.load("run")(images))


def test_what_is_missing_or_wrong_is_said_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "a"
    for given, why in (
        ({"format": "onx", "out": out, "sample_input": IMAGES}, "there is no format 'onx': did you mean 'onnx'"),
        ({"format": "state-dict", "sample_input": IMAGES}, "give out, the path of the file"),
        ({"format": "state-dict", "out": out}, "give sample_input, images"),
        (
            {"format": "state-dict", "out": out, "sample_input": IMAGES[0]},
            r"images \(N, C, H, W\) of floats, got float32",
        ),
        ({"format": "packed", "out": out, "sample_input": IMAGES}, "needs a run or a checkpoint"),
        (
            {"format": "state-dict", "out": out, "sample_input": IMAGES, "class_names": ["a"]},
            "1 names are given, the model has 3 outputs",
        ),
    ):
        with pytest.raises(UserError, match=why):
            compressor.export(Several(), **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="leave out sample_input"):
        compressor.export("run", format="state-dict", sample_input=IMAGES)
    with pytest.raises(CompressError, match="own logits are not finite"):
        compressor.export(Several(), format="state-dict", out=out, sample_input=IMAGES * torch.nan)
    assert list(tmp_path.iterdir()) == []
