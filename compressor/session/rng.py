"""The global random states that a resumed run must continue: dropout uses torch's, a user's code may use any."""

import random
from typing import Any, cast

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed all global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


_CPU = torch.device("cpu")


def capture(device: torch.device = _CPU) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators as tensors and plain values; of CUDA's generators
    that of `device` alone, the run's.
    """
    kind, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
    }


def restore(state: dict[str, Any], device: torch.device = _CPU) -> None:
    """Restore captured states; that of a CUDA device on `device`, whichever number it has now.

    Of several states, which older checkpoints have, the first one is the run's.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"][0], device)
