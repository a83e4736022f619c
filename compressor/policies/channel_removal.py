"""Removal of channels in mid-training, with their gradients, masks, averages and optimizer state."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from compressor.context import GATED
from compressor.errors import CompressError, listed
from compressor.policies.policy import Context, Finding, Memory, Policy, View
from compressor.sparsity import computed
from compressor.thinning import ChannelGraph, Remover, Thinned, Untraceable, nothing_removed, nothing_zero, thin
from compressor.timing import Clock


@dataclass
class Refusal(Memory):
    """The reason why nothing of what is zero could be removed, if so."""

    refused: str = ""


class ThinningPolicy(Policy, name="extension"):
    """Remove unused channels at the first mini-batch of its epochs, after the pruners above it have masked."""

    component: ClassVar[str | None] = "extensions"

    extension: Remover = Field(description="what removes the channels: a component of `extensions`")

    @property
    def removes_channels(self) -> Literal["none", "zero", "some"]:
        return "zero" if "zero" in self.extension.ways and self.extension.round_to == 1 else "some"

    @property
    def needs_images(self) -> bool:
        return True

    def check(self, view: View) -> list[Finding]:
        if not view.opens:
            return []
        why = GATED if view.gated else str(view.graph) if isinstance(view.graph, Untraceable) else ""
        if why:
            return [Finding("error", f"{view.key} can remove nothing: {why}", of_policy=True)]
        if not isinstance(view.graph, ChannelGraph):
            return []
        kept: dict[tuple[str, str], list[str]] = {}
        for one in computed(view.model):
            if f"{one.by} computes {one.name}" in view.graph.keeps.values():
                kept.setdefault((one.by, one.remedy), []).append(one.name)
        said = "{key} keeps the channels of {names}, which {by} computes: to remove them, too, {remedy}"
        lines = [said.format(key=view.key, names=listed(names), by=by, remedy=how) for (by, how), names in kept.items()]
        return [Finding("warning", line, of_policy=True) for line in lines]

    def init(self, ctx: Context) -> Refusal:
        return Refusal()

    def on_minibatch_begin(self, ctx: Context, memory: Refusal) -> None:
        if self.window.unit == "epoch" and ctx.clock.step > 0:
            return
        before = sum(parameter.numel() for parameter in ctx.parameters.values())
        try:
            thinned = ctx.world.decide(lambda: self._thin(ctx))
            ctx.world.share(list(ctx.parameters.values()))  # biases may have absorbed constants
        except CompressError as error:
            # The masked network is trained on; the run says at its end what it could not do.
            memory.refused = f"{ctx.key} removed nothing in epoch {ctx.clock.epoch}: {error}"
            ctx.say(f"warning: {memory.refused}")
            return
        if thinned.cut:
            ctx.network.cut(thinned.cut)
        after = sum(parameter.numel() for parameter in ctx.parameters.values())
        record = {
            "when": f"{ctx.key}, epoch {ctx.clock.epoch}",
            "parameters_before": before,
            "parameters_after": after,
            "images": thinned.images,
            "largest_difference": thinned.largest_difference,
            "exact_difference": thinned.exact,
            "stays": [str(stay) for stay in thinned.stays],
        }
        if thinned.cut:
            memory.refused = ""
            ctx.say(
                f"{record['when']}: {before:,} parameters become {after:,}; the largest difference of a logit"
                f" on {thinned.images} training images is {thinned.largest_difference:.2g}"
            )
            for stay in thinned.stays:
                ctx.say(f"  {stay}")
        elif thinned.stays:
            said = f"{record['when']}: {nothing_removed(thinned.stays)}"
            memory.refused = "" if self._removed(ctx) else said
            ctx.say(f"warning: {said}" if memory.refused else said)
        else:
            with ctx.masks.applied():
                ctx.say(f"{record['when']}: {nothing_zero(ctx.network.model)}")
        ctx.records.thinnings.append(record)

    def _thin(self, ctx: Context) -> Thinned:
        """Return what can be removed now. Raises `CompressError` where that cannot be known, or not be done."""
        for reason in ctx.network.held.values():
            raise CompressError(reason)
        how = self.extension
        with ctx.masks.applied():
            return thin(ctx.network.model, ctx.data.sample(), ways=how.ways, round_to=how.round_to, training=True)

    def _removed(self, ctx: Context) -> bool:
        """Return whether it has removed channels in this run."""
        mine = [one for one in ctx.records.thinnings if one["when"].startswith(f"{ctx.key}, epoch ")]
        return any(one["parameters_after"] < one["parameters_before"] for one in mine)

    def settled(self, clock: Clock) -> int:
        return clock.epoch_of(self.window, self.window.last)

    def shortfalls(self, ctx: Context, memory: Refusal) -> list[str]:
        if memory.refused or self._removed(ctx):
            return [memory.refused] if memory.refused else []
        try:
            left = self._thin(ctx)  # by one process alone, if only one asks
        except CompressError:  # what is zero is not known
            return []
        if not left.cut and not left.stays:
            return []
        first, unit = self.window.first, self.window.unit
        end = ctx.clock.epochs if unit == "epoch" else ctx.clock.steps
        why = "no filter and no channel was all zero when it acted"
        if first >= end:
            why = f"it acts first in {unit} {first}, the run has {end}"
        now = "some can go at the end of the run: let it act later, or use `compress thin`"
        return [f"{ctx.key} removed nothing: {why}; {now if left.cut else nothing_removed(left.stays)}"]
