"""Strided pruning by a particle search: the pattern of the paper, the search, and what it must leave alone."""

import itertools
import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, difference, succeed
from loop import Batch, Loop, notes_of, random_batches, reread
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.policies.strided import StridedPolicy, accuracy
from compressor.sparsity.substitution import Substitution

PLANTED, STRIDE = (1, 0, 2, 1), 3
STILL = {"lr": 1e-12}
"""An optimizer that moves nothing: the masks are looked at, not what training makes of them."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of the test's own."""
    monkeypatch.chdir(tmp_path)


def policy(window: str = ", epochs: [0]", **arguments: Any) -> str:
    given = {"weights": "conv.weight", "stride": STRIDE, "particles": 20, "rounds": 20, "batches": 2, **arguments}
    fields = ", ".join(f"{key}: {value}" for key, value in given.items())
    return f"version: 2\npolicies:\n  - {{strided: {{{fields}}}{window}}}\n"


def taps(offset: int, stride: int = STRIDE, count: int = 9) -> list[int]:
    return list(range(offset, count, stride))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, len(PLANTED), 3, 3, generator=torch.Generator().manual_seed(seed))


def signal(batch: Tensor) -> Tensor:
    """The sum over the planted taps of every map."""
    flat = batch.flatten(2)
    return sum(flat[:, channel, taps(offset)].sum(1) for channel, offset in enumerate(PLANTED))  # type: ignore[return-value]


@torch.no_grad()
def planted() -> nn.Sequential:
    """A convolution whose planted taps tell the two classes apart; its other taps are noise."""
    draws = torch.Generator().manual_seed(1)
    conv = nn.Conv2d(len(PLANTED), 2, 3)
    conv.bias.zero_()
    row = torch.randn(len(PLANTED), 9, generator=draws)
    for channel, offset in enumerate(PLANTED):
        row[channel, taps(offset)] = 1.0
    conv.weight.copy_(torch.stack([-row, row]).reshape(conv.weight.shape))
    return nn.Sequential(OrderedDict(conv=conv, flat=nn.Flatten()))


def labelled(sizes: list[int]) -> list[Batch]:
    found = [images(size, seed) for seed, size in enumerate(sizes)]
    return [(batch, (signal(batch) > 0).long()) for batch in found]


def train(text: str, model: nn.Module | None = None, epochs: int = 2, **settings: Any) -> Loop:
    return Loop(model or planted(), labelled([60, 40, 30]), text, epochs=epochs, optimizer=STILL, **settings).run()


def offsets_of(keep: Tensor, stride: int = STRIDE) -> list[int]:
    """The offset of each input map; fails where the kept taps are not offset, offset + stride, ... in all filters."""
    found = []
    for channel in range(keep.shape[1]):
        kept = [one.flatten().nonzero().flatten().tolist() for one in keep[:, channel]]
        assert all(one == taps(kept[0][0], stride, keep[0, 0].numel()) for one in kept)
        assert kept[0][0] < stride
        found.append(kept[0][0])
    return found


def mask(run: Loop, name: str = "conv.weight") -> Tensor:
    keep = run.masks.keep(name)
    assert keep is not None
    return keep


def brute_force(batches: list[Batch]) -> dict[tuple[int, ...], float]:
    """The accuracy of every mask there is."""
    found = {}
    for offsets in itertools.product(range(STRIDE), repeat=len(PLANTED)):
        model = planted()
        keep = torch.zeros(len(PLANTED), 9)
        for channel, offset in enumerate(offsets):
            keep[channel, taps(offset)] = 1
        model.conv.weight.data.mul_(keep.reshape(1, len(PLANTED), 3, 3))
        right = sum(int((model(batch).argmax(1) == labels).sum()) for batch, labels in batches)
        found[offsets] = right / sum(len(labels) for _, labels in batches)
    return found


