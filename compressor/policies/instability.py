"""The immediate cost of pruning: Bartoldson, Morcos, Barbu and Erlebacher, NeurIPS 2020 (arXiv 1906.03728)."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.errors import UserError
from compressor.policies.policy import DERIVED, Context, Memory, Policy


@dataclass
class Measured(Memory):
    """All events so far; the accuracies and the keep masks before the current one."""

    events: list[dict[str, float]] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict, metadata=DERIVED)


class InstabilityPolicy(Policy, name="instability"):
    """Measure the instability (t_pre - t_post) / t_pre of each pruning event, from accuracies (Bartoldson 2020).

    An event is all pruning at the beginning of one epoch, without training between the two measurements. Stability is
    100 (1 - instability) %, its mean is over the events that pruned something. Masks made inside an epoch are not
    measured.
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - {pruner: {class: Pruner, structure: Filters, weights: conv1.weight, rate: {events: 0.5}}, frequency: 2}
      - instability: {part: validation}
    """
    runs_last: ClassVar[bool] = True

    part: Literal["validation", "test"] = Field(
        default="validation",
        description="images on which accuracy is measured before and after an event (the paper: test)",
    )

    @model_validator(mode="after")
    def _by_epochs(self) -> Self:
        if self.window.unit == "step":
            raise ValueError("events are measured at the beginning of epochs: its window counts epochs")
        return self

    @property
    def needs_validation(self) -> bool:
        return self.part == "validation"

    @property
    def needs_test(self) -> bool:
        return self.part == "test"

    def init(self, ctx: Context) -> Measured:
        if self.part == "validation" and not ctx.data.held_out:
            raise UserError(
                f"{ctx.key}: there are no validation images: data.validation is 0 (`part: test` uses the test images)"
            )
        return Measured()

    def before_epoch(self, ctx: Context, memory: Measured) -> None:
        known = dict(ctx.data.validation) if self.part == "validation" else {}
        memory.before = known or dict(ctx.data.evaluate(self.part))
        memory.masks = _in_force(ctx)

    def on_epoch_begin(self, ctx: Context, memory: Measured) -> None:
        masks, memory.masks = memory.masks, {}
        if not _newly_masked(masks, _in_force(ctx)):
            return
        before, after = memory.before["top1"], ctx.data.evaluate(self.part)["top1"]
        instability = (before - after) / before if before else 0.0
        epoch = ctx.clock.epoch
        memory.events.append({"epoch": epoch, "before": before, "after": after, "instability": instability})

    def figures(self, ctx: Context, memory: Measured) -> dict[str, float]:
        events = memory.events
        if not events:
            return {}
        mean = sum(event["instability"] for event in events) / len(events)
        found: dict[str, float] = {
            "events": len(events),
            "effective": sum(event["instability"] != 0 for event in events),
        }
        if events[-1]["epoch"] == ctx.clock.epoch:
            found |= {name: events[-1][name] for name in ("before", "after", "instability")}
        return {**found, "mean_instability": mean, "stability": 100 * (1 - mean)}


def _in_force(ctx: Context) -> dict[str, Tensor]:
    masks = {name: ctx.masks.keep(name) for name in ctx.parameters}
    return {name: mask for name, mask in masks.items() if mask is not None}


def _newly_masked(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    """Return whether an entry is masked that was not."""
    every = {name: before.get(name, torch.ones_like(mask)) for name, mask in after.items()}
    return any(bool((every[name] & ~mask).any()) for name, mask in after.items())
