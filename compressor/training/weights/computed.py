"""Weights that a file has in parts, as torch's own pruning and weight norm save them."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from compressor.errors import UserError, listed


def whole(tensors: Mapping[str, Tensor], own: Collection[str], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors with each weight in one piece, and lines for the user; a network's `own` names stay as they
    are.

    `torch.nn.utils.prune`: NAME_orig times NAME_mask. Weight norm (Salimans and Kingma 2016, equation 2): NAME_g times
    NAME_v over its norm, or `parametrizations.NAME.original0` and `original1`. Raises `UserError` for other
    parametrizations: a file does not say how they compute the weight.
    """
    found, masked, normed = dict(tensors), list[str](), list[str]()
    leaves = {name.rpartition(".")[2] for name in own}

    def part(name: str) -> Tensor | None:
        return None if name.rpartition(".")[2] in leaves else found.get(name)

    for name in tensors:
        stem = name.removesuffix("_orig")
        if stem != name and (values := part(name)) is not None and (mask := part(f"{stem}_mask")) is not None:
            if values.shape != mask.shape:
                raise UserError(f"{source}: {name} is {tuple(values.shape)}, its mask {tuple(mask.shape)}")
            found[stem] = values * mask.to(values.dtype)
            del found[name], found[f"{stem}_mask"]
            masked.append(stem)
        elif stem != name and part(name) is not None and part(f"{stem}_u") is not None:
            raise UserError(_refusal(source, stem, "spectral_norm", "torch.nn.utils.remove_spectral_norm(layer)"))
    for length_name in tensors:
        new = length_name.endswith(".original0") and ".parametrizations." in f".{length_name}"
        if new:
            prefix, _, leaf = length_name.removesuffix(".original0").rpartition(".")
            stem, direction_name = f"{prefix.removesuffix('parametrizations')}{leaf}", f"{length_name[:-1]}1"
        else:
            stem = length_name.removesuffix("_g")
            direction_name = f"{stem}_v"
        length, direction = part(length_name), part(direction_name)
        if stem == length_name or length is None or direction is None:
            continue
        found[stem] = _weight_norm(length, direction, source, stem)
        del found[length_name], found[direction_name]
        normed.append(stem)
    for name in found:
        before, inside, _ = f".{name}".partition(".parametrizations.")
        if inside and not any(".parametrizations." in f".{one}" for one in own):
            raise UserError(
                _refusal(
                    source,
                    name,
                    "a parametrization",
                    f"torch.nn.utils.parametrize.remove_parametrizations(network{before}, NAME)",
                )
            )
    said = []
    if masked:
        said.append(f"{source}: {_count(masked)} multiplied by the masks of torch.nn.utils.prune: {listed(masked)}")
    if normed:
        said.append(f"{source}: {_count(normed)} computed from the parts of weight norm: {listed(normed)}")
    return found, said


def _count(names: list[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def _refusal(source: str, name: str, kind: str, removal: str) -> str:
    return (
        f"{source}: {name} is computed by {kind}, and the file does not say how: call `{removal}` for each such layer"
        f" and save the state_dict again"
    )


def _weight_norm(length: Tensor, direction: Tensor, source: str, name: str) -> Tensor:
    """Return length * direction / norm, over the dims in which `length` has one entry."""
    if length.dim() not in (0, direction.dim()) or any(
        size not in (1, direction.shape[dim]) for dim, size in enumerate(length.shape)
    ):
        raise UserError(
            f"{source}: the parts of {name} do not fit: {tuple(length.shape)} lengths, {tuple(direction.shape)}"
            f" directions"
        )
    dims = [dim for dim in range(direction.dim()) if length.dim() == 0 or length.shape[dim] == 1]
    norm: Tensor = torch.linalg.vector_norm(direction, dim=dims, keepdim=True)
    return direction * (length / norm)
