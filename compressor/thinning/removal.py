"""The decision which channels are removed: those that are unused, anywhere in the network, until nothing changes.

A channel can be removed if every layer that reads it is given 0 there (or a constant that its bias can absorb), or has
only zeros for it. Removing the neurons of Han et al. 2015 without inputs or without outputs is a case of this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.thinning.graph import ChannelGraph, Node
from compressor.thinning.stays import Reasons, Stay, Way
from compressor.tracing import LayerInputs

EVERY_WAY: frozenset[Way] = frozenset({"zero", "unread", "constant"})


@dataclass(frozen=True)
class Removal:
    """The channels to remove. `gone` [cells]: what is removed.

    `absorbed`: the change of each layer's output when its constant inputs are removed. `skipped`: layers that have no
    inputs left, though their outputs are added elsewhere (as a shortcut) or a channel of theirs had to stay: their
    output is their bias.
    """

    gone: Tensor
    absorbed: Mapping[str, Tensor] = field(default_factory=dict)
    stays: tuple[Stay, ...] = ()
    skipped: tuple[str, ...] = ()

    def kept(self, cells: Tensor) -> Tensor:
        """Return the positions of a layer's channels that are kept, given their cells."""
        return ((cells < 0) | ~self.gone[cells.clamp(min=0)]).nonzero().flatten()


def decide(
    graph: ChannelGraph,
    model: nn.Module,
    seen: Mapping[str, LayerInputs],
    ways: frozenset[Way] = EVERY_WAY,
    round_to: int = 1,
    *,
    skip: bool = False,
) -> Removal:
    """Return what can be removed of `model`; `seen` has the inputs of its layers, from `image_dependence.inputs_of`.

    `skip`: layers may be left without inputs (Wen et al. 2016, depth: a dead layer is skipped through its shortcut).
    """
    return _Decision(graph, model, seen, ways, round_to).decide(skip)


