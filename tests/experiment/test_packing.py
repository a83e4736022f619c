"""`compressor.load_packed`: the plain network with the same bits, and files of another network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor import models
from compressor.errors import UserError
from compressor.importing import plugins_allowed
from compressor.storage import pack
from compressor.thinning import describe, resize
from compressor.training import read


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(
        mine[name].dtype == theirs[name].dtype
        and mine[name].shape == theirs[name].shape
        and bits(mine[name]).equal(bits(theirs[name]))
        for name in mine
    )


def written(path: Path, network: nn.Module, model: dict[str, Any], classes: int = 10, **changes: Any) -> Path:
    """A packed file of the network, under metadata as `compress export` writes them; `changes`: other ones."""
    about = {
        "model": model,
        "class_names": [str(number) for number in range(classes)],
        "channels": 1,
        "image_size": [28, 28],
        **changes,
    }
    path.write_bytes(pack(network.state_dict(), {key: json.dumps(value) for key, value in about.items()}))
    return path


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    made = models.build("bn_cnn")
    for value in made.parameters():
        value.data *= torch.rand_like(value) < 0.1
    first = next(made.parameters()).data.flatten()
    patterns = torch.tensor([-0x80000000, 0x7F800001, 0x7FC00123, 1, -1], dtype=torch.int32)
    first[:5] = patterns.view(torch.float32)  # -0.0, NaN with and without a payload, denormal, NaN
    return made


def test_every_bit_comes_back_in_the_plain_class_in_eval_mode(network: nn.Module, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    found = compressor.load_packed(written(tmp_path / "a.safetensors", network, {"name": "bn_cnn"}))
    assert type(found) is type(network)
    assert not found.training
    assert not found._forward_hooks
    assert same(found, network)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_keeps_it(network: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    found = compressor.load_packed(written(tmp_path / "a.safetensors", network.to(dtype), {"name": "bn_cnn"}))
    assert next(found.parameters()).dtype == dtype
    assert same(found, network)


def test_a_thinned_network_has_its_thin_shapes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    thin = models.build("lenet_5")
    sizes = {"conv1": {"in_channels": 1, "out_channels": 7, "groups": 1}}
    sizes |= {"conv2": {"in_channels": 7, "out_channels": 50, "groups": 1}}
    resize(thin, sizes, "")
    for parameter in thin.parameters():
        nn.init.normal_(parameter)
    path = written(tmp_path / "a.safetensors", thin, {"name": "lenet_5"}, architecture=describe(thin))
    found = compressor.load_packed(path)
    assert [tuple(parameter.shape) for parameter in found.parameters()][::2][:2] == [(7, 1, 5, 5), (50, 7, 5, 5)]
    assert same(found, thin)
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(found(images), thin.eval()(images))


def test_tied_tensors_are_tied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tied_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, width):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, width),\n"
        "            nn.Linear(width, width), nn.Linear(width, num_classes))\n"
        "        self[3].weight = self[2].weight\n"
        "        self.register_buffer('order', self[2].weight.data.argsort())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = {"name": "tied_nets:Net", "width": 30}
    with plugins_allowed():
        network = models.build("tied_nets:Net", width=30, num_classes=10)
    network = models.with_sizes(network, "tied_nets:Net", (1, 28, 28))
    path = written(tmp_path / "a.safetensors", network, name)
    found = compressor.load_packed(path, allow_plugins=True)
    assert found[2].weight is found[3].weight
    assert same(found, network)


def test_the_users_code_runs_where_that_is_allowed(network: nn.Module, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", network, {"name": "no_such_module:net"})
    with pytest.raises(
        UserError, match="its model: this would import the module 'no_such_module' and call its 'net'"
    ) as caught:
        compressor.load_packed(path)
    assert str(caught.value).endswith("or the argument allow_plugins=True of a function")
    with pytest.raises(UserError, match="cannot import 'no_such_module'"):
        compressor.load_packed(path, allow_plugins=True)


BN_CNN = {"name": "bn_cnn"}


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        ({"name": "bn_cn"}, {}, "there is no model 'bn_cn': did you mean 'bn_cnn'"),
        ({"name": "lenet_5"}, {}, "in the model float32 of shape (20, 1, 5, 5)"),
        ({"name": "bn_cnn", "num_classes": 12}, {}, "of shape (10"),
        ({"name": "bn_cnn", "num_classes": 2**24}, {}, "at most 1,073,741,824 are read"),
        ({"name": "bn_cnn", "depth": 3}, {}, "has no argument 'depth'"),
        ({"name": "bn_cnn", "num_classes": True}, {}, "its model.num_classes cannot be used"),
        ({"name": "mobilenet_v2", "width_mult": 1e5}, {}, "at most 2,147,483,648 are allowed"),
        (BN_CNN, {"class_names": []}, "its class_names cannot be used"),
        (BN_CNN, {"class_names": "cat"}, "its class_names cannot be used"),
        (BN_CNN, {"class_names": ["cat"] * 3}, "of shape (10"),
        (BN_CNN, {"image_size": [28]}, "its image_size cannot be used"),
        (BN_CNN, {"channels": 0}, "its channels cannot be used"),
        (BN_CNN, {"architecture": []}, "its architecture cannot be used"),
        (BN_CNN, {"architecture": {"conv9": {"in_channels": 1}}}, "has a layer 'conv9', this model does not"),
        ([], {}, "its model cannot be used"),
        ({}, {}, "its model.name cannot be used"),
    ],
    ids=range(16),
)
def test_metadata_of_another_network_are_refused_in_one_line(
    network: nn.Module, tmp_path: Path, model: Any, changes: dict[str, Any], said: str
) -> None:
    path = written(tmp_path / "a.safetensors", network, model, **changes)
    with pytest.raises(UserError) as error:
        compressor.load_packed(path)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).count(str(path)) == 1
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("extra", torch.ones(3), "extra: the model has no such tensor"),
        ("bn2.bias", None, "bn2.bias: not in the file"),
        ("bn1.num_batches_tracked", torch.tensor(0.0), "it is float32 of shape (), in the model int64"),
        ("bn1.weight", torch.ones(32, dtype=torch.int32), "bn1.weight: it is int32 of shape (32,), in the model float"),
        ("bn1.weight", torch.ones(31), "bn1.weight: it is float32 of shape (31,), in the model float32 of shape (32,)"),
    ],
    ids=range(5),
)
def test_tensors_of_another_network_are_refused(
    network: nn.Module, tmp_path: Path, name: str, tensor: Tensor | None, said: str
) -> None:
    state = {key: one for key, one in {**network.state_dict(), name: tensor}.items() if one is not None}
    metadata = {"model": '{"name":"bn_cnn"}', "class_names": json.dumps(["x"] * 10), "channels": "1"}
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack(state, {**metadata, "image_size": "[28,28]"}))
    with pytest.raises(UserError) as error:
        compressor.load_packed(path)
    assert said in str(error.value)


def test_no_file_a_folder_and_a_damaged_one(network: nn.Module, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", network, BN_CNN)
    path.write_bytes(path.read_bytes()[:-1])
    for wrong, said in (
        (tmp_path / "none", "no such packed file"),
        (tmp_path, "no such packed file"),
        (path, "damaged or altered: its SHA-256"),
    ):
        with pytest.raises(UserError, match=f"^{wrong}: {said}"):
            compressor.load_packed(wrong)


def test_a_packed_file_is_a_file_of_weights_too(network: nn.Module, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", network, BN_CNN)
    assert read(path).tensors.keys() == network.state_dict().keys()
    assert all(bits(one).equal(bits(network.state_dict()[name])) for name, one in read(path).tensors.items())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"^{path}: damaged or altered: its SHA-256"):
        read(path)
