"""Whatever plain YAML is given as a name or an argument: a network, or one clear line."""

import math
from typing import Any

import pytest
from torch import nn

from compressor.errors import UserError
from compressor.models import arguments, build, catalogue, checking
from compressor.models.registry import model

WRONG = [
    ("resnet20_cifr", {}, "did you mean 'resnet20_cifar'"),
    ("resnt18", {}, "did you mean 'resnet18'"),
    ("", {}, "there is no model ''"),
    ("mlp", {"hiden": [3]}, "did you mean 'hidden'? It takes num_classes, hidden, dropout, inputs"),
    ("mlp", {"zzz": 1}, "no argument 'zzz': there are: dropout, hidden, inputs, num_classes"),
    ("mlp", {"name": "mlp"}, "no argument 'name'"),
    ("mlp", {"hidden": "abc"}, "argument 'hidden'"),
    ("mlp", {"hidden": 300}, "argument 'hidden'"),
    ("mlp", {"hidden": []}, "at least 1 item"),
    ("mlp", {"hidden": [300, -3]}, "argument 'hidden[1]': input should be greater than or equal to 1, got -3"),
    ("mlp", {"hidden": [10**9]}, "argument 'hidden[0]'"),
    ("mlp", {"hidden": [1] * 101}, "at most 100 items"),
    ("mlp", {"hidden": [10**6, 10**6]}, "would have 1,000,796,000,010 parameters"),
    ("mlp", {"hidden": [3], "dropout": [2.0]}, "argument 'dropout[0]': input should be less than 1, got 2.0"),
    ("mlp", {"hidden": [3], "dropout": [math.nan]}, "finite"),
    ("mlp", {"hidden": [3], "dropout": [0.5, 0.5]}, "one rate for each hidden layer (1), got 2"),
    ("mlp", {"inputs": True}, "valid integer, got True"),
    ("mlp", {"inputs": int("f" * 9000, 16)}, "a huge int"),
    ("lenet_5", {"conv_relu": "yes"}, "argument 'conv_relu'"),
    ("bn_cnn", {"width": 2**24}, "parameters"),
    ("wrn_28_10_cifar", {"dropout": "0.3"}, "valid number"),
    ("resnet20_cifar", {"num_classes": 0}, "argument 'num_classes'"),
    ("resnet20_cifar", {"num_classes": "ten"}, "argument 'num_classes'"),
    ("resnet20_cifar", {"pretrained": True}, "no published weights"),
]


@pytest.mark.parametrize(("name", "given", "says"), WRONG)
def test_one_clear_line(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        build(name, **given)  # positional: `name` is among the wrong arguments
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


NASTY: list[Any] = [
    None, True, -1, 0, 3, 10**9, 10**30, 0.5, -0.5, 1e300, math.nan, math.inf, "", "abc", "3", [], {}, {"a": 1},
    [-3], [0.5], [10**9], [10**30], [[1]], ["a"], [None], [True], [{}],
]  # fmt: skip


@pytest.mark.parametrize("name", ["mlp", "lenet_5", "bn_cnn", "squeezenet1_1", "mobilenet_v2"])
def test_never_a_traceback(name: str) -> None:
    outcomes = set()
    for argument in arguments(name):
        for value in NASTY:
            try:
                assert isinstance(build(name, **{argument: value}), nn.Module)
                outcomes.add("built")
            except UserError as error:
                outcomes.add("a line" if "\n" not in str(error) else "several lines")
    assert outcomes == {"built", "a line"}


def test_no_class_count_is_the_models_own() -> None:
    assert build("bn_cnn", num_classes=None).get_submodule("fc").out_features == 10


def test_size_is_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "LARGEST", 266_610)
    build("mlp")
    with pytest.raises(UserError, match="266,611"):
        checking.construct(
            "one more", lambda: nn.ParameterList([nn.Parameter(nn.Linear(266_611, 1, bias=False).weight)])
        )


def test_every_own_model_says_what_it_is() -> None:
    own = {name: what for name, what in catalogue().items() if what != "torchvision"}
    assert len(own) >= 20
    assert all(what.endswith(".") and len(what) <= 110 for what in own.values())


def test_two_models_of_one_name_are_a_mistake() -> None:
    def mlp() -> nn.Module:
        return nn.Identity()

    arguments("mlp")  # the first lookup enters ours
    with pytest.raises(TypeError, match="two models are called 'mlp'"):
        model(mlp)
