"""He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017: the policy."""

from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from compressor.component import Weights as Selection
from compressor.policies.policy import Context, Finding, Memory, Policy, Prediction, View, refuse
from compressor.rates import Sparsity
from compressor.reconstruction import (
    Event,
    InputChannels,
    check_reconstruction,
    pruned_inputs,
    reconstruction_misfits,
)
from compressor.reconstruction import Selection as Choice
from compressor.sparsity import Slices, structures_to_prune
from compressor.timing import Clock


class ChannelPruningPolicy(Policy, name="channel_pruning"):
    """Prune input channels by LASSO and reconstruct the outputs by least squares, layer after layer (He et al. 2017).

    At the beginning of its epochs, in the network's order: the old outputs of a layer are reconstructed from the
    present outputs of the layers before it, at random positions of training images. The filters that make a channel are
    pruned, too, where no other layer reads it. A convolution to which a shortcut is added also corrects the shortcut's
    error (`residual`). Sparsities refer to the dense network: a layer that has reached its sparsity stays as it is.
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - channel_pruning: {weights: [conv2.weight], sparsity: 0.5, batches: 2, points: 10}
    """

    weights: Selection = Field(
        description="convolutions and linear layers whose input channels are pruned: a name, a glob, re:EXPRESSION,"
        " type:CLASS or '*', or a list of them"
    )
    sparsity: Sparsity = Field(description="fraction of each layer's input channels that is pruned")
    batches: int = Field(default=40, ge=1, description="number of calibration batches (the paper: 5,000 images)")
    points: int = Field(
        default=10, ge=1, description="number of random positions of each image's map at which outputs are compared"
    )
    selection: Choice = Field(
        default="lasso",
        description="which channels stay; lasso: one LASSO (the authors' code); repeated: many (their text);"
        " backward: the channel of smallest error first; first, l1, max_response: for comparison",
    )
    residual: bool = Field(
        default=True,
        description="true: correct the error of a shortcut that is added to the outputs; false: reconstruct the"
        " outputs alone",
    )

    @model_validator(mode="after")
    def _by_epochs(self) -> Self:
        if self.window.unit == "step":
            raise ValueError("channels are pruned at the beginning of epochs: its window counts epochs")
        return self

    @property
    def needs_images(self) -> bool:
        return True

    def check(self, view: View) -> list[Finding]:
        names = view.targets["weights"]
        found = check_reconstruction(view, names, self._count, needs_call=True)
        said = "has a gate: its channels are not pruned while the gate is active"
        return found + [Finding("warning", f"{view.key}: {name} {said}") for name in names if name in view.gated]

    def _count(self, channels: int) -> int:
        """Return how many of a number of channels are pruned."""
        return structures_to_prune(self.sparsity, channels)

    def whole_slices(self, view: View) -> list[Slices]:
        return [(name, 1) for name in view.targets["weights"]]

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        if time < self.window.first:
            return Prediction()
        gated = dict.fromkeys((name for name in view.targets["weights"] if name in view.gated), "it has a gate")
        found = pruned_inputs(view, [name for name in view.targets["weights"] if name not in gated], self._count)
        return replace(found, unknown={**found.unknown, **gated}, asked=self.sparsity)

    def init(self, ctx: Context) -> Memory:
        refuse(ctx, reconstruction_misfits(ctx.targets["weights"], dict(ctx.network.model.named_modules())))
        return Memory()

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        Event(
            ctx,
            sparsity=self.sparsity,
            batches=self.batches,
            points=self.points,
            selection=self.selection,
            residual=self.residual,
        ).run(ctx.targets["weights"])

    def figures(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return ctx.records.figures.get(ctx.key, {})

    def settled(self, clock: Clock) -> int:
        return self.window.first  # later firings find nothing to do

    def shortfalls(self, ctx: Context, memory: Memory) -> list[str]:
        lines = []
        for channels in (InputChannels(ctx, name) for name in ctx.targets["weights"]):
            left, due = int(channels.alive().sum()), channels.due(self.sparsity)
            if left > due:
                lines.append(
                    f"target missed by {ctx.key}: {channels.name} should have {due} input channels, has {left}"
                    f" (the policy acts last in epoch {self.window.last}, the run has {ctx.clock.epochs})"
                )
        return lines
