"""`--device`: which devices there are is asked of torch; two of CUDA are pretended here."""

import json
from pathlib import Path

import pytest
import torch
from helpers import compress, succeed

from compressor.errors import UserError
from compressor.experiment import building, environment


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two CUDA devices; the device that is made the process's own."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("wanted", "found", "own"),
    [
        ("auto", "cuda", []),
        ("cpu", "cpu", []),
        ("cuda", "cuda", []),
        ("cuda:0", "cuda:0", [0]),
        ("cuda:1", "cuda:1", [1]),
    ],
)
def test_a_device_that_exists_is_taken(two: list[torch.device], wanted: str, found: str, own: list[int]) -> None:
    assert building.device(wanted) == torch.device(found)
    assert [device.index for device in two] == own


@pytest.mark.parametrize("wanted", ["cuda:2", "cuda:-1", "cuda:01", "cuda:", "CUDA", "cuda:0,1", "gpu", "mps", ""])
@pytest.mark.usefixtures("two")
def test_any_other_is_refused_with_those_that_exist(wanted: str) -> None:
    with pytest.raises(UserError, match=r"no device '.*': --device takes auto, cpu, cuda, cuda:0, cuda:1$"):
        building.device(wanted)


@pytest.mark.parametrize("command", [["train", "-s", "prune"], ["eval", "run"], ["thin", "run"]])
def test_every_command_refuses_it(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--out", "run")
    for wanted in ("cuda:1", "cuda"):
        result = compress(*command, "--device", wanted)
        no_cuda = f"error: there is no device '{wanted}': torch sees no CUDA device here: --device takes auto, cpu\n"
        assert (result.code, result.err) == (2, no_cuda)
    assert not Path("runs").exists()


def test_the_number_is_recorded(two: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"number {device.index}")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    shown = [environment._device(torch.device(name)) for name in ("cuda:1", "cuda", "cpu")]
    assert [json.loads(json.dumps(one)).get("index") for one in shown] == [1, 0, None]
    assert shown[0]["name"] == "number 1"
