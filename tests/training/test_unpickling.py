"""No code of a file is imported or called, whatever it names; what is known is read, the rest refused by name."""

import argparse
import collections
import functools
import pathlib
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.training.weights import read
from compressor.training.weights.unpickling import LISTS, MAPPINGS, STAND_INS, StandIn, unpickle

WEIGHTS = {"fc.weight": torch.tensor([[1.5, -2.0]]), "fc.bias": torch.tensor([0.25])}
LEGACY = [True, False]


def names(*words: str) -> bytes:
    """A pickle of protocol 2 that calls `words[0]` with one argument, sets a state, and ends."""
    module, _, name = words[0].rpartition(".")
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x00a\x85R."


def in_a_file(path: Path, content: bytes) -> Path:
    """Put a pickle into a file as torch before 1.6 wrote it."""
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*head, content, pickle.dumps([], 2)]))
    return path


@pytest.mark.parametrize("pattern", STAND_INS)
def test_every_class_of_the_list_is_read_as_something_without_behaviour(tmp_path: Path, pattern: str) -> None:
    name = pattern.replace("*", "deep.Anything")
    before = set(sys.modules)
    content = unpickle(in_a_file(tmp_path / "w.pt", names(name)))
    assert {
        module for module in set(sys.modules) - before if not module.startswith("torch.utils.serialization")
    } == set()
    if pattern in MAPPINGS:
        assert content == {}
        assert type(content) is collections.OrderedDict
    elif pattern in LISTS:
        assert content == []
    else:
        assert isinstance(content, StandIn)
        assert (content.name, content.args, content.state) == (name, ("a",), None)


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "__builtin__.exec",
        "builtins.getattr",
        "builtins.open",
        "os.system",
        "posix.system",
        "subprocess.Popen",
        "importlib.import_module",
        "sys.exit",
    ],
)
def test_a_file_that_names_a_command_is_refused_and_nobody_is_told_how_to_load_it(tmp_path: Path, name: str) -> None:
    said = refused(in_a_file(tmp_path / "w.pt", names(name)))
    assert said.startswith(
        f"{tmp_path}/w.pt: it names {name.replace('__builtin__', 'builtins')}, which no weights need"
    )
    assert "weights_only" not in said
    assert "\n" not in said


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("listed", [True, False])
def test_a_module_that_a_file_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, listed: bool
) -> None:
    package = "distiller" if listed else "canary"
    (tmp_path / f"{package}.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')\nclass Bird: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    bird = types.new_class("Bird")
    bird.__module__ = package
    stub = types.ModuleType(package)
    stub.Bird = bird  # type: ignore[attr-defined]
    with monkeypatch.context() as here:
        here.setitem(sys.modules, package, stub)
        torch.save(
            {"model": WEIGHTS, "x": bird(), "y": bird}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy
        )
    if listed:
        assert set(read(tmp_path / "w.pt").tensors) == set(WEIGHTS)
    else:
        said = refused(tmp_path / "w.pt")
        assert said.startswith(f"{tmp_path}/w.pt: it names canary.Bird, which is not one of the classes")
        assert "torch.save(loaded['model'], " in said
    assert package not in sys.modules
    assert not (tmp_path / "was here").exists()


class Loud:
    """Tells when anything of it is called."""

    called: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.called.append("__init__")
        self.x = 1

    def __setstate__(self, state: Any) -> None:
        self.called.append("__setstate__")

    def __reduce__(self) -> tuple[Any, ...]:
        return Loud, (1,), {"x": 1}


def test_what_other_code_declared_safe_does_not_count_and_stays_declared(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "x": Loud()}, tmp_path / "w.pt")
    Loud.called.clear()
    before = set(torch.serialization.get_safe_globals())  # torch has some of its own
    with torch.serialization.safe_globals([Loud]):
        said = refused(tmp_path / "w.pt")
        assert set(torch.serialization.get_safe_globals()) == {*before, Loud}
    assert "it names test_unpickling.Loud, which" in said
    assert Loud.called == []
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("legacy", LEGACY)
def test_what_training_scripts_save_beside_the_weights_is_read(tmp_path: Path, legacy: bool) -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    beside = {
        "optimizer": optimizer,
        "optimizer_type": torch.optim.SGD,
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3),
        "args": argparse.Namespace(data=Path("x"), device=torch.device("cuda:1"), amp=torch.float16, other=None),
        "best": np.float64(91.5),
        "curve": np.arange(3.0),
        "factory": functools.partial(torch.optim.Adam, lr=0.1),
        "history": collections.defaultdict(list, {"loss": [1.0]}),
        "last": collections.deque([1, 2], maxlen=2),
        "counts": collections.Counter("aab"),
        "torch": torch.__version__,
        "loss": nn.CrossEntropyLoss(),
        "paths": [pathlib.PurePosixPath("a"), pathlib.Path("b")],
    }
    torch.save({**beside, "state_dict": WEIGHTS}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    if legacy:  # the old format has the source of a module beside it
        assert "a whole pickled module" in refused(tmp_path / "w.pt")
        del beside["loss"]
        torch.save({**beside, "state_dict": WEIGHTS}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    found = read(tmp_path / "w.pt")
    assert found.key == "state_dict"
    assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {
        "fc.weight": [[1.5, -2.0]],
        "fc.bias": [0.25],
    }


class Net(nn.Module):
    """Someone's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 1)


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("key", [None, "model"])
@pytest.mark.parametrize("kind", [Net, lambda: nn.Sequential(nn.Linear(2, 1))], ids=["own", "torch's"])
def test_the_three_lines_for_a_whole_module_save_its_weights(
    tmp_path: Path, legacy: bool, key: str | None, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = kind()
    content = net if key is None else {"epoch": 3, key: net, "ema": None}
    torch.save(content, "whole.pt", _use_new_zipfile_serialization=not legacy)
    said = refused(Path("whole.pt"))
    assert said.startswith("whole.pt: a whole pickled module")
    lines = [line.strip() for line in said.splitlines()[1:]]
    assert len(lines) == 3
    if legacy and key:  # there the layout cannot be read
        return
    exec("\n".join(lines), {})
    assert {name: tensor.tolist() for name, tensor in read(Path("whole.weights.pth")).tensors.items()} == {
        name: tensor.tolist() for name, tensor in net.state_dict().items()
    }


@pytest.mark.parametrize("legacy", LEGACY)
def test_a_file_that_is_cut_short_is_one_line(tmp_path: Path, legacy: bool) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "w.pt").read_bytes()
    for length in range(0, len(whole), len(whole) // 20):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        said = refused(tmp_path / "cut.pt")
        assert said.startswith(f"{tmp_path}/cut.pt: ")
        assert "\n" not in said


def test_a_protocol_that_torch_does_not_read_is_named(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pt", pickle_protocol=4)
    assert "`torch.save(..., pickle_protocol=2)`" in refused(tmp_path / "w.pt")


def test_an_archive_that_grows_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(10**6))
    assert "its records would take 1,000,000 bytes" in refused(tmp_path / "w.pt")


class Shadowed:
    """Pickled as a mapping whose methods are other values."""

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"items": 3, "keys": torch.optim.SGD, "get": None, "values": 4}
        return collections.OrderedDict, (), state, None, iter(WEIGHTS.items())


def test_methods_of_a_mapping_that_the_file_replaced_are_not_called(tmp_path: Path) -> None:
    torch.save({"state_dict": Shadowed()}, tmp_path / "w.pt")
    assert set(read(tmp_path / "w.pt").tensors) == set(WEIGHTS)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    return str(error.value)


def test_tensors_of_a_stand_in_are_no_weights(tmp_path: Path) -> None:
    torch.save({"model": argparse.Namespace(a=torch.ones(2))}, tmp_path / "w.pt")
    assert "but 'model' (argparse.Namespace)" in refused(tmp_path / "w.pt")
    assert isinstance(WEIGHTS["fc.bias"], Tensor)
