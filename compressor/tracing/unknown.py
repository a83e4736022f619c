"""Which entries of a tensor depend on the image: NaN says so in a float, a mark beside the tensor in a bool or integer.

A mark belongs to the tensor's storage: views of it have the same mark, and what is written through one is seen through
the others.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["Unknown", "tensors_of"]


def tensors_of(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments or results, also those in lists and tuples."""
    for value in values if isinstance(values, list | tuple) else (values,):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of(value)


class Unknown:
    """The entries that depend on the image, of all tensors of one forward pass."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[Any, Tensor]] = {}
        """By the address of a storage: the storage, kept alive so that no other one has its address, and its mark."""

    def marked(self, tensor: Tensor) -> bool:
        """Return whether an entry of a tensor of bools or integers is unknown."""
        return (mark := self._mark(tensor)) is not None and bool(mark.any())

    def of(self, tensor: Tensor) -> Tensor:
        """Return [shape of the tensor]: the unknown entries."""
        if _has_nan(tensor):
            return torch.isnan(tensor)
        mark = self._mark(tensor)
        return torch.zeros_like(tensor, dtype=torch.bool) if mark is None else mark

    def any_of(self, tensors: Any) -> bool:
        """Return whether one of these tensors has an unknown entry."""
        return any(bool(torch.isnan(one).any()) if _has_nan(one) else self.marked(one) for one in tensors_of(tensors))

    def has_marks_of(self, view: Tensor, tensor: Tensor) -> bool:
        """Return whether a view with another type says of each entry what the tensor says: its bits do not."""
        return not _has_nan(tensor) and not _has_nan(view) and view.element_size() == tensor.element_size()

    def put(self, tensor: Tensor, unknown: Tensor | None = None) -> None:
        """Let these entries be unknown; all without `unknown`. Unknown bools and integers have the value 0: as an index
        it is valid.
        """
        if _has_nan(tensor):
            tensor.fill_(torch.nan) if unknown is None else tensor.masked_fill_(unknown, torch.nan)
            return
        mark = self._mark(tensor)
        if mark is None:
            if tensor.numel() == 0 or (unknown is not None and not bool(unknown.any())):
                return
            storage = tensor.untyped_storage()
            entries = storage.nbytes() // tensor.element_size()
            self._marks[storage.data_ptr()] = storage, torch.zeros(entries, dtype=torch.bool, device=tensor.device)
            mark = self._mark(tensor)
            assert mark is not None
        if unknown is None:
            mark.fill_(True)
            tensor.zero_()
        else:
            mark.copy_(unknown)
            tensor.masked_fill_(unknown, 0)

    def _mark(self, tensor: Tensor) -> Tensor | None:
        if _has_nan(tensor) or not self._marks or tensor.layout != torch.strided:
            return None
        found = self._marks.get(tensor.untyped_storage().data_ptr())
        if found is None or len(found[1]) * tensor.element_size() != found[0].nbytes():
            return None
        return found[1].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _has_nan(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
