"""Removes what is zero from the network in mid-training, with its gradients, masks, averages and optimizer state."""

from typing import ClassVar

from compressor.errors import CompressError
from compressor.policies.policy import Context, Memory, Policy
from compressor.thinning.removers import Remover
from compressor.thinning.thin import thin


class ThinningPolicy(Policy, name="extension"):
    """Thins the network at the first mini-batch of its epochs, after the pruners above it have masked."""

    component: ClassVar[str | None] = "extensions"

    extension: Remover

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        if self.window.unit == "epoch" and ctx.step > 0:
            return
        before = sum(parameter.numel() for parameter in ctx.parameters.values())
        how = self.extension
        try:
            if ctx.installed:
                raise CompressError("weights behind a gate keep their widths; `compress thin` removes what it closed")
            with ctx.masks.folded():
                thinned = thin(ctx.model, ctx.sample(), ways=how.ways, round_to=how.round_to, training=True)
        except CompressError as error:
            # The masked network is trained on; the run says at its end what it could not do.
            memory["refused"] = f"{memory['owner']} removed nothing in epoch {ctx.epoch}: {error}"
            ctx.say(f"warning: {memory['refused']}")
            return
        if thinned.cut:
            ctx.cut(thinned.cut)
        after = sum(parameter.numel() for parameter in ctx.parameters.values())
        record = {
            "when": f"{memory['owner']}, epoch {ctx.epoch}",
            "parameters_before": before,
            "parameters_after": after,
            "images": thinned.images,
            "largest_difference": thinned.largest_difference,
            "exact_difference": thinned.exact,
            "stays": [str(stay) for stay in thinned.stays],
        }
        ctx.thinnings.append(record)
        found = (
            f"{before:,} parameters become {after:,}; the largest difference of a logit"
            f" on {thinned.images} training images is {thinned.largest_difference:.2g}"
            if thinned.cut
            else "nothing that is zero could be removed"
        )
        ctx.say(f"{record['when']}: {found}")
        for stay in thinned.stays:
            ctx.say(f"  {stay}")

    def settled(self, ctx: Context) -> int:
        return ctx.epoch_of(self.window, self.window.last)

    def shortfalls(self, ctx: Context, memory: Memory) -> list[str]:
        return [memory["refused"]] if "refused" in memory else []
