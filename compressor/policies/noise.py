"""Noise in place of pruning: Bartoldson et al., NeurIPS 2020, figure 5 and appendix D.2."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import CountsSteps, Targets
from compressor.masking import check_pruner, complete_targets, masks_of, require_batch_norms
from compressor.policies.policy import Context, Finding, Memory, Policy, View
from compressor.pruners import PrunerBase
from compressor.sparsity import Substitution, new_like, set_to_zero
from compressor.thinning import ChannelGraph


@dataclass
class Noise(Memory):
    """The structures chosen so far (true = not chosen), those disturbed, for how many mini-batches, and their old
    values.
    """

    chosen: dict[str, Tensor] = field(default_factory=dict)
    disturbed: dict[str, Tensor] = field(default_factory=dict)
    selected: list[str] = field(default_factory=list)
    left: int = 0
    places: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)


class NoisePolicy(Policy, name="noise"):
    """Disturb for some mini-batches the structures that a pruner would prune, and prune nothing (Bartoldson et al.
    2020).

    At each event the pruner chooses as if its earlier choices were pruned. `zeroing`: the weights of the newly chosen
    structures are set to 0 before each of the next `batches` steps; `gaussian`: N(0, std^2) is added to them, std that
    of one filter that was not chosen. Afterwards they are trained freely. With `restore` all structures chosen so far
    are disturbed, zeroed with their biases and batch norms, and get back the values, and the norms' statistics, that
    they had before.
    """

    component: ClassVar[str | None] = "pruners"

    noise: PrunerBase = Field(description="the pruner that chooses the structures: a component of `pruners`")
    kind: Literal["zeroing", "gaussian"] = Field(
        default="zeroing",
        description="zeroing: the chosen structures are set to 0; gaussian: normal noise of a filter's deviation is"
        " added",
    )
    batches: Annotated[int, CountsSteps()] = Field(
        ge=0, description="number of mini-batches after an event in which the chosen structures are disturbed"
    )
    restore: bool = Field(
        default=False,
        description="true: all chosen structures get back their values before the event; false: they are trained"
        " freely",
    )

    @model_validator(mode="after")
    def _by_what_the_weights_are(self) -> Self:
        if self.noise.needs_double_copies or "running_statistics" in self.noise.needs:
            raise ValueError("noise needs a pruner that uses the present weights")
        return self

    @property
    def needs_images(self) -> bool:
        return self.noise.measured is not None

    def check(self, view: View) -> list[Finding]:
        return check_pruner(view, self.noise)

    @property
    def shares_channels(self) -> bool:
        return self.noise.extends

    def complete(self, targets: Targets, graph: ChannelGraph | None) -> Targets:
        return complete_targets(self.noise, targets, graph)

    def init(self, ctx: Context) -> Noise:
        require_batch_norms(ctx, self.noise)
        memory = Noise()
        ctx.substitutions.put(ctx.key, _Disturbance(ctx, memory, self))
        return memory

    def resume(self, ctx: Context, memory: Noise) -> None:
        for key in ("chosen", "disturbed", "places", "values"):
            found: dict[str, Tensor] = getattr(memory, key)
            setattr(memory, key, {name: value.to(_tensor(ctx, name).device) for name, value in found.items()})

    def on_epoch_begin(self, ctx: Context, memory: Noise) -> None:
        self._choose(ctx, memory)

    def on_minibatch_begin(self, ctx: Context, memory: Noise) -> None:
        if self.window.unit == "step":
            self._choose(ctx, memory)

    def _choose(self, ctx: Context, memory: Noise) -> None:
        if misfits := self.noise.misfits(ctx.targets, ctx.network.shapes()):
            ctx.say(f"warning: {ctx.key} stops choosing, because channels were removed: {'; '.join(misfits)}")
            return
        _put_back(ctx, memory)  # where an event comes before the mini-batches of the one before are over
        chosen = memory.chosen
        selected, found = masks_of(ctx, self.noise, self.window, chosen.get, chosen)
        keep = {name: mask.to(ctx.parameters[name].device) for name, mask in found.items()}
        nothing = {name: torch.ones_like(mask) for name, mask in keep.items()}
        before = nothing if self.restore else {**nothing, **chosen}
        # A filter whose gamma and beta were zeroed, too, would get no gradient any more: that is no noise.
        names = keep if self.restore else selected
        memory.disturbed = {name: before[name] & ~keep[name] for name in names}
        memory.selected = sorted(selected)
        memory.chosen, memory.left = keep, self.batches
        if self.restore and self.batches:
            memory.places = _with_statistics(ctx, memory.disturbed)
            memory.values = {name: _tensor(ctx, name).detach().clone() for name in memory.places}

    def figures(self, ctx: Context, memory: Noise) -> dict[str, float]:
        total = sum(memory.chosen[name].numel() for name in memory.selected)
        chosen = sum(int((~memory.chosen[name]).sum()) for name in memory.selected)
        return {"chosen_share": chosen / total} if total else {}


class _Disturbance(Substitution):
    def __init__(self, ctx: Context, memory: Noise, policy: NoisePolicy) -> None:
        self._ctx, self.memory, self._policy = ctx, memory, policy

    @torch.no_grad()
    def before_forward(self) -> None:
        if not self.memory.left:
            return
        for name, places in self.memory.disturbed.items():
            parameter = self._ctx.parameters[name]
            if self._policy.kind == "zeroing":
                parameter.masked_fill_(places, 0.0)
            elif name in self.memory.selected:
                stream = self._ctx.world.stream(self._ctx.key, parameter.device)
                draws = new_like(parameter).normal_(generator=stream).mul_(self._deviation(name))
                keep = self._ctx.masks.keep(name)
                mine = places if keep is None else keep & places
                set_to_zero(draws, mine.view(torch.int8).neg())
                parameter.add_(draws)

    def _deviation(self, name: str) -> Tensor:
        """Return the standard deviation of one structure that is not chosen, the first; a scalar on the device."""
        turn = self._ctx.network.outputs_first
        weight, keep = turn(name, self._ctx.parameters[name].detach()), turn(name, self.memory.chosen[name])
        if self._policy.noise.unit.dim == 0:
            whole = keep.flatten(1).all(1)
            first = weight.index_select(0, whole.long().argmax().unsqueeze(0)).flatten()
            return torch.where(whole.any(), first.std(), 0.0) if len(first) > 1 else weight.new_zeros(())
        return deviation(weight, keep)

    def after_step(self) -> None:
        if not self.memory.left:
            return
        self.memory.left -= 1
        if not self.memory.left:
            _put_back(self._ctx, self.memory)


def deviation(weight: Tensor, keep: Tensor) -> Tensor:
    """Return the standard deviation of the entries that are kept; 0 where there are fewer than two."""
    if weight.device.type == "cpu":
        spared = weight[keep]
        return spared.std() if len(spared) > 1 else weight.new_zeros(())
    # Elsewhere the host would wait for their number, and so no entry is taken out.
    values, count = weight.double(), keep.sum()
    away = values - torch.where(keep, values, 0.0).sum() / count
    squares = torch.where(keep, away.square(), 0.0).sum()
    return torch.where(count > 1, (squares / (count - 1)).sqrt(), 0.0).to(weight.dtype)


@torch.no_grad()
def _put_back(ctx: Context, memory: Noise) -> None:
    """Restore the saved values."""
    for name, places in memory.places.items():
        tensor = _tensor(ctx, name)
        tensor.copy_(torch.where(places, memory.values[name], tensor))
    memory.places, memory.values = {}, {}


def _with_statistics(ctx: Context, disturbed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what is disturbed, with the statistics of its batch norms."""
    places = dict(disturbed)
    buffers = {name for name, _ in ctx.network.model.named_buffers()}
    for name, where in disturbed.items():
        path = name.rpartition(".")[0]
        places |= {f"{path}.{own}": where for own in ("running_mean", "running_var") if f"{path}.{own}" in buffers}
    return places


def _tensor(ctx: Context, name: str) -> Tensor:
    return ctx.parameters[name] if name in ctx.parameters else ctx.network.model.get_buffer(name)
