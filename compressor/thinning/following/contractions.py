"""Convolutions and products: layers, which read channels and make others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compressor.sparsity import PRUNABLE
from compressor.thinning.following.notes import Notes, labels_of, sized, weight_in
from compressor.thinning.following.states import State
from compressor.thinning.graph import Kind, Node, Rule
from compressor.thinning.labels import (
    Labels,
    changing,
    distinct,
    vector,
)

aten = torch.ops.aten


class Contractions(Notes):  # type: ignore[no-untyped-call]
    """Convolutions and products."""

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
        outs, ins = labels_of(own, weight, out_dim), labels_of(own, weight, in_dim)
        width = result.shape[channels]
        into = torch.full((x.shape[channels],), -1) if read is None else read
        kind: Kind = "producer"
        alone = groups > 1 and groups == len(into) == width
        if alone and (self._depthwise is None or own.weight in self._depthwise):
            kind = "depthwise"
            outs = labels_of(own, weight, 0)
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
        layers = [isinstance(module, PRUNABLE) and state.weight == weight_in(path) for state in (one, two)]
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
                passing.append(label.narrow(inner_x, 0, 1).expand(sized(result.shape, free, 1)).expand(result.shape))
        ins, outs = labels_of(own, weight, inner_w), labels_of(own, weight, free_w)
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
            entries = labels_of(shift, bias, bias.dim() - 1)
            if entries is not None and len(entries) == len(out):
                self._join(out, entries, shift.sites)
        weight = own.weight or ""
        if kind == "depthwise":
            companions = (weight, *companions) if weight in self._trained else companions
        if owned and module._parameters.get("weight") is None:  # it is computed
            weight = weight_in(path)
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
                passing.append(label.narrow(inner, 0, 1).expand(sized(result.shape, other, 1)).expand(result.shape))
            if passing and not weights:
                sources.append(self._add(Node("a product", "operation", state.sources, distinct(tuple(passing)))))
            labels += passing
        if weights:
            a, b = labels_of(one, left, left.dim() - 1), labels_of(two, right, right.dim() - 2)
            if a is not None and b is not None:
                self._join(a, b, one.sites | two.sites)
        weight = one.weight if weights else None
        sites, pairs = one.sites | two.sites, one.pairs or two.pairs
        if len(labels) > 1 and not weights:  # pairs of channels
            sites |= {self._now}
            pairs = self._place_of("bmm")
            self.found.places.setdefault(self._now, pairs)
        if len(inside) == 2:  # where one factor is 0 they add nothing
            self._join(inside[0][0], inside[1][0], sites)
            given = (*one.sources, *two.sources)
            self._add(Node(self._layer_label("a product"), "reader", given, distinct((inside[0][0],)), zero="any"))
            sites |= {self._now}
            self.found.places.setdefault(self._now, self._place_of("product"))
        elif inside:
            self._keep_labels(inside[0][0], f"{self._layer_name('a product')} multiplies them with what is no channel")
        self._states[id(result)] = State(tuple(labels), tuple(sources), weight, sites, pairs=pairs)
