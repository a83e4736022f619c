"""Classes that are lost, and logits that no longer depend on the image: what a run says, and where it ends."""

from typing import Any

import pytest
import torch
from loop import Loop
from torch import Tensor, nn

from compressor.errors import CompressError

SHAPE = (1, 2, 2)
CLASSES = ("cat", "dog", "owl")
LOST = "the logits no longer depend on the image"


def network() -> nn.Sequential:
    """4 inputs, 5 neurons, 3 classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def batches(steps: int = 2) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [(torch.rand(6, *SHAPE, generator=draws), torch.arange(6) % 3) for _ in range(steps)]


def loop(policies: str, model: nn.Module | None = None, version: int = 2, **more: Any) -> Loop:
    text = f"version: {version}\n{policies}"
    more = {"epochs": 2, "checkpoint": {}, "shape": SHAPE, "classes": CLASSES, **more}
    return Loop(network() if model is None else model, batches(), text, **more)


def all_of(level: float, when: str = "epochs: [1]", args: str = "", weight: str = "1.weight") -> str:
    return (
        "policies:\n  - pruner: {class: SparsityLevelParameterPruner, "
        f"levels: {{{weight}: {level}}}, args: {{{args}}}}}\n    {when}\n"
    )


@pytest.mark.parametrize(
    "policies",
    [
        all_of(1.0),
        all_of(1.0, args="mask_on_forward_only: true"),
        all_of(1.0, args="use_double_copies: true"),
        all_of(1.0, "starting_step: 2\n    ending_step: 3"),
        all_of(1.0, args="skip_first_minibatch: true"),
        "policies:\n  - pruner: {class: Pruner, weights: '*', scope: global, rate: {sparsity: 1.0}}\n    epochs: [1]\n",
        "policies:\n  - iht: {weights: 1.weight, sparsity: 1.0, sparse_epochs: 1, dense_epochs: 1, cycles: 1}\n"
        "    starting_epoch: 1\n    ending_epoch: 2\n",
    ],
    ids=["epoch", "forward", "dense copies", "step", "second mini-batch", "global", "iht"],
)
def test_a_run_ends_at_the_event_that_empties_the_only_path_and_keeps_the_checkpoint_before(policies: str) -> None:
    it = loop(policies)
    with pytest.raises(CompressError) as caught:
        it.run()
    assert caught.value.exit_code == 1
    assert f"epoch 1: 1.weight is all zero: {LOST}" in str(caught.value)
    assert "allow_empty_layers" in str(caught.value)
    assert list(it.snapshots) == [(1, 0)]
    # No step is taken on the empty network, except where the event comes in a step.
    assert len(it.after) in (2, 3)
    assert bool(it.snapshots[1, 0]["model"]["1.weight"].any())


@pytest.mark.parametrize(
    "policies",
    [
        "gates:\n  l0: {class: HardConcreteL0, weights: 1.weight, lambda: 1e5, lr: 100.0}\n"
        "policies:\n  - gate: {instance_name: l0}\n",
        "policies:\n  - regularizer: {class: L1Regularizer, reg_regims: {1.weight: 1.0}, threshold: 100.0}\n",
        "policies:\n  - regularizer: {class: GroupLassoRegularizer, reg_regims: {1.weight: [9.0, Cols]},\n"
        "      proximal: true}\n",
    ],
    ids=["l0", "threshold", "proximal"],
)
def test_gates_and_thresholds_that_empty_it_end_the_run_before_it_is_saved(policies: str) -> None:
    it = loop(policies)
    with pytest.raises(CompressError, match=f"epoch 0: 1.weight is all zero: {LOST}") as caught:
        it.run()
    assert "pruner's policy, where the schedule has one" in str(caught.value)
    assert (it.snapshots, it.best) == ({}, {})


@pytest.mark.parametrize(("version", "args"), [(2, "allow_empty_layers: true"), (1, "")])
def test_version_1_and_who_allows_it_are_warned_once(version: int, args: str) -> None:
    it = loop(all_of(1.0, "epochs: [0, 1]", args), version=version).run()
    assert it.said == [f"warning: epoch 0: 1.weight is all zero: {LOST}"]


@pytest.mark.parametrize("version", [1, 2])
def test_classes_that_are_lost_are_named_once_at_the_event(version: int) -> None:
    model = network()
    with torch.no_grad():
        model[3].weight[1:] *= 1e-3  # 10 of 15 weights: 'dog' and 'owl' have the smallest
    it = loop(all_of(2 / 3, "epochs: [0, 1]", weight="3.weight"), model, version).run()
    assert it.said == [
        "warning: epoch 0: 2 of 3 classes are lost: the logits of 'dog', 'owl' no longer depend on the image"
        " (3.weight makes them)"
    ]


def test_masks_that_are_drawn_for_one_step_empty_nothing() -> None:
    args = "discard_masks_at_minibatch_end: true"
    assert loop(all_of(1.0, "epochs: [0, 1]", args)).run().said == []


def test_a_head_that_begins_with_zeros_is_not_lost_and_one_that_is_pruned_whole_is() -> None:
    model = network()
    nn.init.zeros_(model[3].weight)
    assert loop(all_of(0.5, "epochs: [0]"), model).run().said == []
    nn.init.zeros_(model[3].weight)
    with pytest.raises(CompressError, match=r"3\.weight is all zero"):
        loop(all_of(1.0, "epochs: [0]", weight="3.weight"), model).run()


def test_a_dead_block_beside_a_live_shortcut_is_no_fault() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.fc = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return self.fc(x + self.block(x).relu())

    assert loop(all_of(1.0, weight="block.weight"), Residual()).run().said == []


def test_the_check_changes_no_bit_of_a_run() -> None:
    class Noisy(nn.Sequential):
        """Random numbers in evaluation, too."""

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x + 0.01 * torch.randn_like(x))
            return out

    def weights(shape: tuple[int, ...] | None) -> list[Tensor]:
        it = loop(all_of(0.5, "epochs: [0, 1]"), Noisy(*network()), shape=shape).run()
        return list(it.after[-1].values())

    assert all(torch.equal(a, b) for a, b in zip(weights(SHAPE), weights(None), strict=True))
