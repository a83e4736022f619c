"""A thinned network as data: described, cut to size from a dense one, loaded; what does not fit is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.errors import UserError
from compressor.thinning.architecture import describe, resize


class Little(nn.Module):
    """One layer of each kind that is described; the numbers of channels are arguments."""

    def __init__(self, a: int = 6, g: int = 4, groups: int = 2, t: int = 5) -> None:
        super().__init__()
        self.a, self.bn, self.p = Conv2d(1, a, 3), BatchNorm2d(a), nn.PReLU(a)
        self.d, self.g = Conv2d(a, a, 2, groups=a, bias=False), Conv2d(a, g, 1, groups=groups)
        self.t, self.norm, self.fc = nn.ConvTranspose2d(g, t, 2), nn.GroupNorm(1, 2), Linear(t, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.t(F.relu(self.g(self.d(self.p(self.bn(self.a(x)))))))
        out: Tensor = self.fc(F.relu(y).mean((2, 3)))
        return out


THIN: dict[str, dict[str, int]] = {
    "a": {"in_channels": 1, "out_channels": 3, "groups": 1},
    "bn": {"num_features": 3},
    "p": {"num_parameters": 3},
    "d": {"in_channels": 3, "out_channels": 3, "groups": 3},
    "g": {"in_channels": 3, "out_channels": 2, "groups": 1},
    "t": {"in_channels": 2, "out_channels": 4, "groups": 1},
    "norm": {"num_channels": 2, "num_groups": 1},
    "fc": {"in_features": 4, "out_features": 3},
}


def test_the_layers_that_count_channels_say_so() -> None:
    assert describe(Little(3, 2, 1, 4)) == THIN
    assert json.loads(json.dumps(describe(Little()))) == describe(Little())


def test_a_dense_network_takes_the_sizes_and_the_weights_of_a_thinned_one() -> None:
    thin, dense = Little(3, 2, 1, 4), Little()
    nn.init.uniform_(thin.bn.running_mean)
    before = list(dense.parameters())
    resize(dense, THIN, "f.pt")
    assert describe(dense) == THIN
    assert all(one is other for one, other in zip(before, dense.parameters(), strict=True))
    assert not dense.a.weight.any()
    dense.load_state_dict(thin.state_dict())
    image = torch.randn(2, 1, 6, 6)
    with torch.no_grad():
        assert torch.equal(dense.eval()(image), thin.eval()(image))


def test_what_keeps_its_shape_keeps_its_values() -> None:
    dense = Little()
    old = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    resize(dense, describe(dense), "f.pt")
    resize(dense, {}, "f.pt")
    assert all(torch.equal(tensor, old[name]) for name, tensor in dense.state_dict().items())
    resize(dense, {"fc": {"in_features": 4, "out_features": 3}}, "f.pt")
    assert torch.equal(dense.fc.bias, old["fc.bias"])


def test_channels_last_stays_channels_last() -> None:
    dense = Little().to(memory_format=torch.channels_last)
    resize(dense, THIN, "f.pt")
    assert dense.t.weight.is_contiguous(memory_format=torch.channels_last)


def changed(path: str, **sizes: Any) -> dict[str, Any]:
    return {**THIN, path: {**THIN.get(path, {}), **sizes}}


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ([1, 2], "should be a table of layers"),
        (None, "should be a table of layers"),
        (changed("elsewhere", in_channels=1), "'elsewhere', this model does not"),
        (changed("norm", num_features=1), "'norm', this model does not"),
        (changed("fc", in_channels=1), "'fc', this model does not"),
        ({"fc": {"in_features": 4}}, "'fc', this model does not"),
        ({"fc": 4}, "'fc', this model does not"),
        (changed("a", out_channels=7), "in the dense model it has .*'out_channels': 6"),
        (changed("a", out_channels=0), "gives 'a'"),
        (changed("a", out_channels=-1), "gives 'a'"),
        (changed("a", out_channels=2.0), "gives 'a'"),
        (changed("a", out_channels="2"), "gives 'a'"),
        ({"g": {"in_channels": 5, "out_channels": 4, "groups": 2}}, "'g'"),
        ({"g": {"in_channels": 4, "out_channels": 3, "groups": 2}}, "'g'"),
    ],
)
def test_data_that_describe_something_else_are_refused(architecture: Any, why: str) -> None:
    with pytest.raises(UserError, match=f"^f.pt: .*{why}"):
        resize(Little(), architecture, "f.pt")


@pytest.mark.parametrize("build", [lambda: nn.Sequential(nn.Linear(4, 4)), Little])
def test_an_architecture_is_plain_data(build: Callable[[], nn.Module]) -> None:
    assert all(type(n) is int for sizes in describe(build()).values() for n in sizes.values())
