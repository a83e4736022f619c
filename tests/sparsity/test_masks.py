"""Every owner's masks, their intersection, and zeros that are +0.0."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.sparsity.masks import Masks


def keep(text: str) -> Tensor:
    """A mask as a table, `#` stays; a row a word."""
    return torch.tensor([[cell == "#" for cell in row] for row in text.split()])


def counted() -> nn.Parameter:
    """4x4, 1 to 16."""
    return nn.Parameter(torch.arange(1.0, 17).view(4, 4))


@pytest.fixture
def weight() -> nn.Parameter:
    return counted()


@pytest.fixture
def masks(weight: nn.Parameter) -> Masks:
    return Masks({"w": weight, "v": nn.Parameter(torch.ones(2, 2))})


FIRST, SECOND = "##.. ##.. #### ####", "#### .### .### ...."


def test_a_mask_zeroes_what_it_prunes_and_leaves_the_rest_to_the_bit(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.apply()
    assert weight.tolist() == [[1, 2, 0, 0], [5, 6, 0, 0], [9, 10, 11, 12], [13, 14, 15, 16]]


def test_nothing_is_masked_before_anybody_masks(masks: Masks, weight: nn.Parameter) -> None:
    masks.apply()
    assert torch.equal(weight, counted())
    assert masks.keep("w") is None


def test_row_each_policy_owns_its_mask_and_in_force_is_the_intersection(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.set("b", "w", keep(SECOND))
    assert torch.equal(masks.keep("w"), keep("##.. .#.. .### ...."))
    masks.apply()
    assert weight.tolist() == [[1, 2, 0, 0], [0, 6, 0, 0], [0, 10, 11, 12], [0, 0, 0, 0]]


def test_row_each_policy_owns_its_mask_so_that_a_new_one_of_a_leaves_that_of_b(masks: Masks) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.set("b", "w", keep(SECOND))
    masks.set("a", "w", keep("#### #### #### ####"))
    assert torch.equal(masks.keep("w"), keep(SECOND))
    masks.set("b", "w", keep("#### #### #### ####"))
    assert masks.keep("w").all()


def test_row_each_policy_owns_its_mask_and_releases_only_its_own(masks: Masks) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.set("b", "w", keep(SECOND))
    masks.release("a")
    assert torch.equal(masks.keep("w"), keep(SECOND))
    masks.release("b")
    assert masks.keep("w") is None
    masks.release("never seen")


def test_a_released_weight_is_free_again(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.apply()
    masks.release("a")
    with torch.no_grad():
        weight += 1
    masks.apply()
    assert weight.tolist() == [[2, 3, 1, 1], [6, 7, 1, 1], [10, 11, 12, 13], [14, 15, 16, 17]]


def test_masks_of_different_weights_do_not_meet(masks: Masks) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.set("a", "v", keep("#. .#"))
    masks.set("b", "v", keep("## #."))
    assert torch.equal(masks.keep("w"), keep(FIRST))
    assert torch.equal(masks.keep("v"), keep("#. .."))
    assert set(masks.owned("a")) == {"w", "v"}
    assert torch.equal(masks.owned("b")["v"], keep("## #."))
    assert masks.owned("c") == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_row_masked_weight_is_plus_zero_even_where_it_was_negative_infinite_or_nan(dtype: torch.dtype) -> None:
    values = torch.tensor([[-3.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 1e-7, -1e-7]]).to(dtype)
    weight = nn.Parameter(values.repeat(2, 1))
    masks = Masks({"w": weight})
    masks.set("a", "w", keep("........ ########"))
    masks.apply()
    assert weight.dtype == dtype
    assert (weight[0] == 0).all()
    assert not torch.signbit(weight[0]).any()
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    assert torch.equal(weight[1].detach().view(bits), values[0].view(bits))  # the kept ones: the same bits


def test_row_masked_weight_is_plus_zero_where_a_product_would_be_minus_zero(masks: Masks, weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.neg_()
    assert torch.signbit(weight * keep(FIRST))[0, 2]  # the negative control: -3 * 0 is -0.0
    masks.set("a", "w", keep(FIRST))
    masks.apply()
    assert not torch.signbit(weight[~keep(FIRST)]).any()
    assert torch.signbit(weight[keep(FIRST)]).all()


def test_a_mask_follows_its_weights_when_they_lie_channels_last() -> None:
    values = torch.arange(1.0, 2 * 3 * 2 * 2 + 1).view(2, 3, 2, 2)
    weight = nn.Parameter(values.clone(memory_format=torch.contiguous_format).to(memory_format=torch.channels_last))
    stays = values % 3 != 0
    masks = Masks({"w": weight})
    masks.set("a", "w", stays)
    masks.set("b", "w", (values > 5).to(memory_format=torch.channels_last))
    masks.apply()
    assert torch.equal(weight, torch.where(stays & (values > 5), values, torch.zeros(())))
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(masks.keep("w"), stays & (values > 5))


def test_a_view_into_a_larger_tensor_is_masked_in_place_and_nothing_around_it() -> None:
    storage = torch.ones(4, 6)
    weight = nn.Parameter(storage[:, 1:4])
    masks = Masks({"w": weight})
    masks.set("a", "w", keep("#.# ### ... ###"))
    masks.apply()
    assert storage.tolist() == [[1, 1, 0, 1, 1, 1], [1] * 6, [1, 0, 0, 0, 1, 1], [1] * 6]


def test_applying_a_mask_neither_needs_nor_records_a_gradient(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.apply()
    assert weight.requires_grad
    assert weight.grad is None
    assert weight.is_leaf
    weight.sum().backward()
    assert torch.equal(weight.grad, torch.ones(4, 4))


def test_setting_a_mask_does_not_touch_the_weight_nor_the_callers_tensor(masks: Masks, weight: nn.Parameter) -> None:
    given = keep(FIRST)
    masks.set("a", "w", given)
    assert torch.equal(weight, counted())
    given.fill_(True)
    assert torch.equal(masks.keep("w"), keep(FIRST))


def test_the_answer_is_a_copy(masks: Masks) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.keep("w").fill_(True)
    masks.owned("a")["w"].fill_(True)
    assert torch.equal(masks.keep("w"), keep(FIRST))


def test_a_mask_of_another_shape_or_name_is_refused(masks: Masks) -> None:
    with pytest.raises(ValueError, match=r"'w'.*\(4, 4\).*\(2, 2\)"):
        masks.set("a", "w", keep("## ##"))
    with pytest.raises(ValueError, match=r"'w'"):
        masks.set("a", "w", torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(KeyError):
        masks.set("a", "nowhere", keep("##"))
    assert masks.keep("w") is None


def test_a_mask_takes_one_byte_a_weight(masks: Masks) -> None:
    masks.set("a", "w", keep(FIRST))
    [tensor] = masks.state_dict()["owned"]["a"].values()
    assert tensor.element_size() == 1
    assert tensor.numel() == 16


def test_the_state_goes_around_through_a_file(masks: Masks, weight: nn.Parameter, tmp_path: object) -> None:
    masks.set("a", "w", keep(FIRST))
    masks.set("b", "w", keep(SECOND))
    masks.set("b", "v", keep("#. ##"))
    torch.save(masks.state_dict(), f"{tmp_path}/masks.pt")
    fresh = counted()
    again = Masks({"w": fresh, "v": nn.Parameter(torch.ones(2, 2))})
    again.load_state_dict(torch.load(f"{tmp_path}/masks.pt", weights_only=True))
    assert torch.equal(again.keep("w"), keep("##.. .#.. .### ...."))
    again.release("a")  # the owners came back, not only their intersection
    assert torch.equal(again.keep("w"), keep(SECOND))
    assert torch.equal(again.keep("v"), keep("#. ##"))
    again.apply()
    assert fresh.tolist() == [[1, 2, 3, 4], [0, 6, 7, 8], [0, 10, 11, 12], [0, 0, 0, 0]]
    assert torch.equal(masks.keep("w"), keep("##.. .#.. .### ...."))


def test_loading_replaces_what_was_there(masks: Masks) -> None:
    state = copy.deepcopy(masks.state_dict())
    masks.set("a", "w", keep(FIRST))
    masks.load_state_dict(state)
    assert masks.keep("w") is None


def test_a_state_of_other_weights_is_refused(masks: Masks) -> None:
    masks.set("a", "w", keep(FIRST))
    state = masks.state_dict()
    for parameters in ({"w": nn.Parameter(torch.ones(2, 2))}, {"u": counted()}):
        with pytest.raises(UserError, match="'w'"):
            Masks(parameters).load_state_dict(state)


# Distiller's modes: what a masked weight is between two steps.


def step(masks: Masks, weight: nn.Parameter, add: float) -> Tensor:
    """One turn of the loop: the weight that the forward pass sees; the step adds `add` to every entry."""
    masks.before_forward()
    seen = weight.detach().clone()
    masks.before_step()
    with torch.no_grad():
        weight += add
    masks.apply()
    return seen


def test_mode_weights_keeps_the_zeros_through_every_step(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep("...# #### #### ####"))
    masks.apply()
    for turn in range(3):
        seen = step(masks, weight, 10)
        assert seen[0].tolist() == [0, 0, 0, 4 + 10 * turn]
        assert weight[0].tolist() == [0, 0, 0, 14 + 10 * turn]


def test_mode_forward_lets_the_step_update_masked_weights_and_forgets_it_at_the_next_forward_pass(
    masks: Masks, weight: nn.Parameter
) -> None:
    masks.set("a", "w", keep("...# #### #### ####"), mode="forward")
    for turn in range(3):
        seen = step(masks, weight, 10)
        assert seen[0].tolist() == [0, 0, 0, 4 + 10 * turn]
        assert weight[0].tolist() == [10, 10, 10, 14 + 10 * turn]


def test_mode_dense_goes_on_training_the_dense_copy_behind_the_mask(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep("...# #### #### ####"), mode="dense")
    for turn in range(3):
        seen = step(masks, weight, 10)
        assert seen[0].tolist() == [0, 0, 0, 4 + 10 * turn]
        grown = 10 * (turn + 1)
        assert weight[0].tolist() == [1 + grown, 2 + grown, 3 + grown, 4 + grown]
    masks.release("a")
    assert weight[0].tolist() == [31, 32, 33, 34]
    assert step(masks, weight, 0)[0].tolist() == [31, 32, 33, 34]


def test_a_mask_in_the_forward_pass_meets_one_on_the_weights(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep("..## #### #### ####"))
    masks.set("b", "w", keep("#..# #### #### ####"), mode="dense")
    masks.apply()
    seen = step(masks, weight, 10)
    assert seen[0].tolist() == [0, 0, 0, 4]
    assert weight[0].tolist() == [0, 0, 13, 14]  # a's stay zero, b's lives on
    assert torch.equal(masks.keep("w"), keep("...# #### #### ####"))


def test_folded_shows_the_masked_weights_and_puts_the_dense_ones_back(masks: Masks, weight: nn.Parameter) -> None:
    for mode in ("forward", "dense"):
        masks.set("a", "w", keep("...# #### #### ####"), mode=mode)  # type: ignore[arg-type]
        with masks.applied():
            assert weight[0].tolist() == [0, 0, 0, 4]
            assert not torch.signbit(weight).any()
        assert weight[0].tolist() == [1, 2, 3, 4]
        with pytest.raises(RuntimeError, match="inside"), masks.applied():
            raise RuntimeError("inside")
        assert weight[0].tolist() == [1, 2, 3, 4]


def test_gradients_of_what_an_owner_masks_are_zeroed(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep("...# #### #### ####"), mask_gradients=True)
    masks.set("b", "w", keep("###. #### #### ####"))
    masks.zero_gradients()  # no gradient yet: nothing to do
    weight.grad = torch.full((4, 4), -2.0)
    masks.zero_gradients()
    assert weight.grad.tolist() == [[0, 0, 0, -2]] + [[-2] * 4] * 3
    assert not torch.signbit(weight.grad[0, :3]).any()


def test_the_mode_comes_back_with_the_state(masks: Masks, weight: nn.Parameter) -> None:
    masks.set("a", "w", keep("...# #### #### ####"), mode="dense")
    fresh = counted()
    again = Masks({"w": fresh, "v": nn.Parameter(torch.ones(2, 2))})
    again.load_state_dict(copy.deepcopy(masks.state_dict()))
    assert step(again, fresh, 10)[0].tolist() == [0, 0, 0, 4]
    assert fresh[0].tolist() == [11, 12, 13, 14]
