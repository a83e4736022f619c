"""The digest of a run: equal where two runs have the same bits."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.experiment import folder

_FREE = ("seconds", "sparsity_all")
"""What is left out of metrics.jsonl: times, and what follows from the tensors."""


def of_run(run: Path) -> str:
    """Return the SHA-256 of a run: every tensor of the model, masks, optimizer, averages and random states, and
    metrics.jsonl without the seconds and `sparsity_all`, which follows from the tensors.
    """
    whole = hashlib.sha256()
    saved = torch.load(run / folder.CHECKPOINT, weights_only=True)
    state = saved["state"]
    parts = {
        "model": saved["model"],
        "masks": state["masks"]["owned"],
        "optimizer": state["optimizer"],
        "averages": state["averages"],
        "rng": state["rng"],
    }
    for name, value in parts.items():
        for path, leaf in _leaves(value, name):
            whole.update(path.encode())
            whole.update(_bytes(leaf))
    for line in (run / folder.METRICS).read_text(encoding="utf-8").splitlines():
        record = {key: value for key, value in json.loads(line).items() if key not in _FREE}
        whole.update(json.dumps(record, sort_keys=True).encode())
    return whole.hexdigest()


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}/{index}")
    else:
        yield path, value


def _bytes(leaf: Any) -> bytes:
    if isinstance(leaf, Tensor):
        return str(leaf.dtype).encode() + leaf.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return repr(leaf).encode()
