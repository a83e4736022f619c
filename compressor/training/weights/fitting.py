"""The weights of a file, put into a network."""

import difflib
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import UserError, listed
from compressor.sparsity import PRUNABLE
from compressor.thinning import Architecture, describe, resize
from compressor.tracing import logits_weights, trace_on_meta
from compressor.training.checkpoint import Checkpoint
from compressor.training.weights.computed import whole
from compressor.training.weights.names import translate
from compressor.training.weights.widths import Image, in_words, narrower, shrink

Head = Literal["keep", "reset"]
"""Whether the layers that make the logits get the file's weights, or keep their new random ones."""

_MOST = 2000
"""The largest number of names among which the nearest one is looked for."""

_COUNTERS = ("total_ops", "total_params")
"""The buffers that thop, a profiler, leaves in a network."""


def load_weights(network: nn.Module, saved: Checkpoint, source: str) -> None:
    """Load a checkpoint's plain weights strictly; the network gets the widths of the one that was saved.

    Raises `UserError` naming what does not fit.
    """
    _refuse_by_model(network, saved["model"], source)
    resize(network, saved.get("architecture", {}), source)
    found = _compare(network, {str(name): tensor for name, tensor in saved["model"].items()})
    misfits = [*found.wrong.values(), *(f"{name} is missing there" for name in [*found.missing, *found.made])]
    misfits += [f"{name} is unknown here" for name in [*found.unexpected, *found.ignored]]
    if misfits:
        raise UserError(f"{source}: the weights do not fit this model: {'; '.join(misfits[:3])}")
    network.load_state_dict(_of_this_version(network, saved["model"]))


def fit(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    head: Head = "keep",
    strict: bool = True,
    image: Image | None = None,
    architecture: Architecture | None = None,
) -> list[str]:
    """Load the tensors of any file, by the names and shapes that they have; return lines for the user.

    The network gets the file's widths: those of `architecture` (of a file of compress; {}: the model's own), or
    where that is None those that the shapes show and that take an `image` (C, H, W). `head`: `reset` leaves the layers
    that make the logits as they are. `strict`: an error where anything of the network, or of the file, is left out;
    else it is listed. Raises `UserError` in one message with all that does not fit, or where nothing does.
    """
    own = _state(network)
    pieces, said = whole({str(name): tensor for name, tensor in tensors.items()}, own, source)
    translation = translate(pieces, own, source)
    said += translation.said
    theirs = {name: pieces[there] for there, name in translation.names.items()}
    if architecture is not None:
        _refuse_by_model(network, theirs, source)
    theirs = _by_older_names(network, theirs)
    differ = any(name in theirs and theirs[name].shape != tensor.shape for name, tensor in own.items())
    heads = _heads(network, image) if differ or architecture or head == "reset" else ()
    reset = _of_heads(theirs, own, heads) if head == "reset" else ()
    said += [f"{source}: head: reset: {_as_they_were(reset, theirs, own)}"] if reset else []
    theirs = {name: tensor for name, tensor in theirs.items() if name not in reset}
    before, why_not = describe(network), None
    if architecture is not None:
        resize(network, _with_outputs(architecture, before, heads), source)
        if (after := describe(network)) != before:
            said.append(f"{source}: {in_words(before, after)}")
    elif differ and image is not None and (sizes := narrower(network, theirs, heads)):
        why_not = shrink(network, sizes, image, source)
        if why_not is None:
            said.append(f"{source}: {in_words(before, describe(network))}")
    found = _compare(network, theirs, reset)
    said += [f"{source}: {line}" for line in found.said]
    fitting = {
        name: tensor for name, tensor in theirs.items() if name not in {*found.wrong, *found.unexpected, *found.ignored}
    }
    trained = dict(network.named_parameters(remove_duplicate=False))
    nothing = not any(name in trained for name in fitting)
    if found.misfits and (strict or nothing):
        mine = _of_heads(theirs, own, heads or _heads(network, image))
        of_heads = not found.unexpected and {*found.wrong, *found.missing} <= {*mine}
        raise UserError(_misfit(source, found, translation.names, why_not, nothing=nothing, of_heads=of_heads))
    said += [f"{source}: strict: false: {line}" for line in found.in_words(translation.names, most=10_000)]
    network.load_state_dict(_of_this_version(network, fitting), strict=False)
    return said


def narrower_layers(
    network: nn.Module, tensors: Mapping[str, Tensor], source: str, image: Image, architecture: Architecture | None
) -> str | None:
    """Return in words which layers `fit` would make narrower; None where it would make none. The network may be without
    storage. Raises `UserError` where the names of the tensors are not understood.
    """
    before = describe(network)
    if architecture is None:
        own = _state(network)
        pieces, _ = whole({str(name): tensor for name, tensor in tensors.items()}, own, source)
        theirs = {name: pieces[there] for there, name in translate(pieces, own, source).names.items()}
        theirs = _by_older_names(network, theirs)
        architecture = narrower(network, theirs, _heads(network, image))
    try:
        after = {path: {**before[path], **sizes} for path, sizes in architecture.items() if path in before}
        smaller = any(sizes[key] < before[path][key] for path, sizes in after.items() for key in before[path])
    except (AttributeError, TypeError):  # a damaged checkpoint: whoever loads it says so
        return None
    return in_words(before, after) if smaller else None


