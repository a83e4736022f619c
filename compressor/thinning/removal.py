"""The decision which channels are removed: those that are unused, anywhere in the network, until nothing changes.

A channel can be removed if every layer that reads it is given 0 there (or a constant that its bias can absorb), or has
only zeros for it. Removing the neurons of Han et al. 2015 without inputs or without outputs is a case of this.
"""

from collections import Counter, defaultdict
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
    """Return what can be removed of `model`; `seen` has the inputs of its layers, from `inputs_by_weight`.

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
        self._parameters = dict(model.named_parameters())
        self._nonzero: dict[tuple[str, tuple[int, int]], Tensor] = {}
        for node in self._layers():  # one weight may be used both ways
            if (node.label, node.dims) not in self._nonzero:
                self._nonzero[node.label, node.dims] = self._pairs(node)
        self._reasons: dict[int, str] = {}
        self._calls: dict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            if not node.training:
                self._calls[node.label].append(node)
        self._number = {id(node): number for number, node in enumerate(graph.nodes)}

    def _layers(self) -> list[Node]:
        """Return the calls of layers with a weight."""
        return [node for node in self._graph.nodes if node.kind in ("producer", "depthwise")]

    def decide(self, skip: bool) -> Removal:
        fixed = self._fixed()
        makers = [node for node in self._layers() if node.weight and self._graph.makes_outputs(node)]
        zeros = {node.weight: ~self._nonzero[node.label, node.dims].any(1) for node in makers}
        self._dead = self._graph.zeroed(zeros, self._parameters)
        # From the logits back: layers that only read each other, as a squeeze and its excitation, go together.
        gone = self._unneeded(~fixed)
        kept = spare(self._graph, gone, self._round_to, reasons=self._reasons)
        skipped = self._skipped(gone, kept) if skip else frozenset[str]()
        absorbed = self._absorbed({node.label: gone if node.label in skipped else kept for node in self._graph.nodes})
        order = tuple(dict.fromkeys(node.label for node in self._graph.nodes if node.label in skipped))
        absorbers = {node.label for node in self._layers() if self._absorber(node) is not None}
        why = Reasons(self._graph, self._modules, self._seen, self._ways, self._reasons, absorbers)
        return Removal(kept, absorbed, tuple(why.stays(kept, skipped)), order)

    def _skipped(self, gone: Tensor, kept: Tensor) -> frozenset[str]:
        """Return layers that have no inputs left though other layers keep their outputs alive, as a shortcut does; and
        those that read only such layers. `kept` is `gone`, without the cells that had to stay.
        """
        layers = [node for node in self._layers() if node.owned and not node.training]
        calls = Counter(node.label for node in layers)
        layers = [node for node in layers if calls[node.label] == 1]
        logits = {int(cell) for node in self._graph.nodes if node.is_output for cell in node.out}
        skipped, unread = set[str](), {}
        for node in layers:
            if node.weight not in self._seen or logits & set(node.out.tolist()):
                continue
            into, pairs = self._reading(node, kept)
            alive = (node.out < 0) | ~gone[node.out.clamp(min=0)]
            if not bool(alive.any()):
                unread[node.label] = node
            elif not bool(pairs[:, (into < 0) | ~gone[into.clamp(min=0)]].any()):
                skipped.add(node.label)
        read, before = torch.zeros_like(gone), -1
        while len(unread) != before:
            before = len(unread)
            for node in reversed(self._graph.nodes):  # readers first: one pass does nearly all
                if node.label in unread and bool(read[node.out[node.out >= 0]].any()):
                    del unread[node.label]
                if node.kind in ("producer", "depthwise") and node.label not in skipped and node.label not in unread:
                    into = node.out if node.into is None else node.into
                    read[into[into >= 0]] = True
                elif node.kind in ("mixing", "reader"):
                    read[node.out[node.out >= 0]] = True
        return frozenset(
            label for label in skipped | unread.keys() if not getattr(self._modules[label], "transposed", False)
        )

    def _reading(self, node: Node, gone: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells of a layer's inputs, and [kept outputs, inputs]: whether it connects the two."""
        alive = (node.out < 0) | ~gone[node.out.clamp(min=0)]
        return node.out if node.into is None else node.into, self._nonzero[node.label, node.dims][alive]

    def _fixed(self) -> Tensor:
        """Return the channels that must stay, whatever their values."""
        self._reasons.update(self._graph.keeps)
        return self._graph.kept.clone()

    def _weight_of(self, node: Node) -> Tensor:
        """Return the weight that a layer uses; it may be computed."""
        module = self._modules.get(node.label) if node.owned else None
        weight: Tensor = self._parameters[node.weight] if module is None else module.weight
        return weight.detach()

    def _pairs(self, node: Node) -> Tensor:
        """Return [outputs, inputs]: whether a layer connects the two."""
        outs = len(node.out)
        ins = outs if node.into is None else len(node.into)
        try:
            weight = self._weight_of(node) != 0
        except (KeyError, AttributeError):  # not a parameter: it connects all
            return torch.ones(outs, ins, dtype=torch.bool)
        pairs = weight.flatten(2).any(2) if weight.dim() > 2 else weight
        if node.groups == 1:
            pairs = pairs.T if node.dims == (1, 0) else pairs
        if node.transposed and node.groups > 1:
            pairs = torch.cat([part.T for part in pairs.chunk(node.groups)])
        if node.groups > 1:
            parts = pairs.chunk(node.groups)
            wide = pairs.new_zeros(len(pairs), pairs.shape[1] * node.groups)
            for number, part in enumerate(parts):
                rows, columns = number * len(part), number * part.shape[1]
                wide[rows : rows + len(part), columns : columns + part.shape[1]] = part
            pairs = wide
        connected: Tensor = pairs.cpu()
        return connected if connected.shape == (outs, ins) else torch.ones(outs, ins, dtype=torch.bool)

    def _harmless(self, node: Node) -> Tensor:
        """Return [inputs]: where the input of a layer may be left out."""
        assert node.into is not None
        seen = self._seen.get(node.weight)
        out = torch.zeros_like(node.into, dtype=torch.bool)
        if seen is None or len(seen.zero) != len(node.into):  # it never ran, or not as a whole
            return out
        if "zero" in self._ways:
            out |= seen.zero
        if "constant" in self._ways and self._absorber(node) is not None:
            out |= torch.isfinite(seen.constant)
        return out

    def _unneeded(self, gone: Tensor) -> Tensor:
        """Return [cells]: those among `gone` that every reader can do without when they are removed."""
        gone, before = gone.clone(), -1
        while int(gone.sum()) != before:
            before = int(gone.sum())
            for node in reversed(self._graph.nodes):  # readers first: one pass does nearly all
                if node.kind in ("mixing", "reader"):
                    cells = self._graph.cells_of[self._number[id(node)]]
                    zero = self._graph.zero_input(node, cells, self._dead) if node.kind == "reader" else cells < 0
                    gone[cells[~zero | ("zero" not in self._ways)]] = False
                    continue
                if node.kind != "producer" or node.into is None:
                    continue
                mine = node.into >= 0
                read = self._reading(node, gone)[1].any(0)
                if "unread" not in self._ways:
                    read = torch.ones_like(read)
                gone[node.into[mine & read & ~self._harmless(node)]] = False
        return gone

    def _absorber(self, node: Node) -> str | None:
        """Return the layer that can absorb a constant: the reader itself in its bias, or the batch norm that follows it
        directly.
        """
        module = self._modules.get(node.label) if node.owned else None
        if module is None or getattr(module, "groups", 1) > 1 or node.dims != (0, 1):
            return None
        padding = getattr(module, "padding", ())
        if padding != "valid" and any(side != 0 for side in padding):
            return None
        bias = f"{node.label}.bias".lstrip(".")
        if module.bias is not None and all(bias in call.companions for call in self._calls[node.label]):
            return node.label
        if len(self._calls[node.label]) > 1 or module.bias is not None:  # its code uses the weight alone somewhere
            return None
        readers = [self._graph.nodes[number] for number in self._graph.readers_of[self._number[id(node)]]]
        if len(readers) == 1 and readers[0].kind == "norm" and not readers[0].is_output:
            norm = self._modules.get(readers[0].label)
            if len(self._calls[readers[0].label]) == 1 and getattr(norm, "running_mean", None) is not None:
                return readers[0].label
        return None

    def _absorbed(self, gone_for: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the effect of constants that are removed, by the layer that absorbs them; the cells may differ by
        reader.
        """
        absorbed: dict[str, Tensor] = {}
        for node in {one.label: one for one in reversed(self._graph.nodes)}.values():
            if node.kind != "producer" or node.into is None or node.weight not in self._seen:
                continue
            constant, gone = self._seen[node.weight].constant, gone_for[node.label]
            if len(constant) != len(node.into):
                continue
            mine = (node.into >= 0) & gone[node.into.clamp(min=0)] & torch.isfinite(constant) & (constant != 0)
            sink = self._absorber(node)
            if sink is None or not bool(mine.any()):
                continue
            weight = self._weight_of(node).cpu().double()
            taps = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
            change = taps[:, mine] @ constant[mine]
            change = change if sink == node.label else -change
            absorbed[sink] = absorbed[sink] + change if sink in absorbed else change
        return absorbed


def spare(
    graph: ChannelGraph, gone: Tensor, round_to: int, *, least: int = 1, reasons: dict[int, str] | None = None
) -> Tensor:
    """Return `gone` without the channels that must stay: `least` of each layer (or all that it has), equal groups, and
    rounded widths. `reasons` receives why, by cell.
    """
    gone, why = gone.clone(), {} if reasons is None else reasons
    changed = True
    while changed:
        before = gone.clone()
        for node in graph.nodes:
            if node.kind in ("producer", "depthwise", "norm"):
                if node.kind == "producer" and node.groups > 1:
                    _balance(node, gone, round_to, why)
                else:
                    for cells in [node.out] if node.into is None else [node.out, node.into]:
                        _keep_enough(cells, gone, round_to, least, why)
        for lines in graph.slices.values():
            for line in lines:
                if line is not None:
                    _keep_enough(line, gone, 1, least, why)
        changed = not bool((before == gone).all())
    return gone


def _keep_enough(cells: Tensor, gone: Tensor, round_to: int, least: int, why: dict[int, str]) -> None:
    """Keep at least `least` channels of a layer, and a multiple of `round_to`."""
    if not bool(gone[cells.clamp(min=0)].any()):
        return
    mine = list(dict.fromkeys(cells[cells >= 0].tolist()))  # a flattened channel has many places
    going = [cell for cell, goes in zip(mine, gone[torch.tensor(mine, dtype=torch.long)].tolist(), strict=True) if goes]
    width = len(mine) + int((cells < 0).sum())
    left = width - len(going)
    wanted = min(max(-(-left // round_to) * round_to, least), width)
    said = "at least one channel must stay" if left == 0 else f"widths are rounded up to multiples of {round_to}"
    back = max(wanted - left, 0)
    for cell in going[:back] if least == 1 else going[len(going) - back :]:
        gone[cell] = False
        why[cell] = said


def _balance(node: Node, gone: Tensor, round_to: int, why: dict[int, str]) -> None:
    """Keep channels so that a grouped convolution loses whole groups, and the same number of channels in each of the
    others.
    """
    assert node.into is not None
    groups = node.groups
    parts = [side.reshape(groups, -1) for side in (node.out, node.into)]
    leaving = [(part >= 0) & gone[part.clamp(min=0)] for part in parts]
    whole = leaving[0].all(1) & leaving[1].all(1)
    if bool(whole.all()):
        whole[0] = False
    for part, going in zip(parts, leaving, strict=True):
        rest = going[~whole]
        most = min(int(rest.sum(1).min()), part.shape[1] - 1)
        left = part.shape[1] - most
        if int(whole.sum()) == 0 and round_to > 1:
            while left < part.shape[1] and (left * groups) % round_to:
                left += 1
        for row in (~whole).nonzero().flatten().tolist():
            places = going[row].nonzero().flatten()
            for place in places[part.shape[1] - left :].tolist():
                cell = int(part[row, place])
                gone[cell] = False
                why[cell] = f"the {groups} groups of {node.label} must lose the same number of channels"
