"""A user's code (models, data sets, plugins) changes nothing of the run but what it returns."""

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import compress, run_difference, succeed

from compressor.component import REGISTRY
from compressor.data import memory
from compressor.importing import global_state_kept, isolated

MISCHIEF = """\
import io, os, random, sys
import numpy, torch
from torch import nn

BAD = {bad}

def draw():
    if BAD:
        print("PRINTED")
        random.seed(5), numpy.random.seed(5), torch.manual_seed(5)

def change():
    if not BAD:
        return
    draw()
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_anomaly_enabled(True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    os.chdir("/")
    sys.stdout = sys.stderr = io.StringIO()

def network():
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 10))
    change()
    return made.eval() if BAD else made

class Images:
    targets = [index % 10 for index in range(40)]

    def __len__(self):
        return 40

    def __getitem__(self, index):
        image = torch.full((1, 8, 8), index / 40, dtype=torch.float32, device="cpu")
        draw()
        return image, index % 10

def images():
    change()
    return Images(), Images()

change()
"""

CONFIG = """\
model: {name: 'zz_mischief:network'}
data: {name: 'zz_mischief:images', batch: 16, validation: 0.25}
optimizer: {name: sgd, lr: 0.1}
epochs: 2
report: {html: false}
init: xavier
"""

SCHEDULE = """\
version: 2
config: own
plugins: [zz_mischief]
policies:
  - lr_scheduler: {class: StepLR, step_size: 1}
"""


@pytest.fixture(autouse=True)
def files(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (work / "own.yaml").write_text(CONFIG)
    (work / "s.yaml").write_text(SCHEDULE)
    yield
    sys.modules.pop("zz_mischief", None)


def write(*, bad: bool) -> None:
    Path("zz_mischief.py").write_text(MISCHIEF.format(bad=bad))
    sys.modules.pop("zz_mischief", None)


def state() -> dict[str, Any]:
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "folder": os.getcwd(),
        "streams": (sys.stdout, sys.stderr),
    }


def test_every_setting_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    write(bad=True)
    source: dict[str, Any] = {}
    before = state()
    with isolated("it failed"):
        exec(Path("zz_mischief.py").read_text(), source)
        changed = state()
    after = state()
    assert [key for key in before if changed[key] == before[key]] == []  # else the test shows nothing
    assert after == before
    assert torch.empty(1).dtype == torch.float32
    assert torch.empty(1).device.type == "cpu"


def test_a_precision_that_was_set_by_backend_is_put_back() -> None:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has no precision by backend")
    with global_state_kept():
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("limit", [memory.LIMIT, 0], ids=["in memory", "read for each batch"])
def test_a_run_is_the_same_bit_for_bit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", limit)
    for bad in (False, True):
        write(bad=bad)
        succeed("train", "-s", "s.yaml", "--allow-plugins", "--out", f"run-{bad}")
    assert run_difference(Path("run-False"), Path("run-True")) is None


def test_prints_go_to_stderr_and_json_stays_json() -> None:
    write(bad=True)
    result = compress("plan", "s.yaml", "--allow-plugins", "--json")
    assert result.code == 0
    assert json.loads(result.out)["epochs"] == 2
    assert "PRINTED" in result.err


LEAVES = {
    "a model": ("def network():\n    raise SystemExit(0)\n", "model 'zz_mischief:network': "),
    "a data set": (
        "from torch import nn\ndef network():\n    return nn.Linear(2, 2)\ndef images():\n    exit(0)\n",
        "it failed",
    ),
    "a module": ("import sys\nsys.exit(0)\n", "cannot import 'zz_mischief'"),
}


@pytest.mark.parametrize(("text", "words"), LEAVES.values(), ids=LEAVES)
def test_code_that_leaves_python_is_a_failure_in_one_line(text: str, words: str) -> None:
    Path("zz_mischief.py").write_text(text)
    result = compress("train", "-c", "own", "--allow-plugins")
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert words in line
    assert "SystemExit" in line
    assert "zz_mischief.py:" in line
    assert not Path("runs").exists()


ITEM = MISCHIEF.format(bad=False).replace(
    'image = torch.full((1, 8, 8), index / 40, dtype=torch.float32, device="cpu")', "sys.exit(0)"
)


def test_an_item_that_leaves_python_is_a_failure_too() -> None:
    Path("zz_mischief.py").write_text(ITEM)
    result = compress("train", "-c", "own", "--allow-plugins")
    assert result.code == 2
    assert "reading item 0 failed: SystemExit" in result.err


LEAVING = """\
import sys
from compressor.policies.policy import Policy

class ZzLeaves(Policy, name="zz_leaves"):
    at: str

    def check(self, view):
        return [] if self.at != "check" else sys.exit(0)

    def on_epoch_begin(self, ctx, memory):
        sys.exit(0)
"""


@pytest.mark.parametrize("at", ["check", "event"])
def test_a_plugins_policy_that_leaves_python_does_not_end_the_command_with_success(at: str) -> None:
    Path("zz_mischief.py").write_text(LEAVING)
    Path("s.yaml").write_text(
        f"version: 2\nconfig: tiny\nplugins: [zz_mischief]\npolicies:\n  - zz_leaves: {{at: {at}}}\n"
    )
    try:
        result = compress("train", "-s", "s.yaml", "--allow-plugins", "--out", "run")
    finally:
        REGISTRY["policies"].pop("zz_leaves", None)
    assert result.code == 1
    assert "SystemExit: 0" in result.err
    assert "Traceback" not in result.err


LATE = """\
import torch

TABLE = torch.zeros(3)
"""

NETWORK = """\
from torch import nn

def make(num_classes=10):
    import zz_late
    assert zz_late.TABLE.device.type == "cpu", "imported without storage"
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""


def test_a_module_that_a_factory_imports_late_keeps_real_tensors() -> None:
    Path("zz_late.py").write_text(LATE)
    Path("zz_mischief.py").write_text(NETWORK)
    sets = ("--set", "model={name: 'zz_mischief:make'}", "--set", "init=default")
    result = compress("validate", "s.yaml", "--allow-plugins", *sets)
    sys.modules.pop("zz_late", None)
    assert (result.code, result.err) == (0, "")
