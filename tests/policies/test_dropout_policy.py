"""Dropout ratios D_r = D_o sqrt(C_ir / C_io) by hand, the weight they follow, and that they are given back."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Batch, Loop, random_batches, read
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.schedule import Schedule, view_of
from compressor.schedule.faults import Faults

OPTIMIZER = {"lr": 0.1, "momentum": 0.9}
STEPS = 3


def mlp(seed: int = 0) -> nn.Sequential:
    """100 weights before `drop`, 80 before `drop2`."""
    torch.manual_seed(seed)
    layers = [
        *[("fc1", nn.Linear(10, 10)), ("relu", nn.ReLU()), ("drop", nn.Dropout(0.5))],
        *[("fc2", nn.Linear(10, 8)), ("drop2", nn.Dropout(0.2)), ("fc3", nn.Linear(8, 3))],
    ]
    return nn.Sequential(OrderedDict(layers))


def batches(steps: int = STEPS) -> list[Batch]:
    return random_batches([5] * steps, 10)


class Ratios(Loop):
    """Every dropout's ratio in every forward pass of training."""

    def __init__(self, text: str, model: nn.Module | None = None, **settings: Any) -> None:
        self.seen: dict[str, list[float]] = {}
        super().__init__(model or mlp(), settings.pop("train", batches()), text, **{"optimizer": OPTIMIZER, **settings})
        self.model.register_forward_pre_hook(self._look)

    def _look(self, model: nn.Module, inputs: Any) -> None:
        if model.training:
            for path, module in model.named_modules():
                if hasattr(module, "p"):
                    self.seen.setdefault(path, []).append(module.p)


PRUNER = "  - pruner: {{class: SparsityLevelParameterPruner, levels: {{{levels}}}, args: {{{args}}}}}\n    {window}\n"
HEAD = "version: 2\npolicies:\n"


def pruner(levels: str, window: str = "epochs: [0]", args: str = "") -> str:
    return PRUNER.format(levels=levels, window=window, args=args)


def dropout(modules: str = "drop", follow: str = "", window: str = "") -> str:
    given = f", follow: {follow}" if follow else ""
    return f"  - {{dropout: {{modules: {modules}{given}}}{window}}}\n"


ROOTS = {0.0: 1.0, 0.19: 0.9, 0.36: 0.8, 0.75: 0.5, 0.9: 0.316228, 0.99: 0.1, 1.0: 0.0}
"""sparsity: sqrt(1 - sparsity)."""


@pytest.mark.parametrize("first", [True, False], ids=["dropout first", "pruner first"])
@pytest.mark.parametrize(("sparsity", "root"), ROOTS.items())
def test_the_ratio_falls_with_the_root_of_the_density(sparsity: float, root: float, first: bool) -> None:
    pruned = pruner(f"fc1.weight: {sparsity}")
    run = Ratios(HEAD + (dropout() + pruned if first else pruned + dropout())).run()
    assert run.seen["drop"] == pytest.approx([0.5 * root] * STEPS, abs=1e-6)
    assert run.seen["drop2"] == [0.2] * STEPS


def test_the_ratio_follows_from_epoch_to_epoch() -> None:
    rise = pruner("fc1.weight: 0.36", "epochs: [1]") + pruner("fc1.weight: 0.75", "epochs: [2]")
    run = Ratios(HEAD + rise + dropout(), epochs=3).run()
    assert run.seen["drop"] == pytest.approx([0.5] * STEPS + [0.4] * STEPS + [0.25] * STEPS)
    assert [line["figures"]["2.dropout"]["drop"] for line in run.lines] == pytest.approx([0.5, 0.4, 0.25])


def test_the_nearest_weight_upstream_is_followed() -> None:
    run = Ratios(HEAD + pruner("fc1.weight: 0.36, fc2.weight: 0.75") + dropout("'drop*'")).run()
    assert run.seen["drop"] == pytest.approx([0.4] * STEPS)
    assert run.seen["drop2"] == pytest.approx([0.1] * STEPS)


