"""What is noted of each tensor in a forward pass that is followed."""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.thinning.following.states import Fix, Followed, Join, Keep, State
from compressor.thinning.graph import Node, Rule
from compressor.thinning.labels import (
    Labels,
    changing,
    compressed,
    distinct,
    only_along,
    small,
    vector,
)

aten = torch.ops.aten

PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm"})

BATCH_NORMS = frozenset(
    {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit_no_training",
     "_native_batch_norm_legit", "_batch_norm_no_update", "_batch_norm_with_update"}
)  # fmt: skip

COPIES = frozenset({"clone", "contiguous", "_to_copy", "alias", "detach", "lift", "lift_fresh"})

TURNS = frozenset({"permute", "transpose", "t", "movedim", "squeeze", "unsqueeze", "expand"}) | COPIES

VIEWS = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias"})

PARTS = frozenset(
    {"split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "chunk", "slice", "narrow",
     "unbind", "select"}
)  # fmt: skip

SUMS = frozenset({"sum", "nansum", "norm", "linalg_vector_norm", "count_nonzero"})

_PACKAGE = Path(__file__).parents[2]
_NO_MODEL = (f"{Path(torch.__file__).parent}/", f"{_PACKAGE}/", "<")
"""The beginnings of files whose code is no model's: torch's and this package's, without its models."""
_BEGIN = (str(Path(__file__).with_name("passes.py")), "follow")
"""The function that calls the model: what has called it is not the model's code."""

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)

WORDS = {
    "mean": "mean", "amax": "maximum", "max": "maximum", "amin": "minimum", "min": "minimum", "sum": "sum",
    "linalg_vector_norm": "norm", "_unsafe_view": "view", "_reshape_alias": "reshape", "constant_pad_nd": "pad",
    "split_with_sizes": "split", "im2col": "unfold", "unsafe_split": "split", "native_layer_norm": "layer_norm",
}  # fmt: skip


class Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The notes on each tensor, and the steps that all rules share: to join labels, to keep them, to add a node."""

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

    def _join_along(self, label: Tensor, over: set[int], given: State, said: str) -> None:
        """Let channels that lie beside each other along some dims be one, as an operation over these dims demands."""
        first = small(label)
        for dim in over:
            first = first.narrow(dim, 0, 1)
        self._join(*both(label, first), given.sites)
        self._tie(label, f"{said} over several of them, which go together")

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
            side = side_of(one, len(shape))
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
                    first, second = both(made[at], label)
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
                self._join(*both(made[0], label), sites)
            else:
                made.append(label)
        found = []
        for label in made:
            brought = fixed = False
            for one, state in zip(given, states, strict=True):
                side = side_of(one, len(shape))
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
        return self._place_of(name_of(function))

    def _place_of(self, name: str) -> str:
        """Return an operation with its module, and the line of the model's code where it is known."""
        said = f"{WORDS.get(name, name.strip('_'))} in {self._in_module()}"
        frame: Any = sys._getframe(1)
        while frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) != _BEGIN:
            line = model_line(frame.f_code.co_filename, frame.f_lineno)
            if line:
                return f"{said}, {line}"
            frame = frame.f_back
        return said


def model_line(file: str, line: int) -> str:
    """Return a line of the model's code in short; "" where it is other code."""
    own = file.startswith(str(_PACKAGE / "models"))
    if not own and (file.startswith(_NO_MODEL) or "_pytest" in file):
        return ""
    return f"{'/'.join(Path(file).parts[-2:])}:{line}"


def name_of(function: Any) -> str:
    """Return the name of an operation, without the `_` of the form that works in place."""
    name = str(function._schema.name).partition("::")[2]
    return name.removesuffix("_") if not name.startswith("__") else name


def weight_in(path: str) -> str:
    return f"{path}.weight" if path else "weight"


def as_rule(rule: str) -> Rule:
    found: Rule = "any" if rule == "any" else "never" if rule == "never" else "all"
    return found


def side_of(tensor: Tensor, dims: int) -> tuple[int, ...]:
    """Return the shape of a tensor among others of so many dims; 1 where it is spread over a dim."""
    own = [1 if size > 1 and step == 0 else size for size, step in zip(tensor.shape, tensor.stride(), strict=True)]
    return (1,) * (dims - tensor.dim()) + tuple(own)


def turned(labels: list[Tensor], name: str, rest: Any) -> list[Tensor]:
    """Return the labels of a parameter's dims in the order that the dims have after a turn."""
    order = list(range(len(labels)))
    if name == "permute":
        order = [dim % len(labels) for dim in rest[0]]
    elif len(labels) > 1:
        one, two = (rest[0], rest[1]) if name == "transpose" else (0, 1)
        order[one], order[two] = order[two], order[one]
    return [labels[dim] for dim in order]


def in_place(before: Labels, after: Sequence[Sequence[Tensor]]) -> bool:
    """Return whether channels are where they were in all results: only positions have moved."""
    return all(
        changing(old) == changing(new) and torch.equal(small(old), small(new))
        for labels in after
        for old, new in zip(before, labels, strict=True)
    )


def sized(shape: Sequence[int], dim: int, size: int) -> list[int]:
    found = list(shape)
    found[dim] = size
    return found


def both(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return two label tensors of one shape with size 1 in the dims along which neither changes."""
    one, two = small(first), small(second)
    shape = [max(a, b) for a, b in zip(one.shape, two.shape, strict=True)]
    return one.expand(shape), two.expand(shape)


def labels_of(state: State, tensor: Tensor, dim: int) -> Tensor | None:
    """Return [size of dim]: the labels of a tensor along one dim; None where it has none there."""
    if len(state.labels) == tensor.dim() and only_along(state.labels[dim], dim):
        return vector(state.labels[dim], dim)
    exact = [one for one in state.labels if set(changing(one)) == ({dim} if tensor.shape[dim] > 1 else set())]
    return vector(exact[0], dim) if exact else None


def is_pointwise(name: str, given: Sequence[Tensor], result: Any) -> bool:
    """Return whether an operation without torch's mark works entry by entry."""
    known = {"copy", "masked_fill", "index_put", "native_dropout", "dropout", "rrelu_with_noise", "fill", "zero",
             "rrelu", "bernoulli", "_prelu_kernel", "prelu", "where", "fake_quantize_per_tensor_affine", "hardswish",
             "log_sigmoid_forward", "log_sigmoid", "real"}  # fmt: skip
    out = result[0] if isinstance(result, (tuple, list)) and result else result
    return name in known and isinstance(out, Tensor) and out.shape == given[0].shape
