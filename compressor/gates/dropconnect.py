"""DropConnect: Wan, Zeiler, Zhang, LeCun and Fergus, ICML 2013."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from compressor.component import Selects, Targets
from compressor.context import View
from compressor.errors import UserError
from compressor.gates.gate import Gate, Installed, Site
from compressor.sparsity import expected_relu

Activation = Literal["relu", "tanh", "sigmoid", "none"]

MOST_MASKS = 2**28
"""The largest number of mask entries of one forward pass of a layer; each takes a byte until the backward pass."""

AT_ONCE = 2**22
"""The number of values that are computed at a time."""

TINY = 1e-30
"""The smallest variance: the slope of the square root at 0 is infinite."""

SEED = 2013
"""The seed of the draws at inference: the same in every evaluation, and independent of training."""


class DropConnect(Gate, name="DropConnect"):
    """Drop each weight and bias of a linear layer with probability 1 - p, new for each example (Wan).

    Training: u = (M * W) v + M_b * b, M ~ Bernoulli(p), without 1/p: exactly (`per_example`), or with its first two
    moments (`local`): u ~ N(pWv + pb, p(1-p) ((W*W)(v*v) + b*b)) for each example and unit. In the run's evaluations
    the layer returns the mean of a(u) over Z draws of that distribution, or its closed form; the shipped network has
    the mean weights pW, pb.
    """

    example: ClassVar[str] = """
    version: 2
    gates:
      drop: {class: DropConnect, modules: [fc1], keep: 0.5, inference: analytic, activation: relu}
    policies:
      - {gate: {instance_name: drop}}
    """

    modules: Annotated[str | list[str], Selects(("Linear",))] = Field(
        description="linear layers: a name, a glob or '*', or a list of them"
    )
    keep: float = Field(default=0.5, gt=0, le=1, description="p, the probability that a weight stays")
    sampling: Literal["local", "per_example"] = Field(
        default="local",
        description="local: draw each output (exact mean and variance); per_example: own masks for each example",
    )
    inference: Literal["gaussian", "analytic", "mean"] = Field(
        default="gaussian",
        description="gaussian: a(u) averaged over draws; analytic: closed form (relu, none); mean: a(pWv), as shipped",
    )
    samples: int = Field(
        default=1000, ge=1, description="Z, the number of draws that `inference: gaussian` averages for each image"
    )
    activation: Activation = Field(
        default="relu", description="a, the activation that the network applies to the layer's outputs"
    )

    @model_validator(mode="after")
    def _closed_form(self) -> Self:
        if self.inference == "analytic" and self.activation in ("tanh", "sigmoid"):
            raise ValueError(
                f"`inference: analytic` has a closed form for relu and none, not for {self.activation}: use gaussian"
            )
        if self.inference != "gaussian" and "samples" in self.model_fields_set:
            raise ValueError(f"`samples` are drawn by `inference: gaussian`, not by {self.inference}")
        return self

    def check(self, view: View) -> list[str]:
        layers = {path: view.modules[path] for path in view.targets["modules"]} if view.opens else {}
        lines = []
        for call in () if view.trace is None else view.trace.modules:
            layer = layers.get(call.path)
            if isinstance(layer, nn.Linear) and len(call.shapes[0]) != 2:
                lines.append(_not_flat(call.path, ("N", *call.shapes[0][1:-1], layer.in_features)))
        if self.sampling == "per_example" and view.examples is not None:
            sizes = {path: layer.weight.numel() for path, layer in layers.items() if isinstance(layer, nn.Linear)}
            lines += [_too_many(path, view.examples, n) for path, n in sizes.items() if view.examples * n > MOST_MASKS]
        return lines

    def gated(self, targets: Targets) -> list[str]:
        return [f"{path}.weight" if path else "weight" for path in targets["modules"]]

    def install(self, site: Site) -> "Dropping":
        return Dropping(self, site)


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which operations on a device have the precision of their tensors."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _not_flat(path: str, shape: Sequence[object]) -> str:
    """Return the message for a layer with inputs of this shape."""
    return f"DropConnect expects inputs of shape (examples, features), {path} gets {'x'.join(map(str, shape))}"


def _too_many(path: str, examples: int, weights: int) -> str:
    return (
        f"`sampling: per_example` draws {examples * weights:,} masks for {path} at once ({examples} examples x"
        f" {weights:,} weights), at most {MOST_MASKS:,} are drawn: use smaller batches (optimizer.accumulate), or"
        " `sampling: local`"
    )


class Dropping(Installed):
    """The installed DropConnect of a network."""

    def __init__(self, gate: DropConnect, site: Site) -> None:
        self._gate, self._site = gate, site
        self._layers: dict[str, nn.Linear] = {}
        for path in site.targets["modules"]:
            layer = site.model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            self._layers[path] = layer
        self._squares: dict[str, Tensor] = {}
        """W * W by layer, in memory that is used again at each step."""
        self._present: set[str] = set()
        """The layers whose squares are those of this step's weights."""

    def _replace(self, forward: Any) -> None:
        for path, layer in self._layers.items():
            layer.forward = partial(forward, path, layer)  # type: ignore[method-assign]

    def _restore(self) -> None:
        for layer in self._layers.values():
            vars(layer).pop("forward", None)

    def before_forward(self) -> None:
        self._present.clear()
        self._replace(self._train)

    def after_backward(self) -> None:
        self._restore()

    def _train(self, path: str, layer: nn.Linear, v: Tensor) -> Tensor:
        if v.dim() != 2:
            raise UserError(f"{self._site.owner}: {_not_flat(path, v.shape)}")
        if self._gate.sampling == "local":
            return drawn_linear(v, layer.weight, layer.bias, self._gate.keep, self._squared(path, layer.weight))
        if len(v) * layer.weight.numel() > MOST_MASKS:
            raise UserError(f"{self._site.owner}: {_too_many(path, len(v), layer.weight.numel())}")
        with _without_autocast(v.device):
            return masked_linear(v.to(layer.weight.dtype), layer.weight, layer.bias, self._gate.keep)

    @torch.no_grad()
    def _squared(self, path: str, weight: Tensor) -> Tensor:
        found = self._squares.get(path)
        if found is None or (found.shape, found.dtype, found.device) != (weight.shape, weight.dtype, weight.device):
            found = self._squares[path] = torch.empty_like(weight)
            self._present.discard(path)
        if path not in self._present:
            self._present.add(path)
            torch.square(weight, out=found)
        return found

    @property
    def ships(self) -> bool:
        return self._gate.inference == "mean" or self._gate.activation == "none"

    def inference(self) -> AbstractContextManager[None] | None:
        """Return a context in which the folded network is evaluated in another way; None where it is the plain
        network.
        """
        # Without an activation the mean of all draws is the mean network's answer.
        return None if self.ships else self._inferring()

    @contextmanager
    def _inferring(self) -> Iterator[None]:
        generators: dict[torch.device, torch.Generator] = {}

        def forward(path: str, layer: nn.Linear, v: Tensor) -> Tensor:
            if v.device not in generators:
                generators[v.device] = torch.Generator(v.device).manual_seed(SEED)
            # Of the folded weights F = pW the mean is Fv, and the variance (1-p)/p (F*F)(v*v).
            mean, squares = sums(v, layer.weight, layer.bias)
            variance = (1 - self._gate.keep) / self._gate.keep * squares.float()
            samples = self._gate.samples if self._gate.inference == "gaussian" else None
            return answer(mean.float(), variance, self._gate.activation, samples, generators[v.device])

        self._replace(forward)
        try:
            yield
        finally:
            self._restore()

    @torch.no_grad()
    def fold(self) -> dict[str, Tensor]:
        mine = {id(parameter) for layer in self._layers.values() for parameter in layer.parameters(recurse=False)}
        chosen = {name: parameter for name, parameter in self._site.parameters.items() if id(parameter) in mine}
        return {name: parameter.detach() * self._gate.keep for name, parameter in chosen.items()}