def test_the_search_finds_the_taps_that_carry_the_signal() -> None:
    run = train(policy())
    assert tuple(offsets_of(mask(run))) == PLANTED
    every = brute_force(labelled([60, 40]))
    assert max(every, key=every.__getitem__) == PLANTED
    figures = run.lines[0]["figures"]["0.strided"]
    assert figures["chosen"] == every[PLANTED] == 1.0
    assert figures["first_mean"] < figures["first_best"] < 1.0
    assert figures["unpruned"] == accuracy(planted(), labelled([60, 40])) < 1.0
    # Every mask that was tried, and the unpruned network, saw 60 + 40 images.
    assert figures["images"] % 100 == 0
    assert 20 < figures["images"] / 100 - 1 <= 81
    assert figures["columns conv.weight"] == sum(math.ceil((9 - offset) / STRIDE) for offset in PLANTED) == 12


def test_what_is_left_of_a_map_is_the_same_in_all_filters_by_the_formula() -> None:
    torch.manual_seed(0)
    layers = OrderedDict(conv=nn.Conv2d(3, 5, (4, 5)), flat=nn.Flatten(), fc=nn.Linear(5, 3))
    data = [(torch.randn(6, 3, 4, 5), torch.randint(0, 3, (6,))) for _ in range(2)]
    run = Loop(nn.Sequential(layers), data, policy(stride=7), optimizer=STILL).run()
    keep = mask(run)
    offsets = offsets_of(keep, 7)
    columns = [math.ceil((20 - offset) / 7) for offset in offsets]  # 3 for offsets up to 5, 2 for 6
    assert keep[0].flatten(1).sum(1).tolist() == columns
    assert run.lines[0]["figures"]["0.strided"]["columns conv.weight"] == sum(columns)


def test_masked_taps_stay_plus_zero_while_the_others_are_retrained() -> None:
    run = Loop(planted(), labelled([60, 40]), policy(window=", epochs: [1]"), epochs=3, optimizer={"lr": 0.01}).run()
    keep = mask(run)
    assert all((after["conv.weight"] != 0).all() for after in run.after[:2])
    for after in run.after[2:]:
        assert not after["conv.weight"][~keep].any()
        assert not torch.signbit(after["conv.weight"][~keep]).any()
        assert (after["conv.weight"][keep] != 0).all()
    assert (run.after[-1]["conv.weight"] != run.after[2]["conv.weight"])[keep].all()


