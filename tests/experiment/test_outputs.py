"""Networks with several outputs: what is used is said, and what is wrong is said before there is a folder."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

import torch
from helpers import compress, succeed
from torch import nn

import compressor

NETS = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, training, shipped, num_classes=10):
        super().__init__()
        self.forms = {True: training, False: shipped}
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc, self.aux = nn.Linear(4, num_classes), nn.Linear(4, num_classes)

    def forward(self, x):
        maps = self.bn(self.conv(x)).relu()
        flat = maps.mean((2, 3))
        main, aux = self.fc(flat), self.aux(flat)
        return {
            "plain": lambda: main,
            "tuple": lambda: (main, aux),
            "value": lambda: (main, float(flat.mean())),
            "features": lambda: (torch.cat([flat, flat, flat], 1), main),
            "maps": lambda: [maps, main],
            "out": lambda: {"aux": aux, "out": main},
            "dict": lambda: {"aux": aux, "main": main},
            "pred": lambda: {"pred": main},
            "nested": lambda: {"heads": {"main": main}, "features": torch.cat([flat, flat, flat], 1)},
            "losses": lambda: {"loss": main.mean(), "aux": aux.mean()},
            "object": lambda: nn.Module(),
            "wide": lambda: torch.cat([main, aux], 1),
            "fails": lambda: self.nothing(flat),
            "norm": lambda: nn.functional.batch_norm(main, None, None, training=self.training),
        }[self.forms[self.training]]()

def pair(num_classes=10):
    return Net("out", "out", num_classes)
"""

CONFIG = """\
model: {name: 'several:Net', training: tuple, shipped: plain}
data: {name: digits, batch: 32, images: 40}
optimizer: {name: sgd, lr: 0.1}
epochs: 1
report: {html: false}
"""


@pytest.fixture(autouse=True)
def files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    (work / "several.py").write_text(NETS)
    (work / "c.yaml").write_text(CONFIG)
    (work / "s.yaml").write_text(
        "version: 2\npolicies:\n"
        "  - {pruner: {class: Pruner, weights: conv.weight, rate: {sparsity: 0.5}}, epochs: [0]}\n"
    )


def sets(training: str, shipped: str, *more: str) -> list[str]:
    values = [f"model.training={training}", f"model.shipped={shipped}", *more]
    return [word for value in values for word in ("--set", value)]


@pytest.mark.parametrize(
    ("training", "shipped", "said"),
    [
        ("tuple", "plain", "gives a tuple of 2 (2x10, 2x10) in training mode: the first is used as the logits"),
        ("tuple", "tuple", "in training and eval mode: the first is used"),
        ("plain", "tuple", "gives a tuple of 2 (1x10, 1x10) in eval mode: the first is used"),
        ("value", "plain", "gives a tuple of 2 (2x10, float) in training mode"),
        ("maps", "plain", "is not a classifier: the output for 2 images in training mode should be a (2, classes)"),
        ("features", "features", "the first has 12 columns, but there are 10 classes: set model.output: 1"),
        ("dict", "plain", "in training mode: it gives a dict of 2 (aux: 2x10, main: 2x10): choose the logits by"),
        ("nested", "nested", "'features' has 12 columns, but there are 10 classes: choose the logits by `model.output"),
        ("losses", "plain", "(loss: one number, aux: one number): none are logits"),
        ("out", "pred", "in training mode: 'out' is used as the logits, a dict of 1 (pred: 1x10) in eval mode: 'pred'"),
        ("wide", "plain", "has 10 outputs, in training mode 20"),
        ("object", "plain", "in training mode: it gives a Module"),
        ("fails", "plain", "in training mode (2 at once): AttributeError: 'Net' object has no attribute 'nothing'"),
    ],
)  # fmt: skip
def test_validate_runs_both_forms(training: str, shipped: str, said: str) -> None:
    result = compress("validate", "s.yaml", "-c", "c.yaml", *sets(training, shipped))
    assert said in result.err
    assert result.code == (0 if "is used" in said or "float" in said else 2), result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("mian", "there is no 'mian': did you mean 'main'?"),
        ("main", "'main' is used as the logits"),
        ("-1", "the last is used as the logits"),
    ],
)
def test_the_key_is_checked(key: str, said: str) -> None:
    result = compress("validate", "s.yaml", "-c", "c.yaml", *sets("dict", "dict", f"model.output={key}"))
    assert said in result.err
    assert (result.code == 2) == ("no 'mian'" in said)
    if result.code:
        assert result.err.startswith("--set model.output=mian: ")