def sums(v: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return Wv + b and (W*W)(v*v) + b*b: times p the mean of the masked sum, and times p(1-p) its variance."""
    return F.linear(v, weight, bias), F.linear(v.square(), weight.square(), None if bias is None else bias.square())


def drawn_linear(v: Tensor, weight: Tensor, bias: Tensor | None, p: float, of_weight: Tensor) -> Tensor:
    """Return one normal draw of (M * W) v + M_b * b for each example and unit, by its mean and variance; `of_weight`:
    W * W.
    """
    if torch.amp.is_autocast_available(v.device.type) and torch.is_autocast_enabled(v.device.type):
        mean, squares = sums(v, weight, bias)
        return p * mean + (p * (1 - p) * squares).clamp_min(TINY).sqrt() * torch.randn_like(mean)
    u: Tensor = _DrawnLinear.apply(v, weight, bias, p, of_weight)
    return u


class _DrawnLinear(torch.autograd.Function):
    """Compute u = p m + s e, s = sqrt(max(p (1 - p) q, TINY)), e ~ N(0, 1), m = Wv + b and q = (W*W)(v*v) + b*b.

    The arithmetic is autograd's, in its order, with fewer temporaries. dL/dq = h = g e p (1 - p) / (2 s), so
    dW = p g v' + 2 W * (h (v*v)'), and dv and db likewise.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, bias: Tensor | None, p: float, of_weight: Tensor) -> Tensor:
        of_v = v.square()
        u = F.linear(v, weight, bias).mul_(p)
        variance = F.linear(of_v, of_weight, None if bias is None else bias.square()).mul_(p * (1 - p))
        deviation = variance.clamp_min(TINY).sqrt_()
        normal = torch.randn_like(deviation)
        ctx.p = p
        ctx.save_for_backward(v, weight, bias, of_v, of_weight, variance, deviation, normal)
        return u.add_(deviation * normal)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        v, weight, bias, of_v, of_weight, variance, deviation, normal = ctx.saved_tensors
        by_v = by_weight = by_bias = None
        h = (g * normal).div_(2 * deviation)
        # Below TINY the deviation is constant. The factor 2 of the derivative of a square is exact anywhere.
        h = torch.ops.aten.threshold_backward(h, variance, _below(TINY, variance.dtype)).mul_(2 * ctx.p * (1 - ctx.p))
        g = g * ctx.p
        if ctx.needs_input_grad[0]:
            by_v = (h @ of_weight).mul_(v).add_(g @ weight)
        if ctx.needs_input_grad[1]:
            by_weight = (h.T @ of_v).mul_(weight).add_(g.T @ v)
        if ctx.needs_input_grad[2]:
            by_bias = h.sum(0).mul_(bias).add_(g.sum(0))
        return by_v, by_weight, by_bias, None, None


