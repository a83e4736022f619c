"""Input channels of a weight that are all zero and stay are named like zero filters, with what prevents it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Conv2d, Linear

from compressor.thinning import nothing_removed, thin
from compressor.thinning.stays import Way


class Net(nn.Module):
    """`a` (4 filters), which `b` and perhaps others read; no weight is zero."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        torch.manual_seed(0)
        self.a, self.b, self.fc = Conv2d(1, 4, 3), Conv2d(4, 4, 1), Linear(4, 3)
        for name, layer in more.items():
            self.add_module(name, layer)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def chain() -> Net:
    return Net(lambda s, x: s.fc(s.b(s.a(x).relu()).relu().mean((2, 3))))


def two_readers() -> Net:
    return Net(lambda s, x: (lambda y: s.fc((s.b(y) * s.c(y)).mean((2, 3))))(s.a(x).relu()), c=Conv2d(4, 4, 1))


def into_logits() -> Net:
    return Net(lambda s, x: s.fc(s.b(s.a(x).relu()).mean((2, 3))), aux=Linear(4, 2))


def stays(net: Net, *ways: Way) -> list[str]:
    images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    how = {"ways": frozenset(ways)} if ways else {}
    found = thin(net.eval(), images, **how)
    assert not found.cut or not found.stays
    return [str(stay) for stay in found.stays]


ZERO = "only channels that are 0 are removed here (StructureRemover also removes those that no layer reads)"
UNREAD = "only channels that no layer reads are removed here (StructureRemover also removes those that are 0)"


@pytest.mark.parametrize(
    ("build", "zero", "ways", "expected"),
    [
        (chain, {"b": [1, 2]}, [], []),
        (chain, {"b": [1, 2]}, ["unread"], []),
        (chain, {"b": [1, 2]}, ["zero"], [f"b.weight: 2 zero channels stay: {ZERO}"]),
        (two_readers, {"b": [3]}, [], ["b.weight: 1 zero channel stays: c.weight reads the same channels"]),
        (two_readers, {"b": [3], "c": [3]}, [], []),
        (two_readers, {"b": [3], "c": [0]}, [], [
            "b.weight: 1 zero channel stays: c.weight reads the same channels",
            "c.weight: 1 zero channel stays: b.weight reads the same channels",
        ]),
    ],
)  # fmt: skip
def test_zero_channels_go_or_what_prevents_it_is_named(
    build: Callable[[], Net], zero: dict[str, list[int]], ways: list[Way], expected: list[str]
) -> None:
    net = build()
    for name, columns in zero.items():
        net.get_submodule(name).weight.data[:, columns] = 0
    assert stays(net, *ways) == expected


def test_zero_filters_that_a_remover_of_channels_leaves_are_named() -> None:
    net = chain()
    net.a.weight.data[1], net.a.bias.data[1] = 0, 0
    assert stays(net, "unread") == [f"a.weight: 1 zero filter stays: {UNREAD}"]


def test_zero_filters_of_a_layer_without_a_trace_are_named() -> None:
    net = into_logits()
    net.aux.weight.data[0] = 0
    said = "aux.weight: 1 zero filter stays: the layer is not in the trace of the forward pass"
    assert stays(net) == [said]
    found = thin(net, torch.zeros(1, 1, 6, 6))
    assert nothing_removed(found.stays).endswith(f"all zero:\n  {said}")
