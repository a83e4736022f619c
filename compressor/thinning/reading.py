"""From a network to its channels: its forms are followed, then some channels are cut and the rest is followed again."""

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from compressor.importing import random_state_kept
from compressor.thinning.cells import cells_at, graph_of
from compressor.thinning.cutting import cut_of
from compressor.thinning.following import Followed, model_line
from compressor.thinning.forms import Form, Forms
from compressor.thinning.graph import ChannelGraph, Untraceable
from compressor.thinning.labels import changing, compressed, only_along, small, vector
from compressor.thinning.removal import Removal, spare

_ROUNDS = 200
"""The largest number of trial cuts of one network."""


def channel_graph(
    model: nn.Module, shape: tuple[int, ...], removes: Callable[[ChannelGraph], Removal] | None = None
) -> ChannelGraph:
    """Return the channel graph of a network on images of `shape` (C, H, W).

    Only shapes are computed: a copy without storage runs, as it is evaluated; and as it is trained, where other layers
    run then. A network whose code needs values runs with them. Some channels are cut from another copy, which runs
    again: what fails there, or reads other channels, works only with this number of channels (`view(-1, 800)`), and
    keeps its own. `removes`: a removal that is tried, too.

    Raises `Untraceable` where the network cannot be run.
    """
    with random_state_kept(), _every_operation():
        return _Reading(Forms(model, shape), removes).graph()


