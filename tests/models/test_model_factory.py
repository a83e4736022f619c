"""`module:factory`, with modules that the tests write."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import CompressError, UserError
from compressor.models import arguments, build

SOURCE = """
import torch
from torch import nn
from compressor.errors import CompressError

answer = 42

def linear(width, num_classes=4):
    return nn.Linear(width, num_classes)

def fixed(width=3):
    return nn.Linear(width, 2)

def anything(**arguments):
    net = nn.Linear(1, 1)
    net.given = arguments
    return net

def positional(width, /):
    return nn.Linear(width, 2)

def number():
    return 42

def fails():
    raise ValueError("no such\\nwidth")

def refuses():
    raise CompressError("its own words")

class Float(nn.Module):
    def __init__(self, name="", num_classes=2):
        super().__init__()
        self.last = nn.Linear(3, num_classes)

def called(name, num_classes=2):
    return Float(name)

def needs_classes(num_classes):
    return Float(num_classes=num_classes)

half = lambda: Float().half()
on_meta = lambda: Float().to("meta")
frozen = lambda: Float().requires_grad_(False)
empty = lambda: nn.ReLU()
parallel = lambda: nn.DataParallel(Float())
compiled = lambda: type("OptimizedModule", (Float,), {})()  # torch.compile itself takes seconds
traced = lambda: torch.jit.trace(nn.Sequential(nn.Linear(3, 2)), torch.ones(1, 3))
state = lambda: Float().state_dict()
pair = lambda: (str, Float())
its_class = lambda: Float

def inference():
    with torch.inference_mode():
        return Float()

def loads():
    Float().load_state_dict({})

def quantized():
    net = Float()
    net.last = type("Linear", (nn.Linear,), {"__module__": "torch.ao.nn.quantized.dynamic"})(3, 2)
    return net
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_nets.py").write_text(SOURCE)
    (tmp_path / "their_broken.py").write_text("1 / 0")
    (tmp_path / "their_exit.py").write_text("raise SystemExit(3)")
    (tmp_path / "their_needs.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")


def test_arguments_and_classes_are_passed() -> None:
    assert build("their_nets:linear", num_classes=7, width=5).weight.shape == (7, 5)
    assert build("their_nets:linear", width=5).weight.shape == (4, 5)
    assert build("their_nets:fixed", num_classes=7).weight.shape == (2, 3)
    assert build("their_nets:anything", num_classes=7, a=[1], pretrained=True).given == {
        "num_classes": 7,
        "a": [1],
        "pretrained": True,
    }
    assert build("torch.nn:Linear", in_features=3, out_features=2).weight.shape == (2, 3)


def test_its_parameters() -> None:
    assert list(arguments("their_nets:linear")) == ["width", "num_classes"]
    assert arguments("their_nets:linear")["width"].default is inspect.Parameter.empty


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (":", {}, "expected `package.module:factory`"),
    ("their_nets:", {}, "expected `package.module:factory`"),
    (":linear", {}, "expected `package.module:factory`"),
    ("no_such_nets:linear", {}, "cannot import 'no_such_nets'"),
    ("..:linear", {}, "cannot import '..'"),
    ("their_needs:linear", {}, "No module named 'not_installed_anywhere'"),
    ("their_broken:linear", {}, "their_broken.py:1)"),
    ("their_exit:linear", {}, "SystemExit: 3"),
    ("their_nets:liner", {}, "did you mean 'linear'"),
    ("their_nets:answer", {}, "should be callable, got int"),
    ("their_nets:number", {}, "should return a torch.nn.Module, got int"),
    ("their_nets:linear", {}, "its argument 'width' is required: set model.width"),
    ("their_nets:linear", {"widht": 3}, "did you mean 'width'? It takes width, num_classes"),
    ("their_nets:linear", {"width": "abc"}, "the factory failed: TypeError"),
    ("their_nets:linear", {"width": 3, "pretrained": True}, "no argument 'pretrained'"),
    ("their_nets:positional", {"width": 3}, "no argument 'width'"),
    ("their_nets:fails", {}, "the factory failed: ValueError: no such"),
    (
        "their_nets:called",
        {},
        "'name' is required, and cannot be given in the configuration (`model.name` is the factory",
    ),
    ("their_nets:positional", {}, "(it has to be given by position): name a function of your own that calls it"),
    ("their_nets:needs_classes", {}, "only the data tell the number of classes: set model.num_classes"),
    ("their_nets:half", {}, "last.weight is float16, training needs float32: call its method float()"),
    ("their_nets:on_meta", {}, "last.weight is on the meta device: it has no values"),
    ("their_nets:inference", {}, "last.weight was made in torch.inference_mode(): leave that out where it is built"),
    ("their_nets:loads", {}, 'Error(s) in loading state_dict for Float: Missing key(s) in state_dict: "last.weight"'),
    ("their_nets:loads", {}, "their_nets.py:"),
    ("their_nets:frozen", {}, "are all frozen (requires_grad is False): there is nothing to train"),
    ("their_nets:empty", {}, "returns a network that has no parameters to train"),
    ("their_nets:parallel", {}, "returns a network wrapped in DataParallel: return its attribute `module`"),
    ("their_nets:compiled", {}, "wrapped in OptimizedModule: return the network before torch.compile (`compile: true`"),
    ("their_nets:traced", {}, "returns a TopLevelTracedModule of torch.jit, which cannot be pruned"),
    ("their_nets:state", {}, "got OrderedDict: load a state dict into the network, and return that"),
    ("their_nets:pair", {}, "got tuple: return the network alone, item 1"),
    ("their_nets:its_class", {}, "got type: it should call Float"),
    ("their_nets:quantized", {}, "the layer 'last' (Linear) with quantized weights, which cannot be trained"),
]


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(("name", "given", "says"), WRONG)
def test_one_clear_line(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        build(name, **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factorys_own_error_is_kept() -> None:
    with pytest.raises(CompressError, match=r"^its own words$"):
        build("their_nets:refuses")
