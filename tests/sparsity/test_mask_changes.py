"""How many entries of the masks in force were pruned, and how many revived, counted by hand."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from compressor.sparsity.mask_changes import changed
from compressor.sparsity.masks import Masks, Mode


def keep(text: str) -> Tensor:
    """A mask as a table, `#` stays; a row a word."""
    return torch.tensor([[cell == "#" for cell in row] for row in text.split()])


@pytest.fixture
def masks() -> Masks:
    return Masks(
        {"w": nn.Parameter(torch.ones(2, 4)), "v": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(4))}
    )


def test_a_first_mask_prunes_and_its_release_revives(masks: Masks) -> None:
    assert masks.take_changes() == {}
    masks.set("a", "w", keep("##.. #..."))
    masks.set("a", "v", keep("## ##"))
    assert masks.take_changes() == {"w": (5, 0)}
    assert masks.take_changes() == {}
    masks.release("a")
    assert masks.take_changes() == {"w": (0, 5)}


@pytest.mark.parametrize("mode", ["weights", "forward", "dense"])
def test_of_a_mask_that_replaces_another_both_are_counted(masks: Masks, mode: Mode) -> None:
    masks.set("a", "w", keep("##.. #..."), mode)
    masks.take_changes()
    masks.set("a", "w", keep("#... ..##"), mode)
    assert masks.take_changes() == {"w": (2, 2)}


def test_what_is_counted_is_the_mask_of_all_owners(masks: Masks) -> None:
    masks.set("a", "w", keep("##.. ####"))
    masks.set("b", "w", keep("#### ..##"))
    assert masks.take_changes() == {"w": (4, 0)}
    masks.set("b", "w", keep("#.#. #.##"))  # 0,1 goes; 1,0 comes back; that 0,2 and 0,3 are pruned by `a` stays so
    assert masks.take_changes() == {"w": (1, 1)}


def test_only_the_first_and_the_last_mask_between_two_calls_count(masks: Masks) -> None:
    masks.set("a", "w", keep("##.. #..."))
    masks.take_changes()
    masks.release("a")
    masks.set("a", "w", keep(".... ...."))
    masks.set("a", "w", keep("##.. ##.."))
    assert masks.take_changes() == {"w": (0, 1)}


def test_biases_are_not_counted_and_loaded_masks_are_no_change(masks: Masks) -> None:
    masks.set("a", "b", torch.tensor([True, False, True, True]))
    masks.set("a", "w", keep("##.. #..."))
    state = masks.state_dict()
    masks.set("a", "w", keep(".... ...."))
    masks.load_state_dict(state)
    assert masks.take_changes() == {}


class Columns:
    """Removes the last columns of `w`."""

    shapes: Mapping[str, torch.Size] = {"w": torch.Size([2, 4])}

    def __init__(self, left: int) -> None:
        self._left = left

    def tensor(self, name: str, value: Tensor) -> Tensor:
        return value[:, : self._left] if name == "w" and value.shape == self.shapes[name] else value


def remove(masks: Masks, left: int) -> None:
    """Cut the weight, then its masks."""
    weight = masks._parameters["w"]
    weight.data = weight.data[:, :left].clone()
    masks.cut(Columns(left))


def test_removed_entries_that_were_pruned_are_not_pruned_again(masks: Masks) -> None:
    masks.set("a", "w", keep("##.. #.#."))  # 5 pruned, 3 of them in the last two columns, where 1 stays
    masks.take_changes()
    remove(masks, 2)
    assert masks.take_changes() == {"w": (1, 0)}
    masks.release("a")
    assert masks.take_changes() == {"w": (0, 1)}  # what is left of them


def test_without_a_mask_all_removed_entries_are_pruned(masks: Masks) -> None:
    remove(masks, 1)
    assert masks.take_changes() == {"w": (6, 0)}


def test_masks_of_the_same_event_count_in_the_old_shape(masks: Masks) -> None:
    masks.set("a", "w", keep("##.. ##.."))
    remove(masks, 2)
    assert masks.take_changes() == {"w": (4, 0)}


@pytest.mark.parametrize("layouts", [(0, 0), (1, 1), (0, 1)], ids=["rows", "channels last", "of two kinds"])
def test_large_masks_are_compared_entry_by_entry_whatever_their_layout(layouts: tuple[int, int]) -> None:
    kinds = (torch.contiguous_format, torch.channels_last)
    first, second = torch.rand(2, 64, 60, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    one, other = (
        keep.view(torch.int8).neg().contiguous(memory_format=kinds[kind])
        for keep, kind in zip((first, second), layouts, strict=True)
    )
    assert changed(one, other) == (int((first & ~second).sum()), int((second & ~first).sum()))
