"""L0 regularization through hard concrete gates: Louizos, Welling and Kingma, ICLR 2018 (arXiv 1712.01312)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.component import Targets
from compressor.component import Weights as Selection
from compressor.gates.gate import Gate, Installed, Place, Site
from compressor.gates.hard_concrete import CLAMP, HardConcrete
from compressor.sparsity import copied, map_pieces, new_like, pieces, squares
from compressor.sparsity.structures import Structure, plain_structures
from compressor.tracing import positions, trace


class HardConcreteL0(Gate, name="HardConcreteL0"):
    """Penalize lambda times the expected number of weights, by gates on weights, input neurons or filters (Louizos).

    The loss is E(data loss) + 1/N sum P(z != 0) (lambda |g| + N l2 / 2 ||theta_g||^2) over the groups g of one gate, N
    training images: the paper's lambda, as `0.1/N`. A gate on a filter that a batch norm follows acts after it, on
    gamma and beta. Filters that an addition joins with those of other layers are not gated.
    """

    example: ClassVar[str] = """
    version: 2
    gates:
      l0: {class: HardConcreteL0, weights: [conv1.weight], structure: Filters, lambda: 0.1, lr: 0.01}
    policies:
      - {gate: {instance_name: l0}}
    """
    makes_zeros: ClassVar[bool] = True
    counts_images: ClassVar[bool] = True

    weights: Selection = Field(
        description="weights that are gated: a name, a glob, re:EXPRESSION, type:CLASS or '*', or a list of them"
    )
    structure: Literal["Elements", "Cols", "Filters"] = Field(
        default="Elements",
        description="what one gate acts on: a single weight, an input neuron (Cols) or an output channel (Filters)",
    )
    lambda_: float = Field(
        alias="lambda",
        ge=0,
        description="strength of the penalty, the paper's lambda for each weight; it is divided by N, the number of"
        " training images",
    )
    l2: float = Field(
        default=0.0,
        ge=0,
        description="c of the L2 penalty c/2 w^2 on the gated weights, in place of the optimizer's weight decay;"
        " default 0: none",
    )
    droprate_init: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="d, the probability that a gate is closed at first: log_alpha starts at ln((1 - d) / d)",
    )
    lr: float | None = Field(default=None, gt=0, description="learning rate of the gates; default: the optimizer's")
    beta: float = Field(
        default=2 / 3, gt=0, description="temperature of the hard concrete distribution; small: gates are nearly 0 or 1"
    )
    gamma: float = Field(
        default=-0.1,
        lt=0,
        description="lower end to which the distribution is stretched, below 0, so that gates can be exactly 0",
    )
    zeta: float = Field(
        default=1.1,
        gt=1,
        description="upper end to which the distribution is stretched, above 1, so that gates can be exactly 1",
    )

    @property
    def whole_filters(self) -> bool:
        return self.structure == "Filters"

    def misfits(self, targets: Targets, model: nn.Module) -> list[str]:
        structure = plain_structures()[self.structure]
        found = [(name, structure.misfit(model.get_parameter(name).shape)) for name in targets["weights"]]
        return [f"{name}: {why}" for name, why in found if why is not None]

    def install(self, site: Site) -> "Gates":
        return Gates(self, site)


@dataclass
class _Gated:
    """The gates of one weight: the places where they act, and their draw in this step."""

    theta: nn.Parameter
    log_alpha: nn.Parameter
    size: int
    name: str
    places: tuple[Place, ...]
    z: Tensor = field(default_factory=lambda: torch.empty(0))
    aside: list[Tensor] = field(default_factory=list)


class Gates(Installed):
    """The installed L0 gates of a network."""

    def __init__(self, gate: HardConcreteL0, site: Site) -> None:
        self._gate, self._site = gate, site
        self._law = HardConcrete(gate.beta, gate.gamma, gate.zeta)
        self._structure: Structure = plain_structures()[gate.structure]
        self._gated: dict[str, _Gated] = {}
        location = math.log((1 - gate.droprate_init) / gate.droprate_init)
        for name in site.targets["weights"]:
            theta = site.parameters[name]
            whole = self._turned(name, theta).shape
            shape = self._structure.index_shape(whole)
            stream = site.stream(theta.device)
            draws = torch.randn(shape, device=theta.device, dtype=theta.dtype, generator=stream)
            log_alpha = nn.Parameter(location + 0.01 * draws)
            places = tuple(place.to(theta.device) for place in site.behind(name)) if gate.whole_filters else ()
            self._gated[name] = _Gated(theta, log_alpha, self._structure.size(whole), name, places)
            site.average(f"{site.owner}/{name}", log_alpha.detach())
        self.undecayed = [one.theta for one in self._gated.values()]
        site.regroup(self.undecayed)
        rate = {} if gate.lr is None else {"lr": gate.lr}
        site.regroup([one.log_alpha for one in self._gated.values()], weight_decay=0.0, **rate)

    def _turned(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor in a parameter's shape with its outputs first, or back; single weights have no sides."""
        return tensor if self._structure.single else self._site.outputs_first(name, tensor)

    def _expand(self, one: _Gated, gates: Tensor) -> Tensor:
        """Return one value for each entry of a weight from one for each gate."""
        return self._turned(one.name, self._structure.expand(gates, self._turned(one.name, one.theta).shape))

    def _sums(self, one: _Gated, values: Tensor) -> Tensor:
        """Return the sum over the entries of each gate."""
        return self._structure.sums(self._turned(one.name, values))

    def _parts(self, one: _Gated, z: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Yield every parameter on which the gates act, with its factor."""
        if not one.places:
            return [(one.theta, self._expand(one, z))]
        parts = []
        for place in one.places:
            parameter = self._site.parameters[place.name]
            shape = self._turned(place.name, parameter).shape
            factor = torch.ones(shape[0], dtype=z.dtype, device=z.device)
            factor[place.places] = z[place.filters]
            wide = factor.reshape((-1,) + (1,) * (parameter.dim() - 1))
            if place.name == one.name:
                wide = self._turned(place.name, wide.expand(shape))
            parts.append((parameter, wide))
        return parts

    @torch.no_grad()
    def before_forward(self) -> None:
        for one in self._gated.values():
            one.z = self._law.sample(one.log_alpha.detach(), self._site.stream(one.log_alpha.device))
            one.aside = []
            for parameter, factor in self._parts(one, one.z):
                one.aside.append(copied(parameter))
                parameter.mul_(factor)

    @torch.no_grad()
    def after_backward(self) -> None:
        for one in reversed(self._gated.values()):
            if not one.aside:  # an error came before its forward pass
                continue
            by_gate = new_like(one.z).zero_()
            parts = list(zip(self._parts(one, one.z), one.aside, strict=False))
            for number, ((parameter, factor), aside) in reversed(list(enumerate(parts))):
                parameter.copy_(aside)
                if parameter.grad is None:
                    continue
                product = map_pieces(torch.mul, parameter.grad, aside)
                by_gate += self._to_gates(one, number, product)
                parameter.grad.mul_(factor)
            for sums, z in pieces(by_gate, one.z):
                sums.mul_(self._law.slope(z))
            one.log_alpha.grad = by_gate
            one.aside = []

    def _to_gates(self, one: _Gated, number: int, product: Tensor) -> Tensor:
        """Return dL/dz: the sum of gradient x weight over the entries of each gate."""
        if not one.places:
            return self._sums(one, product)
        place = one.places[number]
        total = torch.zeros_like(one.z)
        rows = self._turned(place.name, product).flatten(1).sum(1) if product.dim() > 1 else product
        return total.index_add_(0, place.filters, rows[place.places])

    @torch.no_grad()
    def penalty_gradients(self) -> None:
        gate = self._gate
        for one in self._gated.values():
            active = map_pieces(self._law.active, one.log_alpha.detach())
            price = new_like(active).fill_(gate.lambda_ * one.size / self._site.images)
            if gate.l2 and one.theta.grad is not None:
                spread = self._expand(one, active)
                one.theta.grad.addcmul_(one.theta.detach(), spread, value=gate.l2)
                price += self._sums(one, squares(one.theta)).mul_(gate.l2 / 2)
            if one.log_alpha.grad is not None:
                for slope, p, cost in pieces(one.log_alpha.grad, active, price):
                    slope += p * (1 - p) * cost

    @torch.no_grad()
    def after_step(self) -> None:
        for one in self._gated.values():
            one.log_alpha.clamp_(-CLAMP, CLAMP)

    @torch.no_grad()
    def fold(self) -> dict[str, Tensor]:
        names = {id(parameter): name for name, parameter in self._site.parameters.items()}
        folded: dict[str, Tensor] = {}
        for name, one in self._gated.items():
            z = self._law.final(one.log_alpha)
            for parameter, factor in self._parts(one, z):
                own = names[id(parameter)]
                folded[own] = folded.get(own, parameter.detach()) * factor
            if name not in folded:  # the gate is after a batch norm: what it closes is as good as zero
                folded[name] = one.theta.detach() * self._expand(one, z > 0)
        return {name: value + 0.0 for name, value in folded.items()}  # no -0.0

    @torch.no_grad()
    def keeps(self) -> dict[str, Tensor]:
        names = {id(parameter): name for name, parameter in self._site.parameters.items()}
        found: dict[str, Tensor] = {}
        for one in self._gated.values():
            stays = (self._law.final(one.log_alpha) > 0).to(one.log_alpha.dtype)
            parts = [*self._parts(one, stays), (one.theta, self._expand(one, stays))]
            for parameter, factor in parts:
                own = names[id(parameter)]
                keep = (factor > 0).expand(parameter.shape)
                found[own] = found[own] & keep if own in found else keep
        return found

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        gate, total = self._gate, 0.0
        for one in self._gated.values():
            active = self._law.active(one.log_alpha)
            total += gate.lambda_ * one.size / self._site.images * float(active.sum())
            if gate.l2:
                sums = self._sums(one, squares(one.theta))
                total += gate.l2 / 2 * float((active * sums).sum())
        return {self._site.owner.partition(".")[2]: total}

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        expected = final = 0.0
        open_gates: dict[str, float] = {}
        for name, one in self._gated.items():
            active = float(self._law.active(one.log_alpha).sum())
            shut = self._law.final(one.log_alpha) == 0
            found[f"{name} gates"] = shut.numel()
            found[f"{name} expected open"] = round(active, 3)
            found[f"{name} open"] = int((~shut).sum())
            open_gates[name] = active
            expected += active * one.size
            final += int((~shut).sum()) * one.size
        return {
            "gated_weights": sum(one.theta.numel() for one in self._gated.values()),
            "expected_l0": round(expected, 1),
            "l0": final,
            "expected_flops": self._flops(open_gates),
            **found,
        }

    def _flops(self, open_gates: Mapping[str, float]) -> float:
        """Return the FLOPs of one image, as the authors count them: multiplications and additions of all layers.

        Linear: (2 E[in] - 1) out + out; convolution: E[out] (2 n - 1) positions + E[out] positions, n = k k in.
        """
        total = 0.0
        for name, calls in positions(trace(self._site.model, self._site.sample()[:1])).items():
            weight = self._site.parameters[name]
            outputs, inputs = float(len(weight)), float(weight[0].numel())
            if name in open_gates:
                if self._gate.structure == "Filters":
                    outputs = open_gates[name]
                elif self._gate.structure == "Cols":
                    inputs = open_gates[name]
                else:
                    inputs = open_gates[name] / outputs
            total += outputs * (2 * inputs - 1) * calls[-1] + outputs * calls[-1]
        return round(total, 1)

    def state(self) -> dict[str, Any]:
        return {"log_alpha": {name: one.log_alpha.detach() for name, one in self._gated.items()}}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        for name, one in self._gated.items():
            one.log_alpha.copy_(state["log_alpha"][name])
