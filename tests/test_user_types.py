"""The package's types hold for a user who checks strictly."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """\
import torch
from torch import Tensor, nn

import compressor
from compressor import AttachedSession, Message, Outcome, Plan, Report


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]) -> Report:
    session: AttachedSession = compressor.attach(
        {"version": 2}, model, optimizer, epochs=2, steps_per_epoch=3, sample_input=batches[0][0], calibration=batches
    )
    for number in range(session.clock.epoch, 2):
        with session.epoch(number) as epoch:
            for images, labels in batches:
                with session.step() as step:
                    whole: Tensor = step.backward(nn.functional.cross_entropy(model(images), labels))
                    print(whole)
            epoch.validation = {"loss": 0.5}
    state: dict[str, object] = session.state_dict()
    session.load_state_dict(state)
    keep: Tensor | None = session.masks.keep("fc1.weight")
    print(keep, session.thin().largest_difference)
    small, record = compressor.thin(session.shipped_model(), batches[0][0])
    print(small(batches[0][0]), record.parameters_after if record is not None else 0)
    return compressor.report(session, latency=False)


def commands() -> None:
    network: nn.Module = compressor.load("runs/one")
    made: Plan = compressor.plan("lenet5_agp", overrides={"epochs": 3})
    found: list[Message] = compressor.validate("lenet5_agp")
    outcome: Outcome = compressor.train("lenet5_agp", seed=1)
    print(network, made.epochs, [one.severity for one in found], outcome.folder, compressor.__version__)
"""


@pytest.mark.slow
def test_code_that_uses_the_package_passes_mypy_strict(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "wrong.py").write_text("import compressor\n\ncompressor.report(3)\ncompressor.atach\n")
    root = str(Path(__file__).parents[1])
    config = tmp_path / "mypy.ini"
    config.write_text(
        f"[mypy]\nstrict = True\nmypy_path = {root}\nfollow_imports = silent\nplugins = pydantic.mypy\n"
        "[mypy-regex.*,scipy.*,sklearn.*,torch_pruning.*,torchvision.*]\nignore_missing_imports = True\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(config), "code.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    lines = [line for line in found.stdout.splitlines() if ": error: " in line]
    assert [line.split(":")[:2] for line in lines] == [["wrong.py", "3"], ["wrong.py", "4"]], (
        found.stdout + found.stderr
    )
