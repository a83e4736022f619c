"""The last convolution of a residual block makes up for the error of its shortcut; how a shortcut is found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from channel_nets import Net, Ran, check_fit, images, residual, rows, schedule, seeded
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.policies.layer_calls import follow

ADDITIONS = ["plus", "in place", "into the shortcut", "function"]


def stream_error(run: Ran) -> float:
    """Relative, of the second block's shortcut and what is added to it."""
    sums = []
    for net in (run.before, run.after):
        shortcut, branch = run.seen(net, "two1")[0], run.seen(net, "two2")[1]
        with torch.no_grad():
            sums.append(shortcut + net.get_submodule("bn2")(branch))
    return float((sums[0] - sums[1]).square().sum() / sums[0].square().sum())


@pytest.mark.parametrize("how", ADDITIONS)
@pytest.mark.parametrize("norm", [False, True], ids=["bare", "batch norm"])
def test_the_last_convolution_of_a_block_makes_up_for_the_error_of_its_shortcut(norm: bool, how: str) -> None:
    # one2 spoils the stream, which is two1's input and the shortcut behind two2: it fits Y1 + Y2 - Y1'.
    weights = "[one2.weight, two2.weight]"
    with_, without = (
        Ran(residual(norm, how), schedule(weights, sparsity=0.67, residual=residual_)) for residual_ in (True, False)
    )
    assert stream_error(with_) < 0.99 * stream_error(without)
    assert "a shortcut's error made up for" in with_.said[1]
    assert "a shortcut's error made up for" not in "".join(without.said)


@pytest.mark.parametrize("norm", [False, True], ids=["bare", "batch norm"])
def test_what_is_fitted_behind_a_shortcut_is_both_errors(norm: bool) -> None:
    run = Ran(residual(norm), schedule("[one2.weight, two2.weight]"))
    (shortcut, _), (_, gave) = run.seen(run.before, "two1"), run.seen(run.before, "two2")
    now, _ = run.seen(run.after, "two1")
    factor = torch.ones(4)
    if norm:  # gamma (y - mean) / sqrt(variance + eps) + beta is added: an error of the shortcut is that much smaller
        bn = run.before.get_submodule("bn2")
        factor = bn.weight.detach() / (bn.running_var + bn.eps).sqrt()
    assert not torch.equal(shortcut, now)
    check_fit(run, "two2", rows(gave + (shortcut - now) / factor.reshape(1, -1, 1, 1)))


@pytest.mark.parametrize("how", ADDITIONS)
def test_only_the_last_convolutions_of_blocks_are_found_before_an_addition(how: str) -> None:
    net = residual(norm=True, how=how)
    weights = {name: weight for name, weight in net.named_parameters() if weight.dim() == 4}
    found = {layer.name: layer for layer in follow(net, images()[0][0], weights)}
    assert list(found) == [f"{path}.weight" for path in ("stem", "one1", "one2", "two1", "two2")]
    assert [name for name, layer in found.items() if layer.addition] == ["one2.weight", "two2.weight"]
    assert [name for name, layer in found.items() if layer.scale is not None] == ["one2.weight", "two2.weight"]


JOINED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "as it is": (lambda branch, x: branch + x, True),
    "behind dropout, which does nothing": (lambda branch, x: F.dropout(branch, 0.5, training=False) + x, True),
    "behind a ReLU": (lambda branch, x: F.relu(branch) + x, False),
    "behind a ReLU in place": (lambda branch, x: F.relu(branch, inplace=True) + x, False),
    "twice": (lambda branch, x: torch.add(x, branch, alpha=2), False),
    "to a number": (lambda branch, x: branch + 1, False),
    "to one channel": (lambda branch, x: branch + x[:, :1], False),
    "as a factor": (lambda branch, x: branch * x, False),
}


@pytest.mark.parametrize(("join", "found"), JOINED.values(), ids=JOINED)
def test_a_shortcut_is_what_is_added_to_the_outputs_themselves(
    join: Callable[[Tensor, Tensor], Tensor], found: bool
) -> None:
    seeded()
    net = Net(lambda s, x: join(s.b(s.a(x)), s.a(x)).mean((2, 3)), a=Conv2d(1, 4, 3), b=Conv2d(4, 4, 1))
    (layer,) = follow(net, images()[0][0], {"b.weight": net.get_parameter("b.weight")})
    assert (layer.addition is not None) == found


def test_a_stem_that_is_the_shortcut_itself_is_fitted_to_what_it_gave() -> None:
    seeded()
    net = Net(
        lambda s, x: (lambda y: s.fc((y + s.branch(F.relu(y))).mean((2, 3))))(s.stem(F.relu(s.first(x)))),
        first=Conv2d(1, 4, 3), stem=Conv2d(4, 4, 3), branch=Conv2d(4, 4, 3, padding=1), fc=Linear(4, 3),
    )  # fmt: skip
    run = Ran(net, schedule("[stem.weight]"))
    assert "shortcut" not in run.said[0]
    check_fit(run, "stem", rows(run.seen(run.before, "stem")[1]))


def test_a_batch_norm_that_reads_the_outputs_beside_the_addition_does_not_weigh_them() -> None:
    seeded()

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.a(x)
        branch = s.b(y)
        return (branch + y).mean((2, 3)) + s.bn(branch).mean((2, 3))

    net = Net(forward, a=Conv2d(1, 4, 3), b=Conv2d(4, 4, 1), bn=BatchNorm2d(4))
    (layer,) = follow(net, images()[0][0], {"b.weight": net.get_parameter("b.weight")})
    assert layer.addition is not None
    assert layer.scale is None


def test_zeros_stay_where_what_makes_the_channels_goes_on() -> None:
    # two1 loses inputs of the stream, which others read, and then filters that two2 does not read any more.
    run = Ran(residual(), schedule("[two1.weight, two2.weight]"), epochs=2)
    assert int((run.loop.forwards[0]["two1.weight"] == 0).sum()) == (6 * 4 - 3 * 2) * 9
    for name, weight in run.loop.after[-1].items():
        assert torch.equal(weight == 0, run.loop.forwards[0][name] == 0)
