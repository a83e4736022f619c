"""`environment.json`: what a run was made with and of. Each start of a run, also by `--resume`, adds a record."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import compressor
from compressor import torchrun
from compressor.data import Fingerprint
from compressor.experiment.folder import CONFIG, ENVIRONMENT, SCHEDULE
from compressor.files import replace_text
from compressor.strict_json import dumps

SCHEMA = 1
"""The number of the layout of the file: it rises when a key changes its meaning, its name or goes."""

LIBRARIES = ("torchvision", "numpy", "pillow", "scikit-learn", "scipy")
"""Third-party packages besides torch that weights, images or masks may depend on."""


def add(folder: Path, device: torch.device, data: Fingerprint) -> None:
    """Add a record of this process to the folder's `environment.json`. What earlier ones wrote stays."""
    path = folder / ENVIRONMENT
    text = dumps({"schema": SCHEMA, "starts": [*_earlier(path), _record(folder, device, data)]}, indent=2)
    replace_text(path, text + "\n")


def _earlier(path: Path) -> list[Any]:
    """Return the records of a file; none where it is missing or damaged: a run never fails for it."""
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return starts if isinstance(starts, list) else []


def _record(folder: Path, device: torch.device, data: Fingerprint) -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "working_directory": os.getcwd(),
        **here(device),
        "processes": torchrun.size(),
        "git_commit": _commit(),
        "sha256": {
            "config": _sum((folder / CONFIG).read_bytes()),
            "schedule": _sum((folder / SCHEDULE).read_bytes()) if (folder / SCHEDULE).is_file() else None,
            "data": _sum(json.dumps(data, sort_keys=True).encode()),
        },
    }


def here(device: torch.device) -> dict[str, Any]:
    """Return what the bits of a run may depend on besides its files: versions, platform, processor, device, threads."""
    return {
        "versions": {
            "compressor": compressor.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # with the build, as +cu126
            **{name: _version(name) for name in LIBRARIES},
        },
        "platform": platform.platform(),
        "processor": processor(),
        "device": _device(device),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """Return the name of the processor, its family and model where Linux tells them, and the instructions that torch
    uses of it: where one differs, sums may be added up in another order.
    """
    names: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            names.setdefault(key.strip(), value.strip())
    name = names.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{key} {names[key]}" for key in ("cpu family", "model") if key in names]
    return ", ".join([name, *numbers, torch.backends.cpu.get_cpu_capability()])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # installed under another name, as pillow-simd is
        return None


def _device(device: torch.device) -> dict[str, Any]:
    """Return the kind of device, and of an accelerator its number, its name and CUDA's version."""
    if device.type != "cuda":
        return {"type": device.type}
    number = torch.cuda.current_device() if device.index is None else device.index
    return {
        "type": device.type,
        "index": number,
        "name": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
    }


def _commit() -> str | None:
    """Return the commit that is checked out in the working directory; None where there is none, or no git.

    Whether files differ from it is not asked: that would run filters and hooks that the repository names.
    """
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _sum(content: bytes) -> str:
    return sha256(content).hexdigest()
