"""One forward pass in which every tensor has labels: which channel each of its entries belongs to.

Every entry of every dim of a parameter or buffer begins with a label of its own. Operations that move entries move the
labels; operations on each entry join the labels of their arguments; a convolution or product with a parameter joins the
channels that it reads with the parameter's inputs, and its results have the labels of the parameter's outputs. Labels
that are joined belong to one channel. What no rule covers keeps the channels that it is given, and no others.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from compressor.thinning import behaviour
from compressor.thinning.following.contractions import Contractions
from compressor.thinning.following.joints import Joints
from compressor.thinning.following.movements import Movements
from compressor.thinning.following.normalizations import Normalizations
from compressor.thinning.following.notes import (
    BATCH_NORMS,
    PRODUCTS,
    TURNS,
    is_pointwise,
    name_of,
)
from compressor.thinning.following.reductions import Reductions
from compressor.thinning.following.states import Fix, Followed, State
from compressor.thinning.graph import Node
from compressor.thinning.labels import (
    Labels,
    distinct,
)
from compressor.tracing import draw, is_draw


def follow(
    model: nn.Module,
    images: Tensor,
    slices: Mapping[str, Labels],
    fixes: Mapping[int, Fix],
    values: Mapping[str, Tensor],
    depthwise: Collection[str] | None = None,
    high: bool | None = None,
    outputs: Mapping[str, Tensor] | None = None,
) -> Followed:
    """Follow the channels through one forward pass of `model`, in the modes of its modules.

    `slices`: the labels of the dims of every parameter and buffer. `fixes`: by the number of an operation `keep`: it
    keeps all of its channels; `positions`: it reads them at hard-coded positions; or a dim: equal parts lose the same
    channels, those of this dim. `values`: the buffers
    with their values, of a model without storage. `depthwise`: the weights that are depthwise, where that is known: a
    cut may leave one input and output in each group of others. `high`: single numbers that are drawn are the largest,
    or the least ones. `outputs`: the labels of the outputs of transposed convolutions with groups, whose weights have a
    dim for those of one group only.
    """
    follower = _Follower(model, slices, fixes, values, depthwise, high, outputs or {})
    given: list[Any] = []  # all outputs: one that is not the logits reads channels, too
    handles = [model.register_forward_hook(lambda module, images, result: given.append(result), prepend=True)]
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # it takes no hooks; its operations are followed
        handles.append(module.register_forward_pre_hook(follower.enter(path), with_kwargs=True))
        handles.append(module.register_forward_hook(follower.leave, always_call=True))
    try:
        with torch.no_grad(), follower, Raising(follower):
            result = model(images)
        follower.outputs(result, given[-1:])
    except Exception as error:
        follower.found.failed = error
        follower.found.failed_in = follower.blamed()
    finally:
        for handle in handles:
            handle.remove()
    follower.found.last = follower.now()
    return follower.found


class _Follower(Contractions, Normalizations, Joints, Movements, Reductions):  # type: ignore[no-untyped-call]
    """The mode in which the network runs: it passes each operation to its rule."""

    def enter(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            given = tuple(one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor))
            self._stack.append((path, module, given))
            if isinstance(module, nn.MultiheadAttention):
                why = f"{path} (MultiheadAttention) takes inputs of a fixed width"
                for one in given[: 3 if module._qkv_same_embed_dim else 1]:
                    self._keep(self._state(one), why)

        return hook

    def leave(self, module: nn.Module, args: Any, result: Any) -> None:
        if sys.exc_info()[0] is not None and self._raised is None:  # a check of the module's own
            if type(module).__module__.startswith("torch.nn"):
                self._blame(self._stack[-1][2])
            else:  # the model's own code, of what it made last
                self._blame(self._last)
                self.found.failed_labels = self.found.failed_labels[:0]
        self._stack.pop()

    def _blame(self, given: Sequence[Tensor], *, here: bool = False) -> None:
        states = [self._state(one) for one in given]
        own = frozenset({self._now}) if here else frozenset()
        self.found.operations = self._now
        self._raised = own.union(*(state.sites for state in states))
        self.found.failed_labels = torch.cat([distinct(state.labels) for state in states] or [torch.empty(0).long()])

    def refused(self, name: str, given: Sequence[Any]) -> None:
        """Note the arguments of a function that raised, as those of the operation that would have come next."""
        if self._raised is None:
            self._now += 1
            self._blame([one for one in given if isinstance(one, Tensor)], here=True)
            self.found.places.setdefault(self._now, self._place_of(name))

    def now(self) -> int:
        """Return the number of the last operation."""
        return self._now

    @contextmanager
    def numbered_alike(self, function: Any, args: Sequence[Any]) -> Iterator[None]:
        """Give an index the same number of operations always: torch leaves out a slice that takes all."""
        start = self._now
        yield
        if function in (Tensor.__getitem__, Tensor.__setitem__):
            self._now = max(self._now, start + 4 + 2 * (len(args[1]) if isinstance(args[1], tuple) else 1))

    def blamed(self) -> frozenset[int]:
        """Return the operations that may be at fault for what the forward pass raised."""
        return self._raised if self._raised is not None else frozenset()

    def outputs(self, result: Any, others: Any) -> None:
        """Keep the channels of the network's outputs; `others`, which nobody uses, read theirs."""
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                state = self._state(one)
                self._keep(state, "they are the network's output")
                for number in state.sources:
                    node = self.found.nodes[number]
                    self.found.nodes[number] = node.replaced(is_output=True)
        for one in tree_leaves(others):
            if isinstance(one, Tensor) and all(one is not other for other in tree_leaves(result)):
                state = self._state(one)
                self._add(Node("an output", "reader", state.sources, distinct(state.labels)))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._now += 1
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        run_args, run_kwargs = args, kwargs
        if len({one.is_meta for one in given}) > 1:  # torch itself takes single numbers from any device
            run_args, run_kwargs = tree_map_only(
                Tensor, lambda one: one.to("meta") if one.dim() else one, (args, dict(kwargs))
            )
        try:
            result = function(*run_args, **run_kwargs)
        except Exception:
            if self._raised is None:
                self._blame(given, here=True)
                self.found.places.setdefault(self._now, self._place(function))
            raise
        if is_draw(function, result):
            self.found.drew = True
            if result.is_meta and not given:
                result = function(*run_args, **{**run_kwargs, "device": "cpu"})  # Python may choose by it
            if self._high is not None:
                draw(name_of(function), args, kwargs, result, high=self._high)
        self._alive.append((given, result))
        self.found.numbers[self._now] = (
            tuple(one for one in tree_leaves((args, kwargs)) if isinstance(one, float) or type(one) is int)
            if torch.Tag.pointwise in function.tags
            else ()
        )
        states = [self._states.get(id(one)) for one in given]
        if any(state is not None and (state.labels or state.zero or state.sites) for state in states):
            self._follow(function, args, kwargs, result, given)
            self._last = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        elif name_of(function) in ("zeros", "zeros_like", "zero", "new_zeros") and isinstance(result, Tensor):
            self._states[id(result)] = State(zero=True)
        elif name_of(function) in TURNS and given and isinstance(result, Tensor) and id(given[0]) in self._values:
            self._values[id(result)] = function(self._values[id(given[0])], *args[1:], **kwargs)
        return result

    def _follow(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any, given: list[Tensor]
    ) -> None:
        name = name_of(function)
        fix = self._fixes.get(self._now)
        if fix == "keep" and name not in behaviour.NEW:
            for one in given:
                self._keep(self._state(one), f"{self._place(function)} works only with this number of channels")
        if name == "convolution":
            self._convolution(args, result)
        elif name in PRODUCTS:
            self._product(name, args, kwargs, result)
        elif name in BATCH_NORMS:
            self._batch_norm(args, result)
        elif name == "native_group_norm":
            self._group_norm(args, result)
        elif name == "native_layer_norm":
            self._along(name, args[0], range(-len(args[1]), 0), result[0])
        elif name in ("cat", "concat"):
            self._concatenated(args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0), result)
        elif name == "stack":
            self._stacked(args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0), result)
        elif name == "glu":
            self._glu(args, kwargs, result)
        elif name in behaviour.MOVES and self._moved(function, name, args, kwargs, result, fix):
            pass
        elif name in behaviour.REDUCTIONS:
            self._reduced(name, args, kwargs, result)
        elif name in behaviour.ALONG:
            dim = args[1] if len(args) > 1 and isinstance(args[1], int) else kwargs.get("dim", -1)
            self._along(name, args[0], [dim], *(result if isinstance(result, (tuple, list)) else (result,)))
        elif any(part in name for part in behaviour.SPATIAL):
            self._spatial(name, args, result)
        elif name in behaviour.LIKE or name in behaviour.NEW:
            self._like(name, args[0], result)
        elif torch.Tag.pointwise in function.tags or is_pointwise(name, given, result):
            self._pointwise(name, args, kwargs, given, result)
        else:
            self._unknown(function, given, result)


class Raising(TorchFunctionMode):
    """Note the arguments of a function that raises before any operation begins: a shape that does not fit; and number
    the operations.
    """

    def __init__(self, follower: _Follower) -> None:
        super().__init__()
        self._follower = follower

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            with self._follower.numbered_alike(func, args):
                return func(*args, **(kwargs or {}))
        except Exception:
            self._follower.refused(getattr(func, "__name__", "a function"), tree_leaves((args, kwargs)))
            raise
