"""From a network to its channels: one forward pass that is followed, then trial cuts that are followed again."""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.dropout import _DropoutNd

from compressor.copying import copied, without_storage
from compressor.errors import UserError
from compressor.importing import late, random_state_kept
from compressor.sparsity import computed, turned_layers
from compressor.thinning.cutting import cut_of
from compressor.thinning.following import Fix, Followed, follow, model_line
from compressor.thinning.graph import ChannelGraph, NeedsValues, Node, Untraceable
from compressor.thinning.labels import Labels, changing, compressed, only_along, small, vector
from compressor.thinning.removal import Removal, spare
from compressor.tracing import python_drew, seed

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
        return _Reading(model, shape, removes).graph()


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


class _Form:
    """One form of a network, as it is evaluated or as it is trained: its forward pass, and what trial cuts mended.

    `fixes`, `high`: see `follow`.
    """

    def __init__(self, training: bool, high: bool | None = None) -> None:
        self.training, self.high = training, high
        self.drew = False
        self.fixes: dict[int, Fix] = {}
        self.found = Followed()
        self.depthwise: set[str] | None = None


def _calls(form: _Form, model: nn.Module) -> Counter[tuple[str, str]]:
    """Return the layers and operations of a form, without dropout and stochastic depth."""
    drops = {path for path, module in model.named_modules() if isinstance(module, _DropoutNd)} | _OF_DROPOUT
    return Counter((node.label, node.kind) for node in form.found.nodes if node.label not in drops)


_OF_DROPOUT = frozenset({"native_dropout", "bernoulli", "empty_like", "new_empty", "mul", "div"})


