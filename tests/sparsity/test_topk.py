"""Exactly k of the smallest, ties by index, against numpy's stable sort."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.errors import CompressError
from compressor.sparsity.topk import pruned_count, smallest


def table(text: str) -> Tensor:
    """`#` is true."""
    return torch.tensor([[cell == "#" for cell in row] for row in text.split()])


def by_stable_sort(score: np.ndarray, count: int) -> np.ndarray:
    chosen = np.zeros(score.size, dtype=bool)
    chosen[np.argsort(score.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(score.shape)


@pytest.mark.parametrize(
    ("sparsity", "total", "count"),
    [
        (0.5, 7, 3),
        (0.0, 9, 0),
        (1.0, 9, 9),
        (0.29, 100, 28),  # 0.29 * 100 is 28.999999999999996: Python's floor of the float product
        (0.3, 10, 3),
        (0.7, 10, 7),
        (0.1, 30, 3),
        (0.999, 10, 9),
        (0.5, 0, 0),
    ],
)
def test_row_ties_prune_exactly_floor_s_n_by_pythons_floor_of_the_product(
    sparsity: float, total: int, count: int
) -> None:
    assert pruned_count(sparsity, total) == count


SCORES = torch.tensor([[4.0, 1.0, 3.0, 1.0], [2.0, 0.0, 9.0, 1.0], [1.0, 5.0, 0.0, 7.0], [2.0, 2.0, 6.0, 8.0]])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ".... .... .... ...."),
        (1, ".... .#.. .... ...."),  # two zeros: the lower index goes first
        (2, ".... .#.. ..#. ...."),
        (3, ".#.. .#.. ..#. ...."),  # four ones: in the order of their indices
        (4, ".#.# .#.. ..#. ...."),
        (5, ".#.# .#.# ..#. ...."),
        (6, ".#.# .#.# #.#. ...."),
        (7, ".#.# ##.# #.#. ...."),
        (8, ".#.# ##.# #.#. #..."),
        (10, ".### ##.# #.#. ##.."),
        (15, "#### ##.# #### ####"),
        (16, "#### #### #### ####"),
    ],
)
def test_row_ties_are_broken_by_index_in_a_table(count: int, expected: str) -> None:
    assert torch.equal(smallest(SCORES, count), table(expected))


@pytest.mark.parametrize("count", [0, 1, 5, 8, 15, 16])
def test_row_ties_an_all_equal_tensor_loses_its_first_k_and_no_more(count: int) -> None:
    chosen = smallest(torch.full((4, 2, 2), 0.25), count)
    assert chosen.shape == (4, 2, 2)
    assert torch.equal(chosen.flatten(), torch.arange(16) < count)


@pytest.mark.parametrize("count", [-3, 0])
def test_none_are_chosen_of_a_count_of_0_or_less(count: int) -> None:
    assert not smallest(SCORES, count).any()


def test_all_are_chosen_of_a_count_beyond_the_size() -> None:
    assert smallest(SCORES, 99).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("values", [2, 5, 10_000])
def test_exactly_k_as_a_stable_sort_chooses_them_at_every_precision(dtype: torch.dtype, values: int) -> None:
    generator = torch.Generator().manual_seed(values)
    score = (torch.randint(-values, values, (13, 7, 3), generator=generator) / 8).to(dtype)
    reference = score.double().numpy()
    for count in (1, 2, 100, 136, 137, 200, 272):
        chosen = smallest(score, count)
        assert int(chosen.count_nonzero()) == count
        assert np.array_equal(chosen.numpy(), by_stable_sort(reference, count)), count


def test_doubles_are_told_apart_that_are_equal_as_floats() -> None:
    score = torch.tensor([1.0 + 2e-12, 1.0 + 1e-12, 1.0], dtype=torch.float64)
    assert smallest(score, 1).tolist() == [False, False, True]
    assert smallest(score, 2).tolist() == [False, True, True]


def test_negative_scores_and_infinities_rank_by_value_not_by_magnitude() -> None:
    score = torch.tensor([-1.0, 3.0, -math.inf, 0.0, math.inf, -2.0])
    assert smallest(score, 1).tolist() == [False, False, True, False, False, False]
    assert smallest(score, 3).tolist() == [True, False, True, False, False, True]
    assert smallest(score, 5).tolist() == [True, True, True, True, False, True]


def test_minus_zero_and_zero_are_a_tie() -> None:
    assert smallest(torch.tensor([0.0, -0.0, 0.0]), 2).tolist() == [True, True, False]
    assert smallest(torch.tensor([-0.0, 0.0, -0.0]), 1).tolist() == [True, False, False]


def test_nan_ranks_as_the_largest() -> None:
    score = torch.tensor([math.nan, 2.0, math.nan, 1.0, math.inf])
    assert smallest(score, 1).tolist() == [False, False, False, True, False]
    assert smallest(score, 3).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize("count", [4, 3])
def test_more_than_there_are_numbers_cannot_be_ranked(count: int) -> None:
    score = torch.full((5,), math.nan)
    score[:2] = 1.0
    with pytest.raises(CompressError, match=f"fewer than {count}"):
        smallest(score, count)


def test_the_layout_in_memory_does_not_decide_ties() -> None:
    score = torch.randint(0, 3, (4, 3, 5, 5), generator=torch.Generator().manual_seed(0)).float()
    for count in (1, 60, 150, 299):
        want = smallest(score, count)
        assert torch.equal(smallest(score.to(memory_format=torch.channels_last), count), want)
        turned = score.permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2)
        assert torch.equal(smallest(turned, count), want)


def test_scores_with_a_gradient_are_ranked_and_left_as_they_are() -> None:
    score = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    assert smallest(score, 1).tolist() == [False, True, False]
    assert score.tolist() == [3.0, 1.0, 2.0]


def test_an_empty_tensor_has_nothing_to_choose() -> None:
    assert smallest(torch.zeros(0, 3), 0).shape == (0, 3)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_exactly_k_among_magnitudes_most_of_which_are_zero_already(share: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    score = torch.randint(1, 50, (5000,), generator=generator).to(dtype)
    score[torch.rand(5000, generator=generator) < share] = 0.0
    score[::7] *= -1.0
    score.abs_()
    score[3] = -0.0
    zeros = int((score == 0).sum())
    for count in (1, zeros - 1, zeros, zeros + 1, (zeros + 5000) // 2, 4999):
        chosen = smallest(score, count)
        assert np.array_equal(chosen.numpy(), by_stable_sort(score.double().numpy(), count)), count


def test_nan_and_infinity_stay_last_where_most_are_zero() -> None:
    score = torch.zeros(4000)
    score[100:110] = torch.tensor([1.0, math.inf, math.nan, 2.0, math.nan, math.inf, 3.0, 1e-45, 5.0, 4.0])
    chosen = smallest(score, 3990 + 6)
    assert chosen[100:110].tolist() == [True, False, False, True, False, False, True, True, True, True]
    assert smallest(score, 3998).tolist() == (~score.isnan()).tolist()
    with pytest.raises(CompressError, match="fewer than 3999"):
        smallest(score, 3999)
