"""A factory of the user's own: called once in a command, with any code of Python in it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, succeed

import compressor
from compressor.config import Config
from compressor.experiment.networks import Networks

THEIR = """\
import functools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CALLS, ARGUMENTS = [], []
MEAN = torch.tensor([0.25]).reshape(1, 1, 1)
TEACHER = nn.Linear(2, 2)
STEM = nn.Conv2d(1, 4, 3, padding=1)


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        rates = [rate.item() for rate in torch.linspace(0, 0.2, 3)]
        self.first, self.norm, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3)
        self.drop, self.last = nn.Dropout(rates[1]), nn.Linear(6, num_classes)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        x = F.relu(self.norm(self.first((x - MEAN) / MEAN.max().item())))
        return self.last(self.drop(F.relu(self.second(x)).mean((2, 3)))) * self.scale


def make(num_classes, weights=None):
    CALLS.append(num_classes)
    net = Net(num_classes)
    if weights is not None:
        net.load_state_dict(torch.load(weights))
    if float(net.last.weight.detach().abs().max()) > 0 and TEACHER.weight.detach().numpy().tolist():
        net.extra = nn.Conv2d(1, 1, 1)  # only where values can be read
    return net


class NoCopy(nn.BatchNorm2d):
    def __deepcopy__(self, memo):
        raise TypeError("there is only one")


def uncopied(num_classes):
    net = make(num_classes)
    net.norm = NoCopy(4)
    return net


@functools.lru_cache
def cached(num_classes):
    net = make(num_classes)
    net.first = STEM
    return net


def frozen(num_classes):
    net = make(num_classes)
    net.first.requires_grad_(False)
    return net


def n_classes(n_classes=4, out=10):
    return Net(n_classes)


def anything(**given):
    ARGUMENTS.append(given)
    return other_name(**given)


def other_name(labels=10):
    return Net(labels)
"""

CONFIG = """\
model: {name: 'their_net:make'}
data: {name: digits, size: 8, batch: 64, images: 128, validation: 0.1}
optimizer: {name: sgd, lr: 0.1}
epochs: 1
report: {html: false}
"""

FILTERS = """\
version: 2
config: own
policies:
  - pruner: {class: Pruner, criterion: l1, structure: Filters, weights: second.weight, rate: {sparsity: 0.5}}
    epochs: [0]
"""


@pytest.fixture(autouse=True)
def their(work: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (work / "their_net.py").write_text(THEIR)
    (work / "own.yaml").write_text(CONFIG)
    (work / "filters.yaml").write_text(FILTERS)
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    monkeypatch.syspath_prepend(work)
    sys.modules.pop("their_net", None)
    import their_net

    yield their_net
    sys.modules.pop("their_net", None)


def config(name: str = "make", **model: Any) -> Config:
    """The configuration of `own.yaml`, for another factory or other arguments."""
    optimizer = {"name": "sgd", "lr": 0.1}
    data = {"name": "digits", "size": 8}
    return Config.model_validate(
        {"model": {"name": f"their_net:{name}", **model}, "data": data, "optimizer": optimizer, "epochs": 1}
    )


def test_every_command_calls_the_factory_once(their: Any, work: Path) -> None:
    """Today's figures: a factory may take long, and load half a gigabyte."""
    calls = {}
    for command in (
        ("validate", "filters.yaml"),
        ("plan", "filters.yaml"),
        ("train", "-s", "filters.yaml", "--out", "run"),
        ("train", "-s", "filters.yaml", "--smoke"),
        ("report", "run", "--no-latency"),
        ("eval", "run"),
        ("thin", "run", "--no-latency"),
        ("report", "run/thin.pt", "--no-latency"),
        ("eval", "run/thin.pt"),
    ):
        their.CALLS.clear()
        succeed(*command)
        calls[command] = list(their.CALLS)
    assert set(map(tuple, calls.values())) == {(10,)}
    widths = {path: compressor.load(path, allow_plugins=True).second.weight.shape[0] for path in ("run", "run/thin.pt")}
    assert widths == {"run": 6, "run/thin.pt": 3}


