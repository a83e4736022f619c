"""Channel selection and least squares on arrays: against pencil, scikit-learn and numpy's own least squares."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Lasso, LinearRegression

from compressor.errors import CompressError
from compressor.reconstruction import least_squares as reconstruction
from compressor.reconstruction.least_squares import (
    backward,
    choose,
    lasso,
    least_squares,
    reconstruct,
    regressors,
    relative_error,
    repeat,
    search,
)  # fmt: skip

Array = NDArray[np.float64]
SELECTIONS = ("lasso", "repeated", "backward", "first", "l1", "max_response")

HADAMARD = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=float)
"""Z^T Z = 4 I."""


def layer(samples: int = 60, channels: int = 6, positions: int = 4, seed: int = 0) -> tuple[Array, ...]:
    """X, W, b and Y = X W + b, of 3 outputs; the channels differ in size."""
    outputs, draws = 3, np.random.default_rng(seed)
    x = draws.standard_normal((samples, channels, positions)) * draws.uniform(0.5, 2, (channels, 1))
    weight, bias = draws.standard_normal((outputs, channels, positions)), draws.standard_normal(outputs)
    return x, weight, bias, np.einsum("sck,nck->sn", x, weight) + bias


def test_regressors_have_a_column_for_each_channel_and_a_row_for_each_output_of_each_sample() -> None:
    x, weight, bias, y = layer()
    z = regressors(x, weight)
    assert z.shape == (60 * 3, 6)
    np.testing.assert_allclose(z[3 * 7 + 2, 4], x[7, 4] @ weight[2, 4])
    np.testing.assert_allclose(z.sum(1).reshape(60, 3) + bias, y)


def test_orthogonal_regressors_are_soft_thresholded() -> None:
    y = HADAMARD @ np.array([3.0, -2.0, 1.0, 0.25])
    for alpha, wanted in ((0.5, [2.5, -1.5, 0.5, 0]), (1.0, [2, -1, 0, 0]), (2.5, [0.5, 0, 0, 0]), (3.0, [0] * 4)):
        np.testing.assert_allclose(lasso(HADAMARD, y, alpha), wanted, atol=1e-12)


def test_alpha_is_against_the_mean_over_rows_as_in_scikit_learn() -> None:
    # 1/(2*2) * 2 (2 - b)^2 + 0.5 |b|: its derivative (b - 2) + 0.5 is 0 at 1.5.
    np.testing.assert_allclose(lasso(np.ones((2, 1)), np.full(2, 2.0), 0.5), [1.5], atol=1e-12)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0, 3.0])
def test_the_coefficients_are_those_of_scikit_learn_without_its_shortcuts(alpha: float) -> None:
    x, weight, bias, y = layer()
    z, target = regressors(x, weight), (y - bias + np.random.default_rng(1).standard_normal(y.shape)).ravel()
    theirs = Lasso(alpha=alpha, fit_intercept=False, precompute=False, tol=1e-14, max_iter=100_000).fit(z, target).coef_
    ours = lasso(z, target, alpha)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    slope = z.T @ (target - z @ ours) / len(z)  # the conditions of Karush, Kuhn and Tucker
    np.testing.assert_allclose(slope[ours != 0], alpha * np.sign(ours[ours != 0]), atol=1e-6)
    assert (np.abs(slope) <= alpha + 1e-6).all()


def test_the_search_ends_between_c_and_a_tenth_more() -> None:
    x, weight, bias, y = layer(channels=30, positions=1)
    z, target = regressors(x, weight), (y - bias).ravel()
    assert [np.count_nonzero(search(z, target, count)) for count in range(1, 10)] == list(range(1, 10))
    assert 20 <= np.count_nonzero(search(z, target, 20)) <= 22


def test_the_search_gives_the_scalars_of_a_lasso() -> None:
    x, weight, bias, y = layer()
    z, target = regressors(x, weight), (y - bias).ravel()
    beta = search(z, target, 3)
    spoken = beta != 0
    alpha = np.abs(z.T @ (target - z @ beta) / len(z))[spoken]
    np.testing.assert_allclose(alpha, alpha[0])
    np.testing.assert_allclose(beta, lasso(z, target, alpha[0]), atol=1e-9)


@pytest.mark.parametrize("size", [2.0, 2.1, 2.2, 2.3, 2.7, 3.1])
def test_where_two_come_at_once_the_first_stays(size: float) -> None:
    # The search ends below or above the alpha at which they come, as the numbers round.
    y = HADAMARD @ np.array([1.0, size, size, 0.5])
    assert {1} <= set(search(HADAMARD, y, 1).nonzero()[0]) <= {1, 2}  # {1} at 3.1 before scikit-learn 1.8
    x, weight = HADAMARD[:, :, None], np.ones((1, 4, 1))
    assert choose(x, weight, y[:, None], 1, "lasso", np.random.default_rng(0)).tolist() == [1]


def test_the_lasso_is_of_what_the_weight_alone_gives() -> None:
    # Channel 0 is always 1: with its bias of 100 the output looks like 201 times that channel.
    x = np.array([[[1.0], [1]], [[1], [-1]]])
    y = np.array([[101.5], [99.5]])
    for intercept in (True, False):
        found = reconstruct(x, np.array([[[0.5], [1]]]), y, 1, bias=np.array([100.0]), intercept=intercept)
        assert found.kept.tolist() == [1]


def test_where_fewer_speak_than_are_to_stay_the_first_fill_up() -> None:
    x, weight, _, _ = layer()
    x[:, [0, 2, 3, 5]] = 0
    y = np.einsum("sck,nck->sn", x, weight)
    found = reconstruct(x, weight, y, 4)
    assert found.kept.tolist() == [0, 1, 2, 4]
    assert found.after < 1e-20


def test_a_layer_that_should_give_nothing_keeps_the_first_channels_without_an_error() -> None:
    x, weight, _, y = layer()
    found = reconstruct(x, weight, y * 0, 2)
    assert found.kept.tolist() == [0, 1]
    assert found.after == 0
    assert not found.weight.any()


FITTING: tuple[reconstruction.Selection, ...] = ("lasso", "repeated", "backward")


@pytest.mark.parametrize("planted", range(6))
@pytest.mark.parametrize("selection", FITTING)
def test_a_zero_channel_goes_first_and_is_not_missed(planted: int, selection: reconstruction.Selection) -> None:
    x, weight, bias, _ = layer()
    x[:, planted] = 0
    y = np.einsum("sck,nck->sn", x, weight) + bias
    found = reconstruct(x, weight, y, 5, bias=bias, intercept=True, selection=selection)
    assert planted not in found.kept
    assert found.before < 1e-25
    assert found.after < 1e-25


@pytest.mark.parametrize("planted", range(6))
@pytest.mark.parametrize("share", [1.0, 0.5, -0.25])
@pytest.mark.parametrize("selection", FITTING)
def test_a_channel_that_says_what_another_says_goes_first_and_is_not_missed(
    planted: int, share: float, selection: reconstruction.Selection
) -> None:
    x, weight, bias, _ = layer()
    other = (planted + 2) % 6
    x[:, planted], weight[:, planted] = share * x[:, other], share * weight[:, other]
    y = np.einsum("sck,nck->sn", x, weight) + bias
    found = reconstruct(x, weight, y, 5, bias=bias, intercept=True, selection=selection)
    gone = set(range(6)) - set(found.kept.tolist())
    if selection == "backward":  # least squares needs one of the two, whichever
        assert gone <= {planted, other}
    else:
        assert gone == ({max(planted, other)} if share == 1 else {planted})
    assert found.before > 1e-6
    assert found.after < 1e-25


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("count", range(1, 7))
def test_least_squares_never_adds_to_the_error(selection: reconstruction.Selection, count: int) -> None:
    x, weight, bias, y = layer()
    found = reconstruct(x, weight, y, count, bias=bias, intercept=True, selection=selection)
    assert len(found.kept) == count
    assert found.kept.tolist() == sorted(found.kept)
    assert found.after <= found.before + 1e-25
    kept = x[:, found.kept]
    np.testing.assert_allclose(
        found.before, ((y - bias - np.einsum("sck,nck->sn", kept, weight[:, found.kept])) ** 2).sum() / (y**2).sum(),
        atol=1e-25,
    )  # fmt: skip
    assert found.bias is not None
    left = y - np.einsum("sck,nck->sn", kept, found.weight) - found.bias
    np.testing.assert_allclose(found.after, (left**2).sum() / (y**2).sum(), atol=1e-25)


@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_the_number_of_channels(seed: int) -> None:
    x, weight, bias, y = layer(seed=seed)
    errors = [reconstruct(x, weight, y, count, bias=bias, intercept=True).after for count in range(1, 7)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-25


def test_a_repeated_lasso_takes_beta_into_the_weights_by_hand() -> None:
    # Z^T Z = 4 I: a scalar is 0 from lambda = |z_i y| / 4 rows on, and so they go by size: .25, then 1 ...
    y = HADAMARD @ np.array([3.0, -2.0, 1.0, 0.25])
    assert [repeat(HADAMARD, y, count).nonzero()[0].tolist() for count in (4, 3, 2, 1)] == [
        [0, 1, 2, 3],
        [0, 1, 2],
        [0, 1],
        [0],
    ]
    # ... the others smaller by it: with betas of 2.75, -1.75, .75 the regressors are so many times as loud, and their
    # scalars (3 - 1 / 2.75) / 2.75 and so on at lambda 1 - .25 ...: what is left is what they were multiplied to.
    beta = repeat(HADAMARD, y, 3)
    np.testing.assert_allclose(beta, [2.75, 1.75, 0.75, 0], atol=1e-9)
    # Next lambda rises to .75: that of the third, 1 * .75 = lambda. beta = 3 - .75 / 2.75 and 2 - .75 / 1.75.
    np.testing.assert_allclose(repeat(HADAMARD, y, 2), [3 - 0.75 / 2.75, 2 - 0.75 / 1.75, 0, 0], atol=1e-9)


def test_of_equal_ones_the_later_goes() -> None:
    y = HADAMARD @ np.array([1.0, 2.0, 2.0, 0.5])
    assert repeat(HADAMARD, y, 1).nonzero()[0].tolist() == [1]
    assert backward(HADAMARD[:, :, None], y[:, None], 1, intercept=False).tolist() == [1]


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_backward_elimination_is_that_of_all_fits_one_by_one(seed: int, intercept: bool) -> None:
    x, _, _, y = layer(channels=7, seed=seed)
    y = y + 3 * np.random.default_rng(seed).standard_normal(y.shape)

    def error(kept: list[int]) -> float:
        fitted, constant = least_squares(x[:, kept], y, intercept=intercept)
        return relative_error(x[:, kept], fitted, np.zeros(3) if constant is None else constant, y)

    left = list(range(7))
    for count in range(6, 0, -1):
        left = min(([c for c in left if c != gone] for gone in left), key=error)
        assert backward(x, y, count, intercept=intercept).tolist() == left


def test_backward_elimination_misses_less_than_the_others() -> None:
    errors: dict[str, float] = dict.fromkeys(SELECTIONS, 0.0)
    for seed in range(5):
        x, weight, bias, y = layer(channels=12, samples=200, seed=seed)
        x[:, 6:] += x[:, :6]  # half of them say much of what the others say
        y = np.einsum("sck,nck->sn", x, weight) + bias
        for s in SELECTIONS:
            errors[s] += reconstruct(x, weight, y, 6, bias=bias, intercept=True, selection=s).after
    assert min(errors, key=lambda s: errors[s]) == "backward"


def test_the_lasso_beats_the_first_channels() -> None:
    x, weight, bias, y = layer(channels=12)
    kept = {s: reconstruct(x, weight, y, 4, bias=bias, intercept=True, selection=s).after for s in ("lasso", "first")}
    assert kept["lasso"] < kept["first"]


def test_the_weights_are_those_of_numpys_least_squares() -> None:
    x, weight, bias, y = layer()
    y = y + np.random.default_rng(1).standard_normal(y.shape)
    found = reconstruct(x, weight, y, 4, bias=bias, intercept=True)
    design = np.hstack([x[:, found.kept].reshape(60, 16), np.ones((60, 1))])
    theirs = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(found.weight.reshape(3, 16).T, theirs[:-1], atol=1e-9)
    np.testing.assert_allclose(found.bias, theirs[-1], atol=1e-9)


def test_without_an_intercept_the_old_bias_stays_and_the_rest_is_fitted() -> None:
    x, weight, bias, y = layer()
    found = reconstruct(x, weight, y, 4, bias=bias)
    assert found.bias is None
    theirs = np.linalg.lstsq(x[:, found.kept].reshape(60, 16), y - bias, rcond=None)[0]
    np.testing.assert_allclose(found.weight.reshape(3, 16).T, theirs, atol=1e-9)


@pytest.mark.parametrize("intercept", [True, False])
def test_of_many_solutions_it_is_that_of_least_norm(intercept: bool) -> None:
    x, _, _, y = layer(samples=8)
    x[:, 3] = x[:, 1]
    theirs = LinearRegression(fit_intercept=intercept).fit(x.reshape(8, 24), y)
    ours, constant = least_squares(x, y, intercept=intercept)
    np.testing.assert_allclose(ours.reshape(3, 24), theirs.coef_, atol=1e-9)
    assert (constant is None) == (not intercept)
    if constant is not None:
        np.testing.assert_allclose(constant, theirs.intercept_, atol=1e-9)
    np.testing.assert_allclose(ours[:, 3], ours[:, 1], atol=1e-12)


def test_what_single_precision_cannot_tell_from_zero_is_zero() -> None:
    x, _, _, y = layer()
    x[:, 3] = x[:, 1] + 1e-9 * np.random.default_rng(1).standard_normal(x[:, 1].shape)
    ours, _ = least_squares(x, y, intercept=False)
    assert np.abs(ours).max() < 10


def test_the_other_selections_by_hand() -> None:
    x = np.array([[[1.0, -1], [3, 0], [0, 0], [-2, 2]]])  # mean |X_i|: 1, 1.5, 0, 2
    weight = np.array([[[1.0, 1], [0, 1], [4, -4], [0, 0]], [[-2, 0], [0, 1], [1, 0], [2, 1]]])  # sums: 4, 2, 9, 3
    y, draws = np.zeros((1, 2)), np.random.default_rng(0)
    kept = {s: [choose(x, weight, y, k, s, draws).tolist() for k in range(1, 5)] for s in SELECTIONS[3:]}
    assert kept == {
        "first": [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]],
        "l1": [[2], [0, 2], [0, 2, 3], [0, 1, 2, 3]],
        "max_response": [[3], [1, 3], [0, 1, 3], [0, 1, 2, 3]],
    }


@pytest.mark.parametrize(("samples", "looked_at"), [(20_000, 400), (4_000, 200), (600, 30), (300, 300), (10, 10)])
def test_the_lasso_looks_at_a_twentieth_at_most_400_and_at_all_where_they_are_few(
    samples: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 6 channels and 3 outputs: fewer than 20 samples are fewer than 10 rows a scalar, and a twentieth of 300 is 15.
    x, weight, bias, y = layer(samples=samples, positions=1)
    rows: list[int] = []
    monkeypatch.setattr(reconstruction, "regressors", lambda x, w: rows.append(len(x)) or regressors(x, w))
    reconstruct(x, weight, y, 3, bias=bias)
    assert rows == [looked_at]


def test_equal_draws_give_equal_bits_and_other_draws_other_samples() -> None:
    x, weight, bias, y = layer(samples=2000)
    y = y + 20 * np.random.default_rng(1).standard_normal(y.shape)
    first, second = (
        reconstruct(x, weight, y, 3, bias=bias, intercept=True, draws=np.random.default_rng(4)) for _ in range(2)
    )
    assert first.weight.tobytes() == second.weight.tobytes()
    chosen = {tuple(choose(x, weight, y, 3, "lasso", np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert len(chosen) > 1


@pytest.mark.parametrize("which", [0, 1, 3])
def test_what_is_not_finite_is_refused(which: int) -> None:
    arrays = list(layer())
    arrays[which].flat[3] = np.nan
    with pytest.raises(CompressError, match="not finite"):
        reconstruct(arrays[0], arrays[1], arrays[3], 2)