def test_a_key_may_be_of_one_mode() -> None:
    result = compress("validate", "s.yaml", "-c", "c.yaml", *sets("dict", "pred", "model.output=main"))
    assert result.code == 0
    assert "in training mode: 'main' is used as the logits, a dict of 1 (pred: 1x10) in eval mode: 'pred'" in result.err
    wrong = compress("validate", "s.yaml", "-c", "c.yaml", *sets("out", "pred", "model.output=mian"))
    assert (wrong.code, "there is no 'mian'" in wrong.err) == (2, True)


def test_a_key_without_several_outputs_is_refused() -> None:
    result = compress("validate", "s.yaml", "-c", "c.yaml", *sets("plain", "plain", "model.output=0"))
    assert (result.code, "the model gives one tensor, in training and in eval mode: remove it" in result.err) == (
        2,
        True,
    )


def test_a_wrong_form_leaves_no_folder(work: Path) -> None:
    result = compress("train", "-c", "c.yaml", "--out", "o", *sets("maps", "plain"))
    assert (result.code, (work / "o").exists()) == (2, False)


def test_one_image_at_once_is_tried_as_one() -> None:
    arguments = ["-c", "c.yaml", *sets("norm", "plain", "data.batch=1")]
    assert "(1 at once): Expected more than 1 value per channel" in compress("validate", "s.yaml", *arguments).err


def test_a_run_uses_the_chosen_output_everywhere(work: Path) -> None:
    out = succeed("train", "-s", "s.yaml", "-c", "c.yaml", "--out", "o", *sets("dict", "dict", "model.output=main"))
    assert "'main' is used as the logits" in out
    succeed("train", "-s", "s.yaml", "-c", "c.yaml", "--out", "p", *sets("plain", "plain"))
    network, plain = (compressor.load(work / folder) for folder in ("o", "p"))
    for own, other in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(own, other)  # neither the check nor the other output leaves a trace
    assert set(network(torch.rand(1, 1, 8, 8))) == {"aux", "main"}
    assert "top-1" in succeed("eval", "o")


def test_layers_of_other_outputs_are_thinned_with_what_they_read(work: Path) -> None:
    (work / "s.yaml").write_text(
        (work / "s.yaml").read_text().replace("weights: conv", "structure: Filters, weights: conv")
    )
    succeed("train", "-s", "s.yaml", "-c", "c.yaml", "--out", "o", *sets("out", "out"))
    succeed("thin", "o", "--no-latency")
    assert compressor.load(work / "o" / "thin.pt").aux.weight.shape == (10, 2)


def test_a_proposed_schedule_leaves_out_the_layer_of_the_logits(work: Path) -> None:
    succeed("new", "--model", "several:pair", "--goal", "elements:0.5")
    (schedule,) = work.glob("pair-elements*.yaml")
    assert "weights: ['*', '!fc.weight'] " in schedule.read_text()


def test_the_images_shape_may_be_known_late(work: Path) -> None:
    (work / "images.py").write_text(
        "import torch\n"
        "def make():\n"
        "    labels = torch.arange(40) % 10\n"
        "    split = torch.utils.data.TensorDataset(torch.rand(40, 1, 8, 8), labels)\n"
        "    return split, split\n"
    )
    values = sets("tuple", "plain", "data.name=images:make", "data.images=null")
    assert "in training mode: the first is used" in succeed("train", "-c", "c.yaml", "--out", "o", *values)
    values = sets("wide", "plain", "data.name=images:make", "data.images=null")
    result = compress("train", "-c", "c.yaml", "--out", "p", *values)
    assert (result.code, (work / "p").exists()) == (2, False)
    assert "has 10 outputs, in training mode 20" in result.err


def test_torchvisions_outputs() -> None:
    """GoogLeNet with its auxiliary heads: a namedtuple in training mode, a tensor in eval mode."""
    torchvision = pytest.importorskip("torchvision")
    from compressor.experiment.outputs import check_forms
    from compressor.experiment.specification import specification
    from compressor.models.output import with_output

    with torch.device("meta"):
        made: nn.Module = torchvision.models.googlenet(num_classes=10, aux_logits=True, init_weights=False)
    config = specification(None, "c.yaml").config
    (line,) = check_forms(config, with_output(made, None), (3, 64, 64), "images", 10)
    assert "a GoogLeNetOutputs of 3 (logits: 2x10, aux_logits2: 2x10, aux_logits1: 2x10) in training mode" in line
    assert "'logits' is used" in line