class Crossed(nn.Module):
    """Called in another order than that in which its layers are named."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.first = nn.Linear(10, 3), nn.Conv1d(1, 1, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.drop(torch.relu(self.norm(self.first(x[:, None])))).flatten(1))
        return out


def test_upstream_is_by_the_order_of_calls_and_batch_norms_do_not_count() -> None:
    levels = "last.weight: 0.9, first.weight: 0.34"  # floor(.34 * 3) = 1 of 3 taps goes
    run = Ratios(HEAD + pruner(levels) + dropout(), Crossed()).run()
    assert run.seen["drop"] == pytest.approx([0.5 * (2 / 3) ** 0.5] * STEPS)


def test_a_weight_that_is_named_is_followed() -> None:
    text = HEAD + pruner("fc1.weight: 0.36, fc2.weight: 0.75") + dropout("'drop*'", "{drop: fc2.weight}")
    run = Ratios(text).run()
    assert run.seen["drop"] == pytest.approx([0.25] * STEPS)
    assert run.seen["drop2"] == pytest.approx([0.1] * STEPS)


def test_dropout_before_every_weight_needs_a_name() -> None:
    model = nn.Sequential(OrderedDict(drop=nn.Dropout(0.5), fc=nn.Linear(10, 3)))
    with pytest.raises(UserError, match="no weight comes before drop"):
        Ratios(HEAD + dropout(), model)
    run = Ratios(HEAD + pruner("fc.weight: 0.5") + dropout("drop", "{drop: fc.weight}"), model).run()
    assert run.seen["drop"] == pytest.approx([0.5 * 0.5**0.5] * STEPS)


def test_the_ratio_is_given_back_at_the_windows_end() -> None:
    text = HEAD + pruner("fc1.weight: 0.75") + dropout(window=", starting_epoch: 1, ending_epoch: 2")
    run = Ratios(text, epochs=3).run()
    assert run.seen["drop"] == pytest.approx([0.5] * STEPS + [0.25] * STEPS + [0.5] * STEPS)


def test_the_ratio_is_given_back_at_the_end_of_a_window_in_steps() -> None:
    text = HEAD + pruner("fc1.weight: 0.75") + dropout(window=", starting_step: 2, ending_step: 4")
    run = Ratios(text, epochs=2).run()
    assert run.seen["drop"] == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.5, 0.5])


INSIDE = "mini_batch_pruning_frequency: 2"


def test_masks_made_inside_an_epoch_are_followed_at_once() -> None:
    # Six steps; the pruner fires in steps 2 to 5: 36 %.
    text = HEAD + pruner("fc1.weight: 0.36", "starting_step: 2\n    ending_step: 6") + dropout()
    run = Ratios(text, train=batches(6)).run()
    assert run.seen["drop"] == pytest.approx([0.5, 0.5, 0.4, 0.4, 0.4, 0.4])


def test_masks_made_inside_an_epoch_are_followed_in_the_next_step_where_the_pruner_stands_below() -> None:
    text = HEAD + dropout() + pruner("fc1.weight: 0.36", "starting_step: 2\n    ending_step: 6")
    run = Ratios(text, train=batches(6)).run()
    assert run.seen["drop"][:2] == [0.5, 0.5]
    assert run.seen["drop"][3:] == pytest.approx([0.4] * 3)


MODES = {"double copies": "use_double_copies: true", "forward only": "mask_on_forward_only: true"}


@pytest.mark.parametrize("args", MODES.values(), ids=MODES)
def test_weights_that_live_on_behind_their_mask_are_no_connections(args: str) -> None:
    run = Ratios(HEAD + pruner("fc1.weight: 0.75", args=args) + dropout()).run()
    assert run.seen["drop"] == pytest.approx([0.25] * STEPS)


def test_what_network_surgery_prunes_is_no_connection() -> None:
    gate = "gates:\n  surgery: {class: NetworkSurgery, weights: fc1.weight, c: 0.5, gamma: 0}\n"
    text = f"version: 2\n{gate}policies:\n  - {{gate: {{instance_name: surgery}}}}\n" + dropout()
    run = Ratios(text, epochs=2).run()
    left = int((run.forwards[STEPS]["fc1.weight"] != 0).sum())
    assert left < 50
    assert run.seen["drop"][STEPS] == pytest.approx(0.5 * (left / 100) ** 0.5, abs=0.02)


def test_what_was_thinned_away_is_no_connection_of_the_dense_layer() -> None:
    half = "{class: Pruner, criterion: l2, structure: Filters, weights: fc1.weight, rate: {sparsity: 0.5}}"
    text = f"{HEAD}  - {{pruner: {half}, epochs: [0]}}\n"
    text += "  - {extension: {class: StructureRemover}, epochs: [1]}\n"
    run = Ratios(text + dropout(), epochs=3).run()
    assert run.model.get_parameter("fc1.weight").shape == (5, 10)
    assert run.seen["drop"] == pytest.approx([0.5 * 0.5**0.5] * 3 * STEPS)


TEXTS: dict[str, Callable[[], str]] = {
    "window": lambda: pruner("fc1.weight: 0.75") + dropout(window=", starting_epoch: 1, ending_epoch: 2"),
    "pruned inside, dropout below": lambda: pruner("fc1.weight: 0.36", "epochs: [1]", INSIDE) + dropout(),
    "pruned inside, dropout above": lambda: (
        dropout() + pruner("fc1.weight: 0.36", "starting_step: 4\n    ending_step: 6")
    ),
    "every other epoch": lambda: pruner("fc1.weight: 0.75") + dropout(window=", frequency: 2"),
}


@pytest.mark.parametrize("moment", [(0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 2)])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_run_resumed_goes_on_with_the_same_ratios(text: Callable[[], str], moment: tuple[int, int]) -> None:
    whole = Ratios(HEAD + text(), epochs=4).run()
    again = Ratios(HEAD + text(), mlp(5), epochs=4, seed=5)
    again.resume(whole.at(moment))
    assert again.seen["drop"] == whole.seen["drop"][STEPS * moment[0] + moment[1] :]
    assert difference(again.at((4, 0)), whole.at((4, 0))) is None


WRONG = {
    "modules: dorp": ("s.yaml:3:25: ", "dorp"),
    "modules: [drop, 'fc*']": ("s.yaml:3:32: ", "fc"),
    "modules: drop, follow: {dorp: fc1.weight}": ("s.yaml:3:40: ", "dorp"),
    "modules: drop, follow: {drop: fc9.weight}": ("s.yaml:3:46: ", "fc9.weight"),
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_selector_that_matches_nothing_is_an_error_with_its_place(arguments: str) -> None:
    schedule, faults = read(f"version: 2\npolicies:\n  - {{dropout: {{{arguments}}}}}\n"), Faults()
    schedule.bind(mlp(), 4, faults)
    place, name = WRONG[arguments]
    assert len(faults.lines) == 1
    assert faults.lines[0].startswith(place)
    assert name in faults.lines[0]


def test_without_masks_nothing_changes() -> None:
    plain = Loop(mlp(), batches(), epochs=2, optimizer=OPTIMIZER).run()
    run = Ratios(HEAD + dropout("'drop*'"), epochs=2).run()
    assert difference(run.after, plain.after) is None


def test_a_star_says_which_dropout_it_leaves_out(schedule_of: Callable[[str], Schedule]) -> None:
    class Mine(nn.Dropout):
        pass

    model = nn.ModuleDict(
        {
            "plain": nn.Dropout(0.5),
            "mine": Mine(0.5),
            "maps": nn.FeatureAlphaDropout(0.5),
            "mix": nn.MultiheadAttention(4, 2, dropout=0.1),
            "lstm": nn.LSTM(4, 4, num_layers=2),
        }
    )
    for modules, expected in (
        ("'*'", ["mine (Mine), maps (FeatureAlphaDropout), mix (MultiheadAttention)"]),
        ("plain", []),
    ):
        faults = Faults()
        bound = schedule_of(f"{HEAD}  - dropout: {{modules: {modules}}}\n").bind(model, 1, faults)
        found = bound.check(view_of(model), faults)
        assert not faults
        left = [note.partition("the dropout of ")[2].removesuffix(" keeps its ratio") for note in found.notes]
        assert left == expected
