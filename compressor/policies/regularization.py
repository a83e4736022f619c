"""The gradient of a penalty, added at every step of a window."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import Targets
from compressor.context import steps_by_entry
from compressor.masking import check_classes, check_removable, companions
from compressor.policies.policy import DERIVED, Context, Finding, Memory, Policy, Prediction, View, refuse
from compressor.regularizers import Regularizer
from compressor.sparsity import Slices, any_of_rows, nonzero
from compressor.thinning import ChannelGraph
from compressor.timing import Clock

OF_ADAM = (
    "no proximal step: Adam has a step size for each single weight, and for groups of them there is no closed form."
    " Remove `proximal` (a threshold makes zeros, too), or set optimizer.name: sgd"
)

OF_COMPUTED = (
    "no proximal step and no threshold: a gate computes its values after each step. Remove `proximal` and `threshold`,"
    " or leave it out, or use windows that do not overlap"
)


@dataclass
class Pruned(Memory):
    """The filters that a threshold has set to zero (true = zero), and the keep masks of their companions, as of the
    channel graph at that time.
    """

    filters: dict[str, Tensor] = field(default_factory=dict, metadata=DERIVED)
    companions: dict[str, Tensor] = field(default_factory=dict, metadata=DERIVED)
    graph: ChannelGraph | None = field(default=None, metadata=DERIVED)


class RegularizationPolicy(Policy, name="regularizer"):
    """Add a penalty on weights in the window."""

    component: ClassVar[str | None] = "regularizers"

    regularizer: Regularizer = Field(description="the penalty: a component of `regularizers`")
    keep_mask: bool = Field(
        default=False,
        description="true: mask the zeros that a threshold or proximal step has made at the end of the window",
    )

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        if arguments.get("keep_mask") is not True or arguments["regularizer"].makes_zeros:
            return arguments, None
        said = "warning: `keep_mask: true` has no meaning here, it is ignored: this regularizer makes no zeros"
        return {key: value for key, value in arguments.items() if key != "keep_mask"}, said

    @model_validator(mode="after")
    def _something_to_keep(self) -> Self:
        if self.keep_mask and not self.regularizer.makes_zeros:
            raise ValueError("`keep_mask: true`, but this regularizer makes no zeros (threshold, proximal)")
        return self

    def check(self, view: View) -> list[Finding]:
        lines = self.regularizer.misfits(view.targets, view.shapes)
        cuts = self.regularizer.structures(view.targets)
        found = [Finding("error", line) for line in lines]
        if self.regularizer.needs_one_step_size and steps_by_entry(view.groups):
            found.append(Finding("error", OF_ADAM, "proximal"))
        if self.regularizer.makes_zeros:
            found += [Finding("error", f"{name}: {OF_COMPUTED}", "reg_regims") for name in _computed(view)]
        if self.regularizer.makes_zeros and not lines:
            found += [*check_classes(view, cuts), *check_removable(view, cuts)]
        return found

    def whole_slices(self, view: View) -> list[Slices]:
        cuts = self.regularizer.structures(view.targets) if self.regularizer.makes_zeros else {}
        return [(name, cut.dim) for name, own in cuts.items() for cut in own if cut.dim is not None]

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        if not self.regularizer.makes_zeros or time < self.window.first:
            return Prediction()
        names = [name for selected in view.targets.values() for name in selected]
        return Prediction(unknown=dict.fromkeys(names, "a threshold or proximal step depends on the values"))

    def init(self, ctx: Context) -> Pruned:
        refuse(ctx, self.regularizer.misfits(ctx.targets, {**ctx.network.shapes(), **ctx.network.dense}))
        if self.regularizer.takes_proximal_steps and not ctx.optimizer.has_proximal_step:
            kind = type(ctx.optimizer.optimizer).__name__
            refuse(ctx, [f"no proximal step: its size is known for SGD, Adam and AdamW, not for {kind}"])
        if self.regularizer.needs_one_step_size and steps_by_entry(ctx.optimizer.groups):
            refuse(ctx, [OF_ADAM])
        return Pruned()

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        with self._weights(ctx) as weights:
            self.regularizer.add_gradient(weights, ctx.targets)

    @contextmanager
    def _weights(self, ctx: Context) -> Iterator[Mapping[str, Tensor]]:
        """Yield the parameters, those that are divided into groups with their outputs first; what is done in place to
        them and their gradients is done to the parameters.
        """
        turn, weights = ctx.network.outputs_first, dict[str, Tensor](ctx.parameters)
        mine = [name for name in self.regularizer.structures(ctx.targets) if name in ctx.network.turned]
        for name in mine:
            weights[name], gradient = turn(name, ctx.parameters[name].detach()), ctx.parameters[name].grad
            weights[name].grad = None if gradient is None else turn(name, gradient)
        yield weights
        for name in mine:  # with groups they are copies
            parameter, after = ctx.parameters[name], weights[name].grad
            parameter.detach().copy_(turn(name, weights[name].detach()))
            if parameter.grad is not None and after is not None:
                parameter.grad.copy_(turn(name, after))

    def on_minibatch_end(self, ctx: Context, memory: Pruned) -> None:
        targets, unmoved, turned = ctx.targets, ctx.optimizer.unmoved, ctx.network.outputs_first
        if unmoved:
            targets = {key: _without(selected, unmoved) for key, selected in targets.items()}
        with self._weights(ctx) as weights:
            names = {id(weight): name for name, weight in weights.items()}

            def step(weight: Tensor) -> float | Tensor:
                name = names[id(weight)]
                size, same = ctx.optimizer.proximal_step(ctx.parameters[name]), weight is ctx.parameters[name]
                return size if same or not isinstance(size, Tensor) or not size.dim() else turned(name, size)

            self.regularizer.after_step(weights, targets, step)
        if self.regularizer.thresholds:
            self._prune_companions(ctx, memory, targets)

    @torch.no_grad()
    def _prune_companions(self, ctx: Context, memory: Pruned, targets: Targets) -> None:
        """Set to zero the companions of the filters that are zero; which they are is looked up where that changes."""
        filters = self._zero_filters(ctx, targets)
        graph = ctx.network.graph() if filters else None
        if graph is not memory.graph or not _equal(filters, memory.filters):
            memory.companions = companions(ctx, (), filters) if filters else {}
            memory.filters, memory.graph = filters, graph
        for name, keep in memory.companions.items():
            ctx.parameters[name].masked_fill_(~keep, 0.0)

    def _zero_filters(self, ctx: Context, targets: Targets) -> dict[str, Tensor]:
        """Return the filters that are zero (true = zero), of the weights that have some and whose whole filters, or
        layers, are groups; on the CPU, copied at once.
        """
        whole, zeros = {}, {}
        for name, structures in self.regularizer.structures(targets).items():
            outputs = [structure for structure in structures if structure.of_outputs]
            if outputs:
                whole[name] = any(structure.dim == 0 for structure in outputs)
                zeros[name] = ~any_of_rows(ctx.network.outputs_first(name, ctx.parameters[name].detach()))
        if not zeros:
            return {}
        read = torch.split(torch.cat(list(zeros.values())).cpu(), [len(zero) for zero in zeros.values()])
        found = {name: zero for name, zero in zip(zeros, read, strict=True) if whole[name] or bool(zero.all())}
        return {name: zero for name, zero in found.items() if bool(zero.any())}

    @torch.no_grad()
    def on_last_step(self, ctx: Context, memory: Pruned) -> None:
        if not self.keep_mask:
            return
        keeps = {name: nonzero(ctx.parameters[name]) for selected in ctx.targets.values() for name in selected}
        if filters := self._zero_filters(ctx, ctx.targets):
            for name, keep in companions(ctx, (), filters).items():
                keeps[name] = keep & keeps.get(name, keep)
        for name, keep in keeps.items():
            ctx.masks.set(ctx.key, name, keep)
        ctx.masks.apply()

    def settled(self, clock: Clock) -> int:
        return clock.epoch_of(self.window, self.window.last) if self.keep_mask else 0

    def losses(self, ctx: Context, memory: Memory) -> dict[str, float]:
        with self._weights(ctx) as weights:
            return {ctx.key.partition(".")[2]: self.regularizer.value(weights, ctx.targets)}


def _computed(view: View) -> list[str]:
    """Return the selected parameters whose values a gate computes while the policy acts, or may act."""
    mine, found = view.window, []
    for name in dict.fromkeys(name for selected in view.targets.values() for name in selected):
        gate = view.computed.get(name)
        if gate is None:
            continue
        first, end = gate.first, gate.end
        if gate.unit != mine.unit:
            if view.steps is None:  # checked again when it is known
                continue
            in_steps = gate.unit == "step"
            first = first // view.steps if in_steps else first * view.steps
            end = -(-end // view.steps) if in_steps else end * view.steps
        if mine.number(end - 1) > mine.number(first - 1):
            found.append(name)
    return found


def _equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def _without(selected: Any, names: set[str]) -> Any:
    """Return a list of names, or a mapping by name, without some of them."""
    if isinstance(selected, dict):
        return {name: value for name, value in selected.items() if name not in names}
    return [name for name in selected if name not in names]
