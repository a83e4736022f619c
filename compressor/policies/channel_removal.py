"""Removal of channels in mid-training, with their gradients, masks, averages and optimizer state."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from compressor.errors import CompressError
from compressor.policies.policy import Context, Memory, Policy
from compressor.thinning import Remover, thin
from compressor.timing import Clock


@dataclass
class Refusal(Memory):
    """The reason why nothing could be removed, if so."""

    refused: str = ""


class ThinningPolicy(Policy, name="extension"):
    """Remove unused channels at the first mini-batch of its epochs, after the pruners above it have masked."""

    component: ClassVar[str | None] = "extensions"

    extension: Remover

    @property
    def removes_channels(self) -> Literal["none", "zero", "some"]:
        return "zero" if "zero" in self.extension.ways and self.extension.round_to == 1 else "some"

    @property
    def needs_images(self) -> bool:
        return True

    def init(self, ctx: Context) -> Refusal:
        return Refusal()

    def on_minibatch_begin(self, ctx: Context, memory: Refusal) -> None:
        if self.window.unit == "epoch" and ctx.clock.step > 0:
            return
        before = sum(parameter.numel() for parameter in ctx.parameters.values())
        how = self.extension
        try:
            for reason in ctx.network.held.values():
                raise CompressError(reason)
            with ctx.masks.applied():
                thinned = thin(
                    ctx.network.model, ctx.data.sample(), ways=how.ways, round_to=how.round_to, training=True
                )
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
        ctx.records.thinnings.append(record)
        found = (
            f"{before:,} parameters become {after:,}; the largest difference of a logit"
            f" on {thinned.images} training images is {thinned.largest_difference:.2g}"
            if thinned.cut
            else "nothing that is zero could be removed"
        )
        ctx.say(f"{record['when']}: {found}")
        for stay in thinned.stays:
            ctx.say(f"  {stay}")

    def settled(self, clock: Clock) -> int:
        return clock.epoch_of(self.window, self.window.last)

    def shortfalls(self, ctx: Context, memory: Refusal) -> list[str]:
        return [memory.refused] if memory.refused else []
