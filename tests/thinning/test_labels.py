"""Labels of tensors, by pencil."""

import torch
from torch import Tensor

from compressor.thinning.labels import along, changing, compressed, distinct, is_empty, only_along, small, vector


def test_labels_along_a_dim_cost_no_more_than_one_for_each_channel() -> None:
    label = along(5, (2, 3, 4), 1)
    assert label.shape == (2, 3, 4)
    assert label[1, :, 3].tolist() == [5, 6, 7]
    assert label.untyped_storage().nbytes() == 3 * 8
    assert changing(label) == (1,)
    assert small(label).tolist() == [[[5], [6], [7]]]
    assert along(5, (2, 3, 4), -1)[0, 0].tolist() == [5, 6, 7, 8]


def test_compressed_labels_are_the_same_and_change_only_where_they_do() -> None:
    rows = torch.tensor([[[1, 1], [2, 2]], [[1, 1], [2, 2]]])  # it changes along the middle dim
    assert changing(rows) == (0, 1, 2)
    assert changing(compressed(rows)) == (1,)
    assert torch.equal(compressed(rows), rows)
    assert changing(compressed(torch.full((2, 3), 7))) == ()
    pairs = torch.tensor([[1, 2], [2, 1]])
    assert changing(compressed(pairs)) == (0, 1)
    nothing = torch.empty(0, 3, dtype=torch.long)
    assert compressed(nothing).shape == (0, 3)


def test_a_dim_of_one_entry_does_not_change() -> None:
    assert changing(along(0, (1, 1, 3), 1)) == ()
    assert changing(torch.tensor([[4], [5]])) == (0,)


def test_the_vector_along_a_dim_is_that_of_the_first_entries() -> None:
    label = torch.arange(24).reshape(2, 3, 4)
    assert vector(label, 0).tolist() == [0, 12]
    assert vector(label, 1).tolist() == [0, 4, 8]
    assert vector(label, -1).tolist() == [0, 1, 2, 3]


def test_labels_change_along_one_dim_alone_or_not_at_all() -> None:
    assert only_along(along(0, (2, 3), 1), 1)
    assert only_along(along(0, (2, 3), 1), -1)
    assert not only_along(along(0, (2, 3), 1), 0)
    assert only_along(torch.tensor(3).expand(2, 3), 0)
    assert not only_along(torch.arange(6).reshape(2, 3), 1)


def test_distinct_labels_are_sorted_and_without_those_that_are_none() -> None:
    def some(*values: int) -> Tensor:
        return torch.tensor(values)

    assert distinct((some(3, -1, 1), some(1, 7))).tolist() == [1, 3, 7]
    assert distinct(()).tolist() == distinct((some(-1),)).tolist() == []


def test_labels_are_empty_where_no_entry_has_one() -> None:
    assert is_empty(torch.tensor([-1, -1]))
    assert is_empty(torch.empty(0, dtype=torch.long))
    assert not is_empty(torch.tensor([-1, 0]))
