"""The state of a session and its model at one time, which can be restored."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.context import Part
from compressor.session import rng

if TYPE_CHECKING:
    from compressor.session.session import Session


class Undo:
    """Restores what events change: weights, channels that were removed, masks, memories, groups of the optimizer.

    Made outside of forward and backward passes. Masks and tensors of the optimizer's state are replaced where events
    change them, and are kept as they are; what is changed in place is copied.
    """

    def __init__(self, session: "Session", *, weights: bool = True, trained: bool = False) -> None:
        """`weights`: whether the model may change. `trained`: also restore what the optimizer's steps change, and the
        global random generators.
        """
        it = self._session = session
        self._parts = Parts(it.model if weights else nn.Module(), it.optimizer.optimizer, trained=trained)
        view = it.optimizer
        self._view = (dict(view.scales), set(view.unmoved), view.clipped, view.skips)
        trainable = [parameter for group in view.groups for parameter in group["params"]]  # gates', too
        self._gradients = [(parameter, parameter.grad) for parameter in trainable]
        self._state = _copied(it.state_of_events())
        self._masks, self._substitutions = it.masks.state_dict(), it.substitutions.owned()
        self._held = dict(it.network.held)
        self._validation = it.data.validation
        self._place = it._next, it._rates, it._masks_seen, it._emptied
        self._rng = rng.capture(it.network.device) if trained else None

    def restore(self) -> None:
        """Restore everything. An interrupt (Ctrl-C) in the middle begins it again, and is raised then."""
        try:
            self._restore()
        except KeyboardInterrupt:
            self._restore()
            raise

    def _restore(self) -> None:
        it = self._session
        it.substitutions.withdraw()
        self._parts.restore()
        it.network.forget()
        scales, it.optimizer.unmoved, it.optimizer.clipped, it.optimizer.skips = self._view
        it.optimizer.scales = dict(scales)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        it.masks.load_state_dict(self._masks)
        it.substitutions.restore(self._substitutions)
        it.load_state_of_events(_copied(self._state))
        it.network.held.clear()
        it.network.held.update(self._held)
        it.data.validation, it.data.part = self._validation, Part()
        it._next, it._rates, it._masks_seen, it._emptied = self._place
        if self._rng is not None:
            rng.restore(self._rng, it.network.device)


class Parts:
    """Restores a model, with channels that were removed, and the groups and the state of its optimizer."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, trained: bool = False) -> None:
        """`trained`: also restore what the optimizer's steps change in its state."""
        self._modules = [(module, _Attributes(module)) for module in model.modules()]
        tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
        self._tensors = [(tensor, tensor.data, tensor.detach().clone()) for tensor in tensors]
        self._optimizer = _OfOptimizer(optimizer, trained=trained)

    def restore(self) -> None:
        for module, attributes in self._modules:
            attributes.restore(module)
        with torch.no_grad():
            for tensor, data, value in self._tensors:
                tensor.data = data
                tensor.copy_(value)
        self._optimizer.restore()


class _Attributes:
    """The attributes of a module; of its tables (parameters, buffers, modules, hooks) what is in them."""

    def __init__(self, module: nn.Module) -> None:
        self._values = dict(module.__dict__)
        self._tables = [(table, dict(table)) for table in self._values.values() if isinstance(table, dict)]

    def restore(self, module: nn.Module) -> None:
        module.__dict__.clear()
        module.__dict__.update(self._values)
        for table, content in self._tables:
            table.clear()
            table.update(content)


class _OfOptimizer:
    """The groups and the state of an optimizer; `trained`: with copies of the tensors, which a step changes."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, trained: bool) -> None:
        self._optimizer, self._trained = optimizer, trained
        self._groups, self._state = optimizer.param_groups, optimizer.state
        self._in_groups = [(group, {**group, "params": list(group["params"])}) for group in self._groups]
        self._in_state = {parameter: self._kept(state) for parameter, state in self._state.items()}

    def _kept(self, state: dict[str, Any]) -> dict[str, Any]:
        return {key: _copied(value) for key, value in state.items()} if self._trained else dict(state)

    def restore(self) -> None:
        for group, content in self._in_groups:
            group.clear()
            group.update({**content, "params": list(content["params"])})
        self._groups[:] = [group for group, _ in self._in_groups]
        self._state.clear()
        self._state.update({parameter: self._kept(state) for parameter, state in self._in_state.items()})
        self._optimizer.param_groups, self._optimizer.state = self._groups, self._state


def _copied(value: Any) -> Any:
    """Return a copy of nested containers and of the tensors in them; other values are shared."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set) and type(value) in (list, tuple, set):
        return type(value)(_copied(item) for item in value)
    return value
