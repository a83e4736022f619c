"""The record of the operations of one forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from compressor.evaluating import evaluating
from compressor.sparsity import prunable
from compressor.tracing.calls import Call, Calls, tensors

__all__ = ["ModuleCall", "Operation", "Read", "Trace", "trace"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Read:
    """A tensor among the arguments of an operation."""

    shape: Shape
    maker: int | None
    """The index in the trace of the operation that made it, or last changed it in place; None: no operation did."""
    weight: str | None
    """The prunable weight that it is or was made from alone: a layer may normalize or share its weight first."""
    is_weight: bool
    """Whether it is the weight itself."""
    of_images: bool
    """Whether it is the images, or made from them."""


@dataclass(frozen=True)
class Operation:
    """One call of a function of torch: its arguments, the tensors among them, and the shapes of its results."""

    call: Call
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    """The arguments themselves; their values may have been overwritten in place since."""
    reads: tuple[Read, ...]
    shapes: tuple[Shape, ...]
    inside: int | None = None
    """The index in the trace of the module call in which it happens: the innermost one."""

    @property
    def of_images(self) -> bool:
        """Return whether an argument depends on the images."""
        return any(read.of_images for read in self.reads)

    @property
    def weight(self) -> Read | None:
        """Return the first weight among the arguments."""
        return next((read for read in self.reads if read.weight is not None), None)

    @property
    def applied(self) -> Read | None:
        """Return the weight that is applied to a tensor made of the images."""
        return self.weight if self.of_images else None


@dataclass
class ModuleCall:
    """One call of a module; `weight` is the name of its own `weight`, where that is prunable."""

    path: str
    module: nn.Module
    weight: str | None
    shapes: tuple[Shape, ...] = ()
    """The shapes of its results."""


@dataclass(frozen=True)
class Trace:
    """The operations of one forward pass in their order, and the module calls in the order in which they begin.

    It keeps the tensors of that pass in memory.
    """

    operations: tuple[Operation, ...]
    modules: tuple[ModuleCall, ...]
    outputs: tuple[Read, ...] = ()
    """The results of the forward pass: the logits, in a classifier."""


@torch.no_grad()
def trace(model: nn.Module, images: Tensor) -> Trace:
    """Return the trace of one forward pass in eval mode; the model is not changed."""
    recorder = _Recorder(model, images)
    before = register_module_forward_pre_hook(recorder.enter)
    after = register_module_forward_hook(recorder.leave, always_call=True)
    try:
        with evaluating(model), recorder:
            result = model(images)
    finally:
        before.remove()
        after.remove()
    outputs = tuple(map(recorder.read, tensors((result,))))
    return Trace(tuple(recorder.operations), tuple(recorder.modules), outputs)


class _Recorder(TorchFunctionMode):
    """Record every operation and module call. Tensors are identified by address."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.modules: list[ModuleCall] = []
        self._calls = Calls()
        self._paths = {module: path for path, module in model.named_modules()}
        self._own = {id(weight): name for name, weight in prunable(model).items()}
        self._weights = dict(self._own)
        self._of_images = {id(images)}
        self._makers: dict[int, int] = {}
        self._open: list[int] = []
        self._alive: list[Any] = []  # so that no address is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call, kwargs = self._calls.next(func), kwargs or {}
        given = tensors((*args, *kwargs.values()))
        reads = tuple(map(self.read, given))
        result = func(*args, **kwargs)
        made = tensors((result,))
        self._alive.append((given, made))
        inside = self._open[-1] if self._open else None
        operation = Operation(call, args, kwargs, reads, _shapes(made), inside)
        for tensor in made:
            self._makers[id(tensor)] = len(self.operations)
            if operation.of_images:
                self._of_images.add(id(tensor))
            elif operation.weight is not None and operation.weight.weight is not None:
                self._weights[id(tensor)] = operation.weight.weight
        self.operations.append(operation)
        return result

    def read(self, tensor: Tensor) -> Read:
        """Return what is known of a tensor."""
        address = id(tensor)
        return Read(
            tuple(tensor.shape),
            self._makers.get(address),
            self._weights.get(address),
            is_weight=address in self._own,
            of_images=address in self._of_images,
        )

    def enter(self, module: nn.Module, given: Any) -> None:
        """Record the beginning of a module's call."""
        if module in self._paths:
            own = self._own.get(id(module._parameters.get("weight")))
            self.modules.append(ModuleCall(self._paths[module], module, own))
            self._open.append(len(self.modules) - 1)

    def leave(self, module: nn.Module, given: Any, result: Any) -> None:
        """Record the results of the call."""
        if module in self._paths:
            with torch._C.DisableTorchFunction():  # a question of ours is no operation of the network
                self.modules[self._open.pop()].shapes = _shapes(tensors((result,)))


def _shapes(values: list[Tensor]) -> tuple[Shape, ...]:
    return tuple(tuple(value.shape) for value in values)
