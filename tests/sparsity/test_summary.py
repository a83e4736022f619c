"""Sparsity by element and structure, and moments: literal tensors, and the formulas on random ones."""

import pytest
import torch

from compressor.sparsity.summary import summarize


def test_a_matrix_by_hand() -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, -3.0], [0.0, 0.0, 2.0], [4.0, 0.0, 0.0]])
    summary = summarize("w", weight)
    assert summary.shape == [4, 3]
    assert (summary.weights, summary.nonzero) == (12, 4)
    assert summary.sparsity == pytest.approx(8 / 12)
    assert summary.rows == pytest.approx(1 / 4)
    assert summary.cols == pytest.approx(1 / 3)
    assert (summary.filters, summary.channels, summary.kernels) == (None, None, None)
    assert summary.mean == pytest.approx(4 / 12)
    assert summary.mean_abs == pytest.approx(10 / 12)
    # sum of squares 1 + 9 + 4 + 16 = 30; unbiased: (30 - 16 / 12) / 11
    assert summary.std == pytest.approx(((30 - 4 / 3) / 11) ** 0.5)


def test_a_convolution_by_hand() -> None:
    weight = torch.zeros(3, 2, 2, 2)
    weight[0, 0] = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    weight[2, 0, 1, 1] = 5.0
    summary = summarize("w", weight)
    assert (summary.weights, summary.nonzero) == (24, 3)
    assert summary.sparsity == pytest.approx(21 / 24)
    assert summary.filters == pytest.approx(1 / 3)  # filter 1 is all zero
    assert summary.channels == pytest.approx(1 / 2)  # channel 1 is
    assert summary.kernels == pytest.approx(4 / 6)  # all but (0, 0) and (2, 0)
    assert (summary.rows, summary.cols) == (None, None)
    assert summary.mean_abs == pytest.approx(7 / 24)


def test_a_dense_weight_has_no_empty_structure() -> None:
    summary = summarize("w", torch.ones(2, 3, 1, 1))
    assert summary.sparsity == 0
    assert (summary.filters, summary.channels, summary.kernels) == (0, 0, 0)
    assert (summary.mean, summary.std, summary.mean_abs) == (1, 0, 1)


def test_an_all_zero_weight_is_empty_in_every_way() -> None:
    summary = summarize("w", torch.zeros(2, 3))
    assert (summary.sparsity, summary.rows, summary.cols) == (1, 1, 1)
    assert (summary.mean, summary.std, summary.mean_abs) == (0, 0, 0)


def test_minus_zero_is_a_zero_and_nan_is_none() -> None:
    assert summarize("w", torch.tensor([[-0.0, 1.0]])).nonzero == 1
    assert summarize("w", torch.tensor([[float("nan"), 0.0]])).nonzero == 1


@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 3, 3), (4, 3, 5), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_and_shares_are_those_of_the_direct_formulas(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    weight = (torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5).to(dtype)
    weight[torch.rand(shape, generator=generator) < 0.7] = 0
    weight[1] = 0
    weight[:, 2] = 0
    summary = summarize("w", weight)
    assert summary.nonzero == sum(value != 0 for value in weight.flatten().tolist())
    assert summary.mean == pytest.approx(float(weight.double().mean()), rel=1e-6)
    assert summary.std == pytest.approx(float(torch.std(weight.double())), rel=1e-6)
    assert summary.mean_abs == pytest.approx(float(weight.double().abs().mean()), rel=1e-6)
    dead0 = sum(not weight[i].any() for i in range(shape[0])) / shape[0]
    dead1 = sum(not weight[:, j].any() for j in range(shape[1])) / shape[1]
    dead01 = sum(not weight[i, j].any() for i in range(shape[0]) for j in range(shape[1])) / (shape[0] * shape[1])
    assert 0 < dead0 < 1
    if len(shape) == 2:
        assert (summary.rows, summary.cols) == (pytest.approx(dead0), pytest.approx(dead1))
    else:
        assert (summary.filters, summary.channels) == (pytest.approx(dead0), pytest.approx(dead1))
        assert summary.kernels == pytest.approx(dead01)


def test_the_deviation_of_weights_far_from_0_is_not_lost_in_rounding() -> None:
    weight = 100 + torch.randn(50, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-2
    assert summarize("w", weight).std == pytest.approx(float(weight.std()), rel=1e-4)
    assert summarize("w", torch.full((3, 3), 0.1)).std == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_weights_neither_overflow_nor_round_off(dtype: torch.dtype) -> None:
    weight = torch.full((300, 10), -100.0, dtype=dtype)  # the sum of magnitudes, 300,000, is beyond half precision
    weight[0] = 50.0
    summary = summarize("w", weight)
    assert summary.mean == pytest.approx((-100 * 2990 + 50 * 10) / 3000)
    assert summary.mean_abs == pytest.approx((100 * 2990 + 50 * 10) / 3000)
    # (2990 * 100^2 + 10 * 50^2 - 3000 * 99.5^2) / 2999 = 224,250 / 2999
    assert summary.std == pytest.approx((224_250 / 2999) ** 0.5, rel=1e-4)


def test_one_weight_has_no_deviation_and_none_have_no_moments() -> None:
    assert summarize("w", torch.tensor([[3.0]])).std == 0
    empty = summarize("w", torch.zeros(0, 4))
    assert (empty.weights, empty.sparsity, empty.mean, empty.std) == (0, 0, 0, 0)


def test_the_layout_in_memory_changes_nothing_and_no_gradient_is_recorded() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        weight[1] = 0
    plain, turned = summarize("w", weight), summarize("w", weight.to(memory_format=torch.channels_last))
    assert (turned.nonzero, turned.filters, turned.kernels) == (plain.nonzero, plain.filters, plain.kernels)
    assert turned.mean == pytest.approx(plain.mean)
    assert turned.std == pytest.approx(plain.std)


@pytest.mark.parametrize("value", [1e-45, -1e-45, 1e-30, 3e38, float("inf"), float("nan")])
def test_a_structure_with_one_weight_however_small_or_large_is_not_empty(value: float) -> None:
    weight = torch.zeros(3, 2, 2, 2)
    weight[1, 1, 0, 1] = value
    summary = summarize("w", weight)
    assert summary.nonzero == 1
    assert (summary.filters, summary.channels, summary.kernels) == tuple(map(pytest.approx, (2 / 3, 1 / 2, 5 / 6)))
    matrix = torch.zeros(4, 3)
    matrix[2, 0] = value
    assert (summarize("w", matrix).rows, summarize("w", matrix).cols) == (pytest.approx(3 / 4), pytest.approx(2 / 3))


def test_weights_that_cancel_do_not_make_a_structure_empty() -> None:
    weight = torch.zeros(2, 2, 1, 2)
    weight[0, 0, 0] = torch.tensor([1.0, -1.0])
    weight[0, 1, 0] = torch.tensor([-2.0, 2.0])
    summary = summarize("w", weight)
    assert (summary.filters, summary.channels, summary.kernels) == (0.5, 0, 0.5)
