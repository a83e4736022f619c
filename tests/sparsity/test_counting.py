"""The one count of what is not zero."""

import pytest
import torch

from compressor.sparsity.counting import count_nonzero


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_zeros_of_either_sign_are_zeros_and_nan_and_the_smallest_numbers_are_not(dtype: torch.dtype) -> None:
    smallest = torch.finfo(dtype).smallest_normal
    tensor = torch.tensor([[0.0, -0.0, smallest, -smallest], [float("nan"), float("inf"), 1.0, 0.0]], dtype=dtype)
    assert count_nonzero(tensor) == 5
    assert count_nonzero(tensor[:, 1:3]) == 3
    assert count_nonzero(tensor.t()) == 5


def test_booleans_parameters_and_empty_tensors_are_counted_too() -> None:
    assert count_nonzero(torch.tensor([True, False, True])) == 2
    assert count_nonzero(torch.nn.Parameter(torch.tensor([[1.0, 0.0]]))) == 1
    assert count_nonzero(torch.zeros(0, 3)) == 0