class WithNorm(nn.Module):
    """A batch norm and dropout, which evaluation must neither feed nor draw from."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(len(PLANTED), 4, 3), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.dropout(self.norm(self.conv(x)).relu(), 0.5, self.training)).flatten(1)


def opened(text: str, model: nn.Module, run_seed: int = 0) -> Loop:
    """A run at the beginning of its first epoch, nothing trained; the global random state is looked after."""
    run = Loop(model, labelled([60, 40]), text, optimizer=STILL, run_seed=run_seed)
    model.train()
    state = torch.get_rng_state()
    run.session.events.fire("on_epoch_begin")
    assert torch.equal(torch.get_rng_state(), state)
    return run


def test_the_search_leaves_all_but_the_masked_taps_as_it_was() -> None:
    model = WithNorm()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    keep = mask(opened(policy(), model))
    assert all(module.training for module in model.modules())
    before["conv.weight"] = torch.where(keep, before["conv.weight"], 0.0)
    assert difference(dict(model.state_dict()), before) is None


def test_the_same_run_finds_the_same_and_another_seed_draws_others() -> None:
    text = policy(rounds=0, particles=1)
    first, again, *others = (offsets_of(mask(opened(text, WithNorm(), seed))) for seed in (0, 0, 1, 2, 3))
    assert first == again
    assert any(one != first for one in others)


def test_the_seed_is_the_runs() -> None:
    chosen = [mask(opened(policy(), planted(), seed)) for seed in (5, 5, 6)]
    assert torch.equal(chosen[0], chosen[1])


def test_a_run_resumed_before_the_event_finds_the_same_mask_and_after_it_keeps_it() -> None:
    text = policy(window=", epochs: [1]")
    whole = train(text, epochs=3)
    for moment in [(0, 2), (1, 0), (1, 2), (2, 0)]:
        torch.manual_seed(7)
        again = Loop(planted(), labelled([60, 40, 30]), text, epochs=3, optimizer=STILL, seed=9)
        again.resume(whole.at(moment))
        assert torch.equal(mask(again), mask(whole))
        assert difference(again.at((3, 0))["model"], whole.at((3, 0))["model"]) is None
        assert again.lines == whole.lines[moment[0] :]


def test_it_prunes_once_and_says_so_where_more_is_asked_for() -> None:
    run = Loop(planted(), labelled([60]), policy(window=""), epochs=3, optimizer=STILL).run()
    assert run.masks.changes == 1
    for window in (", starting_epoch: 1, frequency: 2", ", epochs: [3, 1]"):
        (note,) = notes_of(policy(window=window), planted(), 9)
        assert "it prunes once, in epoch 1: that mask stays" in note
    for window in (", starting_epoch: 1", ", epochs: [1]"):
        assert notes_of(policy(window=window), planted(), 9) == []


def test_by_steps_it_prunes_at_the_first_of_its_window() -> None:
    run = train(policy(window=", starting_step: 2, ending_step: 6"), epochs=2)  # three steps an epoch
    zeros = [int((after["conv.weight"] == 0).sum()) for after in run.after]
    assert zeros == [0, 0, 48, 48, 48, 48]
    assert run.masks.changes == 1
    assert set(run.lines[0]["figures"]) == {"0.strided"}
    assert run.session.events.settled() == 0  # what it prunes it has pruned there


def test_two_weights_are_sought_as_one_each_with_its_stride() -> None:
    torch.manual_seed(0)
    layers = OrderedDict(conv=nn.Conv2d(4, 3, 2), last=nn.Conv2d(3, 2, 2), flat=nn.Flatten())
    weights = {"weights": "[conv.weight, last.weight]", "stride": "{'*': 2, last.weight: 4}"}
    run = Loop(nn.Sequential(layers), labelled([10, 10]), policy(**weights), optimizer=STILL).run()
    offsets_of(mask(run), 2)
    offsets_of(mask(run, "last.weight"), 4)
    figures = run.lines[0]["figures"]["0.strided"]
    assert {key for key in figures if "columns" in key} == {"columns conv.weight", "columns last.weight"}
    assert (figures["columns conv.weight"], figures["columns last.weight"]) == (8, 3)


def test_every_different_mask_and_the_unpruned_network_count_as_evaluations() -> None:
    run = train(policy(particles=1, rounds=0))
    assert run.lines[0]["figures"]["0.strided"]["images"] == 2 * (60 + 40)
    run = train(policy(particles=1, rounds=4, redraw=0.0))
    assert run.lines[0]["figures"]["0.strided"]["images"] == 2 * (60 + 40)


class Silent(Substitution):
    """A gate that is closed."""

    def __init__(self, weight: Tensor) -> None:
        self._closed = torch.zeros_like(weight)

    def fold(self) -> dict[str, Tensor]:
        return {"conv.weight": self._closed}


def test_particles_are_weighted_in_the_network_as_it_is_evaluated() -> None:
    model = planted()
    run = Loop(model, labelled([60, 40]), policy(), optimizer=STILL)
    ctx = run.session
    before = model.conv.weight.detach().clone()
    ctx.substitutions.put("gate", Silent(before))
    run.session.events.fire("on_epoch_begin")
    figures = run.session.events.figures()["0.strided"]
    assert (
        figures["unpruned"] == figures["chosen"] == accuracy(_closed(), labelled([60, 40]))
    )  # class 0, whatever it is
    assert torch.equal(model.conv.weight, torch.where(mask(run), before, 0.0))


def test_weights_that_live_on_behind_a_mask_are_masked_while_particles_are_weighted() -> None:
    pruner = "pruners:\n  all: {class: SparsityLevelParameterPruner, levels: {conv.weight: 1.0}}\n"
    applied = "policies:\n  - {pruner: {instance_name: all, args: {use_double_copies: true}}}\n"
    text = policy().replace("policies:\n", pruner + applied)
    run = Loop(planted(), labelled([60, 40]), text, optimizer=STILL)
    run.session.events.fire("on_epoch_begin")
    figures = run.session.events.figures()["1.strided"]
    assert figures["unpruned"] == accuracy(_closed(), labelled([60, 40]))


def _closed() -> nn.Module:
    model = planted()
    model.conv.weight.data.zero_()
    return model


REFUSED = {
    "fc.weight": "fc.weight: a linear layer has no kernels whose taps could be strided",
    "grouped.weight": "grouped.weight: the kernels in one column of a transposed or grouped convolution's weight",
    "back.weight": "back.weight: the kernels in one column of a transposed or grouped convolution's weight",
    "point.weight": "point.weight: a kernel of 1 taps has no stride of 3",
    "norm.weight": "norm.weight: Taps are structures of weights of",
}


@pytest.mark.parametrize("name", REFUSED)
def test_weights_without_strided_taps_are_refused_with_the_reason(name: str) -> None:
    layers = OrderedDict(
        fc=nn.Linear(3, 3),
        grouped=nn.Conv2d(4, 4, 3, groups=2),
        back=nn.ConvTranspose2d(4, 4, 3),
        point=nn.Conv2d(4, 4, 1),
        norm=nn.BatchNorm2d(4),
    )
    with pytest.raises(UserError, match=r"^0\.strided: ") as error:
        Loop(nn.Sequential(layers), random_batches([5]), policy(weights=name))
    assert REFUSED[name] in str(error.value)


def test_every_misfit_is_said_at_its_place_before_anything_runs(here: None) -> None:
    Path("s.yaml").write_text(
        "version: 2\nconfig: lenet5_digits\npolicies:\n"
        "  - strided: {weights: [conv1.weight, conv2.weight, fc1.weight], stride: {conv1.weight: 26, fc2.weight: 2}}\n"
        "    epochs: [0]\n"
    )
    result = compress("validate", "s.yaml")
    assert result.code == 2
    assert [line.partition(": ")[::2] for line in result.err.splitlines()] == [
        ("s.yaml:4:14", "`stride` names fc2.weight, which is not among `weights`"),
        ("s.yaml:4:14", "conv1.weight: a kernel of 25 taps has no stride of 26"),
        ("s.yaml:4:14", "conv2.weight: `stride` has no value for it"),
        ("s.yaml:4:14", "fc1.weight: a linear layer has no kernels whose taps could be strided"),
    ]


def test_the_plan_promises_no_number_of_zeros_that_only_the_offsets_decide(here: None) -> None:
    Path("s.yaml").write_text(policy(weights="conv2.weight").replace("2\n", "2\nconfig: lenet5_digits\n", 1))
    planned = json.loads(succeed("plan", "s.yaml", "--json"))
    nonzero = {row["name"]: row["nonzero"] for row in planned["predicted"]}
    assert nonzero == {"conv1.weight": 500, "conv2.weight": None, "fc1.weight": 400_000, "fc2.weight": 5_000}


def test_the_policy_is_frozen_and_checks_its_numbers() -> None:
    for wrong in (
        {"stride": 1},
        {"particles": 0},
        {"rounds": -1},
        {"redraw": 1.5},
        {"batches": 0},
        {"stride": {"a": 1}},
    ):
        with pytest.raises(ValueError, match=r"greater than or equal|less than or equal"):
            StridedPolicy.model_validate({"weights": "*", "stride": 2, **wrong})


def test_what_the_log_says_can_be_read_back() -> None:
    run = train(policy())
    assert reread(run.snapshots[2, 0])["state"]["figures"] == {"0.strided": run.lines[0]["figures"]["0.strided"]}
