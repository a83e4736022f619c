"""When two networks have the same logits: by the spread of the logits, and by float64."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.thinning import equivalence
from compressor.thinning.equivalence import EXACT, TOLERANCE, difference, thin

X = torch.tensor([[1.0, 1.0], [2.0, -1.0], [-1.0, 3.0], [0.5, 2.0]]).reshape(4, 2, 1, 1)


def test_the_spread_is_the_deviation_of_an_images_logits_around_their_mean() -> None:
    # Around 2 and 4: -1 1 -2 2, whose mean square is 10 / 4.
    before = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    found = difference(before, before + torch.tensor([[0.0, 0.25], [-0.5, 0.0]]))
    assert (found.largest, found.magnitude) == (0.5, 6.0)
    assert found.spread == pytest.approx(2.5**0.5)
    assert difference(before + 8, before).spread == found.spread  # what all classes share tells nothing
    assert difference(before * 1024, before).spread == 1024 * found.spread
    assert difference(torch.tensor([[1.0], [3.0], [5.0]]), torch.zeros(3, 1)).spread == pytest.approx((8 / 3) ** 0.5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("tolerance", [TOLERANCE, EXACT])
def test_a_change_is_judged_by_its_share_of_the_spread(scale: float, tolerance: float) -> None:
    before = torch.tensor([[1.0, -1.0]], dtype=torch.float64) * scale  # a spread of `scale`
    assert difference(before, before + 0.9 * tolerance * scale).within(tolerance)
    assert not difference(before, before + 1.1 * tolerance * scale).within(tolerance)
    assert not difference(before, before + torch.nan).within(tolerance)
    same = torch.full((1, 2), scale, dtype=torch.float64)
    assert difference(same, same * (1 + 1e-15)).within(tolerance)  # no spread at all: float64's own rounding
    assert not difference(same, same * (1 + 1e-12)).within(tolerance)


def two_channels(scale: float, share: float) -> nn.Sequential:
    """Logits scale * (x0 + share * x1) * (1, -1): channel 1 is `share` of what channel 0 is."""
    net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
        net[2].weight.copy_(scale * torch.tensor([[1.0, share], [-1.0, -share]]))
    return net


@pytest.fixture
def without_channel_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fault in the decision remove channel 1 of the convolution, whether it is used or not."""
    plain = equivalence.decide

    def decide(graph: Any, *arguments: Any, **how: Any) -> Any:
        removal = plain(graph, *arguments, **how)
        gone = removal.gone.clone()
        gone[graph.nodes[0].out[1]] = True
        return dataclasses.replace(removal, gone=gone)

    monkeypatch.setattr(equivalence, "decide", decide)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("share", [0.5, 1e-2, 1e-5])  # the last is within float32's tolerance
def test_a_used_channel_is_missed_however_small_or_large_the_logits_are(
    without_channel_1: None, scale: float, share: float
) -> None:
    with pytest.raises(CompressError, match="in float64, more than 1e-06 of the logits' spread"):
        thin(two_channels(scale, share), X)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_an_unused_channel_is_not_missed(without_channel_1: None, scale: float) -> None:
    found = thin(two_channels(scale, 0.0), X)
    assert found.cut
    assert (found.largest_difference, found.exact) == (0.0, None)


def test_rounding_in_float32_alone_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without every fifth of 500 channels the sums are taken in another order.
    monkeypatch.setattr(equivalence, "TOLERANCE", 1e-12)  # so that any rounding is too much for float32
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 500, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(500, 2)).eval()
    with torch.no_grad():
        net[0].weight[::5] = 0
    found = thin(net, torch.randn(32, 1, 1, 1))
    assert found.cut
    assert found.exact is not None
    assert found.exact < 1e-12 < found.largest_difference


class SinglePrecision(nn.Module):
    """A network that computes in float32 whatever it is told."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.table = inside, [torch.eye(2)]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inside(x) @ self.table[0]
        return logits


@pytest.mark.parametrize(("share", "refused"), [(1e-2, True), (1e-5, False)])
def test_where_a_network_does_not_run_in_float64_float32_decides(
    without_channel_1: None, share: float, refused: bool
) -> None:
    net = SinglePrecision(two_channels(1e-3, share)).eval()
    if refused:
        with pytest.raises(CompressError, match=r"more than 0\.0001 of the logits' spread"):
            thin(net, X)
    else:
        assert thin(net, X).exact is None
