"""`compress new`: files that are valid, for what a network's channels and the images are; and why there are none."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from helpers import compress, succeed
from PIL import Image

from compressor import data
from compressor.experiment.proposal import Proposal, goal_of
from compressor.experiment.proposal_text import config_text
from compressor.experiment.starting import start

NETS = """\
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.outer, self.norm = nn.Conv2d(width, 6, 3, 1, 1), nn.Conv2d(6, width, 1), nn.BatchNorm2d(width)
    def forward(self, x):
        return torch.relu(x + self.norm(self.outer(torch.relu(self.inner(x)))))

class Small(nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, width, 3), Block(width), nn.Linear(width, num_classes)
    def forward(self, x):
        return self.head(self.block(torch.relu(self.stem(x))).mean((2, 3)))

class Normed(Small):
    '''A layer norm over the channels: those of the stem and the block's last layer cannot be removed.'''
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.last = nn.LayerNorm(8)
    def forward(self, x):
        return self.head(self.last(self.block(torch.relu(self.stem(x))).mean((2, 3))))

class Line(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(784, num_classes)
    def forward(self, x):
        return self.head(x.flatten(1))

class Lazy(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))

def needs(depth, side, num_classes=3):
    return Small(num_classes)

def named(n_classes):
    return Small(n_classes)

def fixed():
    return Small(2)
"""


@pytest.fixture
def folder(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`nets.py`, and `shapes/`: 3 classes of 6 + 2 images, of uneven sizes, grey and coloured ones."""
    (work / "nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(work)
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    for split, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("dark", "grey", "light")):
            where = work / "shapes" / split / name
            where.mkdir(parents=True)
            for number in range(count):
                colour = 30 + 100 * label + number
                sides = (40 + number, 35 + 4 * number)
                image = Image.new("L", sides, colour) if number % 2 else Image.new("RGB", sides, (colour, 0, colour))
                image.save(where / f"{number}.png")
    return work


def proposed(model: str, images: str = "digits", goal: str = "filters:0.5") -> Proposal:
    return start(model, {}, images, goal, None, Path()).proposal


def test_from_a_model_and_a_folder_of_images_to_a_thinned_network_in_two_commands(folder: Path) -> None:
    said = succeed("new", "--model", "nets:Small", "--data", "shapes", "--set", "model.width=12")
    command = next(line for line in said.splitlines() if line.startswith("  compress train") and "smoke" not in line)
    assert command == "  compress train -s Small-filters --allow-plugins --data shapes"
    config = yaml.safe_load((folder / "Small-shapes.yaml").read_text())
    assert config["model"] == {"name": "nets:Small", "num_classes": 3, "width": 12}
    # Shorter sides are 35, 39, 42, 43, 44, 45 of each class: the median is 42.5, and 32 the largest size below.
    assert config["data"] == {
        "name": "imagefolder",
        "size": 32,
        "channels": 3,
        "batch": 8,
        "validation": 0.0,
        "augment": ["crop", "flip"],
    }
    assert "Both are valid" in said
    assert "valid for Small-shapes" in succeed("validate", "Small-filters")
    succeed(*command.split()[1:], "--out", "run")
    weights = torch.load("run/checkpoint.pt", weights_only=True)["model"]
    # Half of 12 and of 6 filters, and those of block.outer with the stem's, to which they are added.
    shapes = {name: list(tensor.shape) for name, tensor in weights.items() if tensor.dim() > 1}
    assert shapes == {
        "stem.weight": [6, 3, 3, 3],
        "block.inner.weight": [3, 6, 3, 3],
        "block.outer.weight": [6, 3, 1, 1],
        "head.weight": [3, 6],
    }


def test_lazy_layers_and_a_folder_without_test_images(folder: Path) -> None:
    (folder / "shapes" / "train").rename(folder / "pictures")
    proposal = start("nets:Lazy", {}, "pictures", "filters:0.5", None, Path()).proposal
    assert proposal.layers.chosen == ("0.weight",)
    assert (proposal.images.train, proposal.images.test) == (15, 3)  # of 6 images of each class one
    text = (folder / "Lazy-pictures.yaml").read_text()
    assert "one image in five is held out for the test" in text.replace("\n  # ", " ")  # a comment of two lines


