"""When masks are made, how long they stay, and what masked weights do between two steps."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError

RunOf = Callable[..., Any]

HALF = """\
policies:
  - pruner: {{class: SparsityLevelParameterPruner, levels: {{weight: 0.5}}, args: {{{args}}}}}
    {window}
"""


def half(args: str = "", window: str = "epochs: [0]") -> str:
    return HALF.format(args=args, window=window)


def layer(values: list[float]) -> nn.Linear:
    model = nn.Linear(len(values), 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([values], dtype=torch.float32))
    return model


def values(run: Any) -> list[float]:
    return run.model.weight[0].tolist()


def seen(run: Any) -> list[list[float]]:
    return [weights["weight"][0].tolist() for weights in run.seen]


def firings(run: Any, epochs: int) -> list[tuple[int, int]]:
    """(epoch, step) of every time that the pruner computed its masks; -1 is the epoch's begin."""
    times: list[tuple[int, int]] = []
    masks, owner = run.masks, next(iter(run.events.memory))
    real, now = masks.set, [0, -1]

    def spy(name: str, *args: Any, **kwargs: Any) -> None:
        if name == owner:
            times.append((now[0], now[1]))
        real(name, *args, **kwargs)

    masks.set = spy
    for epoch in range(epochs):
        now[:] = [epoch, -1]
        run.begin(epoch)
        for step in range(run.clock.steps_per_epoch):
            now[1] = step
            run.step()
        run.end()
    masks.set = real
    return times


def test_masks_are_made_at_the_begin_of_each_epoch_of_the_window(run_of: RunOf) -> None:
    window = "starting_epoch: 1\n    ending_epoch: 6\n    frequency: 2"
    run = run_of(half(window=window), layer([1, 2]), epochs=8, steps=3)
    assert firings(run, 8) == [(1, -1), (3, -1), (5, -1)]
    run = run_of(half(window="epochs: [4, 0]"), layer([1, 2]), epochs=8, steps=3)
    assert firings(run, 8) == [(0, -1), (4, -1)]


def test_mini_batch_pruning_frequency_counts_optimizer_steps_of_the_whole_run(run_of: RunOf) -> None:
    # 5 steps an epoch, every 3 steps: 3 | 6 9 | 12 | (15 is the first of epoch 3: that is its begin) 18
    run = run_of(half("mini_batch_pruning_frequency: 3", "starting_epoch: 0"), layer([1, 2]), epochs=4, steps=5)
    assert firings(run, 4) == [(0, -1), (0, 3), (1, -1), (1, 1), (1, 4), (2, -1), (2, 2), (3, -1), (3, 3)]


def test_mini_batch_pruning_frequency_asks_in_the_windows_epochs_only(run_of: RunOf) -> None:
    run = run_of(half("mini_batch_pruning_frequency: 2", "epochs: [1]"), layer([1, 2]), epochs=3, steps=4)
    assert firings(run, 3) == [(1, -1), (1, 2)]


def test_a_window_in_steps_makes_masks_at_its_steps(run_of: RunOf) -> None:
    text = "version: 2\n" + half(window="starting_step: 3\n    ending_step: 12\n    step_frequency: 4")
    run = run_of(text, layer([1, 2]), epochs=4, steps=4)
    assert firings(run, 4) == [(0, 3), (1, 3), (2, 3)]  # 3, 7, 11


def test_row_a_mask_stays_in_force_after_its_window_and_between_its_epochs(run_of: RunOf) -> None:
    run = run_of(half(window="epochs: [1, 4]"), layer([1, -2, 3, -4]), epochs=7, steps=2, lr=1.0)
    run.gradient = -0.5
    after = []
    for epoch in range(7):
        run.epoch(epoch)
        after.append(values(run))
    assert after[0] == [2, -1, 4, -3]
    assert after[1] == [0, 0, 5, -2]  # -1 and 2 are the smallest when epoch 1 begins
    assert after[2] == [0, 0, 6, -1]
    assert after[3] == [0, 0, 7, 0]  # a live weight passed through 0
    assert after[4:] == [[0, 0, 8, 1], [0, 0, 9, 2], [0, 0, 10, 3]]  # the ties at 0 go by index: again the first two
    assert all(weights[:2] == [0, 0] for weights in seen(run)[2:])


