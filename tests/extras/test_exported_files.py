"""ONNX and torch.export files of real runs: run where neither compressor nor torch is, with any number of images."""

import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import compress, environment, succeed, write_tiny
from PIL import Image

import compressor

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
README, PAGE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/export.md"))
SERVE = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "onnxruntime" in block)

ONLY = """\
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "compressor", "onnx", "onnxscript", "safetensors"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script as if numpy, onnxruntime and pillow alone were installed: all that could stand for ours is refused."""

NETS = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 6, 3), nn.Linear(6, num_classes)

    def features(self, images):
        return torch.relu(self.conv(images)).mean((2, 3))

    def forward(self, images):
        return self.fc(self.features(images))

class Constant(Net):
    def forward(self, images):
        return self.fc(self.features(images).view(int(images.shape[0]), 6))

class Computed(Net):
    def __init__(self, num_classes=10):
        super().__init__(num_classes)
        self.conv, self.fc = parametrizations.weight_norm(self.conv), weight_norm(self.fc)

class Several(Net):
    def forward(self, images):
        return {"features": self.features(images), "logits": self.fc(self.features(images))}

class Random(Net):
    def forward(self, images):
        logits = self.fc(self.features(images))
        return logits + torch.rand_like(logits)

class Unknown(Net):
    def forward(self, images):
        return self.fc(torch.special.i0e(self.features(images)))

