"""He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017: when, and on what."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import nn

from compressor.component import Weights as Selection
from compressor.errors import UserError
from compressor.policies.channel_event import Event, misfits
from compressor.policies.input_channels import InputChannels
from compressor.policies.policy import Context, Memory, Policy
from compressor.pruners.level import Level
from compressor.pruners.reconstruction import Selection as Choice


class ChannelPruningPolicy(Policy, name="channel_pruning"):
    """Prunes input channels by LASSO and fits the weights anew by least squares, layer after layer (He et al. 2017).

    At the beginning of its epochs, in the network's order: what a layer gave before is fitted from what the layers
    pruned before it give now, at random positions of training images. The filters that make a channel go with it where
    nobody else reads it. A convolution that a shortcut is added to makes up for the shortcut's error, too (`residual`).
    Shares are of the dense network: a layer that has lost its share stays as it is.
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - channel_pruning: {weights: [conv2.weight], sparsity: 0.5, batches: 2, points: 10}
    """

    weights: Selection = Field(description="convolutions and linear layers whose input channels are pruned")
    sparsity: Level = Field(description="share of the input channels that go")
    batches: int = Field(default=40, ge=1, description="training batches that are looked at (the paper: 5,000 images)")
    points: int = Field(default=10, ge=1, description="random positions of each image's map")
    selection: Choice = Field(
        default="lasso",
        description="which channels stay: one LASSO (the authors' code); repeated: LASSO again and again (their text);"
        " backward: the one least missed by least squares goes first; first, l1, max_response: for comparison",
    )
    residual: bool = Field(default=True, description="make up for the error of a shortcut that is added behind")

    @model_validator(mode="after")
    def _by_epochs(self) -> Self:
        if self.window.unit == "step":
            raise ValueError("channels are pruned at the beginning of epochs: its window counts epochs")
        return self

    def misfits(self, names: Sequence[str], modules: Mapping[str, nn.Module]) -> list[str]:
        """Weights whose channels cannot be pruned so, in words."""
        return misfits(names, modules)

    def init(self, ctx: Context, memory: Memory) -> None:
        if lines := misfits(memory["targets"]["weights"], dict(ctx.model.named_modules())):
            raise UserError(f"{memory['owner']}: {'; '.join(lines)}")

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        Event(
            ctx,
            memory["owner"],
            sparsity=self.sparsity,
            batches=self.batches,
            points=self.points,
            selection=self.selection,
            residual=self.residual,
        ).run(memory["targets"]["weights"])

    def figures(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return ctx.figures.get(memory["owner"], {})

    def settled(self, ctx: Context) -> int:
        return self.window.first  # later firings find nothing to do

    def shortfalls(self, ctx: Context, memory: Memory) -> list[str]:
        lines = []
        for channels in (InputChannels(ctx, name) for name in memory["targets"]["weights"]):
            left, due = int(channels.alive().sum()), channels.due(self.sparsity)
            if left > due:
                lines.append(
                    f"target missed by {memory['owner']}: {channels.name} should have {due} input channels, has {left}"
                    f" (the policy fires last in epoch {self.window.last}, the run has {ctx.epochs})"
                )
        return lines
