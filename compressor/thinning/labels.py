"""Labels: which channel each entry of a tensor belongs to.

A label tensor has the shape of its tensor and an integer for each entry; -1: no channel. Along dims in which a label
does not change it has stride 0, so that it costs no memory. A tensor may have several label tensors, each of which
changes along other dims: a weight has one for its outputs and one for its inputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Labels = tuple[Tensor, ...]


def along(first: int, shape: Sequence[int], dim: int) -> Tensor:
    """Return labels first, first + 1, ... along one dim of a tensor."""
    side = [1] * len(shape)
    side[dim] = shape[dim]
    return torch.arange(first, first + shape[dim]).reshape(side).expand(*shape)


def small(label: Tensor) -> Tensor:
    """Return a label tensor with size 1 in the dims along which it does not change."""
    for dim in range(label.dim()):
        if label.shape[dim] > 1 and label.stride(dim) == 0:
            label = label.narrow(dim, 0, 1)
    return label


def compressed(label: Tensor) -> Tensor:
    """Return the same labels with stride 0 in the dims along which they do not change."""
    if label.numel() == 0:
        return label
    own = small(label)
    for dim in range(own.dim()):
        if own.shape[dim] > 1:
            first = own.narrow(dim, 0, 1)
            if bool((own == first).all()):
                own = first
    return own.expand(label.shape)


def changing(label: Tensor) -> tuple[int, ...]:
    """Return the dims along which labels change; those of a compressed label tensor."""
    return tuple(dim for dim in range(label.dim()) if label.shape[dim] > 1 and label.stride(dim) != 0)


def vector(label: Tensor, dim: int) -> Tensor:
    """Return [size of dim]: the labels along one dim, at the first entry of all others; -1 where there is none."""
    own = dim % label.dim()
    if label.numel() == 0:
        return label.new_full((label.shape[own],), -1)
    for other in reversed(range(label.dim())):
        if other != own:
            label = label.select(other, 0)
    return label


def only_along(label: Tensor, dim: int) -> bool:
    """Return whether labels change along this dim alone, if at all."""
    return set(changing(label)) <= {dim % label.dim()}


def distinct(labels: Labels) -> Tensor:
    """Return the labels of a tensor once each, sorted, without -1."""
    if not labels:
        return torch.empty(0, dtype=torch.long)
    found: Tensor = torch.unique(torch.cat([small(label).reshape(-1) for label in labels]))
    return found[found >= 0]


def is_empty(label: Tensor) -> bool:
    """Return whether no entry has a label."""
    return not bool((small(label) >= 0).any())
