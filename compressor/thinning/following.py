"""One forward pass in which every tensor has labels: which channel each of its entries belongs to.

Every entry of every dim of a parameter or buffer begins with a label of its own. Operations that move entries move the
labels; operations on each entry join the labels of their arguments; a convolution or product with a parameter joins the
channels that it reads with the parameter's inputs, and its results have the labels of the parameter's outputs. Labels
that are joined belong to one channel. What no rule covers keeps the channels that it is given, and no others.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from compressor.sparsity import PRUNABLE
from compressor.thinning import behaviour
from compressor.thinning.behaviour import rule_at_zero
from compressor.thinning.graph import Kind, Node, Rule
from compressor.thinning.labels import (
    Labels,
    changing,
    compressed,
    distinct,
    is_empty,
    only_along,
    small,
    vector,
)
from compressor.tracing import draw, is_draw

aten = torch.ops.aten

_PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm"})
_BATCH_NORMS = frozenset(
    {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit_no_training",
     "_native_batch_norm_legit", "_batch_norm_no_update", "_batch_norm_with_update"}
)  # fmt: skip
_COPIES = frozenset({"clone", "contiguous", "_to_copy", "alias", "detach", "lift", "lift_fresh"})
_TURNS = frozenset({"permute", "transpose", "t", "movedim", "squeeze", "unsqueeze", "expand"}) | _COPIES
_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias"})
_PARTS = frozenset(
    {"split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "chunk", "slice", "narrow",
     "unbind", "select"}
)  # fmt: skip


Fix = int | Literal["keep"]


@dataclass
class State:
    """What is known of a tensor.

    `sources`: the nodes that made it. `weight`: the parameter or buffer that it is, or was made from alone. `sites`:
    the operations since the last layer that may have put its channels into other places. `zero`: it is 0 everywhere.
    """

    labels: Labels = ()
    sources: tuple[int, ...] = ()
    weight: str | None = None
    sites: frozenset[int] = frozenset()
    zero: bool = False


@dataclass(frozen=True)
class Join:
    """Labels that belong together, and the operations that may be at fault where they do not: `sites`, last `at`."""

    first: Tensor
    second: Tensor
    sites: frozenset[int]
    at: int


@dataclass(frozen=True)
class Keep:
    """Labels of channels that cannot be removed, and the reason."""

    labels: Tensor
    reason: str


@dataclass
class Followed:
    """The result: nodes whose cells are still labels, the labels that are joined, and those that are kept."""

    nodes: list[Node] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    keeps: list[Keep] = field(default_factory=list)
    ties: list[Keep] = field(default_factory=list)
    """Labels of channels that can only be removed together with others, and the reason."""
    slices: dict[str, Labels] = field(default_factory=dict)
    """By parameter and buffer: the labels of each dim [its size]."""
    drew: bool = False
    """Whether it drew a single number, by which it may choose what it runs."""
    operations: int = 0
    """The number of the operation that raised, if any did."""
    places: dict[int, str] = field(default_factory=dict)
    """Where in the model's code each operation stands that may have put channels into other places."""
    numbers: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """The numbers with which each operation combines its tensors, entry by entry."""
    given: dict[int, State] = field(default_factory=dict)
    """What is known of the tensors that it combines with a number."""
    results: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    """The labels of the results of those operations."""
    lineage: dict[int, frozenset[int]] = field(default_factory=dict)
    """Those that came before each of them since the last layer, and itself."""
    equal: dict[int, int] = field(default_factory=dict)
    """Those that make parts of equal size, which can lose the same channels; of a view the dim in which these are."""
    failed: BaseException | None = None
    """What the forward pass raised."""
    failed_in: frozenset[int] = frozenset()
    """The operations that may be at fault then, and the one that raised."""
    failed_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """The labels that it was given."""


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
    keeps all of its channels; or a dim: equal parts lose the same channels, those of this dim. `values`: the buffers
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
        with torch.no_grad(), follower, _Raising(follower):
            result = model(images)
        follower.outputs(result, given[-1:])
    except Exception as error:
        follower.found.failed = error
        follower.found.failed_in = follower.blamed()
    finally:
        for handle in handles:
            handle.remove()
    return follower.found


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(
        self,
        model: nn.Module,
        slices: Mapping[str, Labels],
        fixes: Mapping[int, Fix],
        values: Mapping[str, Tensor],
        depthwise: Collection[str] | None,
        high: bool | None,
        outputs: Mapping[str, Tensor],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = Followed(slices=dict(slices))
        self._states: dict[int, State] = {}
        self._roots: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no address is used twice
        self._stack: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
        self._modules = dict(model.named_modules())
        self._trained = {name for name, _ in model.named_parameters()}
        self._fixes, self._depthwise, self._high, self._outputs = fixes, depthwise, high, outputs
        self._now = 0
        self._raised: frozenset[int] | None = None
        self._last: list[Tensor] = []
        self._values: dict[int, Tensor] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            labels = slices.get(name)
            if labels is None:
                continue
            own = []
            for dim, line in enumerate(labels):
                side = [1] * tensor.dim()
                side[dim] = len(line)
                own.append(line.reshape(side).expand(tensor.shape))
            self._states[id(tensor)] = State(tuple(own), weight=name)
            self._alive.append(tensor)
            if name in values:
                self._values[id(tensor)] = values[name]

    # The modules that are being called.

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

    # Every operation.

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
                draw(_name(function), args, kwargs, result, high=self._high)
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
        elif _name(function) in ("zeros", "zeros_like", "zero", "new_zeros") and isinstance(result, Tensor):
            self._states[id(result)] = State(zero=True)
        elif _name(function) in _TURNS and given and isinstance(result, Tensor) and id(given[0]) in self._values:
            self._values[id(result)] = function(self._values[id(given[0])], *args[1:], **kwargs)
        return result

    def _follow(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any, given: list[Tensor]
    ) -> None:
        name = _name(function)
        fix = self._fixes.get(self._now)
        if fix == "keep" and name not in behaviour.NEW:
            for one in given:
                self._keep(self._state(one), f"{self._place(function)} has numbers that do not follow the channels")
        if name == "convolution":
            self._convolution(args, result)
        elif name in _PRODUCTS:
            self._product(name, args, kwargs, result)
        elif name in _BATCH_NORMS:
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
        elif torch.Tag.pointwise in function.tags or _is_pointwise(name, given, result):
            self._pointwise(name, args, kwargs, given, result)
        else:
            self._unknown(function, given, result)

    # What operations do.

    def _convolution(self, args: tuple[Any, ...], result: Tensor) -> None:
        x, weight, bias = args[0], args[1], args[2]
        transposed, groups = bool(args[6]), int(args[8])
        given, own = self._state(x), self._state(weight)
        channels = x.dim() - (weight.dim() - 2) - 1
        read: Tensor | None = None
        for label in given.labels:
            if channels in changing(label) or (x.shape[channels] == 1 and not changing(label)):
                read = self._one_channel(label, channels, given)
            else:
                self._keep_labels(label, f"{self._layer_name('convolution')} mixes them")
        out_dim, in_dim = (1, 0) if transposed else (0, 1)
        outs, ins = _labels_of(own, weight, out_dim), _labels_of(own, weight, in_dim)
        width = result.shape[channels]
        into = torch.full((x.shape[channels],), -1) if read is None else read
        kind: Kind = "producer"
        alone = groups > 1 and groups == len(into) == width
        if alone and (self._depthwise is None or own.weight in self._depthwise):
            kind = "depthwise"
            outs = _labels_of(own, weight, 0)
            if read is not None and outs is not None:
                self._join(read, outs, given.sites | own.sites)
        elif groups == 1 and read is not None and ins is not None:
            self._join(read, ins, given.sites | own.sites)
        elif groups == 1 and ins is not None:  # a tied weight, of which another layer makes these channels
            self._keep_labels(ins, f"{self._layer_name('convolution')} reads what is no channel with the same weight")
        elif groups > 1 and transposed:
            outs = self._outputs.get(own.weight or "")
        if read is not None and (own.weight is None or (groups == 1 and ins is None)):
            self._keep_labels(read, f"{self._layer_name('convolution')} reads them with a kernel that is no parameter")
        out = outs if outs is not None and len(outs) == width else torch.full((width,), -1)
        self._produced(kind, out, into, given, own, bias, result, channels, groups, transposed, (out_dim, in_dim))

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor) -> None:
        bias = args[0] if name in ("addmm", "baddbmm") else None
        left, right = args[1:3] if bias is not None else args[:2]
        one, two = self._state(left), self._state(right)
        rows, columns, inner_left, inner_right = result.dim() - 2, result.dim() - 1, left.dim() - 1, right.dim() - 2
        path, module, _ = self._stack[-1] if self._stack else ("", nn.Module(), ())
        layers = [isinstance(module, PRUNABLE) and state.weight == _weight_in(path) for state in (one, two)]
        if (one.weight is None) == (two.weight is None) and not any(layers):
            self._pair(left, right, bias, result)
            return
        from_right = layers[1] if any(layers) else two.weight is not None
        x, weight = (left, right) if from_right else (right, left)
        given, own = (one, two) if from_right else (two, one)
        given = replace(given, weight=None)  # of a layer also a buffer, such as a table of positions, is an input
        inner_x, inner_w = (inner_left, inner_right) if from_right else (inner_right, inner_left)
        free_w, free = (right.dim() - 1, columns) if from_right else (left.dim() - 2, rows)
        read, passing = None, []
        for label in given.labels:
            moving = changing(label)
            if inner_x in moving or (not moving and x.shape[inner_x] == 1):
                if set(moving) <= {inner_x}:
                    read = vector(label, inner_x)
                else:
                    self._keep_labels(label, f"{self._layer_name(name)} mixes them")
            else:
                passing.append(label.narrow(inner_x, 0, 1).expand(_with(result.shape, free, 1)).expand(result.shape))
        ins, outs = _labels_of(own, weight, inner_w), _labels_of(own, weight, free_w)
        if read is not None and ins is not None:
            self._join(read, ins, given.sites | own.sites)
        elif read is not None:
            self._keep_labels(read, f"{self._layer_name(name)} reads them with a weight that is no parameter")
        elif ins is not None:  # a tied weight, of which another layer makes these channels
            self._keep_labels(ins, f"{self._layer_name(name)} reads what is no channel with the same weight")
        into = torch.full((x.shape[inner_x],), -1) if read is None else read
        out = outs if outs is not None else torch.full((result.shape[free],), -1)
        self._produced("producer", out, into, given, own, bias, result, free, 1, False, (0, 1), tuple(passing))

    def _produced(
        self,
        kind: Kind,
        out: Tensor,
        into: Tensor,
        given: State,
        own: State,
        bias: Tensor | None,
        result: Tensor,
        dim: int,
        groups: int,
        transposed: bool,
        dims: tuple[int, int],
        passing: Labels = (),
    ) -> None:
        """Add the node of a layer; `passing`: labels of its input that it leaves where they are."""
        path, module, _ = self._stack[-1] if self._stack else ("", nn.Module(), ())
        if not isinstance(module, PRUNABLE) and own.weight is not None:  # a layer's weight without its own forward
            path = own.weight.rpartition(".")[0]
            module = self._modules.get(path, module)
        owned = isinstance(module, PRUNABLE)
        label = path if owned else own.weight or "a product"
        lines = self.found.slices.get(own.weight or "", ())
        if groups == 1 and len(lines) > 1 and torch.equal(out, lines[1]) and not torch.equal(out, lines[0]):
            dims = (1, 0)
        shift = None if bias is None else self._state(bias)
        companions: tuple[str, ...] = ()
        if shift is not None and shift.weight is not None and isinstance(bias, Tensor):
            companions = (shift.weight,) if shift.weight in self._trained else ()
            entries = _labels_of(shift, bias, bias.dim() - 1)
            if entries is not None and len(entries) == len(out):
                self._join(out, entries, shift.sites)
        weight = own.weight or ""
        if kind == "depthwise":
            companions = (weight, *companions) if weight in self._trained else companions
        if owned and module._parameters.get("weight") is None:  # it is computed
            weight = _weight_in(path)
        if not owned and kind == "producer":
            kept = f"{type(module).__name__} {path} keeps its units" if isinstance(module, nn.RNNBase) else ""
            self._keep_labels(out, kept or f"they are made with the bare parameter {label} in {self._in_module()}")
        node = Node(
            label, kind, given.sources, out, into, weight=weight, companions=companions, groups=groups,
            transposed=transposed, dims=dims, owned=owned,
        )  # fmt: skip
        sources = [self._add(node)]
        labels: list[Tensor] = []
        if bool((out >= 0).any()):
            side = [1] * result.dim()
            side[dim] = len(out)
            labels.append(out.reshape(side).expand(result.shape))
        for one in passing:
            zero: Rule = "all" if bias is None else "never"
            sources.append(self._add(Node(label, "operation", given.sources, distinct((one,)), zero=zero)))
            labels.append(one)
        both = own.weight if given.weight is not None else None
        self._states[id(result)] = State(tuple(labels), tuple(sources), weight=both)

    def _pair(self, left: Tensor, right: Tensor, bias: Tensor | None, result: Tensor) -> None:
        """Follow a product of two tensors that are both activations, or both made of parameters."""
        one, two = self._state(left), self._state(right)
        why = f"{self._layer_name('a product')} multiplies them with each other and adds over all"
        labels: list[Tensor] = []
        sources: list[int] = []
        inside: list[tuple[Tensor, State]] = []
        weights = one.weight is not None and two.weight is not None
        for state, tensor, inner in ((one, left, left.dim() - 1), (two, right, right.dim() - 2)):
            passing = []
            for label in state.labels:
                if inner in changing(label) or not changing(label):
                    if not weights and set(changing(label)) <= {inner}:
                        inside.append((vector(label, inner), state))
                    elif not weights:
                        self._keep_labels(label, why)
                        sources.append(self._add(Node("a product", "mixing", state.sources, distinct((label,)))))
                    continue
                other = result.dim() - 1 if tensor is left else result.dim() - 2
                passing.append(label.narrow(inner, 0, 1).expand(_with(result.shape, other, 1)).expand(result.shape))
            if passing and not weights:
                sources.append(self._add(Node("a product", "operation", state.sources, distinct(tuple(passing)))))
            labels += passing
        if weights:
            a, b = _labels_of(one, left, left.dim() - 1), _labels_of(two, right, right.dim() - 2)
            if a is not None and b is not None:
                self._join(a, b, one.sites | two.sites)
        weight = one.weight if weights else None
        sites = one.sites | two.sites
        if len(labels) > 1 and not weights:  # pairs of channels
            sites |= {self._now}
            self.found.places.setdefault(self._now, self._place_of("bmm"))
        if len(inside) == 2:  # where one factor is 0 they add nothing
            self._join(inside[0][0], inside[1][0], sites)
            given = (*one.sources, *two.sources)
            self._add(Node(self._layer_label("a product"), "reader", given, distinct((inside[0][0],)), zero="any"))
            sites |= {self._now}
            self.found.places.setdefault(self._now, self._place_of("product"))
        elif inside:
            self._keep_labels(inside[0][0], f"{self._layer_name('a product')} multiplies them with what is no channel")
        self._states[id(result)] = State(tuple(labels), tuple(sources), weight, sites)

    def _batch_norm(self, args: tuple[Any, ...], result: Any) -> None:
        x, values = args[0], result[0] if isinstance(result, (tuple, list)) else result
        given = self._state(x)
        dim = 1 if x.dim() > 1 else 0
        lines = []
        for label in given.labels:
            if dim in changing(label) or (x.shape[dim] == 1 and not changing(label)):
                lines.append(self._one_channel(label, dim, given))
            else:
                self._keep_labels(label, f"{self._layer_name('batch_norm')} normalizes over them")
        companions = []
        for one in args[1:5]:
            state = self._state(one) if isinstance(one, Tensor) else State()
            if state.weight is None:
                continue
            entries = _labels_of(state, one, 0)
            if entries is not None and lines:
                self._join(lines[0], entries, given.sites)
            if isinstance(one, nn.Parameter) or one.requires_grad or state.labels:
                companions.append(state.weight)
        if given.weight is not None and not companions:  # the weight of a layer is normalized
            self._states[id(values)] = State(given.labels, (), given.weight, given.sites)
            return
        own = tuple(dict.fromkeys(name for name in companions[:2] if name in self._trained))
        out = lines[0] if lines else torch.full((x.shape[dim],), -1)
        path, module, _ = self._stack[-1]
        number = self._add(Node(path, "norm", given.sources, out, companions=own, owned=isinstance(module, _NORMS)))
        self._states[id(values)] = State(given.labels, (number,), None, given.sites)

    def _group_norm(self, args: tuple[Any, ...], result: Any) -> None:
        x, scale, shift, groups = args[0], args[1], args[2], int(args[6])
        given = self._state(x)
        labels = [one for one in given.labels if 1 in changing(one)]
        for label in given.labels:
            if 1 not in changing(label):
                self._keep_labels(label, f"{self._layer_name('group_norm')} normalizes over them")
        line = self._one_channel(labels[0], 1, given) if labels else torch.full((x.shape[1],), -1)
        companions = []
        for one in (scale, shift):
            if isinstance(one, Tensor):
                state = self._state(one)
                entries = _labels_of(state, one, 0)
                if entries is not None and labels:
                    self._join(line, entries, given.sites)
                companions += [state.weight] if state.weight is not None and state.weight in self._trained else []
        if labels and groups == 1:
            self._keep_labels(line, f"{self._layer_name('group_norm')} normalizes over them")
        elif labels and groups < x.shape[1]:  # a group is normalized as one: it stays or goes as a whole
            parts = line.reshape(groups, -1)
            self._join(parts, parts[:, :1].expand_as(parts), given.sites)
            self._tie(parts, f"{self._layer_name('group_norm')} normalizes them in groups, which go as a whole")
        self.found.numbers[self._now] = (x.shape[1] // groups,)  # the size of a group stays
        self.found.given[self._now] = State(given.labels, sites=given.sites)
        path, module, _ = self._stack[-1]
        node = Node(path, "norm", given.sources, line, companions=tuple(companions), owned=isinstance(module, _NORMS))
        self._states[id(result[0])] = State(given.labels, (self._add(node),), None, given.sites)

    def _concatenated(self, pieces: Sequence[Tensor], dim: int, result: Tensor) -> None:
        pieces = [piece for piece in pieces if piece.dim() == result.dim()]  # torch skips empty vectors
        self._together(pieces, [self._state(piece).labels for piece in pieces], dim % result.dim(), result, "cat")

    def _stacked(self, pieces: Sequence[Tensor], dim: int, result: Tensor) -> None:
        dim = dim % result.dim()
        labels = [tuple(one.unsqueeze(dim) for one in self._state(piece).labels) for piece in pieces]
        sizes = [piece.unsqueeze(dim) for piece in pieces]
        self._together(sizes, labels, dim, result, "stack", states=[self._state(piece) for piece in pieces])

    def _together(
        self,
        pieces: Sequence[Tensor],
        labels: Sequence[Labels],
        dim: int,
        result: Tensor,
        name: str,
        states: Sequence[State] | None = None,
    ) -> None:
        states = [self._state(piece) for piece in pieces] if states is None else states
        sites = frozenset[int]().union(*(state.sites for state in states))
        behind, beside = [], []
        for piece, own in zip(pieces, labels, strict=True):
            line = [one for one in own if dim in changing(one) or (piece.shape[dim] == 1 and not changing(one))]
            behind.append(small(line[0]) if line else torch.full([1] * result.dim(), -1))
            beside.append([one for one in own if all(one is not other for other in line[:1])])
        made: list[Tensor] = []
        if any(not is_empty(one) for one in behind):
            shape = [max(one.shape[d] for one in behind) if d != dim else 1 for d in range(result.dim())]
            parts = [one.expand(_with(shape, dim, piece.shape[dim])) for one, piece in zip(behind, pieces, strict=True)]
            made.append(compressed(torch.cat(parts, dim)).expand(result.shape))
        joined: list[Tensor] = []
        for group in beside:
            for label in group:
                mine = compressed(label.narrow(dim, 0, 1)) if label.shape[dim] else label
                other = next((one for one in joined if set(changing(one)) & set(changing(mine))), None)
                if other is not None:
                    self._join(*_both(other, mine), sites)
                elif changing(mine):
                    joined.append(mine)
        for label in joined:
            for piece, group in zip(pieces, beside, strict=True):
                if piece.shape[dim] and not any(set(changing(one)) & set(changing(label)) for one in group):
                    self._keep_labels(label, f"{self._place_of(name)} puts them beside values that are no channels")
        made += [label.expand(_with(result.shape, dim, 1)).expand(result.shape) for label in joined]
        sources = tuple(dict.fromkeys(number for state in states for number in state.sources))
        number = self._add(Node(name, "operation", sources, distinct(tuple(made))))
        weights = {state.weight for state in states}
        weight = weights.pop() if len(weights) == 1 else None
        self._states[id(result)] = State(tuple(made), (number,), weight, sites)

    def _glu(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor) -> None:
        x = args[0]
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % x.dim()
        given = self._state(x)
        half = x.shape[dim] // 2
        labels = []
        for label in given.labels:
            if dim in changing(label):
                first, second = small(label).narrow(dim, 0, half), small(label).narrow(dim, half, half)
                self._join(first, second, given.sites)
                label = first.expand(result.shape)
            else:
                label = label.narrow(dim, 0, half)
            labels.append(label)
        number = self._add(Node("glu", "operation", given.sources, distinct(tuple(labels))))
        self._states[id(result)] = State(tuple(labels), (number,), None, given.sites)

    def _moved(
        self, function: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any, fix: Fix | None
    ) -> bool:
        """Move the labels as the entries; return False where that cannot be done."""
        x = args[0]
        given = self._state(x)
        rest = args[1:]
        if name in ("index", "index_select"):
            rest = tree_map_only(Tensor, lambda one: self._values.get(id(one), one), rest)
            indexed = range(len(rest[0])) if name == "index" else [rest[0] % x.dim()]
            free = (
                all(rest[0][d] is None or all(d not in changing(one) for one in given.labels) for d in indexed)
                if (name == "index")
                else all(rest[0] % x.dim() not in changing(one) for one in given.labels)
            )
            if free:  # where labels do not change, any entry has the same
                rest = tree_map_only(Tensor, lambda one: torch.zeros(one.shape, dtype=torch.long), rest)
            if any(isinstance(one, Tensor) and (one.is_meta or one.dtype == torch.bool) for one in tree_leaves(rest)):
                return False
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        made: list[list[Tensor]] = [[] for _ in results]
        for label in given.labels:
            try:
                moved = self._label_moved(function, name, label, rest, kwargs, results)
            except (RuntimeError, NotImplementedError, IndexError, TypeError):
                return False
            if [one.shape for one in moved] != [one.shape for one in results]:
                return False
            for parts, like, dim in self._equal_parts(name, label, moved, fix, rest):
                self.found.equal[self._now] = dim
                if isinstance(fix, int):
                    self._join(parts, like, given.sites)
                    self._tie(parts, f"{self._place(function)} has equal parts, which lose the same channels")
            for own, one in zip(made, moved, strict=True):
                own.append(compressed(one))
        for own in made if given.weight is None else ():
            for one, other in combinations(own, 2):
                if set(changing(one)) & set(changing(other)):  # an entry belongs to two channels
                    by = self.found.places.get(max(given.sites, default=0), "a product")
                    for label in (one, other):
                        self._keep_labels(label, f"{by} makes pairs of them, which {name.strip('_')} puts into one dim")
        if given.weight is not None and len(given.labels) == x.dim() and name in ("t", "transpose", "permute"):
            made[0] = _turned(made[0], name, rest)
        if id(x) in self._values and name in _TURNS and len(results) == 1:
            self._values[id(results[0])] = function(self._values[id(x)], *rest, **kwargs)
        sites = given.sites
        spread = name == "expand" and results[0].shape != x.shape
        trivial = (name in _TURNS and not spread) or (name in _VIEWS and results[0].shape == x.shape)
        trivial = trivial or (name not in _VIEWS and not spread and _in_place(given.labels, made))
        if not trivial and given.labels and given.weight is None:
            sites = sites | {self._now}
            self.found.places.setdefault(self._now, self._place(function))
            self.found.results[self._now] = tuple(small(one) for own in made for one in own)
            self.found.lineage[self._now] = sites
        aliases = any(one.alias_info is not None for one in function._schema.returns)
        for one, own in zip(results, made, strict=True):
            keep_zero = given.zero and name not in ("constant_pad_nd",)
            self._states[id(one)] = State(tuple(own), given.sources, given.weight, sites, keep_zero)
            if aliases and one is not x:
                self._roots[id(one)] = self._roots.get(id(x), id(x))
        if name == "constant_pad_nd" and len(args) > 2 and args[2] != 0 and given.sources:
            number = self._add(Node(name, "operation", given.sources, distinct(tuple(made[0])), zero="never"))
            self._states[id(results[0])].sources = (number,)
        return True

    def _label_moved(
        self, function: Any, name: str, label: Tensor, rest: Any, kwargs: Mapping[str, Any], results: list[Tensor]
    ) -> list[Tensor]:
        if name in _COPIES:
            return [label]
        if name in _VIEWS:
            return [label.reshape(results[0].shape)]
        if name == "expand":
            return [label.expand(results[0].shape)]
        if name == "constant_pad_nd":
            own = small(label)
            pads = [
                (rest[0][2 * i], rest[0][2 * i + 1]) if i < len(rest[0]) // 2 else (0, 0) for i in range(label.dim())
            ][::-1]
            moving = changing(label)
            mine = [side for d in reversed(range(label.dim())) for side in (pads[d] if d in moving else (0, 0))]
            return [torch.constant_pad_nd(own, mine, -1).expand(results[0].shape)]
        if name == "view_as_complex":  # two numbers, one entry
            return [label.select(-1, 0)]
        if name == "view_as_real":
            return [label.unsqueeze(-1).expand(results[0].shape)]
        if name in ("transpose", "squeeze", "unsqueeze", "t"):  # also the forms that work in place
            return [getattr(label, name)(*rest)]
        if name == "im2col":
            line = vector(label, label.dim() - 3) if label.dim() == 4 else vector(label, 0)
            wide = line.repeat_interleave(results[0].shape[-2] // len(line)).reshape(-1, 1)
            return [wide.expand(results[0].shape)] if only_along(label, label.dim() - 3) else []
        plain = getattr(getattr(aten, name), function._overloadname)
        if name.startswith(("pixel", "channel", "native_channel", "reflection", "replication", "unfold")):
            return [plain(label.double().contiguous(), *rest, **kwargs).long()]
        moved = plain(label, *rest, **kwargs)
        return list(moved) if isinstance(moved, (tuple, list)) else [moved]

    def _equal_parts(
        self, name: str, label: Tensor, moved: list[Tensor], fix: Fix | None, rest: Any
    ) -> list[tuple[Tensor, Tensor, int]]:
        """Return the labels of equal parts, the labels with which they can be joined, so that they lose the same
        channels, and the dim of a part's channels.
        """
        own = [compressed(one) for one in moved]
        found: list[tuple[Tensor, Tensor, int]] = []
        if name.endswith("channel_shuffle") and only_along(label, 1):
            parts = vector(label, 1).reshape(rest[0], -1)
            return [(parts, parts[:1].expand_as(parts), 0)]
        if name in _PARTS:
            flat = own[0].dim() < label.dim()
            dims = [dim for dim in changing(label) if flat or own[0].shape[dim] != label.shape[dim]]
            if len(dims) != 1 or not only_along(label, dims[0]) or len({one.shape for one in own}) > 1:
                return found
            part, line = own[0].shape[dims[0]] if not flat else 0, vector(label, dims[0])
            if 1 < part < len(line) and len(line) % part == 0:
                parts = line.reshape(-1, part)
                found.append((parts, parts[:1].expand_as(parts), 0))
            return found
        for one in own:
            moving = changing(one)
            if len(moving) > 1 and len(changing(label)) < len(moving):
                sizes = [one.shape[dim] for dim in moving]
                open_ = [dim for dim in moving if name in _VIEWS and rest[0][dim] == -1]
                largest = max(zip(sizes, moving, strict=True))[1]  # of equal ones the last, as in (heads, width of one)
                main = open_[0] if open_ else moving[0] if len(moving) > 2 else largest
                main = fix if isinstance(fix, int) and fix in moving else main
                line = small(one)
                for dim in moving:
                    if dim != main:
                        line = line.narrow(dim, 0, 1)
                found.append((small(one), line.expand(small(one).shape), main))
        return found

    def _reduced(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        x = args[0]
        given = self._state(x)
        dims = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], (bool, float)) else None)
        if name in ("norm", "linalg_vector_norm"):
            dims = args[2] if len(args) > 2 else kwargs.get("dim")
        gone = range(x.dim()) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
        over = {dim % x.dim() for dim in gone} if x.dim() else set()
        results = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        labels: list[Tensor] = []
        sites = given.sites
        for label in given.labels:
            moving = set(changing(label))
            if over & moving and moving <= over:
                if name in _SUMS:  # a channel of zeros adds nothing
                    self._add(Node(self._layer_label(name), "reader", given.sources, distinct((label,))))
                    sites |= {self._now}  # a number that it is combined with may change with the width
                    self.found.places.setdefault(self._now, self._place_of(name))
                else:
                    self._keep_labels(label, f"{self._layer_name(name)} takes the {_WORDS.get(name, name)} over them")
                continue
            if over & moving:
                self._join_along(label, over, given, f"{self._layer_name(name)} takes the {_WORDS.get(name, name)}")
            for dim in sorted(over):
                label = label.narrow(dim, 0, 1)
            if results and results[0].dim() < x.dim():
                for dim in sorted(over, reverse=True):
                    label = label.squeeze(dim)
            labels.append(label)
        zero = rule_at_zero(name, args, kwargs)
        number = self._add(Node(name, "operation", given.sources, distinct(tuple(labels)), zero=_rule(zero)))
        for one in results:
            own = tuple(label for label in labels if label.shape == one.shape)
            self._states[id(one)] = State(own, (number,) if own else (), given.weight, sites)

    def _along(self, name: str, x: Tensor, dims: Sequence[int], *results: Tensor) -> None:
        """Follow an operation along some dims that leaves every entry in its place."""
        given = self._state(x)
        over = {dim % x.dim() for dim in dims}
        for label in given.labels:
            moving = set(changing(label))
            if over & moving and not moving <= over:
                self._join_along(label, over, given, f"{self._layer_name(name)} works")
            elif over & moving:
                doing = "normalizes" if "norm" in name or "softmax" in name else "works"
                self._keep_labels(label, f"{self._layer_name(name)} {doing} over them")
        zero = _rule(rule_at_zero(name, (x,), {}))
        number = self._add(Node(self._layer_label(name), "operation", given.sources, distinct(given.labels), zero=zero))
        for one in results:
            if isinstance(one, Tensor) and one.shape == x.shape:
                self._states[id(one)] = State(given.labels, (number,), given.weight, given.sites)

    def _join_along(self, label: Tensor, over: set[int], given: State, said: str) -> None:
        """Let channels that lie beside each other along some dims be one, as an operation over these dims demands."""
        first = small(label)
        for dim in over:
            first = first.narrow(dim, 0, 1)
        self._join(*_both(label, first), given.sites)
        self._tie(label, f"{said} over several of them, which go together")

    def _spatial(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        x = args[0]
        given = self._state(x)
        count = next((int(char) for char in name if char in "123"), 2)
        positions = set(range(x.dim() - count, x.dim()))
        if "_fft_" in name:  # its dims are written
            positions = {dim % x.dim() for dim in args[1]}
        for other in args[1:]:
            if isinstance(other, Tensor):
                state = self._state(other)
                if "unpool" in name:  # each channel has places of its own
                    self._entrywise([x, other], [given, state], x.shape, name, given.sites | state.sites)
                else:
                    self._keep(state, f"{self._layer_name(name)} reads places from them")
        labels: list[Tensor] = []
        results = [one for one in tree_leaves(result) if isinstance(one, Tensor) and one.dim() == x.dim()]
        for label in given.labels:
            if positions & set(changing(label)):
                self._keep_labels(label, f"{self._layer_name(name)} mixes them")
                continue
            for dim in positions:
                label = label.narrow(dim, 0, 1)
            labels.append(label)
        number = self._add(Node(name, "operation", given.sources, distinct(tuple(labels))))
        for one in results:
            own = tuple(label.expand(one.shape) for label in labels)
            self._states[id(one)] = State(own, (number,), None, given.sites)

    def _like(self, name: str, x: Tensor, result: Tensor) -> None:
        given = self._state(x)
        labels: Labels = ()
        if x.dim() == result.dim() and not (name in behaviour.NEW and self._fixes.get(self._now) == "keep"):
            labels = tuple(
                small(one).expand(result.shape)
                for one in given.labels
                if all(result.shape[dim] == x.shape[dim] for dim in changing(one)) and changing(one)
            )
        zero = "zero" in name  # nothing that is not 0 comes from there
        sources = () if zero else (self._add(Node(name, "operation", (), distinct(labels), zero="never")),)
        sites = given.sites | ({self._now} if name in behaviour.NEW else set())
        if name in behaviour.NEW:
            self.found.places.setdefault(self._now, self._place_of(name))
        self._states[id(result)] = State(labels, sources, None, sites, zero)

    def _pointwise(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: list[Tensor], result: Any
    ) -> None:
        out = result[0] if isinstance(result, (tuple, list)) else result
        if not isinstance(out, Tensor):
            return
        states = [self._state(one) for one in given]
        shape = out.shape
        sites = frozenset[int]().union(*(state.sites for state in states))
        labels = self._entrywise(given, states, shape, name, sites)
        weights = {state.weight for state, one in zip(states, given, strict=True) if one.dim() > 0 or state.labels}
        made_of_weights = None not in weights and bool(weights)
        rule = rule_at_zero(name, args, kwargs)
        if self.found.numbers.get(self._now):
            self.found.given[self._now] = State(labels, sites=sites)
        companions: list[str] = []
        sources: list[int] = []
        for number, (one, state) in enumerate(zip(given, states, strict=True)):
            if rule == "first" and number > 0:
                break
            sources += state.sources
            if rule != "all" or state.zero or len(given) == 1:
                continue
            if not state.labels and one.dtype == torch.bool:
                continue
            if state.weight is not None and not made_of_weights:
                moving = {dim for label in labels for dim in changing(label)}
                table = {dim + len(shape) - one.dim() for own in state.labels for dim in changing(own)} - moving
                if state.weight in self._trained and name in ("add", "sub") and not table:
                    companions.append(state.weight)
                else:
                    rule = "never"
            elif any(not self._brings(one, state, label) for label in labels):
                rule = "never"  # a sum with something else is not 0
        if made_of_weights:
            whole = [
                state.weight or "" for state, one in zip(states, given, strict=True) if one.shape == shape
            ] or sorted(map(str, weights))
            main = min(whole, key=lambda each: (each not in self._trained, ".weight" not in f".{each}", each))
            self._set(out, State(labels, (), main, sites))  # a scale or a mask is not the weight
            return
        bare = [state.weight for state in states if state.weight is not None]
        said = self._layer_label(name)
        said = f"{said} with {bare[0]}" if bare and said == name else said
        inputs = tuple(dict.fromkeys(sources))
        node = Node(
            said, "operation", inputs, distinct(labels), zero=_rule(rule), companions=tuple(companions)
        )  # fmt: skip
        zero = rule in ("all", "first", "any") and bool(states) and all(state.zero for state in states)
        self._set(out, State(labels, (self._add(node),), None, sites, zero))
        for other in result[1:] if isinstance(result, (tuple, list)) else ():
            if isinstance(other, Tensor) and other.shape == shape:
                self._states[id(other)] = State(labels, (len(self.found.nodes) - 1,), None, sites)

    def _brings(self, one: Tensor, state: State, label: Tensor) -> bool:
        moving = changing(label)
        for own in state.labels:
            shift = label.dim() - own.dim()
            if not moving or {dim + shift for dim in changing(own)} & set(moving):
                return True
        return False

    def _entrywise(
        self, given: Sequence[Tensor], states: Sequence[State], shape: torch.Size, name: str, sites: frozenset[int]
    ) -> Labels:
        """Join the labels of tensors that are combined entry by entry, and return those of the result."""
        made: list[Tensor] = []
        single: list[Tensor] = []
        for one, state in zip(given, states, strict=True):
            if one.dim() > len(shape):
                continue
            side = _side(one, len(shape))
            bare = state.weight is not None and any(changing(own) for own in state.labels)
            for own in state.labels:
                if bare and not changing(own):
                    continue  # a parameter's dim of size 1
                try:
                    label = small(own).reshape((1,) * (len(shape) - own.dim()) + tuple(small(own).shape)).expand(shape)
                except RuntimeError:
                    continue
                moving = set(changing(label))
                if not moving:
                    single.append(label)
                    continue
                at = next((i for i, other in enumerate(made) if set(changing(other)) & moving), None)
                if at is None:
                    made.append(label)
                else:
                    first, second = _both(made[at], label)
                    self._join(first, second, sites)
                    lonely = (first >= 0) != (second >= 0)
                    if bool(lonely.any()):
                        rest = torch.where(first >= 0, first, second)[lonely]
                        self._keep_labels(
                            rest, f"{self._place_of(name)} combines them with values that are no channels"
                        )
                    made[at] = compressed(torch.where(first >= 0, first, second)).expand(shape)
        for label in single:
            if any(changing(other) for other in made):  # it is one channel for all
                everyone = tuple(dict.fromkeys(number for state in states for number in state.sources))
                self._add(Node(self._layer_label(name), "mixing", everyone, distinct((label,))))
            elif made:
                self._join(*_both(made[0], label), sites)
            else:
                made.append(label)
        found = []
        for label in made:
            brought = fixed = False
            for one, state in zip(given, states, strict=True):
                side = _side(one, len(shape))
                brings = state.weight is None and self._brings(one, state, label)
                spread = bool(changing(label)) and all(side[dim] > 1 for dim in changing(label))
                brought = brought or brings
                if spread and state.weight is None and not brings:
                    fixed = True
                    said = f"{self._place_of(name)} combines them with values that are no channels"
                    self._keep_labels(label, said)
            if brought or not fixed:  # else they are positions of a bare parameter
                found.append(label)
        return tuple(found)

    def _unknown(self, function: Any, given: Sequence[Tensor], result: Any) -> None:
        for one in given:
            state = self._state(one)
            self._keep(state, f"{self._place(function)} cannot be followed")
        numbers = tuple(dict.fromkeys(number for one in given for number in self._state(one).sources))
        labels = torch.cat([distinct(self._state(one).labels) for one in given])
        number = self._add(
            Node(self._layer_label(_name(function)), "mixing", numbers, distinct((labels,)), zero="never")
        )
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                same = next((self._state(x).labels for x in given if x.shape == one.shape), ())
                self._states[id(one)] = State(same, (number,))

    # Small steps.

    def _state(self, tensor: Tensor) -> State:
        return self._states.get(id(tensor)) or State()

    def _set(self, tensor: Tensor, state: State) -> None:
        """Set the state of a result, which may be a part of a tensor that changes with it."""
        self._states[id(tensor)] = state
        root = self._roots.get(id(tensor))
        if root is not None and root in self._states:
            before = self._states[root]
            before.sources = tuple(dict.fromkeys((*before.sources, *state.sources)))
            before.zero = before.zero and state.zero

    def _one_channel(self, label: Tensor, dim: int, given: State) -> Tensor:
        """Return the labels along a dim of channels, of which all positions are one channel each."""
        line = vector(label, dim)
        if not only_along(label, dim):
            side = [1] * label.dim()
            side[dim] = len(line)
            self._join(small(label), line.reshape(side).expand(small(label).shape), given.sites)
        return line

    def _join(self, first: Tensor, second: Tensor, sites: frozenset[int]) -> None:
        first, second = first.reshape(-1), second.reshape(-1)
        if len(first) != len(second):
            return
        both = (first >= 0) & (second >= 0) & (first != second)
        if bool(both.any()):
            self.found.joins.append(Join(first[both], second[both], sites, self._now))

    def _keep(self, state: State, reason: str) -> None:
        for label in state.labels:
            self._keep_labels(label, reason)

    def _keep_labels(self, label: Tensor, reason: str) -> None:
        own = distinct((label,))
        if len(own):
            self.found.keeps.append(Keep(own, reason))

    def _tie(self, label: Tensor, reason: str) -> None:
        own = distinct((label,))
        if len(own):
            self.found.ties.append(Keep(own, reason))

    def _add(self, node: Node) -> int:
        self.found.nodes.append(node)
        return len(self.found.nodes) - 1

    def _in_module(self) -> str:
        path, module, _ = self._stack[-1] if self._stack else ("", nn.Module(), ())
        return f"{path} ({type(module).__name__})" if path else f"the network ({type(module).__name__})"

    def _layer_label(self, name: str) -> str:
        path, module, _ = self._stack[-1] if self._stack else ("", nn.Module(), ())
        return path if type(module).__module__.startswith("torch.nn") and path else name

    def _layer_name(self, name: str) -> str:
        """Return the layer that is being called with its class; of an operation in the model's code its place."""
        path, module, _ = self._stack[-1] if self._stack else ("", nn.Module(), ())
        if type(module).__module__.startswith("torch.nn") and path:
            return f"{path} ({type(module).__name__})"
        return self._place_of(name)

    def _place(self, function: Any) -> str:
        return self._place_of(_name(function))

    def _place_of(self, name: str) -> str:
        """Return an operation with its module, and the line of the model's code where it is known."""
        said = f"{_WORDS.get(name, name.strip('_'))} in {self._in_module()}"
        frame: Any = sys._getframe(1)
        while frame is not None:
            line = model_line(frame.f_code.co_filename, frame.f_lineno)
            if line:
                return f"{said}, {line}"
            frame = frame.f_back
        return said


class _Raising(TorchFunctionMode):
    """Note the arguments of a function that raises before any operation begins: a shape that does not fit."""

    def __init__(self, follower: _Follower) -> None:
        super().__init__()
        self._follower = follower

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except Exception:
            self._follower.refused(getattr(func, "__name__", "a function"), tree_leaves((args, kwargs)))
            raise


def model_line(file: str, line: int) -> str:
    """Return a line of the model's code in short; "" where it is other code."""
    if any(part in file for part in _NOT_THE_MODEL):
        return ""
    return f"{'/'.join(file.replace(chr(92), '/').split('/')[-2:])}:{line}"


_SUMS = frozenset({"sum", "nansum", "norm", "linalg_vector_norm", "count_nonzero"})
_NOT_THE_MODEL = ("/torch/", "/compressor/", "/_pytest/", "<frozen", "<string>")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_WORDS = {
    "mean": "mean", "amax": "maximum", "max": "maximum", "amin": "minimum", "min": "minimum", "sum": "sum",
    "linalg_vector_norm": "norm", "_unsafe_view": "view", "_reshape_alias": "reshape", "constant_pad_nd": "pad",
    "split_with_sizes": "split", "im2col": "unfold", "unsafe_split": "split", "native_layer_norm": "layer_norm",
}  # fmt: skip


def _name(function: Any) -> str:
    """Return the name of an operation, without the `_` of the form that works in place."""
    name = str(function._schema.name).partition("::")[2]
    return name.removesuffix("_") if not name.startswith("__") else name


def _weight_in(path: str) -> str:
    return f"{path}.weight" if path else "weight"


def _rule(rule: str) -> Rule:
    found: Rule = "any" if rule == "any" else "never" if rule == "never" else "all"
    return found


def _side(tensor: Tensor, dims: int) -> tuple[int, ...]:
    """Return the shape of a tensor among others of so many dims; 1 where it is spread over a dim."""
    own = [1 if size > 1 and step == 0 else size for size, step in zip(tensor.shape, tensor.stride(), strict=True)]
    return (1,) * (dims - tensor.dim()) + tuple(own)


def _turned(labels: list[Tensor], name: str, rest: Any) -> list[Tensor]:
    """Return the labels of a parameter's dims in the order that the dims have after a turn."""
    order = list(range(len(labels)))
    if name == "permute":
        order = [dim % len(labels) for dim in rest[0]]
    elif len(labels) > 1:
        one, two = (rest[0], rest[1]) if name == "transpose" else (0, 1)
        order[one], order[two] = order[two], order[one]
    return [labels[dim] for dim in order]


def _in_place(before: Labels, after: Sequence[Sequence[Tensor]]) -> bool:
    """Return whether channels are where they were in all results: only positions have moved."""
    return all(
        changing(old) == changing(new) and torch.equal(small(old), small(new))
        for labels in after
        for old, new in zip(before, labels, strict=True)
    )


def _with(shape: Sequence[int], dim: int, size: int) -> list[int]:
    found = list(shape)
    found[dim] = size
    return found


def _both(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return two label tensors of one shape with size 1 in the dims along which neither changes."""
    one, two = small(first), small(second)
    shape = [max(a, b) for a, b in zip(one.shape, two.shape, strict=True)]
    return one.expand(shape), two.expand(shape)


def _labels_of(state: State, tensor: Tensor, dim: int) -> Tensor | None:
    """Return [size of dim]: the labels of a tensor along one dim; None where it has none there."""
    if len(state.labels) == tensor.dim() and only_along(state.labels[dim], dim):
        return vector(state.labels[dim], dim)
    exact = [one for one in state.labels if set(changing(one)) == ({dim} if tensor.shape[dim] > 1 else set())]
    return vector(exact[0], dim) if exact else None


def _is_pointwise(name: str, given: Sequence[Tensor], result: Any) -> bool:
    """Return whether an operation without torch's mark works entry by entry."""
    known = {"copy", "masked_fill", "index_put", "native_dropout", "dropout", "rrelu_with_noise", "fill", "zero",
             "rrelu", "bernoulli", "_prelu_kernel", "prelu", "where", "fake_quantize_per_tensor_affine", "hardswish",
             "log_sigmoid_forward", "log_sigmoid", "real"}  # fmt: skip
    out = result[0] if isinstance(result, (tuple, list)) and result else result
    return name in known and isinstance(out, Tensor) and out.shape == given[0].shape
