"""The zeros with which a run begins: which count, and that they stay zero, bit for bit, whatever the schedule does."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from loop import Loop, random_batches
from torch import Tensor, nn

from compressor.context import Network
from compressor.session import zero_weights
from compressor.session.zeros import masks_of_zeros


def net(seed: int = 0) -> nn.Sequential:
    """conv 4 x 1 x 3 (filters 0 and 1 zero, with beta, gamma, bias), norm, fc1 6 x 8 half zero, fc2 3 x 6 dense."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv1d(1, 4, 3),
            norm=nn.BatchNorm1d(4),
            act=nn.Tanh(),
            flat=nn.Flatten(),
            fc1=nn.Linear(8, 6),
            act1=nn.Tanh(),
            fc2=nn.Linear(6, 3),
        )
    )
    with torch.no_grad():
        model.conv.weight[:2] = 0
        model.conv.bias.copy_(torch.tensor([0, 0.5, 0, 0.5]))
        model.norm.weight.copy_(torch.tensor([0, 0.5, 1, 0]))
        model.norm.bias.zero_()
        model.fc1.weight.flatten()[::2] = 0
        model.fc1.bias.zero_()
    return model


HELD = {"conv.weight": 6, "conv.bias": 1, "norm.weight": 1, "norm.bias": 2, "fc1.weight": 24}
"""Zeros that are held. Of vectors: those of filters 0 and 1 only, where they are zero."""


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(images[:, None], labels) for images, labels in random_batches([6] * count, features=4)]


def test_weights_with_many_zeros_count_and_vectors_do_not() -> None:
    tensors = {
        "half": torch.tensor([[0.0, 1.0], [2.0, -0.0]]),
        "dense": torch.ones(3, 3),
        "bias": torch.zeros(7),
        "dead": torch.zeros(2, 2),
        "table": torch.ones(200, 3),  # an embedding, whose first row is for padding: 1 of 200
        "few": torch.ones(100, 3),
    }
    tensors["table"][0] = 0
    tensors["few"][0] = 0
    assert zero_weights(tensors) == {"half": 2, "dead": 4, "few": 3}


def test_what_is_held_by_hand() -> None:
    model = net()
    network = Network(model, lambda: (1, 4), print)
    found = masks_of_zeros(network)
    assert {name: int((~keep).sum()) for name, keep in found.items()} == HELD
    assert torch.equal(found["fc1.weight"].flatten()[::2], torch.zeros(24, dtype=torch.bool))
    assert found["norm.bias"].tolist() == [False, False, True, True]
    assert found["conv.bias"].tolist() == [False, True, True, True]
    assert found["norm.weight"].tolist() == [False, True, True, True]


def test_where_channels_cannot_be_traced_the_biases_of_zero_filters_are_held() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
            with torch.no_grad():
                self.fc.weight[1] = 0
                self.fc.bias[1] = 0
                self.fc.bias[2] = 0

        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no images today")

    said: list[str] = []
    found = masks_of_zeros(Network(Odd(), lambda: (4,), said.append))
    assert {name: (~keep).nonzero().tolist() for name, keep in found.items()} == {
        "fc.weight": [[1, 0], [1, 1], [1, 2], [1, 3]],
        "fc.bias": [[1]],
    }
    assert len(said) == 1


def fine(levels: str, epoch: int = 0) -> str:
    return f"- {{pruner: {{class: SparsityLevelParameterPruner, levels: {levels}}}, epochs: [{epoch}]}}\n"


SCHEDULES = {
    "no schedule": "",
    "less sparse": fine("{'*': 0.1}"),
    "sparser, and again dense": """\
- dsd: {weights: '*', sparsity: 0.7, dense_epochs: 1, sparse_epochs: 1, redense_epochs: 1}
""",
    "masks in forward passes only": """\
- pruner: {class: SparsityLevelParameterPruner, levels: {'*': 0.6}, args: {mask_on_forward_only: true}}
""",
    "splicing": """\
- pruner:
    class: SplicingPruner
    low_thresh_mult: 0.5
    hi_thresh_mult: 0.6
    sensitivities: {'*': 0.1}
    args: {use_double_copies: true, mini_batch_pruning_frequency: 1, keep_mask: true}
""",
    "network surgery": """\
- gate: {class: NetworkSurgery, weights: 'fc*.weight', c: 0.5, gamma: 0.0, power: 1.0, stop_step: 4}
""",
    "hashed weights": "- {gate: {class: HashedWeights, weights: fc1.weight, compression: 0.5}, ending_epoch: 2}\n",
    "L1, proximal": "- regularizer: {class: L1Regularizer, reg_regims: {'*': 1e-3}, proximal: true}\n",
    "noise": """\
- noise:
    class: Pruner
    structure: Elements
    weights: '*'
    rate: {sparsity: 0.5}
    args: {kind: gaussian, batches: 2}
""",
}