def _of_this_version(network: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors as a state dict of the network's own versions of its modules: names and shapes fit by now.

    Without versions some modules refuse a state dict (torchvision's MNASNet), or change it as one of an old version.
    """
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    return state


@torch.no_grad()
def restore_live(network: nn.Module, live: Mapping[str, Tensor]) -> None:
    """Restore the values with which training continues, where the checkpoint's weights are masked or averaged ones."""
    for name, tensor in network.state_dict().items():
        if name in live:
            tensor.copy_(live[name])


@dataclass
class _Comparison:
    """What of a file does not fit a network, and what does not matter."""

    wrong: dict[str, str] = field(default_factory=dict)
    """By name the reason why a tensor does not fit, in words."""
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    """Buffers of integers that are not in the file: counters and indices, which the network makes itself."""
    ignored: list[str] = field(default_factory=list)
    """Names in the file that belong to no weight that is used."""
    said: list[str] = field(default_factory=list)

    @property
    def misfits(self) -> bool:
        return bool(self.wrong or self.missing or self.unexpected)

    def in_words(self, names: Mapping[str, str], most: int = 3) -> list[str]:
        """Return a line for each kind of misfit, with at most so many of each; `names`: the network's by the file's."""
        there = {name: name_there for name_there, name in names.items()}
        parts = []
        if self.wrong:
            parts.append(f"{_count(self.wrong)} not fit: {listed(list(self.wrong.values()), most)}")
        unknown = [there.get(name, name) for name in self.unexpected]
        if self.missing:
            parts.append(f"missing there: {listed(self.missing, most)}{_nearest(self.missing[0], unknown)}")
        if self.unexpected:
            parts.append(f"unknown here: {listed(unknown, most)}")
        return parts


def _nearest(name: str, known: Collection[str]) -> str:
    """Return in brackets the name that is nearest to `name`, which is the first of a list."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8) if len(known) < _MOST else []
    return f" ({name}: perhaps {near[0]})" if near else ""


def _count(names: Collection[str]) -> str:
    return "1 tensor does" if len(names) == 1 else f"{len(names)} tensors do"


def _misfit(
    source: str,
    found: _Comparison,
    names: Mapping[str, str],
    why_not: str | None,
    *,
    nothing: bool,
    of_heads: bool,
) -> str:
    """Return the message on all that does not fit, with what to do."""
    said = f"{source}: the weights do not fit this model: {'; '.join(found.in_words(names))}"
    if why_not is not None:
        said += f"; the model does not work with the widths of this file: {why_not}"
    if nothing:
        return f"{said}; nothing of this file fits: it is of another model"
    if of_heads:
        return (
            f"{said}; to train for other classes than those of the file, give `init: {{path: {source}, head: reset}}`"
        )
    return f"{said}; to begin with what fits, give `init: {{path: {source}, strict: false}}`"


def _compare(network: nn.Module, theirs: Mapping[str, Tensor], reset: Collection[str] = ()) -> _Comparison:
    """Return what does not fit, but for the names `reset`, which are not looked for."""
    own, found = _state(network), _Comparison()
    kept = {name for name, _ in network.named_buffers(remove_duplicate=False)} - set(own)
    mates = _tied(own)
    converted: dict[str, None] = {}
    for name, tensor in own.items():
        if name in reset:
            continue
        if name not in theirs:
            if any(mate in theirs for mate in mates.get(name, ())):
                continue
            (found.made if not tensor.is_floating_point() and not tensor.is_complex() else found.missing).append(name)
            continue
        there = theirs[name]
        reason = _reason(there, tensor)
        first = next((mate for mate in mates.get(name, ()) if mate in theirs and mate < name), None)
        if reason is None and first is not None and not torch.equal(theirs[first], there):
            reason = f"and {first} are one tensor here, two different ones there"
        if reason is not None:
            found.wrong[name] = f"{name} {reason}"
        elif there.dtype != tensor.dtype:
            converted[f"{_type(there)} to {_type(tensor)}"] = None
    for name in theirs:
        if name in own:
            continue
        ignorable = name in kept or name.rpartition(".")[2] in _COUNTERS or _auxiliary(network, name)
        (found.ignored if ignorable else found.unexpected).append(name)
    if found.made:
        found.said.append(f"not in the file, they begin as the model makes them: {listed(found.made)}")
    if converted:
        found.said.append(f"converted: {', '.join(converted)}")
    if found.ignored:
        found.said.append(f"not needed, left out: {listed(found.ignored)}")
    return found


def _reason(there: Tensor, here: Tensor) -> str | None:
    """Return why a tensor of the file cannot take the place of the network's, in words; None where it can."""
    if there.layout != torch.strided or there.is_complex() or there.is_quantized or there.is_meta:
        return "is no dense tensor of real numbers"
    if there.shape != here.shape and not (here.dim() == 0 and there.shape == (1,)):  # as old versions of torch saved
        return f"is {tuple(there.shape)} there, {tuple(here.shape)} here{_note(there, here)}"
    if here.is_floating_point() and not there.is_floating_point():
        return f"is {_type(there)} there, {_type(here)} here"
    if there.is_floating_point() and not here.is_floating_point() and not torch.equal(there, there.round()):
        return f"is {_type(there)} there, {_type(here)} here"
    return None


def _note(there: Tensor, here: Tensor) -> str:
    """Return in brackets what a shape suggests: another kind of layer, or another order of dims."""
    kinds = {2: "a linear layer", 4: "a 1x1 convolution"}
    if (
        there.dim() != here.dim()
        and there.squeeze().shape == here.squeeze().shape
        and {there.dim(), here.dim()} == {2, 4}
    ):
        return f" ({kinds[there.dim()]} there, {kinds[here.dim()]} here)"
    if there.dim() == here.dim() > 1 and sorted(there.shape) == sorted(here.shape):
        return " (the same sizes in another order, as TensorFlow and Keras store them?)"
    return ""


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network's state."""
    return {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def _tied(own: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return by name the other names of the same tensor."""
    same: dict[Any, list[str]] = {}
    for name, tensor in own.items():
        if tensor.numel() and tensor.layout is torch.strided:  # a sparse one has no storage of its own
            same.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    return {name: [mate for mate in names if mate != name] for names in same.values() for name in names if names[1:]}


def _auxiliary(network: nn.Module, name: str) -> bool:
    """Return whether a name is of an auxiliary head without which the network was built, as torchvision's GoogLeNet."""
    first = name.partition(".")[0]
    return "aux" in first.lower() and getattr(network, first, network) is None


def _refuse_by_model(network: nn.Module, theirs: Collection[str], source: str) -> None:
    """Raise `UserError` where the model itself knows why a file does not fit."""
    unknown = [name for name in theirs if name not in network.state_dict()]
    why = getattr(network, "why_unknown", lambda names: None)(unknown)
    if why is not None:
        raise UserError(f"{source}: {why}")


def _by_older_names(network: nn.Module, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of today where modules know older ones (torchvision's ViT, DenseNet)."""
    renamed = dict(theirs)
    for path, module in network.named_modules():
        changes = type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
        if changes and not module._parameters and not module._buffers:
            trial = dict(renamed)
            try:
                module._load_from_state_dict(trial, f"{path}." if path else "", {}, True, [], [], [])
            except Exception:  # a module that only reads files of its own version
                continue
            renamed = trial
    short = {name: re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name) for name in renamed}
    own = network.state_dict()
    return {short[name] if short[name] in own else name: tensor for name, tensor in renamed.items()}


def _heads(network: nn.Module, image: Image | None) -> tuple[str, ...]:
    """Return the paths of the layers that make the logits; where that cannot be traced, of the last layer."""
    trace = None if image is None else trace_on_meta(network, image)
    paths = [] if trace is None else [name.rpartition(".")[0] for name in logits_weights(trace)]
    last = [path for path, module in network.named_modules() if isinstance(module, PRUNABLE)][-1:]
    return tuple(paths or last)


def _of_heads(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: Collection[str]) -> list[str]:
    """Return the tensors of the layers that make the logits; with other numbers of classes also all others that have
    one entry for each class, as in auxiliary heads.
    """
    mine = [name for name in own if name.rpartition(".")[0] in heads]
    classes = _other_classes(theirs, own, heads)
    return [
        name
        for name, tensor in own.items()
        if name in mine
        or (
            name in theirs
            and tensor.dim() == theirs[name].dim() > 0
            and (len(theirs[name]), len(tensor)) in classes
            and tensor.shape[1:] == theirs[name].shape[1:]
        )
    ]


def _other_classes(
    theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: Collection[str]
) -> set[tuple[int, int]]:
    """Return the numbers of classes there and here, where they differ."""
    both = [name for name in own if name.rpartition(".")[0] in heads and name in theirs]
    sizes = {(len(theirs[name]), len(own[name])) for name in both if theirs[name].dim() and own[name].dim()}
    return {(there, here) for there, here in sizes if there != here}


def _as_they_were(reset: Sequence[str], theirs: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return in words which tensors keep their random values."""
    shapes = [
        f"{name} ({tuple(theirs[name].shape)} there, {tuple(own[name].shape)} here)" if name in theirs else name
        for name in reset
    ]
    return f"new random weights: {listed(shapes, 10)}"


def _with_outputs(architecture: Architecture, before: Architecture, heads: Collection[str]) -> Architecture:
    """Return an architecture in which the layers that make the logits have the outputs that they have here."""
    if not isinstance(architecture, dict):  # a damaged file: `resize` says so
        return architecture
    done = dict(architecture)
    for path in set(heads) & {*architecture} & {*before}:
        sizes = before[path]
        if not isinstance(architecture[path], dict):
            continue
        done[path] = {**architecture[path], **{key: sizes[key] for key in sizes if key.startswith("out_")}}
    return done
