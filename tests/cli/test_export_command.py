"""`compress export` as a user meets it: names of files, what is refused, what is said. ONNX has its tests in extras."""

import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, compress, raw, saved, succeed, write_tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import compressor
from compressor import models
from compressor.cli.exporting import FORMATS as NAMES
from compressor.cli.exporting import SCHEMA
from compressor.exports import FORMATS, tensors

NEURONS = """\
version: 2
config: tiny
pruners:
  neurons: {class: L1RankedStructureParameterPruner, group_type: Rows, desired_sparsity: 0.5, weights: [fc1.weight]}
policies:
  - {pruner: {instance_name: neurons}, epochs: [1]}
"""
"""Half of the 16 hidden neurons of `tiny`'s 64-16-10."""

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images):
        print("my forward pass")
        return self.fc(images.flatten(1))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run with half of its neurons masked."""
    folder = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tiny(folder)
        (folder / "neurons.yaml").write_text(NEURONS)
        succeed("train", "-s", "neurons", "--out", "run", "--set", "epochs=2")
        yield folder / "run"


def test_the_formats_are_those_that_can_be_written() -> None:
    assert set(FORMATS) == set(NAMES)


def test_a_runs_weights_go_out_with_what_belongs_to_them(run: Path) -> None:
    result = compress("export", run, "--format", "safetensors")
    assert result.code == 0
    path = run / "model.safetensors"
    assert (
        "verified by strict loading into a new network on 32 test images, in batches of 1, 2, 3, 5, 21:" in result.out
    )
    assert f"written: {path} ({path.stat().st_size:,} bytes)" in result.out
    checkpoint = saved(run / "checkpoint.pt")
    own, found = checkpoint["model"], load_file(path)
    assert {name: raw(value) for name, value in found.items()} == {name: raw(value) for name, value in own.items()}
    with safe_open(path, "pt") as file:
        about = {key: value if key == "format" else json.loads(value) for key, value in file.metadata().items()}
    assert about["class_names"] == [str(digit) for digit in range(10)]
    assert {"mean": about["mean"], "std": about["std"]} == checkpoint["normalization"]
    assert (about["image_size"], about["channels"], about["format"]) == ([8, 8], 1, "pt")
    built = {"name": "mlp", "hidden": [16], "dropout": [0.2], "inputs": 64, "num_classes": 10}
    assert about["model"] == built
    source = about["source"]
    assert source["sha256"] == sha256((run / "checkpoint.pt").read_bytes()).hexdigest()
    assert (source["checkpoint"], source["epoch"], source["schedule"]) == ("checkpoint.pt", 2, NEURONS)
    assert source["versions"]["torch"] == torch.__version__
    assert source["test"]["top1"] == checkpoint["metrics"]["test"]["top1"]


def test_thin_is_what_compress_thin_writes_and_loads_with_a_configuration(run: Path) -> None:
    succeed("thin", run, "--out", "by_thin.pt", "--no-latency")
    result = compress("export", run, "--format", "state-dict", "--thin", "--out", "by_export.pth", "--json")
    made = json.loads(result.out)
    assert made["schema"] == SCHEMA
    assert (made["format"], made["images"], made["batch"], made["path"]) == ("state-dict", 32, None, "by_export.pth")
    assert made["largest_difference"] == 0
    assert "1,210 parameters became 610" in result.err
    own, found = saved(Path("by_thin.pt"))["model"], saved(Path("by_export.pth"))
    assert {name: raw(value) for name, value in found.items()} == {name: raw(value) for name, value in own.items()}


DEEP = """\
model: {name: resnet20_cifar}
data: {name: digits, size: 8, channels: 3, images: 64}
optimizer: {name: sgd, lr: 0.1}
epochs: 1
report: {html: false}
"""


@pytest.mark.parametrize("format", ["safetensors", "state-dict", "packed"])
def test_a_network_with_a_skipped_block_is_read_back(work: Path, format: str) -> None:
    """No shape of a file tells that a block has no convolutions any more: its architecture does."""
    (work / "deep.yaml").write_text(DEEP)
    torch.manual_seed(0)
    network = models.build("resnet20_cifar")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("layer1.1.conv"):
                parameter.zero_()
    torch.save(network.state_dict(), "weights.pth")
    succeed("export", "weights.pth", "-c", "deep", "--thin", "--format", format, "--out", "thin.file")
    assert sum(parameter.numel() for parameter in compressor.load("thin.file", config="deep").parameters()) < 270_000
    assert succeed("eval", "thin.file", "-c", "deep") == succeed("eval", "weights.pth", "-c", "deep")
    said = "thin.file: 1 layer is narrower than the model's: layer1.1.conv1 16 -> 1"
    assert said in succeed("train", "-c", "deep", "--init", "thin.file", "--smoke")
    assert "layer1.1.conv2" in succeed("summary", "thin.file", "-c", "deep")
    assert "nothing" in succeed("thin", "thin.file", "-c", "deep", "--no-latency")


def test_what_other_tools_say_of_an_architecture_is_no_width(work: Path) -> None:
    (work / "deep.yaml").write_text(DEEP)
    network = models.build("resnet20_cifar")
    for number, word in enumerate(("resnet20", '{"family": "resnet"}', '{"fc": {"depth": "20"}}', "[" * 9999)):
        save_file(network.state_dict(), f"{number}.safetensors", {"architecture": word})
        assert compressor.load(f"{number}.safetensors", config="deep").fc.out_features == 10


@pytest.mark.parametrize("thin", [False, True])
def test_a_packed_file_is_the_network_that_compress_loads(run: Path, thin: bool) -> None:
    result = compress("export", run, "--format", "packed", "--out", "a.packed.safetensors", *["--thin"] * thin)
    assert result.code == 0
    assert "bits" not in result.err
    found = compressor.load_packed("a.packed.safetensors")
    if thin:
        succeed("thin", run, "--out", "thin.pt", "--no-latency")
    own = compressor.load("thin.pt" if thin else run)
    assert type(found) is type(own)
    assert {name: raw(value) for name, value in found.state_dict().items()} == {
        name: raw(value) for name, value in own.state_dict().items()
    }


def test_each_file_is_a_new_one_unless_its_name_is_given(run: Path) -> None:
    for name in ("thin", "thin-2"):
        assert f"written: {run / name}.pth" in succeed("export", run / "best.pt", "--format", "state-dict", "--thin")
    out = run / "mine.pth"
    out.write_text("old")
    succeed("export", run, "--format", "state-dict", "--out", out)
    assert set(saved(out)) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}


def test_checkpoints_and_places_without_a_file_are_refused(run: Path) -> None:
    for out, why in (
        (run / "best.pt", "it is a checkpoint, which is not overwritten"),
        (run, "it is a folder"),
        (run / "no" / "x", f"there is no folder {run / 'no'}"),
    ):
        before = (run / "best.pt").read_bytes()
        result = compress("export", run, "--format", "state-dict", "--out", out)
        assert (result.code, result.out) == (2, "")
        assert f"error: --out {out}: {why}" in result.err
        assert (run / "best.pt").read_bytes() == before
    assert compress("export", run, "--format", "onx").code == 2
    assert "no such file" in compress("export", "nothing.pt", "--format", "state-dict").err


def test_a_missing_extra_is_one_line_and_nothing_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    result = compress("export", "nothing.pt", "--format", "onnx")
    assert (result.code, result.out) == (2, "")
    assert result.err == "error: --format onnx needs onnx, onnxscript, onnxruntime: pip install 'compressor[onnx]'\n"


def test_a_failed_verification_leaves_no_file_and_a_traceback_in_the_log(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(self: Any, path: Path) -> Any:
        return {name: value + 1 for name, value in torch.load(path).items()}

    monkeypatch.setattr(tensors.StateDict, "load", spoiled)
    (run / "old.pth").write_text("old")
    before = sorted(path.name for path in run.iterdir())
    for out in ((), ("--out", run / "old.pth")):
        result = compress("export", run, "--format", "state-dict", *out)
        assert (result.code, result.out) == (1, "")
        assert "error: not exported: by strict loading into a new network a logit differs by" in result.err
    assert sorted(path.name for path in run.iterdir()) == before
    assert (run / "old.pth").read_text() == "old"
    assert "compressor.errors.CompressError: not exported" in (run / "log.txt").read_text()


def test_where_zero_filters_cannot_go_the_reasons_are_listed_and_nothing_is_written(work: Path) -> None:
    (work / "exported_net.py").write_text(NET)
    (work / "own.yaml").write_text(
        TINY.replace("name: mlp, hidden: [16], dropout: [0.2], inputs: 64", "name: 'exported_net:Net'")
    )
    weights = {"fc.weight": torch.ones(10, 64), "fc.bias": torch.arange(10.0)}
    weights["fc.weight"][0] = 0
    torch.save(weights, "weights.pth")
    given = ("export", "weights.pth", "-c", "own", "--format", "safetensors", "--allow-plugins")
    thin = compress(*given, "--thin")
    assert (thin.code, thin.out) == (1, "my forward pass\n" * thin.out.count("\n"))
    assert "error: weights.pth: " in thin.err
    assert "fc" in thin.err.partition("error: ")[2]
    whole = compress(*given, "--json")
    assert json.loads(whole.out)["relative_difference"] == 0
    assert "my forward pass" in whole.err
    assert [path.name for path in work.glob("*.safetensors")] == ["model.safetensors"]
    with safe_open("model.safetensors", "pt") as file:
        about = {key: value if key == "format" else json.loads(value) for key, value in file.metadata().items()}
    assert about["model"] == {"name": "exported_net:Net", "num_classes": 10}
    assert (about["source"]["checkpoint"], about["source"]["schedule"]) == ("weights.pth", None)
