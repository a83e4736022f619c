"""torchvision's classifiers: built, refused, and with weights whose download is played by the tests."""

import http.client
import urllib.error
import warnings
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from compressor.errors import CompressError, UserError
from compressor.models import arguments, build, catalogue, torchvision_models


def play_download(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def load(url: str, *_: object, **__: object) -> dict[str, Tensor]:
        if isinstance(answer, Exception):
            raise answer
        state: dict[str, Tensor] = answer
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)


def test_catalogue_lists_them() -> None:
    assert sum(what == "torchvision" for what in catalogue().values()) >= 60


@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 32), ("vgg11_bn", 32), ("mobilenet_v2", 32), ("googlenet", 32), ("densenet121", 32)]
)
def test_logits_in_training_mode(name: str, side: int) -> None:
    net = build(name, num_classes=5)
    with torch.no_grad():
        assert net(torch.zeros(2, 3, side, side)).shape == (2, 5)


def test_same_weights_as_torchvisions_own_call() -> None:
    torch.manual_seed(0)
    ours = build("squeezenet1_1").state_dict()
    torch.manual_seed(0)
    theirs = torchvision.models.squeezenet1_1().state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_builders_that_compute_with_tensors() -> None:
    # A RegNet computes its widths with tensors: measuring it on the meta device would fail.
    assert isinstance(build("regnet_x_400mf"), nn.Module)


def test_arguments() -> None:
    assert list(arguments("mobilenet_v2")) == ["num_classes", "width_mult", "round_nearest", "dropout"]
    assert "layers" not in arguments("resnet18")  # the builder gives them
    assert "width_mult" in arguments("mobilenet_v3_small")
    assert "aux_logits" not in arguments("googlenet")
    assert arguments("resnet18")["num_classes"].default == 1000


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_asking_for_arguments_warns_of_nothing(name: str) -> None:
    torchvision_models.arguments.cache_clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert "num_classes" in arguments(name)
    assert warned == []


def test_arguments_reach_the_builder() -> None:
    assert build("mobilenet_v2", width_mult=0.5).get_submodule("features.0.0").out_channels == 16
    assert build("efficientnet_b0", dropout=0.7).get_submodule("classifier.0").p == 0.7
    assert not build("resnet18", zero_init_residual=True).get_submodule("layer1.0.bn2").weight.any()
    assert build("resnet50", replace_stride_with_dilation=[False, False, True]).get_submodule(
        "layer4.1.conv2"
    ).dilation == (2, 2)


WRONG = [
    ("resnet18", {"zero_init_residua": True}, "did you mean 'zero_init_residual'? It takes num_classes,"),
    ("resnet18", {"zero_init_residual": "yes"}, "argument 'zero_init_residual'"),
    ("resnet18", {"weights": "DEFAULT"}, "no argument 'weights'"),
    ("resnet18", {"layers": [1, 1, 1, 1]}, "no argument 'layers'"),
    ("resnet18", {"norm_layer": "x"}, "no argument 'norm_layer'"),
    ("resnet18", {"groups": 2}, "cannot be built: ValueError: BasicBlock only supports groups=1"),
    ("resnet50", {"groups": 0}, "argument 'groups'"),
    ("resnet50", {"width_per_group": 10**6}, "parameters, at most"),
    ("vgg11", {"dropout": 2.0}, "argument 'dropout': input should be less than 1"),
    ("efficientnet_b0", {"stochastic_depth_prob": 1.5}, "argument 'stochastic_depth_prob'"),
    ("mobilenet_v2", {"width_mult": -1.0}, "argument 'width_mult': input should be greater than 0"),
    ("resnet50", {"replace_stride_with_dilation": [True]}, "cannot be built: ValueError"),
    ("vit_b_16", {"image_size": 33}, "cannot be built"),
    ("vit_b_16", {"image_size": 16 * 10**5}, "parameters, at most"),
    ("mobilenet_v2", {"inverted_residual_setting": [[1, 1, 10**9, 1]]}, "no argument 'inverted_residual_setting'"),
    ("googlenet", {"aux_logits": True}, "no argument 'aux_logits'"),
    ("resnet18", {"num_classes": -1}, "argument 'num_classes'"),
]


@pytest.mark.parametrize(("name", "given", "says"), WRONG)
def test_one_clear_line(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        build(name, **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_pretrained_body_and_fresh_head(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    published = build(name).state_dict()
    play_download(monkeypatch, published)
    same = build(name, pretrained=True)
    assert all(torch.equal(value, published[key]) for key, value in same.state_dict().items())
    assert same.state_dict().keys() == build(name, pretrained=True, num_classes=1000).state_dict().keys()

    other = build(name, pretrained=True, num_classes=3).eval()
    assert other(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    fresh = {key for key, value in other.state_dict().items() if not torch.equal(value, published[key])}
    head = "classifier.1" if name == "squeezenet1_1" else "fc"
    assert fresh == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_published_auxiliary_heads_are_dropped(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    complete = torchvision.models.get_model(name, weights=None, aux_logits=True, init_weights=False)
    play_download(monkeypatch, complete.state_dict())
    net = build(name, pretrained=True, num_classes=4)
    assert not any(path.lower().startswith("aux") for path, _ in net.named_modules())
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 96, 96)).shape == (2, 4)


@pytest.mark.parametrize(
    "failure",
    [urllib.error.URLError("no route"), ConnectionResetError("reset"), http.client.IncompleteRead(b"")],
    ids=lambda e: type(e).__name__,
)
def test_failed_download(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    play_download(monkeypatch, failure)
    with pytest.raises(
        CompressError, match=r"weights of 'resnet18' could not be fetched from https://\S+\.pth: "
    ) as caught:
        build("resnet18", pretrained=True)
    assert not isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


def test_published_weights_of_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    play_download(monkeypatch, build("mobilenet_v2").state_dict())
    with pytest.raises(UserError, match="'mobilenet_v2' cannot be built: RuntimeError") as caught:
        build("mobilenet_v2", pretrained=True, width_mult=0.5)
    assert "\n" not in str(caught.value)
