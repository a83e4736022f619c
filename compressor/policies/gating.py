"""Puts a gate into the network while its window fires."""

import math
from typing import ClassVar, Self

import torch
from pydantic import model_validator

from compressor.errors import UserError
from compressor.gates.gate import Gate, Installed, Place, Site
from compressor.policies.policy import Context, Memory, Policy
from compressor.sparsity.structures import FILTERS
from compressor.thinning.coupling import couplings


class GatePolicy(Policy, name="gate"):
    """Weights are gated, random or shared while the window fires; at its end they become what they are folded to."""

    component: ClassVar[str | None] = "gates"

    gate: Gate

    @model_validator(mode="after")
    def _without_gaps(self) -> Self:
        if self.window.step != 1 or self.window.epochs is not None:
            raise ValueError(
                "a gate is at work without a break: give its window a beginning and an end, no list, no step"
            )
        return self

    def init(self, ctx: Context, memory: Memory) -> None:
        if misfits := self.gate.misfits(memory["targets"], {name: p.shape for name, p in ctx.parameters.items()}):
            raise UserError(f"{memory['owner']}: {'; '.join(misfits)}")
        if self.gate.whole_filters:
            self._leave_out_shared(ctx, memory)
        first = self.window.first * (1 if self.window.unit == "step" else ctx.steps_per_epoch)
        begun = math.floor(first * ctx.pace)
        site = Site(
            owner=memory["owner"],
            model=ctx.model,
            parameters=ctx.parameters,
            targets=memory["targets"],
            images=ctx.images,
            sample=ctx.sample,
            behind=lambda name: _behind(ctx, name),
            regroup=ctx.regroup,
            averaged=ctx.averaged,
            clock=lambda: ctx.full_step - begun,
            keep=ctx.masks.keep,
            forget=ctx.forget,
        )
        installed = self.gate.install(site)
        ctx.installed[memory["owner"]] = installed
        memory.update(active=False, gate=installed.state())

    def _decay(self, ctx: Context, memory: Memory, *, on: bool) -> None:
        """Switch the optimizer's weight decay of the gated weights."""
        mine = {id(parameter) for parameter in self._installed(ctx, memory).undecayed}
        for group in ctx.optimizer.param_groups:
            group.setdefault("own_decay", group["weight_decay"])
            if group["params"] and id(group["params"][0]) in mine:
                others = [gate for owner, gate in ctx.substitutions.items() if owner != memory["owner"]]
                elsewhere = {id(p) for gate in others if isinstance(gate, Installed) for p in gate.undecayed}
                if id(group["params"][0]) not in elsewhere:
                    group["weight_decay"] = group["own_decay"] if on else 0.0

    def _leave_out_shared(self, ctx: Context, memory: Memory) -> None:
        graph = ctx.graph()
        names = memory["targets"]["weights"]
        if graph is None:
            return
        for name in list(names):
            found = couplings(graph, [name], FILTERS)
            why = ""
            if found.broken or found.logits:
                why = found.broken[0][1] if found.broken else "they are the network's output"
            else:
                early = graph.read_before_norm(name)
                why = f"{early} reads them before the batch norm behind which a gate would stand" if early else ""
            if why:
                ctx.say(f"{memory['owner']}: the filters of {name} are not gated: {why}")
                names.remove(name)
        if not names:
            raise UserError(
                f"{memory['owner']}: all of its filters are shared with other layers: nothing is left to gate"
            )

    def _installed(self, ctx: Context, memory: Memory) -> Installed:
        found = ctx.installed[memory["owner"]]
        assert isinstance(found, Installed)
        return found

    def resume(self, ctx: Context, memory: Memory) -> None:
        installed = self._installed(ctx, memory)
        installed.load(memory["gate"])
        memory["gate"] = installed.state()
        if memory["active"]:
            ctx.substitutions[memory["owner"]] = installed

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        if not memory["active"]:
            ctx.substitutions[memory["owner"]] = self._installed(ctx, memory)
            memory["active"] = True
            self._decay(ctx, memory, on=False)

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        self._installed(ctx, memory).penalty_gradients()

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        memory["gate"] = self._installed(ctx, memory).state()
        now = ctx.global_step + 1
        if self.window.unit == "step" and now > self.window.last and now < ctx.epochs * ctx.steps_per_epoch:
            self._settle(ctx, memory)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        if ctx.epoch == self.window.last and ctx.epoch + 1 < ctx.epochs:
            self._settle(ctx, memory)

    @torch.no_grad()
    def _settle(self, ctx: Context, memory: Memory) -> None:
        """The window's end: the weights become what they are folded to, and its zeros stay."""
        installed = self._installed(ctx, memory)
        folded = installed.fold()
        for name, value in folded.items():
            ctx.parameters[name].copy_(value)
        for name, keep in installed.keeps().items():
            ctx.masks.set(memory["owner"], name, keep)
        if ctx.restart_averages is not None:
            ctx.restart_averages(list(folded))
        del ctx.substitutions[memory["owner"]]
        memory["active"] = False
        self._decay(ctx, memory, on=True)

    def settled(self, ctx: Context) -> int:
        # Before a gate was at work the network was another; with gates that close it is settled when they do no more.
        return ctx.epoch_of(self.window, self.window.last if self.gate.makes_zeros else self.window.first)

    def losses(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return self._installed(ctx, memory).losses()

    def figures(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return self._installed(ctx, memory).figures()


def _behind(ctx: Context, name: str) -> list[Place]:
    """Where gates on the filters of a weight act: gamma and beta of the last batch norms behind, else its own rows."""
    graph = ctx.graph()
    filters = torch.arange(len(ctx.parameters[name]))
    found = [] if graph is None else [Place(*place) for place in graph.last_norms(name)]
    if found:
        return found
    bias = f"{name.rpartition('.')[0]}.bias" if "." in name else "bias"
    own = [name, *([bias] if bias in ctx.parameters else [])]
    return [Place(one, filters, filters) for one in own]