class _Reading:
    def __init__(
        self, model: nn.Module, shape: tuple[int, ...], removes: Callable[[ChannelGraph], Removal] | None
    ) -> None:
        self._model, self._shape, self._removes = model, shape, removes
        self._values = dict(model.named_buffers())
        self._on_meta = True
        self._slices, self._outputs = self._numbered()
        self._refused: list[tuple[Tensor, str]] = []
        self._tries = 0

    def graph(self) -> ChannelGraph:
        forms = [_Form(training=False)]
        self._follow(forms[0])
        known = [_calls(forms[0], self._model)]
        for high in (False, True):  # it may draw which layers it leaves out
            trained = _Form(training=True, high=high)
            self._follow(trained)
            if trained.found.failed is None and (calls := _calls(trained, self._model)) not in known:
                forms.append(trained)
                known.append(calls)
            if not trained.drew:
                break
        for _ in range(_ROUNDS):
            graph, cell_of = self._graph([form.found for form in forms])
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
                self._follow(form)
        raise Untraceable(
            "its channels cannot be traced: too many of its operations work only with this number of channels"
        )

    def _numbered(self) -> tuple[dict[str, Labels], dict[str, Tensor]]:
        """Return a label for each entry of each dim of all parameters and buffers; and for each output of transposed
        convolutions with groups, by weight.
        """
        first, found = 0, {}
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            lines = []
            for size in tensor.shape:
                lines.append(torch.arange(first, first + size))
                first += size
            found[name] = tuple(lines)
        outputs: dict[str, Tensor] = {}
        for name, layer in turned_layers(self._model).items():
            width = int(layer.out_channels)  # type: ignore[arg-type]
            outputs[name] = torch.arange(first, first + width)
            first += width
        self._count = first
        return found, outputs

    def _copy(self) -> nn.Module:
        try:
            return without_storage(self._model) if self._on_meta else copied(self._model).cpu().float()
        except UserError as error:
            raise Untraceable(f"its channels cannot be traced: {error}") from error

    def _run(
        self, form: _Form, network: nn.Module, slices: Mapping[str, Labels], outputs: Mapping[str, Tensor]
    ) -> Followed:
        images = torch.zeros(2 if form.training else 1, *self._shape, device="meta" if self._on_meta else "cpu")
        network.train(form.training)
        values = self._values if self._on_meta else {}
        seed(form.high is True)
        found = follow(network, images, slices, form.fixes, values, form.depthwise, form.high, outputs)
        form.drew = found.drew or python_drew(form.high is True)
        return found

    def _follow(self, form: _Form) -> None:
        """Follow the channels of one form; raise `Untraceable` where the network cannot be run as it is evaluated."""
        form.depthwise = None
        form.found = self._run(form, self._copy(), self._slices, self._outputs)
        storage = not any(one.is_meta for one in self._model.parameters())
        if form.found.failed is not None and self._on_meta and storage and not form.training:
            self._on_meta = False  # its code asks for values
            form.found = self._run(form, self._copy(), self._slices, self._outputs)
        if form.found.failed is not None and not form.training:
            error = form.found.failed
            reason = (str(error).splitlines() or [""])[0]
            kind = Untraceable if storage else NeedsValues
            raise kind(f"its channels cannot be traced: {type(error).__name__}: {reason}") from error
        form.depthwise = {node.weight for node in form.found.nodes if node.kind == "depthwise"}

    # From labels to cells.

    def _graph(self, forms: Sequence[Followed]) -> tuple[ChannelGraph, Tensor]:
        """Return the graph, and [labels]: the cell of each label; -1 for those that no layer makes."""
        sparse, graphs = late("scipy.sparse"), late("scipy.sparse.csgraph")
        joins = [join for form in forms for join in form.joins]
        count = 1 + max([self._count, *(int(one.max()) for form in forms for node in form.nodes
                                        for one in (node.out, node.into) if one is not None and len(one))])  # fmt: skip
        first = torch.cat([join.first for join in joins] or [torch.empty(0, dtype=torch.long)])
        second = torch.cat([join.second for join in joins] or [torch.empty(0, dtype=torch.long)])
        edges = sparse.coo_matrix((torch.ones(len(first)).numpy(), (first.numpy(), second.numpy())), (count, count))
        component = torch.from_numpy(graphs.connected_components(edges, directed=False)[1]).long()
        made = torch.zeros(int(component.max()) + 1, dtype=torch.bool)
        order = []
        for form in forms:
            for node in form.nodes:
                if node.kind in ("producer", "depthwise"):
                    own = component[node.out[node.out >= 0]]
                    made[own] = True
                    order.append(own)
        numbers = torch.full((len(made),), -1)
        line = torch.cat(order) if order else torch.empty(0, dtype=torch.long)
        unique, back = torch.unique(line, return_inverse=True)
        places = torch.full((len(unique),), len(line)).scatter_reduce(0, back, torch.arange(len(line)), "amin")
        numbers[unique[places.argsort()]] = torch.arange(len(unique))
        cell_of = numbers[component]

        def cells(labels: Tensor) -> Tensor:
            return _cells(cell_of, labels)

        keeps: dict[int, str] = {}
        for labels, reason in (*self._computed(forms), *self._refused, *self._kept(forms)):
            for cell in torch.unique(cells(labels)).tolist():
                if cell >= 0:
                    keeps.setdefault(cell, reason)
        ties: dict[int, str] = {}
        for form in forms:
            for tie in form.ties:
                ties.update(dict.fromkeys(torch.unique(cells(tie.labels)).tolist(), tie.reason))
        nodes: list[Node] = []
        weights: dict[str, str] = {}
        modules = dict(self._model.named_modules())
        layers: dict[str, nn.Module] = {}
        for number, form in enumerate(forms):
            start = len(nodes)
            for node in form.nodes:
                out = cells(node.out)
                if node.kind not in ("producer", "depthwise", "norm"):
                    out = torch.unique(out[out >= 0])
                into = None if node.into is None or node.kind == "depthwise" else cells(node.into)
                inputs = tuple(start + one for one in node.inputs)
                nodes.append(node.replaced(out=out, into=into, inputs=inputs, training=number > 0))
                if node.owned and node.label in modules and node.kind in ("producer", "depthwise", "norm"):
                    layers.setdefault(node.label, modules[node.label])
                    if node.weight:
                        weights.setdefault(node.label, node.weight)
        slices = {}
        for name, lines in self._slices.items():
            found = tuple(cells(line) for line in lines)
            if any(bool((one >= 0).any()) for one in found):
                slices[name] = tuple(one if bool((one >= 0).any()) else None for one in found)
        return ChannelGraph(tuple(nodes), len(unique), weights, layers, slices, keeps, ties), cell_of

    def _kept(self, forms: Sequence[Followed]) -> Iterator[tuple[Tensor, str]]:
        for form in forms:
            for keep in form.keeps:
                yield keep.labels, keep.reason
            for node in form.nodes:
                if node.kind == "depthwise" and node.into is not None and bool((node.into < 0).all()):
                    yield node.out, f"{node.label} reads the image's own channels"

    def _computed(self, forms: Sequence[Followed]) -> Iterator[tuple[Tensor, str]]:
        """Yield the channels of layers that compute their weights: a cut of what they are made of changes them."""
        by_name = {one.name: one for one in computed(self._model) if one.by != "torch.nn.utils.prune"}
        for known in by_name.values():  # where the computation cannot be followed, no layer is known to use the weight
            for labels in (labels for source in known.sources for labels in self._slices.get(source, ())):
                if bool((labels >= 0).any()):
                    yield labels[labels >= 0], f"{known.by} computes {known.name}"
        for form in forms:
            for node in form.nodes:
                one = by_name.get(node.weight)
                if one is not None:
                    for line in (node.out, node.into):
                        if line is not None and bool((line >= 0).any()):
                            yield line[line >= 0], f"{one.by} computes {one.name}"

    # Trial cuts.

    def _mend(self, form: _Form, graph: ChannelGraph, cell_of: Tensor, removal: Removal) -> bool:
        """Cut some channels and follow the rest; return whether something had to be mended."""
        gone = removal.gone
        if not bool(gone.any()):
            return False
        network = self._copy()
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
            for name, lines in self._slices.items()
        }
        outputs = {name: line[removal.kept(_cells(cell_of, line))] for name, line in self._outputs.items()}
        found = self._run(form, network, slices, outputs)
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
                [compressed(_cells(cell_of, label).contiguous()) for label in one.results[site]]
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
            one, two = _cells(cell_of, join.first), _cells(cell_of, join.second)
            wrong = (one != two) & (one >= 0) & (two >= 0)
            if bool(wrong.any()):
                labels = torch.cat([join.first[wrong], join.second[wrong]])
                self._escalate(form, places, join.sites, join.at, labels, "other channels meet there")
                return True
        return False

    def _escalate(
        self,
        form: _Form,
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

    def _fix(self, form: _Form, places: Mapping[int, str], site: int, *, keep: bool) -> None:
        """Mend an operation, and those of its name on the same line of the model's code."""
        own = _name_and_line(places.get(site, ""))
        known = form.found.places.items()
        for one in [site, *(number for number, place in known if own[1] and _name_and_line(place) == own)]:
            if keep:
                form.fixes[one] = "keep"
            elif one in form.found.equal:
                form.fixes[one] = form.found.equal[one]


def _name_and_line(place: str) -> tuple[str, str]:
    return place.partition(" in ")[0], place.rpartition(", ")[2]


_MOVING = ("view", "reshape", "split", "chunk", "slice", "expand", "unbind", "select", "unflatten")


def _said(error: BaseException) -> str:
    """Return what an error says, and the line of the model's code that raised it."""
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = model_line(last.filename, last.lineno or 0)
    return f"{line}: {reason}" if line else reason


def _cells(cell_of: Tensor, labels: Tensor) -> Tensor:
    """Return the cells of labels; -1 where there is none."""
    known = (labels >= 0) & (labels < len(cell_of))
    return torch.where(known, cell_of[labels.clamp(0, len(cell_of) - 1)], -1)


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
    line, others_line = torch.cat(lines), torch.cat(found)
    left = line[(line < 0) | ~gone[line.clamp(min=0)]]
    alone = len(others_line) == 1 and bool((left == others_line).all())  # one channel is left: its label has no dim
    return not torch.equal(left, others_line) and not alone


def _some(graph: ChannelGraph, *, least: int = 2, beside: Tensor | None = None) -> Tensor:
    """Return [cells]: some of those that may go, as a trial; `least` stay of each layer.

    The first channels of each layer, and another fraction of each: so that all others change their places, and equal
    parts of a tensor lose different numbers. With `beside` only those of layers that lose none of these cells.
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
        first = node.out[: max(1, int(len(node.out) * _FRACTIONS[number % len(_FRACTIONS)]))]
        gone[first[first >= 0]] = True
    if beside is not None:
        for node in producers:
            if bool(beside[node.out[node.out >= 0]].any()):
                gone[node.out[node.out >= 0]] = False
    return spare(graph, gone & ~graph.kept, 1, least=least)


_FRACTIONS = (0.34, 0.5, 0.25, 0.4, 0.2)
