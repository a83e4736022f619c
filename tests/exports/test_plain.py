"""Weights that torch computes before each forward pass become parameters of a copy, with the same outputs."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from compressor.exports.plain import plain

X = torch.linspace(-1, 1, 12).reshape(3, 4)


def halved(layer: nn.Linear) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    return layer


COMPUTED: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of before": weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "spectral_norm of before": spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "torch's pruning": halved,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("computed", COMPUTED.values(), ids=COMPUTED)
@torch.no_grad()
def test_the_copy_has_plain_parameters_and_the_original_is_as_it_was(
    computed: Callable[[nn.Linear], nn.Module],
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(computed(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    network(X)  # spectral norm takes a step while it is trained
    expected = network.eval()(X)
    names = list(network.state_dict())
    network.train()
    made = plain(network)
    assert sorted(made.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert type(made[0]) is nn.Linear  # type: ignore[index]
    torch.testing.assert_close(made(X), expected)
    assert not made.training
    assert network.training
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network.eval()(X), expected)
