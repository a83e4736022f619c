"""Layers whose weight is computed from other tensors in every forward pass.

A weight that is computed from all entries of a filter, or from the whole matrix, changes when an input is removed: what
such a layer reads stays. Where every entry is computed from itself, its channels go.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from zoo.blocks import Classifier, cbr
from zoo.entry import expect


class Computed(Classifier):
    """`b`, whose weight is computed, between two convolutions; it is not selected where it has no weight of its own."""

    def layers(self) -> None:
        self.a, self.computed, self.c = cbr(16, 16), self.make(nn.Conv2d(16, 24, 3, padding=1)), cbr(24, 16)

    def make(self, layer: nn.Conv2d) -> nn.Module:
        """Return the layer with a computed weight."""
        return layer

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(F.relu(self.computed(self.a(x))))
        return out


REFUSED = {"widths": {"stem": 8, "c": 8}, "stays": {"a": "computed"}}


@expect(**REFUSED)  # in make test
class WeightNorm(Computed):
    """g v/|v| with the norm of each filter."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return parametrizations.weight_norm(layer)


@expect(**REFUSED)
class WeightNormByHook(Computed):
    """The same as torch had it before."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return nn.utils.weight_norm(layer)


@expect(**REFUSED)
class SpectralNorm(Computed):
    """Divided by an estimate of the largest singular value."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return parametrizations.spectral_norm(layer)


@expect(**REFUSED)
class SpectralNormByHook(Computed):
    """The same as torch had it before."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return nn.utils.spectral_norm(layer)


@expect(widths={"stem": 8, "a": 8, "c": 8})
class PrunedByTorch(Computed):
    """torch.nn.utils.prune: weight_orig times a mask, entry by entry."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return prune.random_unstructured(layer, "weight", 0.3)


@expect(widths={"stem": 8, "a": 8, "computed": 12, "c": 8})
class FiltersPrunedByTorch(Computed):
    """Half of the filters are masked by torch: they are zero as those that we prune."""

    def layers(self) -> None:
        super().layers()
        self.computed = prune.ln_structured(nn.Conv2d(16, 24, 3, bias=False), "weight", 0.5, n=1, dim=0)


class Standardized(nn.Conv2d):
    """Weight standardization (Qiao et al. 2019)."""

    def computed(self) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return centred * torch.rsqrt(centred.square().mean((1, 2, 3), keepdim=True) + 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.computed(), self.bias, self.stride, self.padding)


class StandardizedAsInTimm(Standardized):
    """By a batch norm of the filters, as timm has it."""

    def computed(self) -> Tensor:
        filters = self.weight.reshape(1, len(self.weight), -1)
        return F.batch_norm(filters, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)


@expect(widths={"stem": 8, "computed": 12, "c": 8}, stays={"a": "computed"})
class WeightStandardization(Computed):
    """A filter of zeros stays one, so that the outputs go; what the filters read is counted in their mean."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return Standardized(16, 24, 3, padding=1)


@expect(widths={"stem": 8, "computed": 12, "c": 8}, stays={"a": "computed"})
class WeightStandardizationAsInTimm(Computed):
    """ResNetV2 (BiT) and NFNet of timm."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return StandardizedAsInTimm(16, 24, 3, padding=1)


class Scaled(nn.Conv2d):
    """A weight times a learned scale."""

    def __init__(self, *shape: int) -> None:
        super().__init__(16, 24, 3, padding=1)
        self.scale = nn.Parameter(torch.full(shape, 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


@expect(widths={"stem": 8, "a": 8, "computed": 12, "c": 8})
class ScaledWeight(Computed):
    """One scale."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return Scaled(1)


@expect(widths={"stem": 8, "a": 8, "computed": 12, "c": 8})
class ScaledFilters(Computed):
    """A scale for each filter."""

    def make(self, layer: nn.Conv2d) -> nn.Module:
        return Scaled(24, 1, 1, 1)


class Symmetric(nn.Module):
    """The upper triangle of a matrix, on both sides of its diagonal."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


@expect(widths={"stem": 8, "c": 8}, stays={"a": "computed"})
class TiedParametrization(Classifier):
    """A symmetric matrix: an entry of it is the weight of two connections."""

    def layers(self) -> None:
        self.a, self.computed, self.c = cbr(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        parametrize.register_parametrization(self.computed, "weight", Symmetric())

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.c(F.relu(self.computed(self.a(x).mean((2, 3))))))[..., None]
