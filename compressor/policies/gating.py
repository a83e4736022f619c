"""A gate in the network, in a window."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from compressor.component import Targets
from compressor.context import GATED
from compressor.gates import Gate, Installed, Place, Site
from compressor.policies.policy import DERIVED, Context, Finding, Memory, Policy, Prediction, View, refuse
from compressor.sparsity import Slices, bias_of
from compressor.sparsity.structures import FILTERS
from compressor.thinning import ChannelGraph, couplings, following_norms, read_before_norm
from compressor.timing import Clock

NONE_LEFT = "all of its filters are shared with other layers: there is nothing to gate"


@dataclass
class Gated(Memory):
    """Whether the gate is active, its state, and the gate itself."""

    active: bool = False
    gate: dict[str, Any] = field(default_factory=dict)
    installed: Installed | None = field(default=None, metadata=DERIVED)

    @property
    def gates(self) -> Installed:
        """Return the gate as it is installed in the network."""
        assert self.installed is not None
        return self.installed


class GatePolicy(Policy, name="gate"):
    """Gate weights (random or shared) in the window; at its end they become their folded values."""

    component: ClassVar[str | None] = "gates"
    enters: ClassVar[Literal["before_epoch", "on_epoch_begin", "on_minibatch_begin"]] = "on_minibatch_begin"

    gate: Gate = Field(description="what gates the weights: a component of `gates`")

    @model_validator(mode="after")
    def _without_gaps(self) -> Self:
        if self.window.step != 1 or self.window.epochs is not None:
            raise ValueError(
                "a gate is active without a break: give its window a beginning and an end, no list, no step"
            )
        return self

    @property
    def needs_images(self) -> bool:
        return self.gate.whole_filters

    @property
    def counts_images(self) -> bool:
        return self.gate.counts_images

    def check(self, view: View) -> list[Finding]:
        lines = self.gate.check(view)
        found = [Finding("error", line) for line in lines]
        if self.gate.whole_filters and isinstance(view.graph, ChannelGraph) and not lines:
            shared = not_gated(view.graph, view.targets["weights"], view.logits or ())
            found += [Finding("note", f"{view.key}: {line}") for line in shared.values()]
            if len(shared) == len(view.targets["weights"]):
                found.append(Finding("error", f"{view.key}: {NONE_LEFT}"))
        return found

    def gated(self, targets: Targets) -> list[str]:
        return self.gate.gated(targets)

    def computed(self, targets: Targets) -> list[str]:
        return self.gate.computed(targets)

    def whole_slices(self, view: View) -> list[Slices]:
        return [(name, 0) for name in view.targets["weights"]] if self.gate.whole_filters else []

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        if not self.gate.makes_zeros or time < self.window.first:
            return Prediction()
        names = [name for selected in view.targets.values() for name in selected]
        return Prediction(unknown=dict.fromkeys(names, "a gate learns which entries are zero"))

    def init(self, ctx: Context) -> Gated:
        targets = ctx.targets
        refuse(ctx, self.gate.misfits(targets, ctx.network.model))
        if self.gate.whole_filters:
            targets = {**targets, "weights": self._without_shared(ctx)}
        clock, by_step = ctx.clock, self.window.unit == "step"
        begun = math.floor(self.window.first * (1 if by_step else clock.steps_per_epoch) * clock.pace)
        site = Site(
            owner=ctx.key,
            model=ctx.network.model,
            parameters=ctx.parameters,
            targets=targets,
            images=ctx.data.images,
            sample=ctx.data.sample,
            behind=lambda name: _behind(ctx, name),
            regroup=ctx.optimizer.regroup,
            average=ctx.averages.also,
            clock=lambda: clock.full_step() - begun,
            keep=ctx.masks.keep,
            outputs_first=ctx.network.outputs_first,
            forget=ctx.optimizer.forget,
            stream=partial(ctx.world.stream, ctx.key),
        )
        installed = self.gate.install(site)
        ctx.network.held[ctx.key] = GATED
        return Gated(gate=installed.state(), installed=installed)

    def _decay(self, ctx: Context, memory: Gated, *, on: bool) -> None:
        """Set the optimizer's weight decay of the gated weights on or off."""
        mine = {id(parameter) for parameter in memory.gates.undecayed}
        for group in ctx.optimizer.groups:
            group.setdefault("own_decay", group["weight_decay"])
            if group["params"] and id(group["params"][0]) in mine:
                others = ctx.substitutions.others(ctx.key)
                elsewhere = {id(p) for gate in others if isinstance(gate, Installed) for p in gate.undecayed}
                if id(group["params"][0]) not in elsewhere:
                    group["weight_decay"] = group["own_decay"] if on else 0.0

    def _without_shared(self, ctx: Context) -> list[str]:
        """Return the selected weights without those whose filters cannot be gated, with a message."""
        names = list(ctx.targets["weights"])
        without = not_gated(ctx.network.graph(), names, ctx.network.logits())
        for line in without.values():
            ctx.say(f"{ctx.key}: {line}")
        refuse(ctx, [NONE_LEFT] if len(without) == len(names) else [])
        return [name for name in names if name not in without]

    def resume(self, ctx: Context, memory: Gated) -> None:
        memory.gates.load(memory.gate)
        memory.gate = memory.gates.state()
        if memory.active:
            ctx.substitutions.put(ctx.key, memory.gates)
        else:
            ctx.substitutions.remove(ctx.key)

    def on_enter(self, ctx: Context, memory: Gated) -> None:
        ctx.substitutions.put(ctx.key, memory.gates)
        memory.active = True
        self._decay(ctx, memory, on=False)

    def penalty_gradients(self, ctx: Context, memory: Gated) -> None:
        memory.gates.penalty_gradients()

    def collect_gradients(self, ctx: Context, memory: Gated) -> None:
        memory.gates.collect_gradients()

    def on_minibatch_end(self, ctx: Context, memory: Gated) -> None:
        memory.gate = memory.gates.state()

    @torch.no_grad()
    def on_exit(self, ctx: Context, memory: Gated, run_ends: bool) -> None:
        """Fold the gate; zeros stay."""
        if run_ends:
            return  # what is shipped is folded anyway
        folded = memory.gates.fold()
        for name, value in folded.items():
            ctx.parameters[name].copy_(value)
        for name, keep in memory.gates.keeps().items():
            ctx.masks.set(ctx.key, name, keep)
        ctx.averages.restart(list(folded))
        ctx.substitutions.remove(ctx.key)
        memory.active = False
        self._decay(ctx, memory, on=True)

    def settled(self, clock: Clock) -> int:
        # Before a gate was at work the network was another; with gates that close it is settled when they do no more.
        return clock.epoch_of(self.window, self.window.last if self.gate.makes_zeros else self.window.first)

    def losses(self, ctx: Context, memory: Gated) -> dict[str, float]:
        return memory.gates.losses()

    def figures(self, ctx: Context, memory: Gated) -> dict[str, float]:
        return memory.gates.figures()


def not_gated(graph: ChannelGraph | None, names: Sequence[str], logits: Collection[str]) -> dict[str, str]:
    """Return in words why the filters of some weights cannot be gated, by weight. `logits`: weights that make them."""
    lines = {}
    for name in names:
        broken = () if graph is None else couplings(graph, [name], FILTERS).broken
        early = None if graph is None else read_before_norm(graph, name)
        if name in logits:
            why = "they make the logits"
        elif broken:
            why = broken[0][1]
        elif early:
            why = f"{early} reads them before the batch norm after which a gate would act"
        else:
            continue
        lines[name] = f"the filters of {name} are not gated: {why}"
    return lines


def _behind(ctx: Context, name: str) -> list[Place]:
    """Return where gates on the filters of a weight act: gamma and beta of the last batch norms after it, else its
    own rows.
    """
    graph = ctx.network.graph()
    filters = torch.arange(ctx.network.shapes()[name][0])
    found = [] if graph is None else [Place(*place) for place in following_norms(graph, name)]
    if found:
        return found
    bias = bias_of(name)
    own = [name, *([bias] if bias in ctx.parameters else [])]
    return [Place(one, filters, filters) for one in own]