def test_the_classes_of_files_are_read_before_the_factory_is_called(
    their: Any, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "their_data.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n\n"
        "def make(size):\n    part = TensorDataset(torch.rand(30, 1, 8, 8), torch.arange(30) % 3)\n"
        "    part.classes = ['a', 'b', 'c']\n    return part, part\n"
    )
    succeed("train", "-c", "own", "--set", "data.name=their_data:make", "--set", "data.images=20", "--out", "run")
    assert their.CALLS == [3]


def test_the_first_weights_are_those_of_the_seed_and_no_draw_is_lost(their: Any) -> None:
    torch.manual_seed(0)
    expected = their.make(10).state_dict()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    networks = Networks(config(), None)
    names = list(networks.skeleton(10).state_dict())
    trial = networks.for_trial(10)
    network = networks.to_train(10)
    loads = networks.to_load(10)
    assert torch.equal(torch.get_rng_state(), before)
    assert "extra.weight" in names
    assert all(torch.equal(expected[name], tensor) for name, tensor in network.state_dict().items())
    assert trial.last.weight is not network.last.weight
    assert not any(bool(tensor.any()) for tensor in loads.state_dict().values())
    assert float(loads.scale) == 2  # what no state dict holds keeps its value
    assert all(tensor.is_meta for tensor in networks.skeleton(10).state_dict().values())
    assert their.CALLS == [10, 10]


def test_a_network_that_cannot_be_copied_is_made_again(their: Any) -> None:
    succeed("train", "-s", "filters.yaml", "--set", "model.name=their_net:uncopied", "--out", "run")
    assert 1 < len(their.CALLS) <= 4
    succeed("eval", "run")


def test_weights_that_a_factory_loads_are_kept_and_init_says_that_it_draws_them(their: Any, work: Path) -> None:
    torch.manual_seed(3)
    torch.save(their.Net(10).state_dict(), "w.pt")
    loaded = Networks(config(weights="w.pt"), None).to_train(10).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in torch.load("w.pt").items())
    said = compress("validate", "filters.yaml", "--set", "model.weights=w.pt", "--set", "init=xavier")
    assert said.code == 0
    assert "their_net:make has loaded; `init: default` keeps them" in said.err


def test_a_factory_that_gives_the_same_layers_each_time_makes_two_networks(their: Any) -> None:
    succeed("train", "-s", "filters.yaml", "--set", "model.name=their_net:cached", "--out", "run")
    one, two = (compressor.load("run", allow_plugins=True) for _ in range(2))
    assert one.first is not two.first
    assert one.first is not their.STEM
    assert one.last.weight is not two.last.weight


def test_frozen_parameters_are_named(their: Any) -> None:
    said = compress("validate", "filters.yaml", "--set", "model.name=their_net:frozen")
    assert said.code == 0
    assert (
        "2 parameters are frozen (requires_grad is False): first.weight, first.bias: they are not trained" in said.err
    )


def test_another_name_for_the_number_of_classes(their: Any) -> None:
    said = compress("validate", "filters.yaml", "--set", "model.name=their_net:n_classes")
    assert said.code == 2
    assert "has 4 outputs, the data set digits has 10: set model.n_classes: 10" in said.err
    succeed("validate", "filters.yaml", "--set", "model.name=their_net:n_classes", "--set", "model.n_classes=10")
    succeed("validate", "filters.yaml", "--set", "model.name=their_net:anything")
    assert their.ARGUMENTS == [{"num_classes": 10}, {}]


LAZY = """\
import torch
from torch import nn

from their_net import CALLS


class Net(nn.Module):
    def __init__(self, num_classes=10, beside=False, aux=False):
        super().__init__()
        CALLS.append(num_classes)
        self.aux = nn.Sequential(nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(num_classes)) if aux else None
        self.first, self.norm, self.second = nn.LazyConv2d(4, 3, bias=False), nn.LazyBatchNorm2d(), nn.LazyConv2d(6, 3)
        self.drop, self.last = nn.Dropout(0.5), nn.LazyLinear(num_classes)
        if beside:
            self.auxiliary = nn.LazyLinear(num_classes)

    def forward(self, x):
        maps = self.second(self.norm(self.first(x)).relu()).relu()
        logits = self.last(self.drop(maps.flatten(1)))
        return (logits, self.aux(maps)) if self.training and self.aux else logits
"""