class Recurrent(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.rows, self.fc = nn.LSTM(8, 12, batch_first=True), nn.Linear(12, num_classes)

    def forward(self, images):
        return self.fc(self.rows(images[:, 0])[0][:, -1])

class Attention(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.rows = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.up, self.fc = nn.ConvTranspose2d(1, 4, 2, 2), nn.Linear(8, num_classes)

    def forward(self, images):
        return self.fc(self.rows(images[:, 0]).mean(1)) + self.up(images).mean((1, 2, 3))[:, None]
"""
CONFIG = """\
model: {{name: 'nets:{net}'}}
data: {{name: digits, size: 8, batch: 64}}
optimizer: {{name: sgd, lr: 0.1}}
epochs: 1
"""

SMALL = """\
model: {name: resnet20_cifar}
data: {name: digits, size: 32, channels: 3, images: 64, batch: 32}
optimizer: {name: sgd, lr: 0.01}
epochs: 1
"""

GATES = """\
version: 2
config: tiny
gates:
  drop: {class: DropConnect, modules: [fc2], keep: 0.5, inference: analytic, activation: none}
  hashed: {class: HashedWeights, weights: [fc1.weight], compression: 0.125}
policies:
  - {gate: {instance_name: drop}}
  - {gate: {instance_name: hashed}}
"""
L0 = """\
version: 2
config: tiny
gates:
  l0: {class: HardConcreteL0, weights: [fc1.weight], lambda: 0.1, structure: Cols}
policies:
  - {gate: {instance_name: l0}}
"""
FILTERS = """\
version: 2
config: small
pruners:
  half:
    class: L1RankedStructureParameterPruner
    group_type: Filters
    desired_sparsity: 0.5
    weights: ['*.*.conv1.weight']
policies:
  - {pruner: {instance_name: half}, epochs: [0]}
"""


def extra(name: str) -> Any:
    """Import a library of the extra `onnx`; where it is missing that is a failure in CI, else a skip."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        said = f"{name} is not installed: pip install 'compressor[onnx]' ({error})"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of all tests here, with networks and schedules."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        extra(name)
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tiny(folder)
        (folder / "nets.py").write_text(NETS)
        for name, text in (("gates", GATES), ("l0", L0), ("filters", FILTERS)):
            (folder / f"{name}.yaml").write_text(text)
        (folder / "small.yaml").write_text(SMALL)
        yield folder


def logits_of(path: Path, images: torch.Tensor) -> np.ndarray[Any, Any]:
    """The logits of an ONNX file, as a stranger runs it."""
    session = extra("onnxruntime").InferenceSession(str(path))
    found: np.ndarray[Any, Any] = session.run(["logits"], {"images": images.numpy()})[0]
    return found


@torch.no_grad()
def same(path: Path, run: Path, shape: tuple[int, ...], sizes: range = range(1, 8)) -> None:
    """Assert that a file and `compressor.load` give the same logits for each number of images."""
    network = compressor.load(run, allow_plugins=True)
    for count in sizes:
        images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        right = network(images)
        right = right["logits"] if isinstance(right, dict) else right
        np.testing.assert_allclose(logits_of(path, images), right.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", ["Net", "Computed", "Several", "Recurrent", "Attention"])
def test_networks_of_ones_own_take_any_number_of_images(net: str) -> None:
    Path(f"{net}.yaml").write_text(CONFIG.format(net=net))
    succeed("train", "-c", net, "--out", net, "--allow-plugins")
    before = sorted(Path(net).iterdir())
    for format, file in (("onnx", "model.onnx"), ("torch-export", "model.pt2")):
        out = succeed("export", net, "--format", format, "--allow-plugins", "--no-latency")
        assert "on 32 test images, in batches of 1, 2, 3, 5, 21" in out
        assert f"written: {net}/{file} (" in out
    assert sorted({*Path(net).iterdir()} - {*before}) == [Path(net, "model.onnx"), Path(net, "model.pt2")]
    same(Path(net, "model.onnx"), Path(net), (1, 8, 8))
    extra("onnx").checker.check_model(f"{net}/model.onnx", full_check=True)
    names = {one.name for one in extra("onnx").load(f"{net}/model.onnx").graph.output}
    assert names == {"logits"}


def test_a_network_whose_code_fixes_the_number_of_images_takes_one(folder: Path) -> None:
    Path("Constant.yaml").write_text(CONFIG.format(net="Constant"))
    succeed("train", "-c", "Constant", "--out", "constant", "--allow-plugins")
    result = compress("export", "constant", "--format", "onnx", "--allow-plugins", "--json")
    assert json.loads(result.out)["batch"] == 1
    assert "the file takes 1 image at a time: the model's code computes with the number of images" in result.err
    same(Path("constant/model.onnx"), Path("constant"), (1, 8, 8), range(1, 2))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        ("Unknown", "the model nets:Unknown cannot be exported to ONNX: "),
        ("Random", "; the network itself gives other logits each time"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_no_file(net: str, said: str) -> None:
    Path(f"{net}.yaml").write_text(CONFIG.format(net=net))
    succeed("train", "-c", net, "--out", net, "--allow-plugins")
    before = sorted(Path(net).iterdir())
    result = compress("export", net, "--format", "onnx", "--allow-plugins")
    assert (result.code, result.out) == (1, "")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert sorted(Path(net).iterdir()) == before


@pytest.mark.parametrize("schedule", ["gates", "l0"])
def test_gates_are_folded(schedule: str) -> None:
    succeed("train", "-s", schedule, "--out", schedule, "--set", "epochs=2")
    succeed("export", schedule, "--format", "onnx", "--no-latency")
    same(Path(schedule, "model.onnx"), Path(schedule), (1, 8, 8))
    names = {one.name for one in extra("onnx").load(f"{schedule}/model.onnx").graph.initializer}
    assert {"fc1.weight", "fc2.weight"} <= names
    assert not any("gate" in name or "hash" in name for name in names)


def test_a_thinned_resnet_is_smaller_and_equal_and_the_file_has_nothing_of_this_machine(folder: Path) -> None:
    succeed("train", "-s", "filters", "--out", "filters")
    succeed("export", "filters", "--format", "onnx", "--no-latency")
    out = succeed("export", "filters", "--format", "onnx", "--thin")
    whole, thin = Path("filters/model.onnx"), Path("filters/thin.onnx")
    assert thin.stat().st_size < 0.6 * whole.stat().st_size
    for path in (whole, thin):
        same(path, Path("filters"), (3, 32, 32))
        assert b"/" + str(folder).encode().partition(b"/")[2] not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()
    rows = [line.split() for line in out.splitlines() if line.startswith(("torch", "onnxruntime"))]
    assert [len(row) for row in rows] == [7, 8]  # name (and version), median, spread and gain for 1 and for 16 images
    assert "on 1 thread of the cpu, in turns: medians and interquartile ranges" in out
    # torch.export's file, too, runs without us, with the same numbers, and has no lines of code.
    succeed("export", "filters", "--format", "torch-export", "--thin")
    with zipfile.ZipFile("filters/thin.pt2") as file:
        assert not any(b"site-packages" in file.read(name) for name in file.namelist())
    about = {"metadata.json": ""}
    program = torch.export.load("filters/thin.pt2", extra_files=about).module()
    assert json.loads(about["metadata.json"])["class_names"] == [str(digit) for digit in range(10)]
    images = torch.randn(7, 3, 32, 32)
    np.testing.assert_allclose(logits_of(thin, images), program(images).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_lines_of_the_readme_serve_a_file_where_neither_compressor_nor_torch_is(folder: Path) -> None:
    """By the same python, in isolated mode, with an import hook that refuses torch and compressor."""
    succeed("train", "-c", "tiny", "--out", "served", "--set", "epochs=8")
    succeed("export", "served", "--format", "onnx", "--no-latency")
    assert SERVE in PAGE
    Path("serve.py").write_text(SERVE)
    Path("only.py").write_text(ONLY)
    from compressor.config import DataConfig
    from compressor.data import load

    digits = load(DataConfig(name="digits", size=8), None, 0)
    _, images, labels = next(digits.test.batches(torch.arange(6), 6, torch.device("cpu")))
    network = compressor.load("served")
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image[0].numpy()).save(f"{number}.png")
        pixels = (image[None] / 255 - digits.mean[0]) / digits.std[0]
        expected = digits.classes[int(network(pixels).argmax())]
        assert served(f"{number}.png") == expected
        assert expected == str(int(label)) or number  # the first one is right: it was trained
    wide = Image.new("RGB", (21, 8), "white")  # the centred square, from column (21 - 8) // 2 on
    wide.paste(Image.open("0.png"), (6, 0))
    wide.save("wide.png")
    assert served("wide.png") == served("0.png")


def served(image: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "only.py", "serve.py", "served/model.onnx", image],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
