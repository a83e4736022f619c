"""The logits of a network that gives more than one tensor: which of them is taken, by `model.output` or by a rule."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UserError, did_you_mean

Key = str | int

PREFERRED = ("logits", "out")
"""The names of logits, in their order: Hugging Face's and torchvision's classifiers, torchvision's segmentation."""


@dataclass(frozen=True)
class Output:
    """A forward hook of the whole network: its output becomes the tensor of logits, in every forward pass.

    A tensor is left as it is. `key` is `model.output`: a key, attribute or index, or several joined by dots. Outputs
    that have no such key have other names in the other mode (training, eval): there the rule of `logits_of` chooses.
    """

    key: Key | None = None

    def __call__(self, network: nn.Module, given: Any, result: Any) -> Tensor | None:
        return None if isinstance(result, Tensor) else logits_of(result, used(result, self.key))


def with_output(network: nn.Module, key: Key | None) -> nn.Module:
    """Return the network, of which every call gives logits alone; raises `UserError` in a call that has none."""
    network.register_forward_hook(Output(key))
    return network


def as_built(network: nn.Module) -> nn.Module:
    """Return the network with its own output again."""
    for handle, hook in list(network._forward_hooks.items()):
        if isinstance(hook, Output):
            del network._forward_hooks[handle]
    return network


@contextmanager
def output_seen(network: nn.Module) -> Iterator[list[Any]]:
    """Collect, in forward passes inside the block, what the network itself gives."""
    seen: list[Any] = []
    handle = network.register_forward_hook(lambda module, given, result: seen.append(result), prepend=True)
    try:
        yield seen
    finally:
        handle.remove()


def logits_of(result: Any, key: Key | None) -> Tensor:
    """Return the logits among the outputs of a network. Raises `UserError` with what there is.

    By `key`; else `logits`, `out`, the only tensor or the only one of (images, classes) where the outputs have names;
    the first one where they have none. What is found so may again be several.
    """
    if key is not None:
        result = _keyed(result, key)
    while not isinstance(result, Tensor):
        value = entries(result)[chosen(result)]
        if not isinstance(value, Tensor) and not entries(value):
            raise _unclear(result)
        result = value
    return result


def used(result: Any, key: Key | None) -> Key | None:
    """Return `key`; None where the outputs have none of that name, and the logits are found without it."""
    if key is None:
        return None
    try:
        _keyed(result, key)
    except UserError:
        try:
            logits_of(result, None)
        except UserError:
            return key
        return None
    return key


def chosen(result: Any) -> Key:
    """Return the name or index of the output that is taken where `model.output` is not given."""
    found = entries(result)
    names = list(found)
    if not names:
        raise UserError(f"it gives {described(result)}: a classifier gives a tensor of logits")
    if 0 in found and isinstance(result, Sequence) and not hasattr(result, "_fields"):
        return 0
    for name in PREFERRED:
        if name in found:
            return name
    if isinstance(result, tuple):  # a namedtuple of other names
        return names[0]
    of = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    flat = [name for name, value in of.items() if value.dim() == 2 and value.is_floating_point()]
    for only in (list(of), flat):
        if len(only) == 1:
            return only[0]
    raise _unclear(result)


def has_logits(result: Any) -> bool:
    """Return whether one of the outputs is a tensor of (images, classes)."""
    if isinstance(result, Tensor):
        return result.dim() == 2 and result.is_floating_point()
    return any(has_logits(value) for value in entries(result).values())


def _unclear(result: Any) -> UserError:
    choose = "choose the logits by `model.output: KEY`"
    return UserError(f"it gives {described(result)}: {choose if has_logits(result) else 'none are logits'}")


def entries(result: Any) -> dict[Key, Any]:
    """Return the outputs by key, by field or by index; nothing where an object has none that are known."""
    if isinstance(result, Mapping):
        return dict(result)
    if dataclasses.is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True))
    if isinstance(result, Sequence) and not isinstance(result, str):
        return dict(enumerate(result))
    own = getattr(result, "__dict__", {})
    return {name: value for name, value in own.items() if not name.startswith("_")}


def described(result: Any) -> str:
    """Return the outputs in words, with the shapes of tensors."""
    if isinstance(result, Tensor):
        return f"a tensor of {_shape(result)}"
    found = entries(result)
    kind = type(result).__name__
    if not found:
        return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
    shown = [f"{_name(key)}{_kind(value)}" for key, value in list(found.items())[:8]]
    more = ", ..." if len(found) > 8 else ""
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind} of {len(found)} ({', '.join(shown)}{more})"


def other_logits(result: Any, classes: int) -> Key | None:
    """Return the only one of several outputs that is a tensor of (images, `classes`)."""
    fit = [key for key, value in entries(result).items() if isinstance(value, Tensor) and _columns(value) == classes]
    return fit[0] if len(fit) == 1 and not isinstance(result, Tensor) else None


def _columns(value: Tensor) -> int | None:
    return value.shape[1] if value.dim() == 2 else None


def _parts(result: Any, key: Key) -> list[Key]:
    """Return the steps of a key; one that exists as it is written is one step."""
    return [key] if isinstance(key, int) or key in entries(result) else list(key.split("."))


def _keyed(result: Any, key: Key) -> Any:
    """Return the output that a key names. Raises `UserError` with what there is."""
    for part in _parts(result, key):
        result = _entry(result, part)
    return result


def _entry(result: Any, key: Key) -> Any:
    found = entries(result)
    if key in found:
        return found[key]
    index = int(key) if isinstance(key, int) or key.removeprefix("-").isdecimal() else None
    if index is not None and -len(found) <= index < len(found):
        return list(found.values())[index]
    if isinstance(key, str) and isinstance(getattr(result, key, None), Tensor):
        return getattr(result, key)
    hint = did_you_mean(str(key), map(str, found))
    raise UserError(f"model.output: it gives {described(result)}, there is no {key!r}: {hint}")


def _name(key: Key) -> str:
    return f"{key}: " if isinstance(key, str) else ""


def _kind(value: Any) -> str:
    return _shape(value) if isinstance(value, Tensor) else type(value).__name__


def _shape(value: torch.Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"
