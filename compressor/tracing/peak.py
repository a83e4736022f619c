"""The peak memory of the activations of one image."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.evaluating import evaluating

__all__ = ["peak_activations"]


@torch.no_grad()
def peak_activations(model: nn.Module, shape: tuple[int, int, int]) -> int | None:
    """Return the largest number of bytes that the activations of one image of `shape` (C, H, W) take at one time, in
    eval mode; None where the forward pass cannot be followed.

    An activation is the image, or the result of an operation. It takes memory from the operation that makes it to the
    last one that reads it. Views and operations in place take none of their own; parameters and buffers are not
    counted, nor what an operation needs inside.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, of which nothing inside would be seen
    lives = _Lives(image)
    try:
        with evaluating(model), sdpa_kernel(SDPBackend.MATH), lives:
            result = model(image)
        lives.read(result)
    except (RuntimeError, NotImplementedError):  # tensors without storage
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return lives.peak()


class _Lives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The first and the last operation of each piece of memory that a forward pass makes."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now = 0
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no address is used twice
        self._made(image)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._now += 1
        given = (args, kwargs or {})
        self.read(given)
        known = {self._key(one) for one in tree_leaves(given) if isinstance(one, Tensor)}
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and self._key(one) not in known:  # a view of a parameter is none of them
                self._made(one)
        return result

    def read(self, values: Any) -> None:
        """Note that the operation of now reads tensors."""
        for one in tree_leaves(values):
            if isinstance(one, Tensor) and (key := self._key(one)) in self._first:
                self._last[key] = self._now

    def _made(self, tensor: Tensor) -> None:
        key = self._key(tensor)
        self._alive.append(tensor.untyped_storage())
        self._first.setdefault(key, self._now)
        self._last[key] = self._now
        self._bytes[key] = tensor.untyped_storage().nbytes()

    def _key(self, tensor: Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)

    def peak(self) -> int:
        """Return the largest sum of the bytes that are needed in one operation."""
        changes = [0] * (self._now + 2)
        for key, size in self._bytes.items():
            changes[self._first[key]] += size
            changes[self._last[key] + 1] -= size
        most = now = 0
        for change in changes:
            now += change
            most = max(most, now)
        return most