def test_masked_weights_are_zero_in_every_forward_pass_with_momentum_and_decay(run_of: RunOf) -> None:
    model = layer([1, -2, 3, -4])
    for optimizer in (
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
        torch.optim.AdamW(model.parameters(), lr=0.1),
    ):
        run = run_of(half(window="epochs: [1]"), model, epochs=4, steps=3, optimizer=optimizer)
        run.gradient = 0.3
        for epoch in range(4):
            run.epoch(epoch)
        later = torch.tensor(seen(run)[3:])
        assert (later == 0).sum(1).tolist() == [2] * 9
        assert not torch.signbit(later[later == 0]).any()
        assert (torch.tensor(values(run)) == 0).sum() == 2
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, -2, 3, -4]]))


def test_row_each_policy_owns_its_mask_two_pruners_of_one_weight_compose(run_of: RunOf) -> None:
    text = """\
policies:
  - pruner: {class: SparsityLevelParameterPruner, levels: {weight: 0.25}}
    epochs: [0, 2]
  - pruner: {class: MagnitudeParameterPruner, thresholds: {weight: 2}}
    epochs: [1]
"""
    run = run_of(text, layer([1, 2, 3, 4]), epochs=4)
    run.epoch(0)
    assert values(run) == [0, 2, 3, 4]
    run.epoch(1)
    assert values(run) == [0, 0, 3, 4]
    run.epoch(2)  # the first one computes its masks again; what the second one pruned stays pruned
    assert values(run) == [0, 0, 3, 4]
    assert torch.equal(
        run.masks.owned("1.MagnitudeParameterPruner")["weight"], torch.tensor([[False, False, True, True]])
    )


def test_policies_mask_in_file_order_and_the_later_one_sees_what_the_earlier_one_did(run_of: RunOf) -> None:
    level = "  - pruner: {class: SparsityLevelParameterPruner, levels: {weight: 0.5}}\n    epochs: [0]\n"
    small = "  - pruner: {class: MagnitudeParameterPruner, thresholds: {weight: 3}}\n    epochs: [0]\n"
    first = run_of("policies:\n" + level + small, layer([1, 2, 3, 4]))
    second = run_of("policies:\n" + small + level, layer([1, 2, 3, 4]))
    first.begin(0)
    second.begin(0)
    assert first.masks.owned("0.SparsityLevelParameterPruner")["weight"].tolist() == [[False, False, True, True]]
    # of three zeros and a 4 the two smallest are the first two
    assert second.masks.owned("1.SparsityLevelParameterPruner")["weight"].tolist() == [[False, False, True, True]]
    assert values(first) == values(second) == [0, 0, 0, 4]


def test_forward_only_masks_let_masked_weights_be_updated(run_of: RunOf) -> None:
    args = "mask_on_forward_only: true"
    run = run_of(half(args, "ending_epoch: 2"), layer([1, -2, 3, -4]), steps=2, lr=1.0)
    run.gradient = -0.25
    run.epoch(0)
    assert seen(run) == [[0, 0, 3, -4], [0, 0, 3.25, -3.75]]
    assert values(run) == [0.25, 0.25, 3.5, -3.5]
    run.epoch(1)
    run.epoch(2)
    assert seen(run)[4:] == [[0.25, 0.25, 4.0, -3.0], [0.5, 0.5, 4.25, -2.75]]  # forgotten at the window's end
    assert run.masks.keep("weight") is None


def test_forward_only_masks_become_permanent_with_keep_mask(run_of: RunOf) -> None:
    args = "mask_on_forward_only: true, keep_mask: true"
    run = run_of(half(args, "ending_epoch: 2"), layer([1, -2, 3, -4]), steps=2, lr=1.0)
    run.gradient = -0.25
    for epoch in range(3):
        run.epoch(epoch)
    assert values(run) == [0, 0, 4.5, -2.5]
    assert seen(run)[-1][:2] == [0, 0]


