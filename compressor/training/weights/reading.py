"""Weights of any file: a checkpoint or a run's folder of `compress`, and what other tools write."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from compressor.errors import CompressError, UserError, did_you_mean, listed
from compressor.storage import is_packed, unpack
from compressor.thinning import Architecture
from compressor.training import checkpoint
from compressor.training.weights import exported, kinds
from compressor.training.weights.unpickling import StandIn, unpickle, whole_module

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "model_ema", "state_dict_ema", "ema")
"""The keys under which tools save weights, in the order in which they are looked for: averages come last."""

BEST = "best.pt"
"""The file of a run's folder whose weights are read."""

_DEEP = 4
"""The largest number of mappings around weights."""

_VISITS = 8
"""The largest number of keys under which the same mapping is looked at."""

_OWN = ("format", "model", "config", "shape")
"""The keys by which a file of `compress` is known that has no SHA-256: an older version wrote it, or torch alone."""

_NO_WEIGHTS = ("optim", "sched", "scaler", "callbacks", "loops", "hyper_parameters", "rng", "masks_dict")
"""Keys, or parts of them, under which there are tensors that are not weights."""

_ARRAYS = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")

_INT64 = 2**63

_REPEATED = 64
"""The largest number of times that the bytes of a file may stand in its tensors, which may share them."""

_COUNTERS = ("n_averaged",)
"""What averages of weights count beside them (`torch.optim.swa_utils`)."""

_PARAMETERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Found:
    """What a file holds: `tensors` by the names that they have there; and where they are in it.

    `key` is the dotted key under which the tensors were found, None at the top of the file; `keys` those of the other
    weights in it. `own` is the checkpoint of `compress` that the file is, completely checked. `arch` is the name of the
    network that the file gives; `architecture` the numbers of channels of its layers, which a checkpoint has ({}: those
    of the model), and the export of a thinned network. `masks` are Distiller's, by the names of tensors; they were
    applied. `said`: lines for the user.
    """

    tensors: dict[str, Tensor]
    key: str | None = None
    keys: list[str] = field(default_factory=list)
    own: checkpoint.Checkpoint | None = None
    epoch: int | None = None
    arch: str | None = None
    architecture: Architecture | None = None
    masks: dict[str, Tensor] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def read(path: Path, key: str | None = None) -> Found:
    """Return the weights of a file, or those of the best.pt of a run's folder; no code of it is imported or called.

    `key`: where in the file they are, for instance `model_ema`; by default the first of `WRAPPERS`. Raises `UserError`
    where there are none, in words that say what the file is.
    """
    given, path = path, _file(path)
    if checkpoint.is_signed(path):
        return _own(path, key, said=path != given)
    if kinds.is_safetensors(path):
        tensors, said = _safetensors(path)
        return _chosen(tensors, path, key, said)
    known = kinds.kind(path)
    if known is not None:
        raise UserError(f"{path}: no weights: it is {known}{checkpoint.older_copy(path)}")
    try:
        content = unpickle(path)
    except UserError as error:
        raise UserError(f"{error}{checkpoint.older_copy(path)}") from None
    if isinstance(content, dict) and all(dict.__contains__(content, needed) for needed in _OWN):
        return _own(path, key, said=path != given)
    return _chosen(content, path, key, exported.said_in_archive(path))


def _file(path: Path) -> Path:
    """Return the file itself. Raises `UserError` where there is none."""
    if path.is_dir():
        best = path / BEST
        if not best.is_file():
            raise UserError(f"{path}: no weights: it is {kinds.folder(path)}{checkpoint.older_copy(best)}")
        return best
    if not path.is_file():
        raise UserError(f"{path}: no such file{checkpoint.older_copy(path)}")
    return path


def _own(path: Path, key: str | None, *, said: bool) -> Found:
    saved = checkpoint.load(path)
    if key not in (None, "model"):
        raise UserError(f"{path}: a checkpoint of compress has its weights under 'model', not {key!r}")
    epoch = saved.get("epoch")
    lines = [f"{path}: read{'' if epoch is None else f', of epoch {epoch}'}"] if said else []
    return Found(
        saved["model"], "model", own=saved, epoch=epoch, architecture=saved.get("architecture", {}), said=lines
    )