@contextmanager
def _every_operation() -> Iterator[None]:
    """Let attention run as its single operations."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Reading:
    """Trial cuts of a network, until each form of what is left runs and reads the channels that are left."""

    def __init__(self, network: Forms, removes: Callable[[ChannelGraph], Removal] | None) -> None:
        self._network, self._removes = network, removes
        self._refused: list[tuple[Tensor, str]] = []
        self._tries = 0

    def graph(self) -> ChannelGraph:
        forms = self._network.followed()
        for _ in range(_ROUNDS):
            graph, cell_of = graph_of(self._network, [form.found for form in forms], self._refused)
            some = _some(graph)
            blamed = [form for form in forms if self._mend(form, graph, cell_of, Removal(some))]
            if not blamed:  # then what is so narrow that it was left whole
                narrow = Removal(_some(graph, least=1, beside=some))
                blamed = [form for form in forms if self._mend(form, graph, cell_of, narrow)]
            if not blamed and self._removes is not None:
                removal = Removal(self._removes(graph).gone)  # without skipping layers: a trial has the same operations
                blamed = [form for form in forms if self._mend(form, graph, cell_of, removal)]
            if not blamed:
                return graph
            for form in blamed:
                self._network.follow(form)
        raise Untraceable(
            "its channels cannot be traced: too many of its operations work only with this number of channels"
        )

    def _without(self, form: Form, graph: ChannelGraph, cell_of: Tensor, removal: Removal) -> Followed:
        """Cut some channels from a copy of the network, and follow the rest."""
        network = self._network.copy()
        cut_of(graph, network, removal).model(network)
        sizes = {name: one.shape for name, one in (*network.named_parameters(), *network.named_buffers())}
        slices = {
            name: tuple(
                line[removal.kept(cells)]
                if cells is not None
                else line
                if size == len(line)
                else line.new_full((size,), -1)
                for line, cells, size in zip(
                    lines, graph.slices.get(name, [None] * len(lines)), sizes[name], strict=True
                )
            )
            for name, lines in self._network.slices.items()
        }
        outputs = {name: line[removal.kept(cells_at(cell_of, line))] for name, line in self._network.outputs.items()}
        return self._network.run(form, network, slices, outputs)

    def _mend(self, form: Form, graph: ChannelGraph, cell_of: Tensor, removal: Removal) -> bool:
        """Cut some channels and follow the rest; return whether something had to be mended."""
        gone = removal.gone
        if not bool(gone.any()):
            return False
        found = self._without(form, graph, cell_of, removal)
        if self._hold(form, found, graph, cell_of):
            return True
        places = {**form.found.places, **found.places}
        if found.failed is not None:
            sites, at, labels = found.failed_in, found.operations, found.failed_labels
            if not sites and not len(labels):  # the model's own code raises it: what came before it, the last first
                self._tries += 1
                past = form.found.nodes[max(len(found.nodes) - 2 ** (self._tries - 1), 0) : len(found.nodes)]
                labels = torch.cat([node.out[node.out >= 0] for node in past] or [labels])
            self._escalate(form, places, sites, at, labels, _said(found.failed), raised=True)
            return True
        for site in sorted(found.results.keys() & form.found.results.keys()):
            if found.places[site] != form.found.places[site]:
                continue
            before, after = (
                [compressed(cells_at(cell_of, label).contiguous()) for label in one.results[site]]
                for one in (form.found, found)
            )
            if _differ(before, after, gone):
                labels = torch.cat([one.reshape(-1) for one in form.found.results[site]])
                self._escalate(form, places, form.found.lineage[site], site, labels, "other channels")
                return True
        for number in sorted(form.found.given.keys() & found.given.keys()):
            if form.found.numbers[number] != found.numbers[number]:  # a scale that is made of a width
                state = form.found.given[number]
                labels = torch.cat([one.reshape(-1) for one in state.labels] or [torch.empty(0, dtype=torch.long)])
                said = "a number changes with the width"
                self._escalate(form, places, state.sites | {number}, number, labels, said)
                return True
        for join in found.joins:
            one, two = cells_at(cell_of, join.first), cells_at(cell_of, join.second)
            wrong = (one != two) & (one >= 0) & (two >= 0)
            if bool(wrong.any()):
                labels = torch.cat([join.first[wrong], join.second[wrong]])
                self._escalate(form, places, join.sites, join.at, labels, "other channels meet there")
                return True
        return False

    def _hold(self, form: Form, found: Followed, graph: ChannelGraph, cell_of: Tensor) -> bool:
        """Note the operations that read positions which are hard-coded, for they are the same after two cuts, and
        where without some channel another one would stand there; return whether there are new ones.
        """
        new = [
            site
            for site in _unchanged(form.found, found)
            if site not in form.fixes
            and not bool(graph.kept[form.found.reads[site].fixed(cells_at(cell_of, form.found.reads[site].line))].all())
        ]
        if not new:
            return False
        more = self._without(form, graph, cell_of, Removal(_some(graph, (0.75,))))
        sure = set(new) & _unchanged(form.found, more)
        form.fixes.update(dict.fromkeys(sure, "positions"))
        return bool(sure)

    def _escalate(
        self,
        form: Form,
        places: Mapping[int, str],
        sites: frozenset[int],
        at: int,
        labels: Tensor,
        reason: str,
        *,
        raised: bool = False,
    ) -> None:
        """Let the operation that is most likely at fault split its channels into equal parts that lose the same ones;
        where that was done, or cannot be done, let it keep its channels: the last one before the failure.
        """
        order = sorted(sites, reverse=True)
        if at in sites and not any(word in places.get(at, "").split(" in ")[0] for word in _MOVING):
            order = [*(one for one in order if one != at), at]
        equal = [one for one in order if one in form.found.equal and one not in form.fixes]
        left = [one for one in order if form.fixes.get(one) != "keep"]
        if equal and not (raised and order[0] == at and at not in equal):
            self._fix(form, places, equal[0], keep=False)
        elif left:
            self._fix(form, places, left[0], keep=True)
        elif len(labels) and self._again(labels := _whole(form.found, labels)):
            self._refused.append((labels, f"the network does not run without some of them ({reason})"))
        else:
            raise Untraceable(f"its channels cannot be traced: {reason}")

    def _again(self, labels: Tensor) -> bool:
        """Return whether some of these labels are not refused yet."""
        known = torch.cat([one for one, _ in self._refused] or [torch.empty(0, dtype=torch.long)])
        return not bool(torch.isin(labels, known).all())

    def _fix(self, form: Form, places: Mapping[int, str], site: int, *, keep: bool) -> None:
        """Mend an operation, and those of its name on the same line of the model's code."""
        own = _name_and_line(places.get(site, ""))
        known = form.found.places.items()
        for one in [site, *(number for number, place in known if own[1] and _name_and_line(place) == own)]:
            if keep:
                form.fixes[one] = "keep"
            elif one in form.found.equal:
                form.fixes[one] = form.found.equal[one]


