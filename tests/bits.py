"""Trees of tensors and plain values, bit by bit; without pytest, which a machine with a GPU may not have."""

import io
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def copied(tree: Any) -> Any:
    """A copy of a tree of tensors and plain values that nothing changes any more."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, Mapping):
        return {key: copied(value) for key, value in tree.items()}
    return type(tree)(map(copied, tree)) if isinstance(tree, (list, tuple)) else tree


def reread(tree: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint written and read as strangers read it: weights only."""
    file = io.BytesIO()
    torch.save(tree, file)
    file.seek(0)
    found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


def difference(ours: Any, theirs: Any, at: str = "") -> str | None:
    """The first place where two trees of tensors and plain values are not the same bits; None where there is none."""
    if type(ours) is not type(theirs):
        return f"{at}: {type(ours).__name__} and {type(theirs).__name__}"
    if isinstance(ours, Tensor):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and raw(ours) == raw(theirs)
        return None if same else f"{at}: other bits"
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return f"{at}: keys {sorted(map(str, ours))} and {sorted(map(str, theirs))}"
        pairs = [(key, ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, (list, tuple)):
        if len(ours) != len(theirs):
            return f"{at}: {len(ours)} and {len(theirs)} items"
        pairs = [(index, a, b) for index, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    elif isinstance(ours, float):
        return None if struct.pack("d", ours) == struct.pack("d", theirs) else f"{at}: {ours!r} and {theirs!r}"
    else:
        return None if ours == theirs else f"{at}: {ours!r} and {theirs!r}"
    return next((found for key, a, b in pairs if (found := difference(a, b, f"{at}/{key}"))), None)


def raw(tensor: Tensor) -> bytes:
    """A tensor's own bytes, in which -0.0 is not 0.0 and a NaN equals itself."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
