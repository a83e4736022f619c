"""Weights that a layer computes: what computes them, from what, and their values."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from compressor.sparsity import computed, in_use


class Square(nn.Module):
    """w^2: a parametrization of somebody's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.square()


def old_weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in many published networks
        nn.utils.weight_norm(layer)


def masked(layer: nn.Module) -> None:
    prune.custom_from_mask(layer, "weight", torch.arange(18).reshape(3, 2, 3) % 3 > 0)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def normed(g: Tensor, v: Tensor) -> np.ndarray:
    """g v / ||v||, the norm of each filter (Salimans and Kingma 2016, equation 2)."""
    length = np.sqrt((array(v) ** 2).sum((1, 2), keepdims=True))
    return array(g) * array(v) / length


def by_sigma(weight: Tensor, u: Tensor, v: Tensor) -> np.ndarray:
    """W / sigma, sigma = u^T W v (Miyato et al. 2018, equation 8)."""
    matrix = array(weight).reshape(3, 6)
    return (matrix / (array(u) @ matrix @ array(v))).reshape(3, 2, 3)


Layer = nn.Conv1d
FORMS: dict[str, tuple[Callable[[Layer], object], str, list[str], Callable[[Layer], np.ndarray]]] = {
    "old weight_norm": (
        old_weight_norm,
        "weight_norm",
        ["weight_g", "weight_v"],
        lambda layer: normed(layer.weight_g, layer.weight_v),
    ),
    "old spectral_norm": (
        nn.utils.spectral_norm,
        "spectral_norm",
        ["weight_orig"],
        lambda layer: by_sigma(layer.weight_orig, layer.weight_u, layer.weight_v),
    ),
    "weight_norm": (
        parametrizations.weight_norm,
        "WeightNorm",
        ["parametrizations.weight.original0", "parametrizations.weight.original1"],
        lambda layer: normed(layer.parametrizations.weight.original0, layer.parametrizations.weight.original1),
    ),
    "spectral_norm": (
        parametrizations.spectral_norm,
        "SpectralNorm",
        ["parametrizations.weight.original"],
        lambda layer: by_sigma(
            layer.parametrizations.weight.original,
            layer.parametrizations.weight[0]._u,
            layer.parametrizations.weight[0]._v,
        ),
    ),
    "torch's own pruning": (
        masked,
        "torch.nn.utils.prune",
        ["weight_orig"],
        lambda layer: array(layer.weight_orig) * (np.arange(18).reshape(3, 2, 3) % 3 > 0),
    ),
    "any parametrization": (
        lambda layer: parametrize.register_parametrization(layer, "weight", Square()),
        "Square",
        ["parametrizations.weight.original"],
        lambda layer: array(layer.parametrizations.weight.original) ** 2,
    ),
}
every_form = pytest.mark.parametrize(("change", "by", "sources", "expected"), FORMS.values(), ids=FORMS)


@every_form
@torch.no_grad()
def test_the_value_is_that_of_the_forward_pass_and_nothing_changes(
    change: Callable[[Layer], object], by: str, sources: list[str], expected: Callable[[Layer], np.ndarray]
) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 3, 3)).train()
    change(model[1])
    [one] = computed(model)
    assert (one.name, one.by, list(one.sources)) == ("1.weight", by, [f"1.{own}" for own in sources])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # A step of an optimizer changes what the weight is computed from; an old hook computes it at the next forward pass.
    for source in one.sources:
        model.get_parameter(source).mul_(1.5)
        before[source] *= 1.5
    found = in_use(model)
    assert found["1.weight"].detach().numpy() == pytest.approx(expected(model[1]), abs=1e-6)
    assert set(found) == {"0.weight", "0.bias", "1.bias", "1.weight", *(one.sources[:1] if len(sources) > 1 else [])}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_plain_network_computes_nothing_and_uses_its_parameters_themselves() -> None:
    model = nn.Sequential(nn.LSTM(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert computed(model) == []
    assert all(tensor is model.get_parameter(name) for name, tensor in in_use(model).items())
    assert list(in_use(model)) == [name for name, _ in model.named_parameters()]


def test_a_weight_that_is_no_parameter_is_computed_by_the_models_own_code() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    values = model[0].weight.detach()
    del model[0].weight
    model[0].register_buffer("weight", values)
    [one] = computed(model)
    assert (one.name, one.by, one.sources) == ("0.weight", "the model's own code", ())
    assert "make it a parameter" in one.reason


def test_a_recurrent_layer_under_weight_norm_and_a_pruned_bias_are_found() -> None:
    model = nn.Sequential(nn.LSTM(2, 3), nn.Linear(3, 2))
    parametrizations.weight_norm(model[0], "weight_hh_l0")
    prune.random_unstructured(model[1], "bias", 1)
    assert [one.name for one in computed(model)] == ["0.weight_hh_l0", "1.bias"]
