"""HashedNets: Chen, Wilson, Tyree, Weinberger and Chen, ICML 2015 (arXiv 1504.04788)."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.component import Targets
from compressor.component import Weights as Selection
from compressor.errors import did_you_mean
from compressor.gates.gate import Gate, Installed, Site
from compressor.sparsity import biases_of, copied, new_like
from compressor.splitmix import splitmix64


class HashedWeights(Gate, name="HashedWeights"):
    """Share K trained numbers, signed, among a linear layer's weights and biases, by two hashes (HashedNets, Chen).

    V_ij = xi(i, j) w[h(i, j)], the bias is V's last column, and dL/dw_k = sum of xi(i, j) dL/dV_ij over h(i, j) = k.
    Only w is trained; weight and bias are V at any time, and ordinary ones after the window. The gradient of a
    regularizer of the weight acts on w; proximal steps and thresholds are refused.
    """

    example: ClassVar[str] = """
    version: 2
    gates:
      hashed: {class: HashedWeights, weights: ['fc*.weight'], compression: 0.125}
    policies:
      - {gate: {instance_name: hashed}}
    """

    weights: Selection = Field(
        description="weights of linear layers, whose biases are hashed, too: a name, a glob, re:EXPRESSION,"
        " type:CLASS or '*', or a list of them"
    )
    compression: float = Field(
        gt=0,
        le=1,
        description="fraction of a layer's numbers that is stored: K = round(compression * (inputs + 1) * outputs)",
    )
    seed: int = Field(default=0, ge=0, description="seed of the hashes; each layer has its own hash, by its name")

    def misfits(self, targets: Targets, model: nn.Module) -> list[str]:
        known = _linear_layers(model)
        return [
            f"HashedWeights needs weights of linear layers, {name} is not one: {did_you_mean(name, known)}"
            for name in targets["weights"]
            if name not in known
        ]

    def computed(self, targets: Targets) -> list[str]:
        return [own for name in targets["weights"] for own in (name, *biases_of(name))]

    def install(self, site: Site) -> "Hashed":
        return Hashed(self, site)


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers by the name of their weight."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(m.weight)]: m for m in model.modules() if isinstance(m, nn.Linear)}


@dataclass
class _Layer:
    """The trained numbers of a layer, and by name the parameters that they replace, with their signed buckets."""

    hashed: nn.Parameter
    parts: dict[str, tuple[nn.Parameter, Tensor]]


class Hashed(Installed):
    """The installed hashed weights of a network."""

    def __init__(self, gate: HashedWeights, site: Site) -> None:
        self._site, self._begun = site, False
        names = {id(parameter): name for name, parameter in site.parameters.items()}
        linear = _linear_layers(site.model)
        self._layers: dict[str, _Layer] = {}
        for name in site.targets["weights"]:
            weight, bias = site.parameters[name], linear[name].bias
            outputs, inputs = weight.shape
            columns = inputs if bias is None else inputs + 1
            size = max(round(gate.compression * columns * outputs), 1)
            index = buckets(gate.seed, name, outputs, columns, size).to(weight.device)
            parts = {name: (weight, index[:, :inputs].flatten())}
            if bias is not None:
                parts[names[id(bias)]] = (site.parameters[names[id(bias)]], index[:, -1].clone())
            self._layers[name] = _Layer(nn.Parameter(weight.new_zeros(size)), parts)
        site.regroup([layer.hashed for layer in self._layers.values()])

    @torch.no_grad()
    def before_forward(self) -> None:
        if self._begun:
            return
        self._begun = True
        for layer in self._layers.values():
            self._draw(layer)
            self._expand(layer)
            # Their momentum is of other weights; from now on the optimizer knows the hashed numbers alone.
            self._site.forget([parameter for parameter, _ in layer.parts.values()])

    def _draw(self, layer: _Layer) -> None:
        """Set w_k = sum of xi V over the n_k weights that are not masked / sqrt(n_k).

        So V has the second moment of the layer's initialization, and is as near to a trained layer as possible.
        """
        size = len(layer.hashed)
        total, count = torch.zeros_like(layer.hashed), torch.zeros_like(layer.hashed)
        for name, (parameter, index) in layer.parts.items():
            total += pull_back(parameter, index, size)
            keep = self._masked(name, torch.ones_like(parameter))
            count.index_add_(0, index % size, keep.flatten())
        layer.hashed.copy_(total / count.clamp_min(1).sqrt())

    def _expand(self, layer: _Layer) -> None:
        for name, (parameter, index) in layer.parts.items():
            parameter.copy_(self._masked(name, expand(layer.hashed, index).view_as(parameter)))

    def _masked(self, name: str, value: Tensor) -> Tensor:
        keep = self._site.keep(name)
        return value if keep is None else copied(value).masked_fill_(~keep, 0.0)

    @torch.no_grad()
    def collect_gradients(self) -> None:
        # Not in `after_backward`: by now other gates on the weight have seen its gradient, and penalties are in it.
        for layer in self._layers.values():
            gradient = None
            for name, (parameter, index) in layer.parts.items():
                if parameter.grad is not None:
                    part = pull_back(self._masked(name, parameter.grad), index, len(layer.hashed))
                    gradient = part if gradient is None else gradient + part
                parameter.grad = None
            layer.hashed.grad = gradient

    @torch.no_grad()
    def after_step(self) -> None:
        for layer in self._layers.values():
            self._expand(layer)

    def gated(self) -> Collection[str]:
        return [name for layer in self._layers.values() for name in layer.parts]

    def figures(self) -> dict[str, float]:
        every = [layer.hashed for layer in self._layers.values()]
        virtual = sum(parameter.numel() for layer in self._layers.values() for parameter, _ in layer.parts.values())
        return {
            "stored_numbers": sum(hashed.numel() for hashed in every),
            "stored_bits": sum(hashed.numel() * hashed.element_size() * 8 for hashed in every),
            "virtual_weights": virtual,
        }

    def state(self) -> dict[str, Any]:
        return {"hashed": {name: one.hashed.detach() for name, one in self._layers.items()}, "begun": self._begun}

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        self._begun = state["begun"]
        for name, layer in self._layers.items():
            layer.hashed.copy_(state["hashed"][name])


def expand(hashed: Tensor, index: Tensor) -> Tensor:
    """Return V of K numbers: entry b of the index is w[b] where b < K, and -w[b - K] otherwise."""
    index, signed = index.flatten(), torch.cat([hashed, -hashed]).detach()
    return torch.index_select(signed, 0, index, out=new_like(index, hashed.dtype))


def pull_back(gradient: Tensor, index: Tensor, size: int) -> Tensor:
    """Return dL/dw of dL/dV: the signed sum over each of `size` buckets."""
    sums = gradient.new_zeros(2 * size).index_add_(0, index, gradient.flatten())
    return sums[:size] - sums[size:]


def buckets(seed: int, name: str, rows: int, columns: int, size: int) -> Tensor:
    """Return int64 (rows, columns): h(i, j) in 0 ... size - 1 where xi(i, j) is 1, and size + h(i, j) where it is -1.

    Entry (i, j) has number i * columns + j of a SplitMix64 stream that begins at a hash of seed and layer: its top bit
    is the sign, the others modulo `size` are the bucket. Only integers: the same on every platform.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")
    hashes = splitmix64(np.array([key], np.uint64), np.arange(rows * columns, dtype=np.uint64))
    bucket = (hashes & np.uint64(2**63 - 1)) % np.uint64(size)
    signed = bucket + np.uint64(size) * (hashes >> np.uint64(63))
    return torch.from_numpy(signed.astype(np.int64)).reshape(rows, columns)