def _safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of a file, and its metadata."""
    try:
        if is_packed(path):
            packed = unpack(path.read_bytes())
            return packed.state_dict(), packed.metadata
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except CompressError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # its own error, or one of torch: wrong header, wrong sizes, unknown types
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{path}: a damaged safetensors file, or one that was cut short ({reason[:100]})") from None


def _chosen(content: Any, path: Path, key: str | None, said: Mapping[str, Any]) -> Found:
    """Return the weights of a file's content, at `key`; `said`: what it says of all of them."""
    places = dict(_places(content))
    if not places and (refused := whole_module(content, path)):
        raise UserError(refused)
    if not isinstance(content, dict):
        raise UserError(f"{path}: no weights by name: it holds {_in_words(content)}")
    if not places:
        entries = _entries(content)
        what = ", ".join(f"{name!r} ({_in_words(value)})" for name, value in list(entries.items())[:6])
        more = f" and {len(entries) - 6} more" if len(entries) > 6 else ""
        but = f"it holds no tensors by name, but {what}{more}" if what else "it holds nothing"
        raise UserError(f"{path}: no weights: {but}")
    automatic, prefix = [place for place in places if _is_usual(place)], ""
    if key is not None:
        taken = next((place for place in places if place == key or place.startswith(f"{key}.")), None)
        if taken is None and key:  # one of several networks in a state_dict, as a teacher and its student
            prefix = f"{key.removesuffix('.')}."
            taken = next((place for place in automatic or places if _inside(places[place], prefix)), None)
        if taken is None or not key:
            known = [place for place in places if place]
            hint = did_you_mean(key, known) if known else "its weights stand at the top: leave `weights` out"
            raise UserError(f"{path}: no weights under {key!r}: {hint}")
    elif automatic:
        taken = automatic[0]
    elif len(places) == 1:
        taken = next(iter(places))
    else:
        names = listed([repr(place) for place in places], 12)
        raise UserError(
            f"{path}: which weights? It has some under {names}: choose with `init: {{path: ..., weights: KEY}}`"
        )
    tensors, left_out = _tensors(_inside(places[taken], prefix), path)
    others = [place for place in places if place != taken]
    found = _described(content, path, taken, others, tensors, left_out)
    return found if taken or prefix else replace(found, architecture=exported.architecture(said))


def _inside(entries: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: value for name, value in entries.items() if name.startswith(prefix)}


