"""Distiller's FMReconstructionChannelPruner: channels by their L1 norms, weights by least squares."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from channel_nets import Ran, check_fit, columns, fitted, images, plain, residual, rows
from helpers import compress, difference
from loop import Loop
from torch.nn import Conv2d

from compressor.errors import UserError
from compressor.pruners.fm_reconstruction import FMReconstructionChannelPruner

NORMS = [3.0, 1.0, 2.0, 1.0, 5.0, 1.0]
"""Of b's input channels; of the three smallest the earlier go first."""


def schedule(weights: str = "[b.weight]", window: str = "epochs: [0]", args: str = "", **settings: Any) -> str:
    given = {"group_type": "Channels", "desired_sparsity": 0.5, "batches": 3, "points": 100, **settings}
    fields = ", ".join(f"{key}: {value}" for key, value in given.items())
    pruner = f"class: FMReconstructionChannelPruner, weights: {weights}, {fields}{args}"
    return f"policies:\n  - {{pruner: {{{pruner}}}, {window}}}\n"


def net(**of_b: Any) -> Any:
    network = plain(**of_b)
    weight = network.get_parameter("b.weight").data
    weight *= torch.tensor(NORMS).reshape(-1, 1, 1) / weight.abs().sum((0, 2, 3)).reshape(-1, 1, 1)
    weight[:, [1, 3, 5]] = weight[:, 1:2]  # equal to the bit
    return network


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 2, 4]),
        ({"desired_sparsity": 0.34}, [0, 2, 4, 5]),  # floor(2.04)
        ({"desired_sparsity": 0.34, "rounding_fn": "ceil"}, [0, 2, 4]),
        ({"desired_sparsity": 0.5, "group_size": 2}, [0, 2, 4, 5]),  # floor(1.5) twos
        ({"desired_sparsity": 0.99}, [4]),  # floor(5.94), and one is spared anyway
    ],
)
def test_the_channels_of_smallest_l1_norm_go_and_the_rest_is_fitted(settings: dict[str, Any], kept: list[int]) -> None:
    run = Ran(net(), schedule(**settings))
    assert run.kept() == kept
    check_fit(run, "b", rows(run.seen(run.before, "b")[1]))


def test_filters_that_nobody_reads_any_more_go_with_all_that_speaks_for_them() -> None:
    run = Ran(net(), schedule())
    for name in ("a.weight", "a.bias", "bn.weight", "bn.bias"):
        assert run.after.get_parameter(name)[[1, 3, 5]].abs().max() == 0
    assert run.said[0].startswith(
        "0.FMReconstructionChannelPruner: b.weight: 3 of 6 input channels stay (by their scores); relative error"
    )
    assert run.said[0].endswith("pruned with them: filters of a.weight")


def test_layers_are_fitted_one_after_the_other_to_the_network_as_it_was() -> None:
    run = Ran(net(), schedule("[c.weight, b.weight]"))
    before = run.before.get_submodule("b")
    assert isinstance(before, Conv2d)
    # c is fitted from what b gives with its new weights, to what c gave with b's old ones.
    check_fit(run, "c", rows(run.seen(run.before, "c")[1]))
    alive = run.kept("c.weight")
    weight, _ = fitted(columns(run.seen(run.before, "b")[0], before)[:, [0, 2, 4]], rows(run.seen(run.before, "b")[1]))
    ours = run.loop.forwards[0]["b.weight"][alive][:, [0, 2, 4]].flatten(1)
    np.testing.assert_allclose(ours, weight[alive], atol=2e-4)


def test_what_was_pruned_stays_pruned_and_a_second_event_finds_nothing_to_do() -> None:
    run = Ran(net(), schedule(window="epochs: [0, 1]"), epochs=3)
    weights = [masked["b.weight"][:, [1, 3, 5]] for masked in run.loop.forwards]
    assert all(not weight.any() for weight in weights)
    assert len([line for line in run.said if "input channels stay" in line]) == 1
    assert run.loop.session.events.shortfalls() == []


@pytest.mark.parametrize("moment", [(0, 2), (1, 0), (1, 1), (2, 0)])
def test_a_resumed_run_ends_in_the_same_bits(moment: tuple[int, int]) -> None:
    text = schedule("[two2.weight]", "epochs: [1]", points=5)
    whole = Ran(residual(), text, epochs=3).loop
    again = Loop(residual(), images(), text, epochs=3, seed=5)
    assert difference(again.resume(whole.at(moment)).at((3, 0)), whole.at((3, 0))) is None


def test_what_cannot_be_fitted_is_refused_before_the_run() -> None:
    grouped = plain()
    grouped.add_module("b", Conv2d(6, 4, 3, groups=2))
    with pytest.raises(UserError, match=r"b\.weight is of a grouped convolution"):
        Ran(grouped, schedule())


def test_validate_names_the_line_of_what_cannot_be_fitted(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(schedule("[features.1.conv.0.0.weight, features.2.conv.1.0.weight]"))
    config = (
        "model: {name: mobilenet_v2}\ndata: {name: digits, channels: 3, size: 32}\noptimizer: {lr: 0.1}\nepochs: 1\n"
        "report: {html: false}\n"
    )
    (tmp_path / "c.yaml").write_text(config)
    result = compress("validate", tmp_path / "s.yaml", "-c", tmp_path / "c.yaml")
    assert result.code == 2
    assert "s.yaml:2:" in result.err
    assert "features.2.conv.1.0.weight is of a grouped convolution" in result.err


@pytest.mark.parametrize(
    "args", ["mini_batch_pruning_frequency: 1", "use_double_copies: true", "discard_masks_at_minibatch_end: true"]
)
def test_weights_are_fitted_at_the_beginning_of_epochs_and_for_good(args: str) -> None:
    with pytest.raises(UserError, match="reconstructs outputs: use a window in epochs, and masks that stay"):
        Ran(net(), schedule(args=f", args: {{{args}}}"))


@pytest.mark.parametrize("group", ["Filters", "3D", "Rows", "Blocks"])
def test_it_prunes_input_channels_alone(group: str) -> None:
    with pytest.raises(ValueError, match="Channels"):
        FMReconstructionChannelPruner(group_type=group, desired_sparsity=0.5, weights=["b.weight"])  # type: ignore[arg-type]
