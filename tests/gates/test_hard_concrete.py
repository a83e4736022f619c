"""The hard concrete distribution against its closed forms, quadrature, autograd and a million draws.

Reference values: methods.md, section 14. With beta 2/3, gamma -0.1, zeta 1.1 the constant beta ln(-gamma / zeta) is
-1.59860, and the gate that is shipped is 0 where sigmoid(log_alpha) <= 1/12: log_alpha <= -ln 11 = -2.39790.
"""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from compressor.gates.hard_concrete import CLAMP, EPSILON, HardConcrete

LAW = HardConcrete()
OTHER = HardConcrete(beta=0.5, gamma=-0.2, zeta=1.4)
CLOSED_AND_OPEN = {-3: (0.80241, 0.00997), -1: (0.35466, 0.06923), 0: (0.16818, 0.16818), 1: (0.06923, 0.35466),
                   3: (0.00997, 0.80241)}  # fmt: skip
"""log_alpha: P(z = 0), P(z = 1)."""
MEANS = {-1: 0.29295, 0: 0.5, 1: 0.70705}
"""By symmetry those of -1 and 1 sum to 1 (section 14 prints .2927, which draws gave)."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def draws(law: HardConcrete, log_alpha: float, count: int = 1_000_000) -> Tensor:
    torch.manual_seed(0)
    return law.sample(torch.full((count,), float(log_alpha)))


def written_out(law: HardConcrete, u: Tensor, log_alpha: Tensor) -> Tensor:
    """Equations 10 to 12 of the paper, in operations that autograd follows."""
    s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_alpha) / law.beta)
    return torch.clamp(s * (law.zeta - law.gamma) + law.gamma, 0, 1)


def chance_above(law: HardConcrete, x: float, log_alpha: float) -> float:
    """P(s (zeta - gamma) + gamma > x): s has the distribution function sigmoid(beta logit(s) - log_alpha)."""
    s = (x - law.gamma) / (law.zeta - law.gamma)
    return 1 - sigmoid(law.beta * math.log(s / (1 - s)) - log_alpha)


def test_the_defaults_are_the_papers() -> None:
    assert (LAW.beta, LAW.gamma, LAW.zeta) == (pytest.approx(2 / 3), -0.1, 1.1)
    assert EPSILON == 1e-6
    assert pytest.approx(math.log(100)) == CLAMP


@pytest.mark.parametrize(("log_alpha", "chances"), CLOSED_AND_OPEN.items())
def test_a_million_draws_are_closed_and_open_as_often_as_the_closed_form_says(
    log_alpha: float, chances: tuple[float, float]
) -> None:
    z = draws(LAW, log_alpha)
    # Four standard errors of a share over a million draws are at most 0.002.
    assert float((z == 0).float().mean()) == pytest.approx(chances[0], abs=2e-3)
    assert float((z == 1).float().mean()) == pytest.approx(chances[1], abs=2e-3)
    assert float(z.min()) >= 0
    assert float(z.max()) <= 1


@pytest.mark.parametrize(("log_alpha", "chances"), CLOSED_AND_OPEN.items())
def test_the_chance_to_be_active_is_one_less_the_chance_to_be_closed(
    log_alpha: float, chances: tuple[float, float]
) -> None:
    assert float(LAW.active(values(log_alpha))) == pytest.approx(1 - chances[0], abs=1e-5)
    assert float(LAW.active(values(log_alpha))) == pytest.approx(sigmoid(log_alpha + 1.59860), abs=1e-5)


@pytest.mark.parametrize("law", [LAW, OTHER])
@pytest.mark.parametrize("log_alpha", [-2.0, 0.5])
def test_draws_are_active_with_the_closed_forms_probability_under_other_constants(
    law: HardConcrete, log_alpha: float
) -> None:
    expected = chance_above(law, 0.0, log_alpha)
    assert float(law.active(values(log_alpha))) == pytest.approx(expected, abs=1e-9)
    assert float((draws(law, log_alpha) > 0).float().mean()) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("log_alpha", "mean"), MEANS.items())
def test_the_mean_of_the_draws_is_the_integral_of_the_distribution(log_alpha: float, mean: float) -> None:
    integral, _ = quad(lambda x: chance_above(LAW, x, log_alpha), 0, 1)
    assert integral == pytest.approx(mean, abs=6e-5)
    assert float(draws(LAW, log_alpha).mean()) == pytest.approx(integral, abs=2e-3)


def test_the_draws_follow_the_distribution_function_between_0_and_1() -> None:
    z = draws(LAW, -0.7)
    for x in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert float((z > x).float().mean()) == pytest.approx(chance_above(LAW, x, -0.7), abs=2e-3)


def test_each_gate_has_a_draw_of_its_own() -> None:
    z = draws(LAW, 0.0, 1000)
    assert len(z[(z > 0) & (z < 1)].unique()) > 600
    assert abs(float(torch.corrcoef(torch.stack([z[:500], z[500:]]))[0, 1])) < 0.2


def test_the_gate_that_is_shipped_by_pencil() -> None:
    # 1.2 sigmoid(-1) - 0.1 = 1.2 * .268941 - .1
    assert LAW.final(values(-1, 0, 1)).tolist() == pytest.approx([0.2227, 0.5, 0.7773], abs=5e-5)


def test_the_gate_that_is_shipped_has_no_temperature() -> None:
    log_alpha = torch.linspace(-5, 5, 101)
    assert torch.equal(HardConcrete(beta=0.1).final(log_alpha), LAW.final(log_alpha))


def test_the_gate_that_is_shipped_is_0_up_to_minus_2_39790_and_1_from_2_39790_on() -> None:
    final = LAW.final(values(-100, -2.39791, -2.39788, 2.39788, 2.39791, 100)).tolist()
    assert [final[0], final[1], final[4], final[5]] == [0, 0, 1, 1]
    assert 0 < final[2] < 1e-5
    assert 1 - 1e-5 < final[3] < 1


def test_a_gate_that_is_shipped_closed_may_still_be_active_in_training() -> None:
    assert float(LAW.active(values(-math.log(11)))) == pytest.approx(0.310, abs=5e-4)


def test_at_the_clamp_the_expected_number_does_not_reach_0() -> None:
    assert float(LAW.active(values(-math.log(100)))) == pytest.approx(0.0471, abs=5e-5)


@pytest.mark.parametrize("law", [LAW, OTHER])
@pytest.mark.parametrize("log_alpha", [-3.0, -0.4, 2.0])
def test_the_slope_of_a_draw_is_autograds_and_0_where_it_is_clipped(law: HardConcrete, log_alpha: float) -> None:
    torch.manual_seed(1)
    u = torch.rand(2000, dtype=torch.float64)
    location = torch.full_like(u, log_alpha).requires_grad_()
    z = written_out(law, u, location)
    z.sum().backward()
    assert location.grad is not None
    clipped = (z == 0) | (z == 1)
    assert clipped.any()
    assert not clipped.all()
    torch.testing.assert_close(law.slope(z.detach()), location.grad)
    assert not law.slope(z.detach())[clipped].any()


def test_the_slope_of_a_draw_is_the_finite_difference() -> None:
    u, step = values(0.2, 0.5, 0.8), 1e-6
    above, below = (written_out(LAW, u, values(0.3, 0.3, 0.3) + side) for side in (step, -step))
    z = written_out(LAW, u, values(0.3, 0.3, 0.3))
    torch.testing.assert_close(LAW.slope(z), (above - below) / (2 * step), rtol=1e-6, atol=1e-8)


def test_draws_are_the_papers_equations_of_uniform_numbers() -> None:
    log_alpha = torch.linspace(-3, 3, 500)
    torch.manual_seed(7)
    z = LAW.sample(log_alpha)
    torch.manual_seed(7)
    u = torch.rand(500).double() * (1 - 2e-6) + 1e-6
    torch.testing.assert_close(z.double(), written_out(LAW, u, log_alpha.double()), rtol=1e-4, atol=1e-5)
    assert log_alpha.tolist() == torch.linspace(-3, 3, 500).tolist()