def test_double_copies_train_the_dense_weights_behind_the_mask(run_of: RunOf) -> None:
    run = run_of(half("use_double_copies: true", "epochs: [0, 1]"), layer([1, -2, 3, -4]), steps=2, lr=1.0)
    run.gradient = -0.5
    run.epoch(0)
    assert seen(run) == [[0, 0, 3, -4], [0, 0, 3.5, -3.5]]
    assert values(run) == [2, -1, 4, -3]
    run.epoch(1)  # computed again from the dense weights: -1 and 2 are the smallest
    assert seen(run)[2:] == [[0, 0, 4, -3], [0, 0, 4.5, -2.5]]
    run.epoch(2)
    assert seen(run)[4:] == [[0, 0, 5, -2], [0, 0, 5.5, -1.5]]  # the mask stays behind the window
    assert values(run) == [4, 1, 6, -1]


def test_discarded_masks_live_for_one_step(run_of: RunOf) -> None:
    run = run_of(half("discard_masks_at_minibatch_end: true", "epochs: [1]"), layer([1, -2, 3, -4]), steps=3, lr=1.0)
    run.gradient = -0.25
    for epoch in range(3):
        run.epoch(epoch)
    assert seen(run)[3] == [0, 0, 3.75, -3.25]
    assert seen(run)[4] == [0, 0, 4.0, -3.0]  # zeroed by the first step, and free from then on
    assert seen(run)[5] == [0.25, 0.25, 4.25, -2.75]
    assert run.masks.keep("weight") is None


def test_discarded_masks_the_last_of_which_is_kept_become_permanent(run_of: RunOf) -> None:
    args = "discard_masks_at_minibatch_end: true, keep_mask: true"
    run = run_of(half(args, "epochs: [0]"), layer([1, -2, 3, -4]), steps=3, lr=1.0)
    run.gradient = -0.25
    for epoch in range(2):
        run.epoch(epoch)
    assert values(run)[:2] == [0, 0]


def test_mask_gradients_zeroes_the_gradients_of_masked_weights(run_of: RunOf) -> None:
    for masked in (True, False):
        args = f"use_double_copies: true, mask_gradients: {str(masked).lower()}"
        run = run_of(half(args, "epochs: [0]"), layer([1, -2, 3, -4]), lr=1.0)
        run.gradient = -0.5
        run.epoch(0)
        assert values(run) == ([1, -2, 3.5, -3.5] if masked else [1.5, -1.5, 3.5, -3.5])