class _Decision:
    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        seen: Mapping[str, LayerInputs],
        ways: frozenset[Way],
        round_to: int,
    ) -> None:
        self._graph, self._model, self._seen, self._ways = graph, model, seen, ways
        self._round_to = round_to
        self._modules: dict[str, Any] = dict(model.named_modules())
        self._nonzero = {path: self._pairs(path) for path in graph.weights}
        self._reasons: dict[int, str] = {}

    def decide(self, skip: bool) -> Removal:
        fixed = self._fixed()
        # From the logits back: layers that only read each other, as a squeeze and its excitation, go together.
        gone = ~fixed
        while bool((back := gone & ~self._removable(gone)).any()):
            gone &= ~back
        kept = self._spare(gone)
        skipped = self._skipped(gone, kept) if skip else frozenset[str]()
        absorbed = self._absorbed({node.label: gone if node.label in skipped else kept for node in self._graph.nodes})
        order = tuple(node.label for node in self._graph.nodes if node.label in skipped)
        why = Reasons(self._graph, self._modules, self._seen, self._ways, self._reasons)
        return Removal(kept, absorbed, tuple(why.stays(kept, skipped)), order)

    def _skipped(self, gone: Tensor, kept: Tensor) -> frozenset[str]:
        """Return layers that have no inputs left though other layers keep their outputs alive, as a shortcut does; and
        those that read only such layers. `kept` is `gone`, without the cells that had to stay.
        """
        layers = [node for node in self._graph.nodes if node.kind in ("producer", "depthwise")]
        logits = {int(cell) for node in self._graph.nodes if node.is_output for cell in node.out}
        skipped, unread = set[str](), {}
        for node in layers:
            if node.label not in self._seen or logits & set(node.out.tolist()):
                continue
            into, pairs = self._reading(node, kept)
            alive = (node.out < 0) | ~gone[node.out.clamp(min=0)]
            if not bool(alive.any()):
                unread[node.label] = node
            elif not bool(pairs[:, (into < 0) | ~gone[into.clamp(min=0)]].any()):
                skipped.add(node.label)
        before = -1
        while len(unread) != before:
            before = len(unread)
            read = torch.zeros_like(gone)
            for node in layers:
                if node.label not in skipped | unread.keys():
                    into = self._reading(node, kept)[0]
                    read[into[into >= 0]] = True
            unread = {label: node for label, node in unread.items() if not bool(read[node.out].any())}
        return frozenset(
            label for label in skipped | unread.keys() if not getattr(self._modules[label], "transposed", False)
        )

    def _reading(self, node: Node, gone: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells of a layer's inputs, and [kept outputs, inputs]: whether it connects the two."""
        alive = (node.out < 0) | ~gone[node.out.clamp(min=0)]
        return node.out if node.into is None else node.into, self._nonzero[node.label][alive]

    def _fixed(self) -> Tensor:
        """Return the channels that must stay, whatever their values."""
        fixed = torch.zeros(max(self._graph.cells, 1), dtype=torch.bool)
        for node in self._graph.nodes:
            if node.is_output or node.kind == "mixing":
                mine = node.out[node.out >= 0]
                fixed[mine] = True
                kind = type(self._modules.get(node.label)).__name__
                why = "they are the network's output" if node.is_output else f"{node.label} ({kind}) mixes channels"
                if node.kind == "mixing" and node.label not in self._modules:
                    why = f"they meet {node.label}"
                for cell in mine.tolist():
                    self._reasons.setdefault(cell, why)
        return fixed

    def _pairs(self, path: str) -> Tensor:
        """Return [outputs, inputs]: whether a layer connects the two."""
        module = self._modules[path]
        weight = module.weight.detach() != 0
        pairs = weight.flatten(2).any(2) if weight.dim() > 2 else weight
        groups = getattr(module, "groups", 1)
        if getattr(module, "transposed", False):
            pairs = torch.cat([part.T for part in pairs.chunk(groups)])
        if groups > 1:
            parts = pairs.chunk(groups)
            wide = pairs.new_zeros(len(pairs), pairs.shape[1] * groups)
            for number, part in enumerate(parts):
                rows, columns = number * len(part), number * part.shape[1]
                wide[rows : rows + len(part), columns : columns + part.shape[1]] = part
            pairs = wide
        connected: Tensor = pairs.cpu()
        return connected

    def _harmless(self, node: Node) -> Tensor:
        """Return [inputs]: where the input of a layer may be left out."""
        assert node.into is not None
        seen = self._seen.get(node.label)
        out = torch.zeros_like(node.into, dtype=torch.bool)
        if seen is None:  # it never ran
            return out
        if "zero" in self._ways:
            out |= seen.zero
        if "constant" in self._ways and self._absorber(node) is not None:
            out |= torch.isfinite(seen.constant)
        return out

    def _removable(self, gone: Tensor) -> Tensor:
        """Return [cells]: those that every reader can do without, when the channels `gone` are removed."""
        needed = torch.zeros_like(gone)
        for node in self._graph.nodes:
            if node.kind != "producer" or node.into is None:
                continue
            mine = node.into >= 0
            read = self._reading(node, gone)[1].any(0)
            if "unread" not in self._ways:
                read = torch.ones_like(read)
            needed[node.into[mine & read & ~self._harmless(node)]] = True
        return ~needed

    def _absorber(self, node: Node) -> str | None:
        """Return the layer that can absorb a constant: the reader itself in its bias, or the batch norm that follows it
        directly.
        """
        module = self._modules[node.label]
        if getattr(module, "groups", 1) > 1 or getattr(module, "transposed", False):
            return None
        padding = getattr(module, "padding", ())
        if padding != "valid" and any(side != 0 for side in padding):
            return None
        if module.bias is not None:
            return node.label
        number = next(i for i, other in enumerate(self._graph.nodes) if other is node)
        readers = [other for other in self._graph.nodes if number in other.inputs]
        if len(readers) == 1 and readers[0].kind == "norm" and not readers[0].is_output:
            norm = self._modules[readers[0].label]
            return readers[0].label if norm.running_mean is not None else None
        return None

    def _absorbed(self, gone_for: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the effect of constants that are removed, by the layer that absorbs them; the cells may differ by
        reader.
        """
        absorbed: dict[str, Tensor] = {}
        for node in self._graph.nodes:
            if node.kind != "producer" or node.into is None or node.label not in self._seen:
                continue
            constant, gone = self._seen[node.label].constant, gone_for[node.label]
            mine = (node.into >= 0) & gone[node.into.clamp(min=0)] & torch.isfinite(constant) & (constant != 0)
            sink = self._absorber(node)
            if sink is None or not bool(mine.any()):
                continue
            weight = self._modules[node.label].weight.detach().cpu().double()
            taps = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
            change = taps[:, mine] @ constant[mine]
            change = change if sink == node.label else -change
            absorbed[sink] = absorbed[sink] + change if sink in absorbed else change
        return absorbed

    def _spare(self, gone: Tensor) -> Tensor:
        """Return `gone` without the channels that must stay: no layer is empty, groups are of equal size, and widths
        are rounded.
        """
        gone = gone.clone()
        while True:
            before = gone.clone()
            for node in self._graph.nodes:
                module = self._modules.get(node.label)
                if module is None or node.kind not in ("producer", "depthwise", "norm", "prelu"):
                    continue
                sides = [node.out] if node.into is None else [node.out, node.into]
                groups = 1 if node.kind != "producer" else int(getattr(module, "groups", 1))
                if groups > 1:
                    self._balance(node, groups, gone)
                    continue
                for cells in sides:
                    self._keep_enough(cells, gone)
            if bool((before == gone).all()):
                return gone

    def _keep_enough(self, cells: Tensor, gone: Tensor) -> None:
        """Keep at least one channel of a layer, and a multiple of `round_to`."""
        mine = list(dict.fromkeys(cells[cells >= 0].tolist()))  # a flattened channel has many places
        going = [cell for cell in mine if bool(gone[cell])]
        width = len(mine) + int((cells < 0).sum())
        left = width - len(going)
        wanted = min(max(-(-left // self._round_to) * self._round_to, 1), width)
        why = (
            "at least one channel must stay" if left == 0 else f"widths are rounded up to multiples of {self._round_to}"
        )
        for cell in going[: wanted - left]:
            gone[cell] = False
            self._reasons[cell] = why

    def _balance(self, node: Node, groups: int, gone: Tensor) -> None:
        """Keep channels so that a grouped convolution loses whole groups, and the same number of channels in each of
        the others.
        """
        assert node.into is not None
        parts = [side.reshape(groups, -1) for side in (node.out, node.into)]
        leaving = [(part >= 0) & gone[part.clamp(min=0)] for part in parts]
        whole = leaving[0].all(1) & leaving[1].all(1)
        if bool(whole.all()):
            whole[0] = False
        for part, going in zip(parts, leaving, strict=True):
            rest = going[~whole]
            most = min(int(rest.sum(1).min()), part.shape[1] - 1)
            left = part.shape[1] - most
            if int(whole.sum()) == 0 and self._round_to > 1:
                while left < part.shape[1] and (left * groups) % self._round_to:
                    left += 1
            for row in (~whole).nonzero().flatten().tolist():
                places = going[row].nonzero().flatten()
                for place in places[part.shape[1] - left :].tolist():
                    cell = int(part[row, place])
                    gone[cell] = False
                    self._reasons[cell] = f"the {groups} groups of {node.label} must lose the same number of channels"
