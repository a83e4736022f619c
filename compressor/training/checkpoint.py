"""Checkpoints on disk: tensors and plain values only, so that `torch.load(weights_only=True)` reads them."""

from pathlib import Path
from typing import Any

import torch

from compressor.errors import UserError
from compressor.training.files import replace

FORMAT, READABLE = 2, (1, 2)
"""The format that is written, and the formats whose weights can be read; 1 had another layout of `state`."""

Checkpoint = dict[str, Any]
"""`format`, `model` (the plain state dict), `config`, `schedule` (text), `shape`, `classes`, `epoch`, `metrics`, and in
a run's own checkpoint `state` (what resuming needs) and `finished`."""

_NEEDED = ("format", "model", "config", "shape", "classes", "metrics")


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint completely or not at all. Raises `CompressError` where the disk refuses it."""
    replace(path, lambda file: torch.save(checkpoint, file))


def load(path: Path) -> Checkpoint:
    """Load a checkpoint to the CPU. Raises `UserError` where the file is missing, damaged or something else."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torn zip, foreign pickle, text: torch raises a dozen different types
        raise UserError(f"{path}: not a checkpoint, or a damaged one ({type(error).__name__})") from None
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in _NEEDED):
        raise UserError(f"{path}: not a checkpoint of compress train (it should hold {', '.join(_NEEDED)})")
    if not _well_formed(checkpoint):
        raise UserError(f"{path}: a damaged checkpoint: its {', '.join(_NEEDED)} have wrong types")
    if checkpoint["format"] not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise UserError(f"{path}: checkpoint format {checkpoint['format']}, this version reads formats {known}")
    return checkpoint


def load_to_resume(path: Path) -> Checkpoint:
    """Read the checkpoint of a run that continues. Raises `UserError` where it has no state."""
    checkpoint = load(path)
    if not isinstance(checkpoint.get("state", {}).get("progress"), dict):
        raise UserError(f"{path}: this checkpoint has no state to resume from")
    if checkpoint["format"] != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {checkpoint['format']}: only runs of format {FORMAT} are resumed; older ones"
            f" can be started from (`--init`), evaluated and thinned"
        )
    return checkpoint


def finished(path: Path) -> bool:
    """Return whether a run's checkpoint marks the run as complete; a damaged one does not."""
    try:
        return path.is_file() and bool(load(path).get("finished"))
    except UserError:
        return False


def _well_formed(checkpoint: Checkpoint) -> bool:
    model, shape, classes = checkpoint["model"], checkpoint["shape"], checkpoint["classes"]
    return (
        isinstance(model, dict)
        and all(isinstance(tensor, torch.Tensor) for tensor in model.values())
        and isinstance(shape, list)
        and len(shape) == 3
        and all(isinstance(side, int) and side > 0 for side in shape)
        and isinstance(classes, list)
        and len(classes) > 0
        and isinstance(checkpoint["config"], dict)
        and isinstance(checkpoint["metrics"], dict)
        and isinstance(checkpoint.get("state", {}), dict)
    )