def _unchanged(before: Followed, after: Followed) -> set[int]:
    """Return the operations that read the same positions after a cut, though there are fewer channels; a slice that
    takes all of them then is none.
    """
    found = set()
    for site, reads in before.reads.items():
        now = after.reads.get(site)
        if now is None or now.place != reads.place:
            found |= {site} if site < after.last else set()
        elif now.numbers == reads.numbers and len(now.line) < len(reads.line):
            found.add(site)
    return found


def _name_and_line(place: str) -> tuple[str, str]:
    return place.partition(" in ")[0], place.rpartition(", ")[2]


_MOVING = ("view", "reshape", "split", "chunk", "slice", "expand", "unbind", "select", "unflatten")


def _said(error: BaseException) -> str:
    """Return what an error says, and the line of the model's code that raised it."""
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = model_line(last.filename, last.lineno or 0)
    return f"{line}: {reason}" if line else reason


def _whole(found: Followed, labels: Tensor) -> Tensor:
    """Return labels with all others of the layers that make them: a trial cut has removed some."""
    makers = [node.out for node in found.nodes if node.kind in ("producer", "depthwise")]
    labels = labels[labels >= 0]
    return torch.cat([labels, *(out for out in makers if bool(torch.isin(out, labels).any()))])


def _differ(before: Sequence[Tensor], after: Sequence[Tensor], gone: Tensor) -> bool:
    """Return whether the cells of results in a trial are not those that were left of them, each in its dim.

    Equal parts that lose the same channels, as heads do, are narrower then, not fewer.
    """
    others = after if len(after) == len(before) else [None] * len(before)
    lines: list[Tensor] = []
    found = [] if len(after) == len(before) else [small(one).reshape(-1) for one in after]
    for one, other in zip(before, others, strict=True):
        moving = changing(one)
        if other is not None and len(moving) == 1:
            if not only_along(other, moving[0]):
                return True
            one, other = vector(one, moving[0]), vector(other, moving[0])
        lines.append(small(one).reshape(-1))
        found += [] if other is None else [small(other).reshape(-1)]
    line, others_line = (torch.cat(one) if one else torch.empty(0, dtype=torch.long) for one in (lines, found))
    left = line[(line < 0) | ~gone[line.clamp(min=0)]]
    alone = (
        len(others_line) == 1 and len(left) > 0 and bool((left == others_line).all())
    )  # one channel is left: its label has no dim
    return not torch.equal(left, others_line) and not alone


_FRACTIONS = (0.34, 0.5, 0.25, 0.4, 0.2)


def _some(
    graph: ChannelGraph, fractions: Sequence[float] = _FRACTIONS, *, least: int = 2, beside: Tensor | None = None
) -> Tensor:
    """Return [cells]: some of those that may go, as a trial; `least` stay of each layer.

    The first channels of each layer, an odd number and another fraction of each: so that all others change their places
    (also those of pairs), and equal parts of a tensor lose different numbers. With `beside` only those of layers that
    lose none of these cells.
    """
    gone = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
    balanced = torch.zeros_like(gone)
    producers = [node for node in graph.nodes if node.kind == "producer"]
    for node in producers:
        for side in (node.out, node.into) if node.groups > 1 and node.into is not None else ():
            balanced[side[side >= 0]] = True
            for group, part in enumerate(side.reshape(node.groups, -1)):  # the same number of each group, elsewhere
                count = max(len(part) // 3, 0 if node.transposed else 2 - least)
                mine = part[:count] if group % 2 == 0 else part[len(part) - count :]
                gone[mine[mine >= 0]] = True
    for number, node in enumerate(producers):
        if bool(balanced[node.out[node.out >= 0]].any()):
            continue
        first = node.out[: int(len(node.out) * fractions[number % len(fractions)]) | 1]
        gone[first[first >= 0]] = True
    if beside is not None:
        for node in producers:
            if bool(beside[node.out[node.out >= 0]].any()):
                gone[node.out[node.out >= 0]] = False
    return spare(graph, gone & ~graph.kept, 1, least=least)
