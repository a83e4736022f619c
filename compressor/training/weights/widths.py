"""The widths of a network whose channels another tool removed, read from the shapes of its tensors."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.copying import copied
from compressor.errors import UserError, listed
from compressor.evaluating import evaluating
from compressor.thinning import CONVOLUTIONS, Architecture, describe, resize, shapes_of

Image = tuple[int, int, int]


def narrower(network: nn.Module, tensors: Mapping[str, Tensor], heads: Collection[str]) -> Architecture:
    """Return the layers of which `tensors` have fewer channels than the network, with their numbers of channels.

    Empty where a shape is not explained by that. The layers of `heads`, which make the logits, keep their outputs.
    """
    found: Architecture = {}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    for path, own in describe(network).items():
        module, inside = network.get_submodule(path), f"{path}." if path else ""
        names = [name for name in {**module._parameters, **module._buffers} if inside + name in tensors]
        sizes = _sizes(module, own, {name: tensors[inside + name] for name in names})
        if path in heads:
            sizes.update({key: own[key] for key in own if key.startswith("out_")})
        if sizes == own:
            continue
        if any(not 0 < sizes[key] <= own[key] for key in own) or any(
            n % sizes.get("groups", 1) for n in sizes.values()
        ):
            return {}
        found[path] = sizes
        shapes.update({inside + name: shape for name, shape in shapes_of(module, sizes).items()})
    for name, shape in shapes.items():
        if name in tensors:
            start = int(name.rpartition(".")[0] in heads)  # which fits another number of classes is said later
            if tensors[name].shape[start:] != shape[start:]:
                return {}
    return found


def shrink(network: nn.Module, architecture: Architecture, image: Image, source: str) -> str | None:
    """Give the network these widths. Return why not, where it takes no image with them (C, H, W): then it is unchanged.

    Raises `UserError` where a network that cannot be copied does not take it.
    """
    try:
        trial = copied(network)
    except UserError:  # a layer that cannot be copied
        trial = network
    before = None if trial is network else _run(network, image)
    resize(trial, architecture, source)
    with _groups_by_input(trial):
        after = _run(trial, image)
    wrong = after if isinstance(after, str) else None
    if isinstance(before, int) and isinstance(after, int) and before != after:
        wrong = f"it would have {after} outputs, not {before}"
    if wrong is not None and trial is network:
        raise UserError(f"{source}: the model does not work with the widths of this file: {wrong}")
    if wrong is None and trial is not network:
        found = describe(trial)
        resize(network, {path: found[path] for path in architecture}, source)
    return wrong


def in_words(before: Architecture, after: Architecture) -> str:
    """Return in words which layers have fewer outputs than before."""
    fewer = [
        f"{path} {before[path][key]} -> {sizes[key]}"
        for path, sizes in after.items()
        for key in sizes
        if key.startswith("out_") and sizes[key] < before[path][key]
    ]
    return (
        f"{len(fewer)} {'layer is' if len(fewer) == 1 else 'layers are'} narrower than the model's: {listed(fewer, 20)}"
    )


@torch.no_grad()
def _run(network: nn.Module, image: Image) -> int | str | None:
    """Return the number of a network's outputs (None: it gives no tensor), or why it does not take an image."""
    parameter = next(network.parameters(), torch.empty(0))
    try:
        with evaluating(network):
            logits = network(torch.zeros(1, *image, device=parameter.device, dtype=parameter.dtype))
    except Exception as error:  # whatever a network's forward raises
        return (str(error).splitlines() or [type(error).__name__])[0]
    return logits.shape[-1] if isinstance(logits, Tensor) and logits.dim() > 0 else None


@contextmanager
def _groups_by_input(network: nn.Module) -> Iterator[None]:
    """Give grouped convolutions the number of groups that their inputs show in a forward pass inside the block: a
    weight's shape alone does not tell fewer groups from smaller ones.
    """

    def look(module: Any, inputs: tuple[Any, ...]) -> None:
        channels, of_one = inputs[0].shape[-1 - len(module.kernel_size)], module.weight.shape[1]
        groups = channels // of_one
        if channels != module.in_channels and channels == groups * of_one and module.out_channels % groups == 0:
            module.in_channels, module.groups = channels, groups

    layers = [m for m in network.modules() if isinstance(m, CONVOLUTIONS) and m.groups > 1 and not m.transposed]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _sizes(module: Any, own: dict[str, int], theirs: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the numbers of channels with which a layer has the shapes of `theirs`."""
    weight = theirs.get("weight")
    if isinstance(module, CONVOLUTIONS):
        if weight is None or weight.dim() != module.weight.dim():
            return own
        groups, (first, second) = own["groups"], weight.shape[:2]
        if module.transposed:
            return {"in_channels": first, "out_channels": second * groups, "groups": groups}
        if own["in_channels"] == groups:  # depthwise: whole groups were removed
            groups = first * groups // own["out_channels"]
        return {"in_channels": second * groups, "out_channels": first, "groups": groups}
    if isinstance(module, nn.Linear):
        if weight is None or weight.dim() != 2:
            return own
        return {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    sizes = [len(tensor) for tensor in theirs.values() if tensor.dim() == 1]
    return dict.fromkeys(own, sizes[0]) if sizes else own
