"""The inputs of each weight, by its name, whoever reads it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Conv2d, Linear
from torch.nn.utils import parametrizations, prune

from compressor.tracing import inputs_by_weight, probe
from compressor.tracing.image_dependence import inputs_of

SHAPE = (2, 4, 4)


class Net(nn.Module):
    """Layers, and what is done with them: `a` makes four channels of which the second is 0 and the third 0.5."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **own: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self._forward = forward
        self.a = Conv2d(2, 4, 1)
        for name, value in own.items():
            setattr(self, name, value)
        with torch.no_grad():
            self.a.weight[1:3] = 0
            self.a.bias[1:3] = torch.tensor([0.0, 0.5])
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, self.a(x))


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(*shape) + 0.1)


class Scaled(Conv2d):
    """A convolution that standardizes its weight, as those of ResNetV2 and NFNet do."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, weight, self.bias)


READERS: dict[str, tuple[Net, str]] = {
    "a layer": (Net(lambda n, x: n.b(x), b=Conv2d(4, 3, 1)), "b.weight"),
    "a layer, by keyword": (Net(lambda n, x: n.b(input=x), b=Conv2d(4, 3, 1)), "b.weight"),
    "transposed": (Net(lambda n, x: n.b(x), b=nn.ConvTranspose2d(4, 6, 2)), "b.weight"),
    "of groups": (Net(lambda n, x: n.b(x), b=Conv2d(4, 6, 1, groups=2)), "b.weight"),
    "a function": (Net(lambda n, x: F.conv2d(x, n.w), w=weight(3, 4, 1, 1)), "w"),
    "a function, of some filters": (Net(lambda n, x: F.conv2d(x, n.w[1:]), w=weight(3, 4, 1, 1)), "w"),
    "a function with a layer's weight": (
        Net(lambda n, x: F.conv2d(x, n.b.weight), b=Conv2d(4, 3, 1)),
        "b.weight",
    ),
    "a convolution as a product": (
        Net(lambda n, x: n.w.flatten(1) @ F.unfold(x, 1), w=weight(3, 4, 1, 1)),
        "w",
    ),
    "a product of patches": (
        Net(lambda n, x: F.unfold(x, 3).transpose(1, 2) @ n.w.flatten(1).T, w=weight(3, 4, 3, 3)),
        "w",
    ),
    "linear": (Net(lambda n, x: F.linear(tokens(x), n.w), w=weight(3, 4)), "w"),
    "a product": (Net(lambda n, x: tokens(x) @ n.w, w=weight(4, 3)), "w"),
    "a product from the left": (Net(lambda n, x: n.w @ x.flatten(2)[0], w=weight(3, 4)), "w"),
    "einsum": (Net(lambda n, x: torch.einsum("bchw,oc->bohw", x, n.w), w=weight(3, 4)), "w"),
    "einsum, copied": (Net(lambda n, x: torch.einsum("bchw,hoc->bhow", x, n.w), w=weight(4, 3, 4)), "w"),
    "a vector": (Net(lambda n, x: tokens(x)[0] @ n.w, w=weight(4)), "w"),
    "attention": (
        Net(lambda n, x: n.m(*[tokens(x)] * 3), m=nn.MultiheadAttention(4, 2, batch_first=True)),
        "m.in_proj_weight",
    ),
    "a recurrent layer": (Net(lambda n, x: n.r(tokens(x)), r=nn.LSTM(4, 3, bidirectional=True)), "r.weight_ih_l0"),
    "a recurrent layer, backwards": (
        Net(lambda n, x: n.r(tokens(x)), r=nn.LSTM(4, 3, bidirectional=True)),
        "r.weight_ih_l0_reverse",
    ),
    "gated, recurrent": (Net(lambda n, x: n.r(tokens(x)), r=nn.GRU(4, 3, 2)), "r.weight_ih_l0"),
    "a recurrent cell": (Net(lambda n, x: n.r(x.mean((2, 3)))[0], r=nn.LSTMCell(4, 3)), "r.weight_ih"),
    "normalized": (Net(lambda n, x: n.b(x), b=parametrizations.weight_norm(Conv2d(4, 3, 1))), "b.weight"),
    "normalized, an older form": (
        Net(lambda n, x: n.b(x), b=nn.utils.spectral_norm(Conv2d(4, 3, 1))),
        "b.weight",
    ),
    "orthogonal": (Net(lambda n, x: n.b(tokens(x)), b=parametrizations.orthogonal(Linear(4, 3))), "b.weight"),
    "masked": (Net(lambda n, x: n.b(x), b=prune.random_unstructured(Conv2d(4, 3, 1), "weight", 0.2)), "b.weight"),
    "standardized": (Net(lambda n, x: n.b(x), b=Scaled(4, 3, 1)), "b.weight"),
}


@pytest.mark.parametrize("name", READERS)
def test_who_reads_a_weight_does_not_matter(name: str) -> None:
    net, read = READERS[name]
    seen = inputs_by_weight(net, SHAPE)[read]
    assert seen.zero.tolist() == [False, True, False, False]
    assert seen.constant[1:3].tolist() == [0.0, 0.5]
    assert seen.constant[[0, 3]].isnan().all()


def test_two_layers_with_one_weight_have_what_is_true_of_both() -> None:
    net = Net(lambda n, x: n.b(x) + n.c(x.flip(1)), b=Conv2d(4, 3, 1), c=Conv2d(4, 3, 1))
    net.c.weight = net.b.weight
    # The channels (x, 0, 0.5, x) and (x, 0.5, 0, x).
    assert not inputs_by_weight(net, SHAPE)["b.weight"].zero.any()
    assert inputs_of(net, SHAPE).keys() == {"a", "b", "c"}
    net.c.weight = nn.Parameter(net.b.weight.clone())
    seen = inputs_by_weight(net, SHAPE)
    assert seen["b.weight"].zero.tolist() == [False, True, False, False]
    assert seen["c.weight"].zero.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("forward", "zero", "constant"),
    [
        (lambda n, x: n.b(x) + n.b(x.flip(2)), [1], {1: 0.0, 2: 0.5}),
        (lambda n, x: n.b(x) + n.b(x * x), [1], {1: 0.0}),  # 0.5, then 0.25
        (lambda n, x: n.b(n.b(n.b(x))), [1], {1: 0.0}),
        (lambda n, x: n.b(x) + F.conv2d(x.roll(1, 1), n.b.weight), [], {}),  # 0 and 0.5 have changed places
        (lambda n, x: n.b(x) + F.conv2d(x, n.b.weight), [1], {1: 0.0, 2: 0.5}),
    ],
    ids=["twin towers", "other constants", "in a loop", "a layer and a function", "the same function"],
)
def test_a_layer_that_is_called_more_than_once_has_what_is_true_of_every_call(
    forward: Callable[[Any, Tensor], Tensor], zero: list[int], constant: dict[int, float]
) -> None:
    net = Net(forward, b=Conv2d(4, 4, 1, bias=False))
    with torch.no_grad():
        net.b.weight[1] = 0
    for seen in (inputs_by_weight(net, SHAPE)["b.weight"], inputs_of(net, SHAPE)["b"]):
        assert seen.zero.nonzero().flatten().tolist() == zero
        known = seen.constant.isfinite().nonzero().flatten().tolist()
        assert {at: float(seen.constant[at]) for at in known} == constant


def test_of_a_weight_that_is_read_along_two_dims_or_partly_nothing_is_known() -> None:
    tied = Net(lambda n, x: F.linear(F.linear(tokens(x), n.w), n.w.T), w=weight(4, 4))
    assert not inputs_by_weight(tied, SHAPE)["w"].zero.any()
    part = Net(lambda n, x: F.linear(tokens(x)[..., :3], n.w[:, 1:]), w=weight(4, 4))
    assert "w" not in inputs_by_weight(part, SHAPE)


def test_a_weight_that_depends_on_the_image_is_no_weight() -> None:
    net = Net(lambda n, x: F.conv2d(x, n.w * x.mean((0, 2, 3))[:, None, None]), w=weight(3, 4, 1, 1))
    assert inputs_by_weight(net, SHAPE).keys() == {"a.weight"}


def test_inputs_of_batch_norms_are_those_of_every_call() -> None:
    net = Net(lambda n, x: n.bn(x) + n.bn(x.roll(1, 1)), bn=nn.BatchNorm2d(4))
    assert not probe(net, SHAPE)[0]["bn"].zero.any()
    net = Net(lambda n, x: n.bn(x) + n.bn(x * x), bn=nn.BatchNorm2d(4))
    assert probe(net, SHAPE)[0]["bn"].zero.tolist() == [False, True, False, False]
    assert not probe(net, SHAPE)[1]