@cache
def _below(number: float, dtype: torch.dtype) -> float:
    """Return the largest number of that kind below `number`."""
    return float(torch.nextafter(torch.tensor(number, dtype=dtype), torch.tensor(0.0, dtype=dtype)))


class _MaskedLinear(torch.autograd.Function):
    """Compute u_b = (M_b * W) v_b with own masks M_b of each example; dW = sum of M_b * (g_b v_b'), dv_b = (M_b *
    W)' g_b.

    Autograd alone would keep M_b * W, too: five bytes for each mask entry instead of one.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, p: float) -> Tensor:
        parts = torch.split(v, max(AT_ONCE // weight.numel(), 1))
        masks = [torch.rand(len(part), *weight.shape, device=v.device) < p for part in parts]
        ctx.save_for_backward(v, weight, *masks)
        return torch.cat([_times(mask * weight, part) for mask, part in zip(masks, parts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        v, weight, *masks = ctx.saved_tensors
        by_v, by_weight, begin = [], torch.zeros_like(weight), 0
        for mask in masks:
            part = slice(begin, begin := begin + len(mask))
            g = gradients[0][part]
            by_v.append(_times((mask * weight).mT, g))
            by_weight += (mask * (g[:, :, None] * v[part, None, :])).sum(0)
        return torch.cat(by_v), by_weight, None


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return torch.bmm(matrices, vectors[:, :, None])[:, :, 0]


def masked_linear(v: Tensor, weight: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """Return (M * W) v + M_b * b, each weight and bias kept with probability p, independently for each example."""
    u: Tensor = _MaskedLinear.apply(v, weight, p)
    return u if bias is None else u + bias * (torch.rand_like(u) < p)


def answer(
    mean: Tensor, variance: Tensor, activation: Activation, samples: int | None, generator: torch.Generator
) -> Tensor:
    """Return the value that the network's own activation maps to the mean of a(u), u ~ N(mean, variance).

    The mean is over `samples` draws; without, in closed form.
    """
    deviation = variance.clamp_min(TINY).sqrt()
    if samples is None:
        return expected_relu(mean, deviation)
    total, left = torch.zeros_like(mean), samples
    while left:
        count = min(left, max(AT_ONCE // max(mean.numel(), 1), 1))
        normal = torch.randn(count, *mean.shape, device=mean.device, generator=generator)
        total += _ACTIVATIONS[activation](mean + deviation * normal).sum(0)
        left -= count
    average: Tensor = total / samples
    if activation == "relu":
        return average
    # Just inside the open interval: the activation is to be applied to a finite number.
    eps = torch.finfo(average.dtype).eps
    return torch.atanh(average.clamp(eps - 1, 1 - eps)) if activation == "tanh" else torch.logit(average, eps)


_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
