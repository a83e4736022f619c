"""The weights that make the logits, whether the image reaches them, and the classes that are lost."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.tracing import all_zero, dependent_logits, logits_weights, lost_classes, reaches_logits, trace_on_meta


class Net(nn.Module):
    """Layers, and what is done with images of 2x4x4 and them; 3 classes."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


SHAPE = (2, 4, 4)


def linear() -> Net:
    return Net(lambda n, x: n.fc(F.relu(n.conv(x)).flatten(1)), conv=nn.Conv2d(2, 5, 3), fc=nn.Linear(20, 3))


def pooled() -> Net:
    """The last convolution's channels are the classes, as in SqueezeNet."""
    return Net(
        lambda n, x: F.relu(n.norm(n.last(n.conv(x)))).mean((2, 3)),
        conv=nn.Conv2d(2, 5, 3),
        last=nn.Conv2d(5, 3, 1),
        norm=nn.BatchNorm2d(3),
    )


def two_heads() -> Net:
    return Net(
        lambda n, x: F.log_softmax(n.a(x.flatten(1)) + n.b(x.mean((2, 3))), 1), a=nn.Linear(32, 3), b=nn.Linear(2, 3)
    )


def block() -> Net:
    """A block beside a shortcut."""
    return Net(
        lambda n, x: n.fc((n.first(x) + n.second(F.relu(n.block(x)))).flatten(1)),
        first=nn.Conv2d(2, 2, 1),
        block=nn.Conv2d(2, 2, 1),
        second=nn.Conv2d(2, 2, 1),
        fc=nn.Linear(32, 3),
    )


def bare() -> Net:
    """A head that no layer has."""
    net = Net(lambda n, x: n.fc(x.flatten(1)) @ n.head, fc=nn.Linear(32, 6))
    net.head = nn.Parameter(torch.ones(6, 3))
    return net


def joined() -> Net:
    """Each head makes some of the classes."""
    return Net(
        lambda n, x: torch.cat([n.a(x.flatten(1)), n.b(x.flatten(1))], 1), a=nn.Linear(32, 1), b=nn.Linear(32, 2)
    )


def averaged() -> Net:
    """Two heads on a stack: the classes are its last dim."""
    return Net(
        lambda n, x: torch.stack([n.a(x.flatten(1)), n.b(x.flatten(1))]).mean(0), a=nn.Linear(32, 3), b=nn.Linear(32, 3)
    )


def of_tokens() -> Net:
    """A head for each of 16 tokens, and their mean."""
    return Net(lambda n, x: n.fc(x.flatten(2).transpose(1, 2)).mean(1), fc=nn.Linear(2, 3))


def cosine() -> Net:
    """A head whose rows are normalized first."""
    return Net(lambda n, x: F.linear(x.flatten(1), F.normalize(n.fc.weight)), fc=nn.Linear(32, 3, bias=False))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (linear, {"fc.weight"}),
        (pooled, {"last.weight"}),
        (two_heads, {"a.weight", "b.weight"}),
        (block, {"fc.weight"}),
        (joined, {"a.weight", "b.weight"}),
        (averaged, {"a.weight", "b.weight"}),
        (of_tokens, {"fc.weight"}),
        (bare, set()),
        (cosine, {"fc.weight"}),
    ],
)
def test_the_layers_that_make_the_logits_are_found_by_what_is_computed(
    made: Callable[[], Net], expected: set[str]
) -> None:
    trace = trace_on_meta(made(), SHAPE)
    assert trace is not None
    assert set(logits_weights(trace)) == expected


@pytest.mark.parametrize(
    ("made", "zeros", "reached"),
    [
        (linear, {"conv.weight"}, False),
        (linear, {"fc.weight"}, False),
        (pooled, {"conv.weight"}, False),
        (two_heads, {"a.weight"}, True),
        (two_heads, {"a.weight", "b.weight"}, False),
        (block, {"block.weight"}, True),
        (block, {"block.weight", "second.weight"}, True),  # a dead block with a live shortcut
        (block, {"block.weight", "first.weight"}, False),
        (block, {"fc.weight"}, False),
    ],
)
def test_the_image_reaches_the_logits_unless_zero_weights_are_on_every_path(
    made: Callable[[], Net], zeros: set[str], reached: bool
) -> None:
    net = made()
    trace = trace_on_meta(net, SHAPE)
    assert trace is not None
    assert reaches_logits(trace, zeros) == reached
    # The same by brute force: do the logits of random images differ?
    with torch.no_grad():
        for name in zeros:
            net.get_parameter(name).zero_()
        logits = net.eval()(torch.randn(20, *SHAPE))
    assert bool((logits != logits[0]).any()) == reached
    found = dependent_logits(net, SHAPE)
    assert found is not None
    assert bool(found.any()) == reached