@pytest.mark.parametrize(
    ("model", "goal", "chosen"),
    [
        ("nets:Small", "filters:0.5", ["stem.weight", "block.inner.weight", "block.outer.weight"]),
        ("nets:Normed", "filters:0.5", ["block.inner.weight"]),
        ("nets:Small", "filters:0.15", ["stem.weight", "block.outer.weight"]),  # 0.15 of 6 filters is none
        ("nets:Normed", "elements:0.9", ["stem.weight", "block.inner.weight", "block.outer.weight"]),
        ("nets:Line", "elements:0.9", ["head.weight"]),  # all there is
        ("mlp", "filters:0.5", ["fc1.weight", "fc2.weight"]),
        ("lenet_5", "elements:0.5", ["conv1.weight", "conv2.weight", "fc1.weight"]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_can_be_removed_is_selected_and_what_makes_the_logits_is_not(
    model: str, goal: str, chosen: list[str]
) -> None:
    started = start(model, {}, "digits", goal, None, Path())
    assert list(started.proposal.layers.chosen) == chosen
    schedule = yaml.safe_load(started.schedule.read_text())
    assert schedule["version"] == 2
    gradual, last = schedule["pruners"]["gradual"], schedule["policies"][0]["ending_epoch"] - 1
    assert str(goal_of(goal).sparsity) in str(gradual)
    held = started.plan.policies[0].sparsity
    assert held[last] == pytest.approx(goal_of(goal).sparsity, abs=1e-12)
    assert [weight.name for weight in started.plan.policies[0].weights] == chosen
    assert started.warnings == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--model nets:Line", "no layer has filters that could be removed (every layer makes the logits, or shares"),
        ("--model nets:Line", "`--goal elements:0.9` sets single weights to zero"),
        ("--model resnet81", "there is no model 'resnet81': did you mean 'resnet18'"),
        ("--model nets:Smal", "did you mean 'Small'?"),
        ("--model nets:named", "needs the argument n_classes: give --set model.n_classes=10"),
        ("--model nets.py:Small", "'nets.py' is a file: a module has its name without .py, as in nets:FACTORY"),
        ("--model nets:needs", "needs the arguments depth, side: give --set model.depth=... --set model.side=..."),
        ("--model nets:fixed", "it has 2 outputs, the images have 10 classes: give it an argument `num_classes`"),
        ("--model mlp --set model.hiden=[3]", "no argument 'hiden': did you mean 'hidden'?"),
        ("--model mlp --set epochs=3", "only arguments of the model are set here (model.NAME=VALUE): edit the files"),
        ("--model mlp --set model.num_classes=x", "--set model.num_classes: Input should be a valid integer"),
        ("--model mlp --goal filters", "--goal filters: should be filters:0.5 (half of the filters of each layer"),
        ("--model mlp --goal filters:50", "or elements:0.9 (90 % of the weights, set to zero), with a number between"),
        ("--model mlp --goal channels:0.5", "--goal channels:0.5: should be filters:0.5"),
        ("--model mlp --data dgits", "--data dgits: neither a folder nor a data set by name: did you mean 'digits'?"),
        ("--model mlp --data shapes/train", "expected train/<class>/* and test/<class>/*"),
        ("--model mlp --init gone.pt", "--init gone.pt: there is no such file"),
        ("--model mlp --goal filters:0.001", "no layer has filters"),
    ],
)
def test_why_there_are_no_files(folder: Path, arguments: str, said: str) -> None:
    before = sorted(folder.iterdir())
    result = compress("new", *arguments.split())
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_nothing_is_overwritten_and_code_needs_the_flag(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed("new", "--model", "mlp", "--out", "deep/er")
    written = folder / "deep/er/mlp-filters.yaml"
    assert "config: deep/er/mlp-digits.yaml" in written.read_text()
    written.write_text("version: 2\n")
    result = compress("new", "--model", "mlp", "--out", "deep/er")
    assert result.code == 2
    assert "deep/er/mlp-filters.yaml exists and is not overwritten: remove it, or give another folder" in result.err
    # The configuration of another goal is the same one.
    assert "-s deep/er/mlp-elements.yaml" in succeed(
        "new", "--model", "mlp", "--goal", "elements:0.9", "--out", "deep/er"
    )
    monkeypatch.delenv("COMPRESS_ALLOW_PLUGINS")
    result = compress("new", "--model", "nets:Small")
    assert result.code == 2
    assert "allow it with --allow-plugins" in result.err
    assert "-s Small-filters --allow-plugins" in succeed("new", "--model", "nets:Small", "--allow-plugins")


def test_trained_weights_need_fewer_epochs_and_a_smaller_rate(folder: Path) -> None:
    succeed("train", "-c", "mlp_digits", "--set", "epochs=1", "--set", "data.images=32", "--out", "run")
    (folder / "run" / "checkpoint.pt").rename(folder / "w.pt")
    start("mlp", {}, "digits", "filters:0.5", None, folder / "new")
    start("mlp", {}, "digits", "filters:0.5", "w.pt", folder / "trained")
    new, trained = (yaml.safe_load((folder / name / "mlp-digits.yaml").read_text()) for name in ("new", "trained"))
    # 1,437 images in batches of 32: 26 epochs are 1,200 steps, and 30 the least that is proposed.
    assert (new["epochs"], new["optimizer"]["lr"], "init" in new) == (30, 0.0005, False)
    assert (trained["epochs"], trained["optimizer"]["lr"], trained["init"]) == (15, 0.0001, "w.pt")
    schedule = yaml.safe_load((folder / "trained" / "mlp-filters.yaml").read_text())
    assert schedule["policies"][0]["starting_epoch"] == 1
    # Of other classes: the head begins with new weights.
    started = start("mlp", {"num_classes": 12}, "digits", "filters:0.5", "w.pt", folder / "other")
    assert yaml.safe_load(started.config.read_text())["init"] == {"path": "w.pt", "head": "reset"}
    result = compress("new", "--model", "lenet_5", "--init", "w.pt")
    assert result.code == 2
    assert result.err.startswith("error: --init w.pt: ")


def test_a_survey_counts_and_measures_without_decoding(folder: Path) -> None:
    found = data.survey("shapes")
    assert (found.classes, found.train, found.test) == (("dark", "grey", "light"), 18, 6)
    # min(40 + n, 35 + 4 n) for n = 0 .. 5: 35, 39, 42, 43, 44, 45; the median of 42 and 43 is cut to 42.
    assert (found.side, found.sides, found.channels) == (42, (35, 45), 3)
    for path in (folder / "shapes").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert data.survey("shapes").channels == 1
    (folder / "shapes" / "train" / "dark" / "0.png").write_bytes(b"no image")
    result = compress("new", "--model", "mlp", "--data", "shapes")
    assert result.code == 2
    assert "shapes/train/dark/0.png: cannot be read as an image: UnidentifiedImageError" in result.err


@pytest.mark.parametrize(
    ("classes", "augment"), [(["0", "1", "2"], ["crop"]), (["dog", "cat", "cow"], ["crop", "flip"])]
)
def test_digits_and_letters_are_not_mirrored(folder: Path, classes: list[str], augment: list[str]) -> None:
    for split in ("train", "test"):
        for old, new in zip(("dark", "grey", "light"), classes, strict=True):
            (folder / "shapes" / split / old).rename(folder / "shapes" / split / new)
    assert list(proposed("nets:Small", "shapes").augment) == augment


def test_a_large_network_does_not_write_a_checkpoint_after_every_epoch() -> None:
    proposal = proposed("mlp")
    assert proposal.checkpoint == 12 * (784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10)
    assert "checkpoint" not in yaml.safe_load(config_text(proposal))
    text = config_text(replace(proposal, checkpoint=3 * 10**8))
    assert "checkpoint: {every_epochs: 3}  # each has about 300 MB" in re.sub(r"  +#", "  #", text)