@pytest.fixture
def lazy(work: Path) -> Any:
    (work / "lazy_net.py").write_text(LAZY)
    sys.modules.pop("lazy_net", None)
    yield "model.name=lazy_net:Net"
    sys.modules.pop("lazy_net", None)


def test_lazy_layers_get_their_sizes_from_the_images_in_every_command(their: Any, lazy: str, work: Path) -> None:
    """8x8 images: 4x1 and 6x4 kernels of 3x3, 6 maps of 4x4 for the last layer."""
    two = ("--set", lazy, "--set", "epochs=2")
    for command in (("validate", "filters.yaml"), ("plan", "filters.yaml"), ("train", "-s", "filters.yaml")):
        their.CALLS.clear()
        succeed(*command, *two, *(("--out", "run") if command[0] == "train" else ()))
        assert their.CALLS == [10]
    succeed("eval", "run")
    succeed("thin", "run", "--no-latency")
    shapes = {
        path: {name: tuple(value.shape) for name, value in compressor.load(path).named_parameters()}
        for path in ("run", "run/thin.pt")
    }
    dense = {"first.weight": (4, 1, 3, 3), "norm.weight": (4,), "norm.bias": (4,)}
    assert shapes["run"] == dense | {
        "second.weight": (6, 4, 3, 3), "second.bias": (6,), "last.weight": (10, 96), "last.bias": (10,)
    }  # fmt: skip
    assert shapes["run/thin.pt"] == dense | {
        "second.weight": (3, 4, 3, 3), "second.bias": (3,), "last.weight": (10, 48), "last.bias": (10,)
    }  # fmt: skip


@pytest.mark.parametrize("aux", [False, True])
def test_the_batch_of_zeros_leaves_no_trace(their: Any, lazy: str, aux: bool) -> None:
    """The statistics of a batch norm that saw no batch: mean 0, variance 1 (`torch.nn.BatchNorm2d`).

    `aux`: lazy layers that only the forward pass in training mode uses.
    """
    settings = config().model_dump() | {"model": {"name": "lazy_net:Net", "aux": aux}}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    network = Networks(Config.model_validate(settings), (1, 8, 8)).to_train(10)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.norm.running_mean.tolist() == [0] * 4
    assert network.norm.running_var.tolist() == [1] * 4
    assert int(network.norm.num_batches_tracked) == 0
    assert all(module.training for module in network.modules())
    assert type(network.second) is torch.nn.Conv2d
    if aux:
        assert int(network.aux[0].num_batches_tracked) == 0
        assert network.aux[0].running_var.tolist() == [1] * 6
        assert tuple(network.aux[2].weight.shape) == (10, 96)


def test_what_is_wrong_with_lazy_layers_is_one_line(their: Any, lazy: str, work: Path) -> None:
    small = compress("validate", "filters.yaml", "--set", lazy, "--set", "data.size=4")
    assert (small.code, "its lazy layers do not take images of 1x4x4: RuntimeError" in small.err) == (2, True)
    assert small.err.count("\n") == 1
    beside = compress("validate", "filters.yaml", "--set", lazy, "--set", "model.beside=true")
    assert (beside.code, "does not use the lazy layers auxiliary (LazyLinear)" in beside.err) == (2, True)
    unknown = ("filters.yaml", "--set", lazy, "--set", "data.name=imagefolder", "--set", "data.size=null")
    validated, planned = compress("validate", *unknown), compress("plan", *unknown)
    said = "first (LazyConv2d), norm (LazyBatchNorm2d), second (LazyConv2d) and 1 more get their sizes from the images"
    assert (validated.code, said in validated.err) == (0, True)
    assert (planned.code, said in planned.err) == (2, True)