def test_skip_first_minibatch_makes_the_first_masks_at_the_second(run_of: RunOf) -> None:
    run = run_of(half("skip_first_minibatch: true", "epochs: [1, 2]"), layer([1, 2]), epochs=4, steps=3)
    assert firings(run, 4) == [(1, 1), (2, -1)]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("mini_batch_pruning_frequency: -1", "got -1"),
        ("mini_batch_pruning_frequency: 1.5", "integer"),
        ("keep_mask: 1", "boolean"),
        ("mask_on_forward: true", "did you mean 'mask_on_forward_only'"),
    ],
)
def test_row_unknown_or_wrong_policy_args_are_an_error(run_of: RunOf, args: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_of(half(args), layer([1, 2]))


def test_every_pruning_policy_argument_of_distiller_is_read(faults_of: Callable[[str], list[str]]) -> None:
    # schedule-grammar.md, section 3
    args = (
        "keep_mask: false, mini_batch_pruning_frequency: 0, mask_on_forward_only: false, mask_gradients: false,"
        " use_double_copies: false, discard_masks_at_minibatch_end: false, skip_first_minibatch: false,"
        " fold_batchnorm: false"
    )
    assert faults_of(half(args)) == []


def test_the_levels_may_be_given_as_policy_args(run_of: RunOf) -> None:
    # schedule-grammar.md, section 3: pruning-policy args: levels, keep_mask (F), ...
    text = """\
pruners:
  p: {class: SparsityLevelParameterPruner, levels: {weight: 0.25}}
policies:
  - {pruner: {instance_name: p, args: {levels: {weight: 0.75}}}, epochs: [0]}
"""
    run = run_of(text, layer([1, 2, 3, 4]))
    run.begin(0)
    assert values(run) == [0, 0, 0, 4]


def test_the_run_has_settled_when_the_last_policy_has_fired_last(run_of: RunOf) -> None:
    two = half(window="starting_epoch: 1\n    ending_epoch: 6\n    frequency: 3") + half(
        window="epochs: [0, 2]"
    ).replace("policies:\n", "")
    assert run_of(two, layer([1, 2]), epochs=9).events.settled() == 4
    assert run_of(two, layer([1, 2]), epochs=3).events.settled() == 2  # never reached: the last epoch
    lr = "policies:\n  - lr_scheduler: {class: StepLR, step_size: 3}\n"
    assert run_of(lr, layer([1, 2]), epochs=9).events.settled() == 0
    steps = "version: 2\n" + half(window="ending_step: 20")  # fires last at step 19; 8 steps an epoch
    assert run_of(steps, layer([1, 2]), epochs=9, steps=8).events.settled() == 2


def test_a_target_that_was_not_reached_is_said_with_both_figures(run_of: RunOf) -> None:
    run = run_of(half(window="epochs: [7]"), layer([1, 2, 3, 0]), epochs=3)
    for epoch in range(3):
        run.epoch(epoch)
    [line] = run.events.shortfalls()
    assert all(word in line for word in ("0.SparsityLevelParameterPruner", "weight", "0.5000", "0.2500", "7", "3"))
    with torch.no_grad():
        run.model.weight[0, 0] = 0
    assert run.events.shortfalls() == []


def test_a_target_reached_to_the_floor_of_the_product_is_reached(run_of: RunOf) -> None:
    run = run_of(half(), layer([1, 2, 3]))  # floor(1.5)
    run.epoch(0)
    assert run.events.shortfalls() == []


def test_agp_falls_short_of_its_final_sparsity_where_the_run_is_too_short(run_of: RunOf) -> None:
    text = """\
policies:
  - pruner: {class: AutomatedGradualPruner, initial_sparsity: 0, final_sparsity: 0.8, weights: weight}
    ending_epoch: 5
"""
    run = run_of(text, layer([float(value) for value in range(1, 11)]), epochs=3)
    for epoch in range(3):
        run.epoch(epoch)
    [line] = run.events.shortfalls()
    assert "0.8000" in line
    assert "0.7000" in line  # 0.8 (1 - 1/8)


def test_a_policy_fires_the_same_with_its_memory_and_masks_loaded_in_between(run_of: RunOf) -> None:
    text = half("mini_batch_pruning_frequency: 2", "starting_epoch: 1\n    ending_epoch: 5\n    frequency: 2")
    start = torch.randn(40, generator=torch.Generator().manual_seed(0)).tolist()

    def to_the_end(run: Any, first: int) -> Tensor:
        for epoch in range(first, 6):
            run.gradient = 0.7 * (-1) ** epoch
            run.epoch(epoch)
        return run.model.weight.detach()

    straight = run_of(text, layer(start), epochs=6, steps=3, momentum=0.9)
    want = to_the_end(straight, 0).clone()
    for stop in range(1, 6):
        broken = run_of(text, layer(start), epochs=6, steps=3, momentum=0.9)
        for epoch in range(stop):
            broken.gradient = 0.7 * (-1) ** epoch
            broken.epoch(epoch)
        resumed = run_of(text, layer(broken.model.weight[0].tolist()), epochs=6, steps=3, momentum=0.9)
        resumed.optimizer.load_state_dict(copy.deepcopy(broken.optimizer.state_dict()))
        resumed.events.load_state_dict(copy.deepcopy(broken.events.state_dict()))
        resumed.masks.load_state_dict(copy.deepcopy(broken.masks.state_dict()))
        assert torch.equal(to_the_end(resumed, stop), want), stop