def test_the_reason_is_named_and_not_a_dead_block_before_it() -> None:
    trace = trace_on_meta(block(), SHAPE)
    end = "the logits no longer depend on the image"
    assert all_zero(trace, ["block.weight", "fc.weight"]) == f"fc.weight is all zero: {end}"
    assert all_zero(trace, ["first.weight", "block.weight"]).startswith(
        f"first.weight is all zero: {end} (block.weight"
    )
    assert all_zero(trace, []).endswith(end)


def softmax() -> Net:
    """Its sum over the classes depends on the image as soon as one logit does."""
    return Net(lambda n, x: F.log_softmax(n.fc(x.flatten(1)), 1), fc=nn.Linear(32, 3))


@pytest.mark.parametrize("made", [linear, pooled, cosine, softmax])
def test_lost_classes_are_those_whose_logits_no_image_changes(made: Callable[[], Net]) -> None:
    net = made()
    trace = trace_on_meta(net, SHAPE)
    assert trace is not None
    (head,) = logits_weights(trace)
    with torch.no_grad():
        net.get_parameter(head)[1] = 0
    found = dependent_logits(net, SHAPE)
    assert found is not None
    assert lost_classes(found, ["cat", "dog", "owl"]) == ["dog"]
    assert lost_classes(found, ()) == ["1"]


def test_weights_that_no_path_connects_are_found_where_none_is_all_zero() -> None:
    net = linear()
    with torch.no_grad():
        net.get_parameter("conv.weight")[:2] = 0  # channels 2 to 4 are left
        net.get_parameter("fc.weight")[:, 8:] = 0  # channels 0 and 1 are read
    found = dependent_logits(net, SHAPE)
    assert found is not None
    assert not found.any()


@pytest.mark.parametrize(
    "made",
    [
        lambda n, x: n.fc(x.flatten(1) * (x.mean() > 0)),
        lambda n, x: n.fc((4 * x).round().int().float().flatten(1)),  # pixels of a few bits
        lambda n, x: n.fc(torch.bucketize(x, torch.tensor([0.2, 0.5])).float().flatten(1)),
        lambda n, x: n.fc(F.embedding((4 * x).long().flatten(1), n.colour).flatten(1)),
        lambda n, x: n.fc(n.colour[x.flatten(1).argsort(1)].flatten(1)),
        lambda n, x: n.fc(x.flatten(1).topk(32, 1).indices.float()),
        lambda n, x: n.fc(x.flatten(1).gather(1, x.flatten(1).argsort(1))),
    ],
    ids=["comparison", "integers", "buckets", "embedding", "ranks", "largest", "sorted"],
)
def test_bools_integers_and_ranks_depend_on_the_image(made: Callable[[Any, Tensor], Tensor]) -> None:
    net = Net(made, fc=nn.Linear(32, 3))
    net.register_buffer("colour", torch.arange(32.0)[:, None])
    with torch.no_grad():
        net.fc.weight[1] = 0
    found = dependent_logits(net, SHAPE)
    assert found is not None
    assert found.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "made",
    [
        lambda n, x: n.fc(x.flatten(1)) if x.mean() > 0 else -n.fc(x.flatten(1)),
        lambda n, x: n.fc(x.flatten(1)) * float(x.mean() > 0),
        lambda n, x: n.fc(x.flatten(1)) if float(x.mean()) > 0 else -n.fc(x.flatten(1)),
        lambda n, x: n.fc(F.one_hot(x.flatten(1).argmax(1), 32).float()),  # it looks whether 32 are enough
        lambda n, x: n.fc(x.flatten(1)) + len((x > 0).nonzero()),
        lambda n, x: n.fc(x.flatten(1)) + x.view(torch.int32).float().mean(),
    ],
    ids=["branch", "bool", "number", "one-hot", "size", "bits"],
)
def test_a_pass_that_cannot_be_followed_says_so(made: Callable[[Any, Tensor], Tensor]) -> None:
    assert dependent_logits(Net(made, fc=nn.Linear(32, 3)), SHAPE) is None


def test_a_pass_through_complex_numbers_is_followed() -> None:
    net = Net(lambda n, x: n.fc(torch.fft.fft2(x).abs().flatten(1)), fc=nn.Linear(32, 3))
    found = dependent_logits(net, SHAPE)
    assert found is not None
    assert found.all()
