"""Noise instead of pruning: what is disturbed in which forward passes; before and after nothing is."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, difference
from loop import Loop, Values, is_plus_zero, random_batches, values
from torch import Tensor, nn

STEPS, FILTERS = 4, 8
OWN = ("conv.weight", "conv.bias", "bn.weight", "bn.bias")
"""What a filter has."""
MOMENTUM = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
ADAM = {"name": "adam", "lr": 0.01}

LARGE = "class: Pruner, order: largest, structure: Filters, weights: conv.weight, rate: {events: 0.5}"
"""2 of 8 filters, then 4, in two events."""
LATER = "starting_epoch: 1, ending_epoch: 5, frequency: 2"
"""The optimizer has a momentum by then. Without one, a filter that is 0 behind a relu gets no gradient, and stays 0."""


def schedule(args: str, component: str = LARGE, window: str = "ending_epoch: 4, frequency: 2", more: str = "") -> str:
    noise = f"  - {{noise: {{{component}, args: {{{args}}}}}, {window}}}\n"
    return f"version: 2\npolicies:\n{noise}{more}"


class Net(nn.Module):
    """conv - bn - relu - fc, of 2x2 filters on 5x5 images; beta is not 0."""

    def __init__(self, filters: int = FILTERS, side: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.bn, self.fc = nn.Conv2d(1, filters, side), nn.BatchNorm2d(filters), nn.Linear(filters, 3)
        nn.init.uniform_(self.bn.bias, 0.1, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x.reshape(-1, 1, 5, 5)))
        logits: Tensor = self.fc(torch.relu(x).mean((2, 3)))
        return logits


def train(text: str | None, epochs: int = 4, model: nn.Module | None = None, **settings: Any) -> Loop:
    return loop(text, epochs, model, **settings).run()


def loop(text: str | None, epochs: int = 4, model: nn.Module | None = None, **settings: Any) -> Loop:
    settings = {"optimizer": MOMENTUM, **settings}
    return Loop(model or Net(), random_batches([6] * STEPS, features=25), text, epochs=epochs, **settings)


def before(run: Loop, step: int) -> Values:
    """The weights as training left them before a step."""
    return values(Net()) if step == 0 else run.after[step - 1]


def largest(weights: Values, count: int, without: set[int]) -> set[int]:
    """The filters of largest L1 norm among those that were not chosen before."""
    order = weights["conv.weight"].flatten(1).norm(1, dim=1).argsort(descending=True).tolist()
    return set([place for place in order if place not in without][:count])


def zeroed(weights: Values, names: Sequence[str] = ("conv.weight",)) -> set[int]:
    """The filters all of whose parameters of these names are 0."""
    return {place for place in range(FILTERS) if all(is_plus_zero(weights[name][place]) for name in names)}


def only_at(left: Values, right: Values, places: set[int]) -> bool:
    """Whether two sets of weights differ in nothing but what these filters have."""
    rest = [place for place in range(FILTERS) if place not in places]
    same = [torch.equal(left[name][rest], right[name][rest]) for name in OWN]
    return all(same) and all(torch.equal(left[name], right[name]) for name in left if name not in OWN)


@pytest.mark.parametrize("kind", ["zeroing", "gaussian"])
@pytest.mark.parametrize("restore", ["false", "true"])
def test_for_no_mini_batches_it_is_the_plain_run_to_the_bit(kind: str, restore: str) -> None:
    run = train(schedule(f"kind: {kind}, batches: 0, restore: {restore}"))
    plain = train(None)
    assert difference(run.after, plain.after) is None
    assert difference(run.at((4, 0))["model"], plain.at((4, 0))["model"]) is None
    assert [{**line, "figures": None} for line in run.lines] == [{**line, "figures": None} for line in plain.lines]


@pytest.mark.parametrize("batches", [1, 3, 6])
@pytest.mark.parametrize("optimizer", [MOMENTUM, ADAM])
def test_the_newly_chosen_are_0_before_each_of_so_many_steps_and_nothing_else_is(
    optimizer: dict[str, Any], batches: int
) -> None:
    run = train(schedule(f"kind: zeroing, batches: {batches}", window=LATER), 5, optimizer=optimizer)
    chosen = set[int]()
    assert not any(zeroed(weights) for weights in run.forwards[:STEPS])
    for event in (STEPS, 3 * STEPS):  # six mini-batches go on into the next epoch
        new = largest(before(run, event), 2, chosen)
        chosen |= new
        for step in range(event, event + 2 * STEPS):
            disturbed = new if step < event + batches else set()
            assert zeroed(run.forwards[step]) == disturbed, step
            assert only_at(run.forwards[step], before(run, step), disturbed)
            assert all(torch.equal(run.forwards[step][name], before(run, step)[name]) for name in OWN[1:])
            if disturbed:
                assert not is_plus_zero(run.after[step]["conv.weight"][sorted(new)])  # they are trained meanwhile
    assert len(chosen) == 4
    assert run.masks.keep("conv.weight") is None
    assert all((tensor != 0).all() for tensor in run.after[-1].values())


@pytest.mark.parametrize("order", ["smallest", "largest", "random"])
def test_it_chooses_as_many_as_would_be_pruned_at_each_event_though_nothing_is(order: str) -> None:
    component = LARGE.replace("largest", order).replace("0.5", "0.75")  # 6 of 8 in 4 events: 1, 3, 4, 6
    run = train(schedule("batches: 2", component, "starting_epoch: 1, ending_epoch: 5"), 5)
    shares = [line["figures"]["0.Pruner"]["chosen_share"] for line in run.lines[1:]]
    assert shares == [1 / 8, 3 / 8, 4 / 8, 6 / 8]
    new = [zeroed(run.forwards[STEPS * epoch]) for epoch in range(1, 5)]
    assert [len(places) for places in new] == [1, 2, 1, 2]
    assert len(set().union(*new)) == 6
    assert run.masks.keep("conv.weight") is None
    assert run.session.events.shortfalls() == []
    assert all(line["sparsity"] == 0 for line in run.lines)


def test_single_weights_and_windows_in_steps(tmp_path: Path) -> None:
    component = "class: Pruner, order: largest, weights: fc.weight, rate: {events: 0.5}"
    window = "starting_step: 2, ending_step: 9, step_frequency: 5"
    run = train(schedule("batches: 2", component, window), epochs=3)
    zeros = [int((weights["fc.weight"] == 0).sum()) for weights in run.forwards]
    assert zeros == [0, 0, 6, 6, 0, 0, 0, 6, 6, 0, 0, 0]  # 12 of 24 in two events


def wide() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 20), nn.ReLU(), nn.Linear(20, 3))
    with torch.no_grad():
        for row, weight in enumerate(model[0].weight):
            weight.copy_(torch.randn(400) * (0.2 if row < 10 else 0.05))
    return model


def test_gaussian_noise_has_the_deviation_of_one_filter_that_was_not_chosen_and_is_added_anew() -> None:
    component = "class: Pruner, order: largest, structure: Rows, weights: 0.weight, rate: {sparsity: 0.5}"
    text = schedule("kind: gaussian, batches: 3", component, "epochs: [0]")
    batches = random_batches([6] * STEPS, features=400)
    run = Loop(model := wide(), batches, text, epochs=2, optimizer={"lr": 1e-3}).run()
    begun = values(wide())
    noises = []
    for step, weights in enumerate(run.forwards):
        left = begun if step == 0 else run.after[step - 1]
        noise = weights["0.weight"] - left["0.weight"]
        assert all(torch.equal(weights[name], left[name]) for name in left if name != "0.weight")
        assert not noise[10:].any()  # the ten large ones are chosen
        if step >= 3:
            assert not noise.any()
            continue
        noises.append(noise[:10].flatten())
        spared = float(left["0.weight"][10].std())
        assert float(noises[-1].std()) == pytest.approx(spared, rel=0.05)  # of 4,000 draws: 1.1 %
        assert abs(float(noises[-1].mean())) < 0.07 * spared
    assert abs(float(torch.corrcoef(torch.stack(noises[:2]))[0, 1])) < 0.06
    assert all((p != 0).all() for p in model.parameters())


def test_gaussian_noise_of_single_weights_has_the_deviation_of_those_that_were_not_chosen() -> None:
    component = "class: Pruner, order: largest, weights: 0.weight, rate: {sparsity: 0.5}"
    run = Loop(
        wide(),
        random_batches([6], features=400),
        schedule("kind: gaussian, batches: 1", component, "epochs: [0]"),
        optimizer={"lr": 1e-3},
    ).run()
    begun = values(wide())["0.weight"]
    noise, small = run.forwards[0]["0.weight"] - begun, begun.abs() <= begun.abs().flatten().sort().values[3999]
    assert not noise[small].any()
    assert float(noise[~small].std()) == pytest.approx(float(begun[small].std()), rel=0.05)


def test_filters_of_one_weight_have_no_deviation_and_no_noise() -> None:
    # As those of the first 1x1 convolution of gray images.
    run = train(schedule("kind: gaussian, batches: 3"), model=(model := Net(side=1)))
    plain = train(None, model=Net(side=1))
    assert difference(run.after, plain.after) is None
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["zeroing", "gaussian"])
def test_restored_are_the_weights_and_the_statistics_of_the_chosen_filters_and_no_others(kind: str) -> None:
    run = train(schedule(f"kind: {kind}, batches: 3, restore: true", window=LATER), 5)
    chosen = set[int]()
    for epoch in (1, 3):
        event = STEPS * epoch
        left = before(run, event)
        chosen |= largest(left, 2, chosen)
        places = sorted(chosen)  # with those chosen before
        others = [place for place in range(FILTERS) if place not in chosen]
        for step in range(event, event + 3):
            if kind == "zeroing":
                assert zeroed(run.forwards[step], OWN) == chosen
            else:
                moved = (run.forwards[step]["conv.weight"] != before(run, step)["conv.weight"]).flatten(1).any(1)
                assert set(torch.where(moved)[0].tolist()) == chosen
        last = event + 2
        for name in OWN:
            assert torch.equal(run.after[last][name][places], left[name][places]), name
            assert not torch.equal(run.after[last - 1][name][places], left[name][places])
            assert not torch.equal(run.after[last][name][others], left[name][others])
        model = run.at((epoch, 3))["model"]
        statistics = run.at((epoch, 0))["model"]
        for name in ("bn.running_mean", "bn.running_var"):
            assert torch.equal(model[name][places], statistics[name][places])
            assert not torch.equal(model[name][others], statistics[name][others])
            assert not torch.equal(run.at((epoch, 2))["model"][name][places], statistics[name][places])
        assert zeroed(run.forwards[event + 3]) == set()
        assert only_at(run.forwards[event + 3], run.after[last], set())
    assert len(chosen) == 4


def test_an_event_before_the_last_one_s_mini_batches_are_over_restores_first() -> None:
    run = train(schedule("batches: 6, restore: true", window="ending_epoch: 2"), epochs=3)
    begun = values(Net())
    first = largest(begun, 2, set())
    assert zeroed(run.forwards[STEPS - 1], OWN) == first
    # In epoch 1 the filters of the first event count with what they were before it; all four are disturbed.
    both = zeroed(run.forwards[STEPS], OWN)
    assert (first < both, len(both)) == (True, 4)
    end = run.after[STEPS + 5]
    for name in OWN:
        assert torch.equal(end[name][sorted(first)], begun[name][sorted(first)])
        assert (end[name] != 0).all()


RANDOM = LARGE.replace("largest", "random")


@cache
def at_random(args: str) -> Loop:
    """A run that was never stopped."""
    return train(schedule(args, RANDOM))


KINDS = ["kind: zeroing, batches: 3", "kind: gaussian, batches: 6", "kind: zeroing, batches: 3, restore: true"]


@pytest.mark.parametrize("moment", [(0, 1), (0, 3), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("args", [*KINDS, "kind: gaussian, batches: 6, restore: true"])
def test_a_run_resumed_in_the_midst_of_it_ends_in_the_same_bits(args: str, moment: tuple[int, int]) -> None:
    whole = at_random(args)
    again = loop(schedule(args, RANDOM), seed=9).resume(whole.at(moment))
    assert difference(again.at((4, 0)), whole.at((4, 0))) is None
    assert again.lines == whole.lines[moment[0] :]


@pytest.mark.parametrize("args", KINDS)
def test_what_another_policy_masks_stays_0_in_every_forward_pass(args: str) -> None:
    level = "  - {pruner: {class: Pruner, weights: conv.weight, rate: {sparsity: 0.5}}, epochs: [0]}\n"
    run = train(schedule(args, window="epochs: [1, 2]", more=level))
    masked = run.masks.keep("conv.weight")
    assert masked is not None
    assert all(is_plus_zero(weights["conv.weight"][~masked]) for weights in run.forwards)
    assert "gaussian" in args or any(zeroed(weights) for weights in run.forwards)


def test_channels_that_are_removed_in_the_midst_of_it_take_what_was_set_aside_along() -> None:
    small = "{pruner: {class: Pruner, structure: Filters, weights: conv.weight, rate: {sparsity: 0.4}}, epochs: [0]}"
    more = f"  - {small}\n  - {{extension: {{class: FilterRemover}}, epochs: [0]}}\n"
    run = train(schedule("batches: 3, restore: true", more=more))
    begun = values(Net())
    order = begun["conv.weight"].flatten(1).norm(1, dim=1).argsort().tolist()
    kept = sorted(set(range(FILTERS)) - set(order[:3]))
    chosen = [kept.index(place) for place in order[-2:]]
    assert run.model.conv.weight.shape[0] == 5
    for name in OWN:
        assert torch.equal(run.after[2][name][sorted(chosen)], begun[name][kept][sorted(chosen)])
    # In the second event 4 of 8, of which 3 are gone.
    assert run.lines[2]["figures"]["0.Pruner"]["chosen_share"] == pytest.approx(1 / 5)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "args", "message"),
    [
        (LARGE, "batches: -1", "should be greater than or equal to 0"),
        (LARGE, "kind: zeroing", "batches"),
        (LARGE, "batches: 1, kind: uniform", "kind"),
        (
            LARGE + ", criterion: running_feature_map",
            "batches: 1",
            "needs a pruner that uses the present weights",
        ),
        ("class: SplicingPruner, c_rate: {'*': 0.1}, gamma: 0.1", "batches: 1", ""),
        (LARGE, "batches: 1, use_double_copies: true", "unknown key 'use_double_copies'"),
    ],
)
def test_what_it_does_not_know_is_a_fault(
    faults_of: Callable[[str], list[str]], component: str, args: str, message: str
) -> None:
    faults = faults_of(schedule(args, component))
    assert faults
    assert any(message in fault for fault in faults)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (
            "class: Pruner, structure: Blocks, block_shape: [5, 1], weights: conv1.weight, rate: {sparsity: 0.5}",
            "conv1.weight: 32 filters x 1 channels are not divisible by 5 x 1",
        ),
        (
            "class: Pruner, structure: Rows, criterion: bn_scale, weights: fc.weight, rate: {sparsity: 0.5}",
            "0.Pruner scores by bn_scale, but no batch norm follows fc.weight",
        ),
    ],
)
@pytest.mark.parametrize("policy", ["noise", "pruner"])
def test_validate_finds_weights_that_its_pruner_cannot_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, component: str, message: str, policy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        schedule("batches: 1", component) if policy == "noise" else schedule("", component).replace("noise", "pruner")
    )
    Path("s.yaml").write_text(text)
    Path("c.yaml").write_text(
        "model: {name: bn_cnn}\ndata: {name: digits}\noptimizer: {lr: 0.1}\nepochs: 4\nreport: {html: false}\n"
    )
    result = compress("validate", "s.yaml", "-c", "c")
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
