"""Batch-norm statistics of the pruned network, estimated again on training images."""

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.errors import UserError, listed
from compressor.policies.policy import Context, Finding, Memory, Policy, View

NONE = "the network has no batch norm with running statistics"


class BatchNormPolicy(Policy, name="batchnorm"):
    """Estimate the running statistics of all batch norms again, on training images, after the policies above it.

    Pruning shifts the inputs of batch norms, and their running statistics follow slowly (Li et al., EagleEye, ECCV
    2020). `at: begin` acts at the beginning of the epochs of its window, after the pruners; `at: end` before their
    validation. Where gates are active the statistics are those of the folded network.
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - {pruner: {class: Pruner, structure: Filters, weights: conv1.weight, rate: {sparsity: 0.5}}, epochs: [1]}
      - batchnorm: {batches: 4}
    """

    batches: int = Field(default=32, ge=1, description="number of calibration batches, with equal weights")
    at: Literal["begin", "end"] = Field(
        default="begin",
        description="begin: at the beginning of the epochs of its window, after the pruners; end: before their"
        " validation",
    )

    @model_validator(mode="after")
    def _by_epochs(self) -> Self:
        if self.window.unit == "step":
            raise ValueError("it acts at the beginning or the end of epochs: its window counts epochs")
        return self

    @property
    def needs_images(self) -> bool:
        return True

    def check(self, view: View) -> list[Finding]:
        if not list(norms(view.model)):
            return [Finding("error", f"{view.key}: {NONE}", of_policy=True)]
        together = [path for path, module in norms(view.model) if isinstance(module, nn.SyncBatchNorm)]
        if view.processes == 1 or not together:
            return []
        said = (
            f"{view.key} estimates statistics on one of {view.processes} processes, and {listed(together)}"
            " (SyncBatchNorm) would wait for the others: use BatchNorm2d, or one process"
        )
        return [Finding("error", said, of_policy=True)]

    def init(self, ctx: Context) -> Memory:
        if not list(norms(ctx.network.model)):
            raise UserError(f"{ctx.key}: {NONE}")
        return Memory()

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        if self.at == "begin":
            self._estimate(ctx)

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        if self.at == "end" and ctx.clock.step == ctx.clock.steps_per_epoch - 1:
            self._estimate(ctx)

    def _estimate(self, ctx: Context) -> None:
        with ctx.as_shipped():
            ctx.world.decide(
                lambda: reestimate(ctx.network.model, [images for images, _ in ctx.data.batches(self.batches)])
            )
        ctx.world.share(list(ctx.network.model.buffers()))
        ctx.averages.restart(
            [f"{path}.{own}" for path, _ in norms(ctx.network.model) for own in ("running_mean", "running_var")]
        )


def norms(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Return the batch norms that have running statistics, by path."""
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            yield path, module


@torch.no_grad()
def reestimate(model: nn.Module, batches: list[Tensor]) -> None:
    """Set the running statistics of a network in eval mode to the mean over the batches of their statistics."""
    found = [module for _, module in norms(model)]
    momenta = [module.momentum for module in found]
    for module in found:
        module.reset_running_stats()
        module.momentum = None  # torch's plain mean over the batches
        module.train()
    try:
        for images in batches:
            model(images)
    finally:
        for module, momentum in zip(found, momenta, strict=True):
            module.momentum = momentum
