"""One event of channel pruning (He et al. 2017): channels chosen and outputs reconstructed, layer after layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.context import Context, Finding, Prediction, View
from compressor.errors import UserError, listed
from compressor.reconstruction.input_channels import Array, InputChannels, inputs_by_channel, uneven
from compressor.reconstruction.least_squares import Reconstruction, Selection, reconstruct, relative_error
from compressor.sparsity import bias_of
from compressor.thinning import ChannelGraph, channels_read, channels_with_inputs, producers_of
from compressor.tracing import Batches, Layer, Samples, layer_calls, sample_inputs, sample_outputs, trace

SEED = 1707
"""The seed, with the epoch, of the draws of positions and samples: no other random number depends on them."""


def reconstruction_misfits(names: Sequence[str], modules: Mapping[str, nn.Module]) -> list[str]:
    """Return why weights cannot be reconstructed, in words."""
    lines = []
    for name in names:
        module = modules.get(name.rpartition(".")[0])
        if not name.endswith("weight") or not isinstance(module, (nn.Conv2d, nn.Linear)):
            lines.append(f"{name} is not the weight of a 2-d convolution or linear layer: it cannot be reconstructed")
        elif getattr(module, "groups", 1) > 1:
            lines.append(f"{name} is of a grouped convolution: its channels cannot be chosen one by one")
    return lines


def check_reconstruction(
    view: View, names: Sequence[str], count: Callable[[int], int], *, needs_call: bool
) -> list[Finding]:
    """Return the findings on weights that lose `count(channels)` of their input channels.

    `needs_call`: a weight that the forward pass does not use is not pruned, and so its sparsity is missed.
    """
    lines = reconstruction_misfits(names, view.modules)
    if lines or not view.opens:
        return [Finding("error", line) for line in lines]
    places = {name: _inputs(view, name) for name in names}
    lines = [why for name in names if (why := uneven(name, places[name])) is not None]
    if lines:
        return [Finding("error", line) for line in lines]
    due = [name for name in names if count(len(places[name])) > 0]
    layers = layer_calls(view.trace, due) if view.trace is not None else []
    lines = [why for layer in layers if (why := _not_reconstructed(layer)) is not None]
    if needs_call and view.trace is not None:
        used = {layer.name for layer in layers}
        lines += [f"the forward pass does not use {name} as it is" for name in due if name not in used]
    return [Finding("error", f"{view.key}: {line}") for line in lines]


def _inputs(view: View, name: str) -> list[list[int]]:
    """Return the inputs of each channel that a weight reads."""
    cells = view.graph.channels.cells.get((name, 1)) if isinstance(view.graph, ChannelGraph) else None
    return inputs_by_channel(torch.full((view.shapes[name][1],), -1) if cells is None else cells)


def _not_reconstructed(layer: Layer) -> str | None:
    """Return in words why the outputs of a layer cannot be reconstructed; None where they can."""
    if len(layer.calls) > 1:
        return f"{layer.name} is applied {len(layer.calls)} times: it cannot be reconstructed"
    if layer.calls[0].function == "linear" and len(layer.shape) != 2:
        sides = "x".join(map(str, layer.shape[1:]))
        return f"{layer.name} makes {sides} outputs for an image, not a row: it cannot be reconstructed"
    return None


def pruned_inputs(view: View, names: Sequence[str], count: Callable[[int], int]) -> Prediction:
    """Return the zeros of weights that lose `count(channels)` of their input channels, and of the filters that make
    them.

    Filters are pruned where no other layer reads them.
    """
    graph = view.graph
    known = graph if isinstance(graph, ChannelGraph) else None
    inputs: dict[str, tuple[int, int]] = {}
    filters: dict[str, tuple[int, int]] = {}
    unknown: dict[str, str] = {}
    for name in names:
        shape = view.shapes[name]
        cells = None if known is None else known.channels.cells.get((name, 1))
        real = [] if cells is None else [cell for cell in cells.tolist() if cell >= 0]
        channels = len(set(real)) + shape[1] - len(real)
        pruned = count(channels)
        inputs[name] = pruned, channels
        if known is None or not real:
            continue
        for maker in producers_of(
            known, torch.zeros(max(known.cells, 1), dtype=torch.bool).index_fill_(0, torch.tensor(real), True)
        ):
            if maker not in known.weights.values():
                continue
            mine = set(known.channels.cells[maker, 0].tolist())
            others = [reader for reader, read in channels_with_inputs(known).items() if reader != name and mine & read]
            if others or not mine <= set(real):
                unknown[maker] = f"its filters are pruned where {name} alone reads them"
            else:
                filters[maker] = pruned, len(mine)
    zeros: dict[tuple[str, ...], int] = {}
    for name in {**inputs, **filters}:
        (gone, of), (out, of_out) = inputs.get(name, (0, 1)), filters.get(name, (0, 1))
        weights = math.prod(view.shapes[name])
        zeros[name,] = weights - weights // (of * of_out) * (of - gone) * (of_out - out)  # both share some weights
    return Prediction(zeros, unknown)


@dataclass
class Event:
    """The data of one event of a policy that prunes and reconstructs, at the beginning of an epoch.

    A fraction of the channels is pruned as `selection` says, or those that the masks `stay` (by weight, true = stays)
    prune.
    """

    ctx: Context
    batches: int
    points: int
    sparsity: float = 0.0
    selection: Selection = "lasso"
    residual: bool = False
    stay: Mapping[str, Tensor] | None = None
    draws: np.random.Generator = field(init=False)
    _seen: Batches = field(init=False, default=())
    _before: Mapping[str, Samples] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.draws = np.random.default_rng([SEED, self.ctx.clock.epoch])

    def run(self, names: Sequence[str]) -> None:
        """Prune all of these weights that have not reached their sparsity yet."""
        due = self._due(names)
        if not due:
            return
        layers = self._layers(due)
        # One process samples and solves; the others write what it has found.
        self.ctx.world.decide(lambda: self._sample(layers))
        errors = {layer.name: self._prune(layer) for layer in layers}
        kinds = ("error_masked", "error")
        if errors:
            means = np.mean(list(errors.values()), axis=0).tolist()
            each = {f"{name} {kind}": of[n] for name, of in errors.items() for n, kind in enumerate(kinds)}
            self.ctx.records.figures[self.ctx.key] = {**dict(zip(kinds, means, strict=True)), **each}

    def _sample(self, layers: Sequence[Layer]) -> None:
        self._seen = self.ctx.data.batches(self.batches)
        with self.ctx.as_shipped():
            self._before = sample_outputs(self.ctx.network.model, self._seen, layers, self.points, self.draws)

    def _due(self, names: Sequence[str]) -> list[str]:
        gated = {name for substitution in self.ctx.substitutions for name in substitution.gated()}
        due = []
        for channels in (InputChannels(self.ctx, name) for name in names):
            if int(channels.alive().sum()) <= self._count(channels):
                continue
            if channels.name in gated:
                self._warn(f"{channels.name} has a gate: its channels are not pruned")
                continue
            due.append(channels.name)
        return due

    def _count(self, channels: InputChannels) -> int:
        """Return how many channels stay."""
        if self.stay is None:
            return channels.due(self.sparsity)
        return int((channels.alive() & channels.kept_by(self.stay[channels.name])).sum())

    def _layers(self, names: Sequence[str]) -> list[Layer]:
        """Return the layers in the order of the forward pass."""
        with self.ctx.as_shipped():
            found = layer_calls(trace(self.ctx.network.model, self.ctx.data.sample()[:2]), names)
        for name in [name for name in names if name not in {layer.name for layer in found}]:
            self._warn(f"the forward pass does not use {name} as it is: its channels are not pruned")
        for layer in found:
            if (why := _not_reconstructed(layer)) is not None:
                raise UserError(f"{self.ctx.key}: {why}")
            if not self.residual:
                layer.addition = None
            if layer.scale is not None and not bool(layer.scale.any()):  # its outputs are all 0: as if it was no norm
                layer.scale = layer.addition = None
        return found

    def _prune(self, layer: Layer) -> tuple[float, float]:
        """Prune and reconstruct one layer; return the relative errors with the old weights and with the new ones.

        As in the paper, as if the batch norm that follows were merged: its factors weight the outputs.
        """
        ctx, channels = self.ctx, InputChannels(self.ctx, layer.name)
        weight, bias = ctx.parameters[layer.name], ctx.parameters.get(bias_of(layer.name))
        alive = channels.alive().nonzero().flatten()
        factors = np.ones(len(weight)) if layer.scale is None else _array(layer.scale)
        fitted = factors != 0  # outputs that the norm multiplies by 0 cannot be reconstructed
        scale, due = factors[fitted], self._count(channels)
        samples: list[tuple[Array, Array]] = []

        def solved() -> tuple[Reconstruction, bool]:
            before = self._before[layer.name]
            with ctx.as_shipped():
                given, others = sample_inputs(ctx.network.model, self._seen, layer, before.positions)
            y = _array(torch.cat(before.outputs)) * factors
            if others:  # Y1 + Y2 - Y1': the shortcut then, this layer then, the shortcut now
                y += _array(torch.cat(before.others)) - _array(torch.cat(others))
            x, y = channels.gather(given, alive), y[:, fitted]
            samples.append((x, y))
            if len(x) <= due * x.shape[2]:
                self._warn(f"{layer.name}: {len(x)} samples are too few for {due * x.shape[2]} weights of an output")
            stay = None if self.stay is None else channels.kept_by(self.stay[layer.name])[alive].nonzero()[:, 0].numpy()
            found = reconstruct(
                x,
                channels.gather(weight, alive)[fitted] * scale[:, None, None],
                y,
                due,
                bias=None if bias is None else _array(bias)[fitted] * scale,
                intercept=bias is not None,
                selection=self.selection,
                kept=stay,
                draws=self.draws,
            )
            return found, bool(others)

        def error() -> float:
            now = channels.gather(weight, alive)[fitted] * scale[:, None, None]  # others may mask it, too
            constant = np.zeros(len(scale)) if bias is None else _array(bias)[fitted] * scale
            [(x, y)] = samples
            return relative_error(x, now, constant, y)

        found, corrected = ctx.world.decide(solved)
        self._write(channels, bias, alive[torch.from_numpy(found.kept)], fitted, scale, found)
        after = ctx.world.decide(error)
        gone, how = self._prune_filters(channels), self.selection if self.stay is None else "by their scores"
        self.ctx.say(
            f"{self.ctx.key}: {layer.name}: {len(found.kept)} of {len(channels.places)} input channels stay"
            f" ({how}); relative error {found.before:.4g} with the old weights, {after:.4g} with new ones"
            + (", with the error of a shortcut corrected" if corrected else "")
            + (f"; pruned with them: filters of {', '.join(gone)}" if gone else "")
        )
        return found.before, after

    def _write(
        self,
        channels: InputChannels,
        bias: nn.Parameter | None,
        kept: Tensor,
        fitted: NDArray[np.bool_],
        scale: Array,
        found: Reconstruction,
    ) -> None:
        ctx, weight = self.ctx, self.ctx.parameters[channels.name]
        new = channels.gather(weight, kept)
        new[fitted] = found.weight / scale[:, None, None]
        channels.put(new, kept)
        changed = {channels.name: weight}
        if bias is not None and found.bias is not None:
            constant = _array(bias)
            constant[fitted] = found.bias / scale
            bias.data.copy_(torch.from_numpy(constant))
            changed[bias_of(channels.name)] = bias
        self._mask(channels.name, channels.keep(kept))
        ctx.masks.apply()
        ctx.optimizer.forget(list(changed.values()))  # its momentum was that of other weights
        ctx.averages.restart(list(changed))

    def _prune_filters(self, channels: InputChannels) -> list[str]:
        """Mask the filters that make channels no layer reads any more, and their companions; return their names."""
        ctx, graph = self.ctx, self.ctx.network.graph()
        pruned = channels.cells[~channels.alive()]
        pruned = pruned[pruned >= 0]
        if graph is None or len(pruned) == 0:
            return []
        by_weight = channels_read(graph, ctx.parameters)
        read = torch.stack(list(by_weight.values())).any(0)
        shared = pruned[read[pruned]]
        if len(shared):
            who = [name for name, cells in by_weight.items() if bool(cells[shared].any())]
            self._warn(
                f"{channels.name}: {len(shared)} channels that it no longer reads are read by {listed(who, 2)}:"
                f" they are pruned for this layer only, and the filters that make them stay"
            )
        gone = torch.zeros_like(read)
        gone[pruned] = True
        going, shapes = producers_of(graph, gone & ~read), ctx.network.shapes()
        for name, entries in going.items():
            shape = shapes[name]
            keep = (~entries).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
            self._mask(name, ctx.network.outputs_first(name, keep))
        ctx.masks.apply()
        return [name for name in going if name in graph.weights.values()]

    def _mask(self, name: str, keep: Tensor) -> None:
        """Add to the masks of this policy."""
        before = self.ctx.masks.before(self.ctx.key)(name)
        self.ctx.masks.set(self.ctx.key, name, keep if before is None else before & keep.to(before.device))

    def _warn(self, text: str) -> None:
        self.ctx.say(f"warning: {self.ctx.key}: {text}")


def _array(values: Tensor) -> Array:
    return values.detach().cpu().double().numpy().copy()
