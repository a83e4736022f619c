"""The last convolution of a residual block makes up for the error of its shortcut."""

import pytest
import torch
import torch.nn.functional as F
from channel_nets import ADDITIONS, Net, Ran, check_fit, residual, rows, schedule, seeded
from torch.nn import Conv2d, Linear


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
    assert "with the error of a shortcut corrected" in with_.said[1]
    assert "with the error of a shortcut corrected" not in "".join(without.said)


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


def test_a_stem_that_is_the_shortcut_itself_is_fitted_to_what_it_gave() -> None:
    seeded()
    net = Net(
        lambda s, x: (lambda y: s.fc((y + s.branch(F.relu(y))).mean((2, 3))))(s.stem(F.relu(s.first(x)))),
        first=Conv2d(1, 4, 3), stem=Conv2d(4, 4, 3), branch=Conv2d(4, 4, 3, padding=1), fc=Linear(4, 3),
    )  # fmt: skip
    run = Ran(net, schedule("[stem.weight]"))
    assert "shortcut" not in run.said[0]
    check_fit(run, "stem", rows(run.seen(run.before, "stem")[1]))


def test_zeros_stay_where_what_makes_the_channels_goes_on() -> None:
    # two1 loses inputs of the stream, which others read, and then filters that two2 does not read any more.
    run = Ran(residual(), schedule("[two1.weight, two2.weight]"), epochs=2)
    assert int((run.loop.forwards[0]["two1.weight"] == 0).sum()) == (6 * 4 - 3 * 2) * 9
    for name, weight in run.loop.after[-1].items():
        assert torch.equal(weight == 0, run.loop.forwards[0][name] == 0)