def loop(policies: str, **settings: Any) -> Loop:
    text = f"version: 2\npolicies:\n{policies}" if policies else None
    settings = {"optimizer": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, "epochs": 3, **settings}
    return Loop(net(), batches(), text, **settings)


def held_values(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries that begin as held zeros, by hand."""
    begin, first = net().state_dict(), torch.tensor([True, False, False, False])
    weights = {name: values[name][begin[name] == 0] for name in ("conv.weight", "fc1.weight")}
    vectors = {name: values[name][first] for name in ("conv.bias", "norm.weight")}
    return {**weights, **vectors, "norm.bias": values["norm.bias"][:2]}


@pytest.mark.parametrize(
    ("policies", "settings"),
    [*((policies, {}) for policies in SCHEDULES.values()), (SCHEDULES["splicing"], {"ema": {"decay": 0.5}})],
    ids=[*SCHEDULES, "splicing, averaged"],
)
def test_held_zeros_stay_zero_in_every_pass_and_in_what_is_shipped(policies: str, settings: dict[str, Any]) -> None:
    run = loop(policies, **settings)
    assert run.session.keep_zeros() == 30
    run.run()
    shipped = run.at((3, 0))["model"]
    for values in (*run.forwards, *run.evaluated, shipped):
        assert all(bool((value == 0).all()) for value in held_values(values).values())
    # All else is trained: without a schedule no other entry of a weight is zero.
    if not policies:
        assert int((shipped["fc1.weight"] == 0).sum()) == 24
        assert int((shipped["fc1.bias"] == 0).sum()) == 0
        assert int((shipped["norm.bias"] == 0).sum()) == 2


def test_without_them_held_they_are_trained_again() -> None:
    shipped = loop("").run().at((3, 0))["model"]
    assert int((shipped["fc1.weight"] == 0).sum()) == 0


def test_a_pruner_counts_held_zeros_towards_its_sparsity_and_prunes_further() -> None:
    run = loop(fine("{fc1.weight: 0.75}", epoch=1))
    run.session.keep_zeros()
    run.run()
    zeros = [int((values["fc1.weight"] == 0).sum()) for values in run.after]
    assert zeros == [24] * 3 + [36] * 6


@pytest.mark.parametrize(
    ("name", "moment"),
    [("less sparse", (0, 2)), ("splicing", (1, 0)), ("splicing", (2, 1)), ("hashed weights", (1, 2))],
)
def test_a_resumed_run_holds_them_and_has_the_same_bits(name: str, moment: tuple[int, int]) -> None:
    whole = loop(SCHEDULES[name])
    whole.session.keep_zeros()
    whole.run()
    again = loop(SCHEDULES[name]).resume(whole.at(moment))  # what the checkpoint began with need not be there
    for key, value in whole.at((3, 0))["model"].items():
        assert torch.equal(value, again.at((3, 0))["model"][key]), key
    assert set(again.masks.owned("init")) == set(HELD)


def test_held_channels_can_be_removed_in_training_and_the_rest_stays_held() -> None:
    run = loop("- {extension: {class: FilterRemover}, epochs: [1]}\n")
    run.session.keep_zeros()
    before = held_values(dict(run.model.state_dict()))["fc1.weight"]
    run.run()
    assert before.numel() == 24
    conv, fc1 = run.after[-1]["conv.weight"], run.after[-1]["fc1.weight"]
    # Filter 0 is zero behind its batch norm; filter 1 has a bias and a gamma, its output is a constant: it stays.
    assert conv.shape == (3, 1, 3)
    assert int((conv == 0).sum()) == 3
    assert int((fc1 == 0).sum()) == fc1.numel() // 2 == 18
