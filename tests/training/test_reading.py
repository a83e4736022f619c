"""Where in a file its weights are, what it says of them, and what it is where it has none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_checkpoint import WHOLE
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.training import checkpoint
from compressor.training.weights import Found, read

A = {"conv.weight": torch.tensor([1.0]), "conv.bias": torch.tensor([2.0])}
B = {"conv.weight": torch.tensor([3.0]), "conv.bias": torch.tensor([4.0])}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def refused(path: Path, key: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        read(path, key)
    assert "\n" not in str(error.value)
    return str(error.value)


def values(found: Found) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in found.tensors.items()}


@pytest.mark.parametrize(
    ("content", "key", "others"),
    [
        (A, None, []),
        ({"state_dict": A, "epoch": 3, "best_acc": torch.tensor(70.0)}, "state_dict", []),
        (
            {"model_state_dict": A, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(1)}}}},
            "model_state_dict",
            [],
        ),
        ({"model": A}, "model", []),
        ({"net": A, "acc": 93.0}, "net", []),
        ({"ema": A}, "ema", []),
        ({"model_ema": A, "epoch": 1}, "model_ema", []),
        ({"state_dict_ema": B, "state_dict": A}, "state_dict", ["state_dict_ema"]),
        ({"ema": B, "model_ema": B, "model": A}, "model", ["model_ema", "ema"]),
        ({"model": {"state_dict": A}}, "model.state_dict", []),
        ({"ema": {"decay": 0.999, "module": A}}, "ema.module", []),
        ({"network": A, "epoch": 2}, "network", []),
        ({"model": {"backbone": A}}, "model.backbone", []),
        ({**A, "ema": B}, None, ["ema"]),
        (nn.ParameterDict({"weight": nn.Parameter(torch.ones(1))}).state_dict(), None, []),
    ],
)
def test_the_weights_are_found(tmp_path: Path, content: Any, key: str | None, others: list[str]) -> None:
    found = read(saved(tmp_path / "w.pth", content))
    assert (found.key, found.keys) == (key, others)
    if "weight" not in found.tensors:
        assert values(found) == {name: tensor.tolist() for name, tensor in A.items()}
    where = f"under {key!r}" if key else "at its top"
    assert f"{tmp_path}/w.pth: {len(found.tensors)} tensors {where}" in found.said[0]
    for other in others:
        assert repr(other) in found.said[0]


def test_others_are_chosen_by_their_key(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"model": {"state_dict": A, "ema": B}, "student": B, "epoch": 1})
    assert read(path).key == "model.state_dict"
    for key in ("model.ema", "student"):
        assert (read(path, key).key, values(read(path, key))["conv.weight"]) == (key, [3.0])
    assert read(path, "model").key == "model.state_dict"
    assert "no weights under 'studnet': did you mean 'student'" in refused(path, "studnet")
    assert "no weights under ''" in refused(path, "")
    assert "its weights stand at the top" in refused(saved(tmp_path / "top.pth", A), "model")
    several = saved(tmp_path / "gan.pth", {"generator": A, "discriminator": B})
    assert "which weights? It has some under 'generator', 'discriminator'" in refused(several)


def test_what_stands_among_the_tensors(tmp_path: Path) -> None:
    mixed = {**A, "bn.num_batches_tracked": 7, "epoch": 3, "arch": "lenet_5", "bn._extra_state": {"a": 1}, 0: "zero"}
    found = read(saved(tmp_path / "w.pth", mixed))
    assert values(found) == {"conv.weight": [1.0], "conv.bias": [2.0], "bn.num_batches_tracked": 7}
    assert (found.epoch, found.arch) == (3, "lenet_5")
    assert found.said[1:] == [
        f"{tmp_path}/w.pth: left out, because they are no weights: epoch, arch, bn._extra_state",
    ]


def test_weights_of_another_precision_are_read_and_said(tmp_path: Path) -> None:
    content = {"a.weight": torch.ones(1).half(), "b.weight": torch.ones(1).bfloat16(), "c.weight": torch.ones(1)}
    found = read(saved(tmp_path / "w.pth", content))
    assert (
        found.said[1]
        == f"{tmp_path}/w.pth: weights are stored as bfloat16 and float16: the network has its own precision"
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized (qint8)"),
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3) * 1j, "complex (complex64)"),
        (lambda: torch.empty(3, device="meta"), "on the meta device, without values"),
    ],
)
def test_tensors_that_are_no_weights_of_a_network_are_named(tmp_path: Path, tensor: Any, said: str) -> None:
    assert f"a.weight is {said}: only dense" in refused(saved(tmp_path / "w.pth", {"a.weight": tensor()}))


def test_parameters_are_read_as_plain_tensors_that_share_what_they_shared(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(2))
    found = read(saved(tmp_path / "w.pth", {"a.weight": weight, "b.weight": weight}))
    assert [type(tensor) for tensor in found.tensors.values()] == [Tensor, Tensor]
    assert not any(tensor.requires_grad for tensor in found.tensors.values())
    assert len({tensor.data_ptr() for tensor in found.tensors.values()}) == 1


@pytest.mark.parametrize("name", ["w.safetensors", "no_suffix"])
def test_safetensors_are_read_whatever_their_name(tmp_path: Path, name: str) -> None:
    save_file(A, tmp_path / name)
    assert values(read(tmp_path / name)) == {"conv.weight": [1.0], "conv.bias": [2.0]}
    whole = (tmp_path / name).read_bytes()
    for length in (0, 5, 40, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        assert "damaged safetensors file, or one that was cut short" in refused(tmp_path / "cut.safetensors")


def test_distillers_masks_are_applied_and_counted(tmp_path: Path) -> None:
    content = {
        "epoch": 179,
        "arch": "resnet20_cifar",
        "state_dict": {"module.a.weight": torch.tensor([1.0, 2.0, 0.0]), "module.b.weight": torch.tensor([5.0])},
        "compression_sched": {
            "masks_dict": {
                "module.a.weight": torch.tensor([1.0, 0.0, 0.0]),
                "module.b.weight": None,
                "module.gone.weight": torch.ones(1),
            }
        },
    }
    found = read(saved(tmp_path / "d.pth.tar", content))
    assert (found.key, found.keys, found.epoch, found.arch) == ("state_dict", [], 179, "resnet20_cifar")
    assert values(found) == {"module.a.weight": [1.0, 0.0, 0.0], "module.b.weight": [5.0]}
    assert {name: mask.tolist() for name, mask in found.masks.items()} == {"module.a.weight": [1.0, 0.0, 0.0]}
    assert "of epoch 179" in found.said[0]
    assert "masks of 1 tensors are applied: 2 of 3 weights are zero, 1 of them were not zero" in found.said[1]
    assert "masks of module.gone.weight do not fit" in found.said[2]
    assert "normalized CIFAR-10 by mean 0.5 and std 0.5" in found.said[3]


def test_a_checkpoint_and_a_run_of_compress_are_read_with_all_their_checks(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.pt", WHOLE)
    torch.save(WHOLE, tmp_path / "unsigned.pt")
    for path in (tmp_path / "best.pt", tmp_path, tmp_path / "unsigned.pt"):
        found = read(path)
        assert found.own is not None
        assert (found.own["classes"], values(found)) == (["a", "b"], {"fc.weight": [[1.5, -0.0]]})
        assert found.said == ([f"{tmp_path}/best.pt: read"] if path == tmp_path else [])
    torch.save({**WHOLE, "classes": 3}, tmp_path / "unsigned.pt")
    assert "a damaged checkpoint" in refused(tmp_path / "unsigned.pt")
    assert "has its weights under 'model', not 'ema'" in refused(tmp_path, "ema")


def test_a_damaged_checkpoint_of_compress_is_never_taken_for_another_tools(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, {**WHOLE, "model": {"fc.weight": torch.arange(1000.0)}})
    whole = path.read_bytes()
    places = [
        whole.index(b"format"),
        whole.index(b"config"),
        0,
        1,
        40,
        len(whole) // 2,
        len(whole) - 90,
        len(whole) - 75,
        len(whole) - 72,
        len(whole) - 30,
    ]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert read(path).own is not None  # the comment's length is the one byte that changes nothing
        except UserError as error:
            assert "damaged" in str(error)  # noqa: PT017
    for length in range(0, len(whole), len(whole) // 9):
        path.write_bytes(whole[:length])
        refused(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a", b"", "an empty file"),
        ("a.txt", b"hello\n", "a text file"),
        ("a.txt", "häé".encode()[:-1], "a text file"),
        ("a.yaml", b"epochs: 3\n", "a YAML file"),
        ("a.json", b'{"a": 1}', "a JSON file"),
        (
            "model.safetensors.index.json",
            json.dumps({"weight_map": {"a": "1", "b": "2", "c": "1"}}).encode(),
            "2 files",
        ),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        ("a.pth", b"<!DOCTYPE html><html>", "a web page"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "an image"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("a.npy", b"\x93NUMPY\x01\x00", "NumPy"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("a.tflite", b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        ("a.pth.gz", b"\x1f\x8b\x08", "unpack it first"),
        ("a.tar", bytes(257) + b"ustar", "tar archive"),
        ("a.pkl", b"\x80\x04\x95", "a pickle that torch.save did not write"),
        ("a.bin", bytes([0, 1, 255, 254]) * 20, "not known"),
    ],
)
def test_a_file_without_weights_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refused(tmp_path / name)


def test_archives_and_folders_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(1))
    assert "archive of NumPy arrays" in refused(tmp_path / "a.npz")
    (tmp_path / "script" / "code").mkdir(parents=True)
    assert "a folder without a best.pt" in refused(tmp_path / "script")
    hugging_face = tmp_path / "hf"
    hugging_face.mkdir()
    save_file(A, hugging_face / "model.safetensors")
    assert f"give the file, for instance {hugging_face}/model.safetensors" in refused(hugging_face)
    (hugging_face / "model.safetensors.index.json").write_text("{}")
    assert "weights in several files" in refused(hugging_face)
    assert "no such file" in refused(tmp_path / "nowhere.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(1, 1)).save(str(tmp_path / "s.pt"))
    assert "a TorchScript archive, which is code" in refused(tmp_path / "s.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.ones(1), torch.ones(1)], "holds a list of 2"),
        (torch.ones(1), "holds one tensor"),
        ({}, "w.pth: no weights: it holds nothing"),
        ({"epoch": 3, "optimizer": {}}, "no tensors by name, but 'epoch' (int 3), 'optimizer' (a table of 0)"),
        ({"a": np.ones(2)}, "'a' (a NumPy array: torch.from_numpy makes a tensor of it)"),
    ],
)
def test_a_content_without_weights_is_described(tmp_path: Path, content: Any, said: str) -> None:
    assert said in refused(saved(tmp_path / "w.pth", content))


def test_the_counter_of_an_average_is_no_weight(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    average = torch.optim.swa_utils.AveragedModel(network)
    found = read(saved(tmp_path / "w.pth", {"model_ema": average.state_dict()}))
    assert set(found.tensors) == {"module.weight", "module.bias"}
    assert found.said[1].endswith("no weights: n_averaged")


def test_a_mapping_under_very_many_keys_costs_little(tmp_path: Path) -> None:
    content: dict[str, Any] = A
    for _ in range(3):
        content = {f"k{number}": content for number in range(1000)}
    said = refused(saved(tmp_path / "w.pth", content))
    assert "which weights? It has some under 'k0.k0.k0', 'k0.k0.k1'" in said
    assert len(said) < 1000


def test_what_compress_signed_is_never_read_as_another_tools(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.pt", {"model": A})
    assert "not a checkpoint of compress train (it should hold format, model" in refused(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"conv.weight": torch.ones(1).expand(10**12)},
        {f"conv.weight_{part}": torch.ones(1).expand(10**12) for part in ("orig", "mask")},
        {
            "state_dict": {"conv.weight": torch.ones(1).expand(10**12)},
            "compression_sched": {"masks_dict": {"conv.weight": torch.ones(1).expand(10**12)}},
        },
    ],
)
def test_a_few_bytes_that_are_repeated_take_no_memory(tmp_path: Path, content: Any) -> None:
    said = refused(saved(tmp_path / "w.pth", content))
    assert f"000 bytes, the file has {(tmp_path / 'w.pth').stat().st_size:,}: not read" in said


def test_a_number_that_is_too_large_for_a_tensor_is_left_out(tmp_path: Path) -> None:
    found = read(saved(tmp_path / "w.pth", {**A, "bn.num_batches_tracked": 2**63}))
    assert (values(found), found.said[1][-23:]) == (values(Found(A)), " bn.num_batches_tracked")


class WithMethods:
    """A tensor to which a file gives attributes with the names of methods."""

    def __reduce__(self) -> Any:
        whole = torch.ones(1)
        return torch._tensor._rebuild_from_type_v2, (
            torch._utils._rebuild_parameter,
            nn.Parameter,
            (whole, True, {}),
            dict.fromkeys(("detach", "numel", "is_complex", "masked_fill"), 1),
        )


def test_methods_of_a_tensor_that_the_file_replaced_are_not_called(tmp_path: Path) -> None:
    content = {"state_dict": {"conv.weight": WithMethods()}, "compression_sched": {"masks_dict": {}}}
    content["compression_sched"]["masks_dict"]["conv.weight"] = WithMethods()
    assert values(read(saved(tmp_path / "w.pth", content))) == {"conv.weight": [1.0]}


def test_a_name_cannot_write_a_line_of_its_own(tmp_path: Path) -> None:
    found = read(saved(tmp_path / "w.pth", {**A, "\x1b[2J\nerror": 1, "a\nb.weight": torch.ones(1)}))
    assert found.said[1].endswith(r": \x1b[2J\nerror")
    assert set(found.tensors) == {*A, r"a\nb.weight"}