def _described(
    content: dict[Any, Any], path: Path, taken: str, others: list[str], tensors: dict[str, Tensor], left_out: list[str]
) -> Found:
    """Return the weights with what the file says of them."""
    top = _entries(content)
    epoch, arch = top.get("epoch"), top.get("arch")
    epoch = epoch if type(epoch) is int else None
    arch = arch if isinstance(arch, str) else None
    where = f"under {taken!r}" if taken else "at its top"
    said = [f"{path}: {len(tensors)} tensors {where}" + ("" if epoch is None else f", of epoch {epoch}")]
    if others:
        names = listed([repr(other) for other in others], 6)
        said[0] += f"; not read: {names} (`init: {{path: ..., weights: {others[0]}}}` chooses)"
    if left_out:
        said.append(f"{path}: left out, because they are no weights: {listed(left_out)}")
    stored = sorted({_name(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()} - {"float32"})
    if stored:
        said.append(f"{path}: weights are stored as {' and '.join(stored)}: the network has its own precision")
    masks: dict[str, Tensor] = {}
    if isinstance(top.get("compression_sched"), dict) or "thinning_recipes" in top:
        tensors, masks, lines = _of_distiller(top, path, tensors)
        said += lines
    return Found(tensors, taken or None, others, epoch=epoch, arch=arch, masks=masks, said=said)


def _of_distiller(
    top: dict[str, Any], path: Path, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Return the tensors of a checkpoint of Distiller under its masks, the masks, and lines on both."""
    scheduler = _entries(top.get("compression_sched"))
    found = {
        name: Tensor.detach(mask)
        for name, mask in _entries(scheduler.get("masks_dict")).items()
        if isinstance(mask, Tensor)
    }
    masks = {name: mask for name, mask in found.items() if name in tensors and mask.shape == tensors[name].shape}
    said = []
    masked = {name: tensors[name].masked_fill(mask == 0, 0) for name, mask in masks.items()}
    if masks:
        pruned = sum(int((mask == 0).sum()) for mask in masks.values())
        changed = sum(int((tensors[name] != value).sum()) for name, value in masked.items())
        total = sum(mask.numel() for mask in masks.values())
        said.append(
            f"{path}: Distiller's masks of {len(masks)} tensors are applied: {pruned:,} of {total:,} weights are"
            f" zero, {changed:,} of them were not zero in the file"
        )
    if lost := sorted(found.keys() - masks.keys()):
        said.append(f"{path}: Distiller's masks of {listed(lost)} do not fit a tensor: not applied")
    if "_cifar" in str(top.get("arch")):
        said.append(f"{path}: Distiller normalized CIFAR-10 by mean 0.5 and std 0.5: set data.mean and data.std so")
    recipes = top.get("thinning_recipes")
    if isinstance(recipes, list | tuple) and recipes:
        said.append(f"{path}: thinned by Distiller: the widths are those of the tensors, its recipes are not needed")
    return {**tensors, **masked}, masks, said


def _places(
    content: Any, place: str = "", seen: tuple[int, ...] = (), visits: Counter[int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the mappings of a content that hold weights, by dotted key, in the order in which they are looked for.

    One whose tensors are named like weights comes before those inside it, any other one (a measured accuracy is a
    tensor, too) counts only where there are none inside it, and under a usual key. `visits`: how often each was seen,
    as a small file may hold the same mapping under very many keys.
    """
    visits = Counter() if visits is None else visits
    if not isinstance(content, dict) or len(seen) >= _DEEP or id(content) in seen or visits[id(content)] >= _VISITS:
        return
    visits[id(content)] += 1
    entries = _entries(content)
    here = [name for name, value in entries.items() if isinstance(value, Tensor)]
    like_weights = any(name.rpartition(".")[2] in _PARAMETERS for name in here)
    ordered = [name for name in WRAPPERS if name in entries]
    ordered += [name for name in entries if name not in WRAPPERS and not any(no in name for no in _NO_WEIGHTS)]
    inner = [
        found
        for name in ordered
        for found in _places(entries[name], f"{place}.{name}" if place else name, (*seen, id(content)), visits)
    ]
    if like_weights or (here and _is_usual(place) and not inner):
        yield place, entries
    yield from inner


def _is_usual(place: str) -> bool:
    """Return whether weights at this dotted key are read without being asked for."""
    parts = place.split(".")
    return not place or (parts[0] in WRAPPERS and all(part in (*WRAPPERS, "module", "shadow") for part in parts[1:]))


def _tensors(entries: dict[str, Any], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a mapping, detached, and the names of its other entries. A number of a layer is a tensor.

    Raises `UserError` for a tensor that is no dense one of real numbers, and where all together are far larger than the
    file: a few bytes, repeated, would take all memory.
    """
    tensors, others = dict[str, Tensor](), []
    for name, value in entries.items():
        if name in _COUNTERS:
            others.append(name)
        elif isinstance(value, Tensor):
            tensor = Tensor.detach(value)  # a file may give a tensor attributes with the names of methods
            if unusual := _unusual(tensor):
                raise UserError(f"{path}: {name} is {unusual}: only dense tensors of real numbers are read")
            tensors[name] = tensor
        elif (
            type(value) in (int, float, bool) and "." in name and (type(value) is not int or -_INT64 <= value < _INT64)
        ):
            tensors[name] = torch.tensor(value)
        else:
            others.append(name)
    held, size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path.stat().st_size
    if held > _REPEATED * size:
        raise UserError(f"{path}: its tensors would take {held:,} bytes, the file has {size:,}: not read")
    return tensors, others


def _unusual(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return f"quantized ({_name(tensor.dtype)})"
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.is_complex():
        return f"complex ({_name(tensor.dtype)})"
    return "" if tensor.layout == torch.strided and not tensor.is_nested else "sparse"


def _entries(content: Any) -> dict[str, Any]:
    """Return the entries of a mapping of a file with names; its own methods may be other values, from the file.

    Line ends and other characters of a name that a terminal obeys are written as Python writes them.
    """
    if not isinstance(content, dict):
        return {}
    named = ((name, value) for name, value in dict.items(content) if isinstance(name, str))
    return {name if name.isprintable() else ascii(name)[1:-1]: value for name, value in named}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _in_words(value: Any) -> str:
    if isinstance(value, StandIn):
        return "a NumPy array: torch.from_numpy makes a tensor of it" if value.name in _ARRAYS else value.name
    if isinstance(value, Tensor):
        return "one tensor"
    if isinstance(value, Mapping):
        return f"a table of {dict.__len__(value)}" if isinstance(value, dict) else "a table"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"{type(value).__name__} {value!r}"[:40] if isinstance(value, int | float | str) else type(value).__name__
