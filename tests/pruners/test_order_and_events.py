"""Prune_S, Prune_L and Prune_R (Bartoldson et al. 2020), in equal events: what goes when, and that it stays away."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.pruners.general import Pruner
from compressor.pruners.pruner import Request
from compressor.timing.window import Window

RunOf = Callable[..., Any]
IMAGES = torch.arange(32.0).reshape(2, 1, 4, 4) / 32
WEIGHTS = [3.0, -1, 4, -1.5, 5, -9, 2, 6]
"""By |w|: the places 1 3 6 0 2 4 7 5."""


def schedule(arguments: str, window: str = "ending_epoch: 3", name: str = "'*'") -> str:
    component = f"class: Pruner, weights: {name}, {arguments}"
    return f"version: 2\npolicies:\n  - {{pruner: {{{component}}}, {window}}}\n"


def vector(values: list[float] = WEIGHTS) -> nn.Linear:
    layer = nn.Linear(len(values), 1, bias=False)
    layer.weight = nn.Parameter(torch.tensor([values]))
    return layer


def conv(*norms: float, inputs: int = 1, groups: int = 1) -> nn.Conv2d:
    """1x1 filters of the given L1 norms, every weight of one the same; biases of 1."""
    layer = nn.Conv2d(inputs, len(norms), 1, groups=groups)
    layer.bias = nn.Parameter(torch.ones(len(norms)))
    values = torch.tensor(norms) * groups / inputs
    layer.weight = nn.Parameter(values.reshape(-1, 1, 1, 1).expand_as(layer.weight) + 0)
    return layer


def net(*layers: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


def started(run_of: RunOf, text: str, model: nn.Module, **options: Any) -> Any:
    run = run_of(text, model, **options)
    run.images(IMAGES)
    return run


def gone(parameter: Tensor) -> set[int]:
    """The places (along the first dim, or of a vector) that are all zero."""
    rows = parameter.detach()[0] if parameter.shape[0] == 1 else parameter.detach().flatten(1)
    return {place for place, row in enumerate(rows) if not row.any()}


def events(run: Any, parameter: Tensor, count: int = 3) -> list[set[int]]:
    """What is gone after each of the first epochs' beginnings."""
    found = []
    for epoch in range(count):
        run.begin(epoch)
        found.append(gone(parameter))
    return found


# --- which go ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "expected"),
    [("smallest", [{1, 3}, {1, 3, 6, 0}, {1, 3, 6, 0, 2, 4}]), ("largest", [{5, 7}, {5, 7, 4, 2}, {5, 7, 4, 2, 0, 6}])],
)
def test_single_weights_go_from_the_one_end_or_the_other(run_of: RunOf, order: str, expected: list[set[int]]) -> None:
    model = vector()  # 6 of 8 in 3 events: 2, 4, 6
    run = run_of(schedule(f"order: {order}, rate: {{events: 0.75}}"), model)
    assert events(run, model.weight) == expected
    assert run.events.shortfalls() == []


@pytest.mark.parametrize("structure", ["Filters", "3D"])
@pytest.mark.parametrize(
    ("order", "expected"), [("smallest", [{1}, {1, 3}, {1, 3, 0}]), ("largest", [{4}, {2, 4}, {2, 4, 0}])]
)
def test_filters_go_from_the_one_end_or_the_other(
    run_of: RunOf, structure: str, order: str, expected: list[set[int]]
) -> None:
    model = net(conv(3, 1, 4, 2, 5), nn.ReLU(), channels=5)  # 3 of 5 in 3 events
    run = started(
        run_of, schedule(f"order: {order}, structure: {structure}, rate: {{events: 0.6}}", name="0.weight"), model
    )
    assert events(run, model[0].weight) == expected
    assert gone(model[0].bias.detach()[:, None]) == expected[-1]  # what speaks for a filter goes with it


@pytest.mark.parametrize(
    ("order", "expected"), [("smallest", [{0, 1}, {0, 1, 2, 3}]), ("largest", [{4, 5}, {4, 5, 0, 1}])]
)
def test_of_equals_those_of_lower_index_go_first(run_of: RunOf, order: str, expected: list[set[int]]) -> None:
    text = schedule(f"order: {order}, rate: {{events: 0.67}}", "ending_epoch: 2")  # 4 of 6
    model = vector([1.0, -1, 1, 1, -2, 2])
    assert events(run_of(text, model), model.weight, 2) == expected
    filters = net(conv(1, 1, 1, 1, 2, 2), nn.ReLU(), channels=6)
    text = schedule(f"order: {order}, structure: Filters, rate: {{events: 0.67}}", "ending_epoch: 2", "0.weight")
    assert events(started(run_of, text, filters), filters[0].weight, 2) == expected


@pytest.mark.parametrize("structure", ["Elements", "Filters"])
def test_small_and_large_are_disjoint_up_to_a_half(run_of: RunOf, structure: str) -> None:
    norms = torch.rand(11, generator=torch.Generator().manual_seed(0)).tolist()
    found = {}
    for order in ("smallest", "largest"):
        model = net(conv(*norms), nn.ReLU(), channels=11)
        arguments = f"order: {order}, structure: {structure}, rate: {{events: 0.5}}"
        found[order] = events(started(run_of, schedule(arguments, name="0.weight"), model), model[0].weight)
    assert [len(each) for each in found["smallest"]] == [len(each) for each in found["largest"]] == [1, 3, 5]
    assert not found["smallest"][-1] & found["largest"][-1]
    ranked = sorted(range(11), key=norms.__getitem__)
    assert (found["smallest"][-1], found["largest"][-1]) == (set(ranked[:5]), set(ranked[-5:]))


# --- how many, and that they stay -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["smallest", "largest", "random"])
@pytest.mark.parametrize("structure", ["Elements", "Filters"])
def test_what_is_gone_stays_gone_and_the_counts_are_exact_whatever_becomes_of_the_rest(
    run_of: RunOf, structure: str, order: str
) -> None:
    model = net(conv(*range(1, 65)), nn.ReLU(), channels=64)
    arguments = f"order: {order}, structure: {structure}, rate: {{events: 0.9}}"
    window = "starting_epoch: 0, ending_epoch: 14, frequency: 2"
    run = started(run_of, schedule(arguments, window, "0.weight"), model, epochs=20)
    draws, before = torch.Generator().manual_seed(1), set[int]()
    # 57 of 64 in 7 events; F = 7: 7 + ceil(57 (7 - i) / 7)
    for epoch, left in zip(range(0, 14, 2), [56, 48, 40, 32, 24, 16, 7], strict=True):
        with torch.no_grad():  # training has made others large and small, some of them exactly 0
            alive = model[0].weight != 0
            model[0].weight.copy_(torch.randn(64, 1, 1, 1, generator=draws).round(decimals=1) * alive)
        run.begin(epoch)
        now = {place for place, keep in enumerate(run.masks.keep("0.weight").flatten().tolist()) if not keep}
        assert (len(now), now >= before) == (64 - left, True)
        before = now
        run.epoch(epoch + 1)


def test_a_live_weight_of_0_does_not_take_the_place_of_one_that_is_gone(run_of: RunOf) -> None:
    for order, first, rest in (("smallest", {3}, {3, 0}), ("largest", {0}, {0, 2})):
        model = vector([4.0, 3, 2, 1])
        run = run_of(schedule(f"order: {order}, rate: {{events: 0.5}}", "ending_epoch: 2"), model)
        run.begin(0)
        assert gone(model.weight) == first
        model.weight.data[0, :2] = 0.0  # of three that are 0, with the one that is gone, two are to go
        run.begin(1)
        assert {i for i, keep in enumerate(run.masks.keep("weight")[0].tolist()) if not keep} == rest


@pytest.mark.parametrize("structure", ["Elements", "Filters"])
def test_counts_are_those_of_the_events_to_the_last_one_of_any_share(run_of: RunOf, structure: str) -> None:
    # 0.35 * 3 / 3 is 0.3499999999999999: of 20 that would be 6.
    model = net(conv(*range(1, 21)), nn.ReLU(), channels=20)
    run = started(run_of, schedule(f"structure: {structure}, rate: {{events: 0.35}}", name="0.weight"), model)
    assert [len(each) for each in events(run, model[0].weight)] == [2, 4, 7]
    assert run.events.shortfalls() == []


def test_a_share_below_one_structure_an_event_takes_them_now_and_then(run_of: RunOf) -> None:
    model = vector()
    run = run_of(schedule("rate: {events: 0.3}", "epochs: [0, 1, 4, 5]"), model, epochs=6)  # 2 of 8 in 4 events
    assert [len(each) for each in events(run, model.weight, 6)] == [0, 1, 1, 1, 1, 2]


def test_one_filter_is_spared_where_all_should_go_and_no_single_weight_is(run_of: RunOf) -> None:
    for structure, counts in (("Filters", [2, 4]), ("Elements", [2, 5])):
        model = net(conv(1, 2, 3, 4, 5), nn.ReLU(), channels=5)
        arguments = f"structure: {structure}, order: largest, rate: {{events: 1.0}}"
        run = started(run_of, schedule(arguments, "ending_epoch: 2", "0.weight"), model)
        assert [len(each) for each in events(run, model[0].weight, 2)] == counts
        assert run.events.shortfalls() == []


def test_events_may_count_optimizer_steps(run_of: RunOf) -> None:
    model = vector()
    window = "starting_step: 1, ending_step: 8, step_frequency: 3"
    run = run_of(schedule("order: largest, rate: {events: 0.75}", window), model, epochs=3, steps=3)
    for epoch in range(3):
        run.epoch(epoch)
    assert [int((seen["weight"] == 0).sum()) for seen in run.seen] == [0, 2, 2, 2, 4, 4, 4, 6, 6]


def test_what_was_thinned_away_counts_as_gone() -> None:
    pruner = Pruner.model_validate(
        {"structure": "Filters", "order": "largest", "weights": ["w"], "rate": {"events": 0.5}}
    )
    weights, window = {"w": torch.arange(1.0, 9).reshape(8, 1)}, Window(ending_epoch=2)  # 8 of 10 are left
    masks = [
        pruner.keep(Request(weights, {"weights": ["w"]}, window, time, dense={"w": (10, 1)}))["w"] for time in (0, 1)
    ]
    assert [gone(weights["w"] * mask) for mask in masks] == [set(), {5, 6, 7}]  # 2, then 5 of 10


def test_the_largest_by_a_constant_share_stay_gone_at_its_later_firings(run_of: RunOf) -> None:
    # Else the zeros would be the smallest, and the next largest would go.
    model = vector()
    run = run_of(schedule("order: largest, rate: {sparsity: 0.5}"), model)
    assert events(run, model.weight) == [{5, 7, 4, 2}] * 3


# --- at random --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["events: 0.5", "sparsity: 0.5"])
@pytest.mark.parametrize("structure", ["Elements", "Filters"])
def test_at_random_is_by_torch_s_generator_and_once_for_all(run_of: RunOf, structure: str, rate: str) -> None:
    def pruned(seed: int) -> list[set[int]]:
        model = net(conv(*range(1, 65)), nn.ReLU(), channels=64)
        run = started(
            run_of, schedule(f"order: random, structure: {structure}, rate: {{{rate}}}", name="0.weight"), model
        )
        torch.manual_seed(seed)
        return events(run, model[0].weight)

    first = pruned(3)
    assert pruned(3) == first
    assert first[0] <= first[1] <= first[2]
    assert [len(each) for each in first] == ([10, 21, 32] if rate[0] == "e" else [32, 32, 32])
    other = pruned(4)
    assert other != first
    # Neither the small ones nor the large ones: hypergeometric, 16 +- 2 of either half.
    assert 9 <= len({place for place in other[-1] if place < 32}) <= 23


def test_smallest_and_largest_draw_nothing(run_of: RunOf) -> None:
    torch.manual_seed(0)
    models = [net(conv(*range(1, 9)), nn.ReLU(), channels=8) for _ in range(2)]
    before = torch.random.get_rng_state()
    for model, order in zip(models, ("smallest", "largest"), strict=True):
        text = schedule(f"order: {order}, structure: Filters, rate: {{events: 0.5}}", name="0.weight")
        events(started(run_of, text, model), model[0].weight)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- ranked together --------------------------------------------------------------------------------------------------


def test_of_all_layers_together_the_largest_by_mean_norm_go_and_each_keeps_one(run_of: RunOf) -> None:
    # Mean norms 10 .. 13 and 1 .. 4: the first layer goes but for its smallest filter, then the second.
    model = net(conv(10, 11, 12, 13), nn.ReLU(), conv(1, 2, 3, 4, inputs=4), nn.ReLU(), channels=4)
    with torch.no_grad():
        model[2].weight.mul_(4)  # its norms are over 4 weights each
    text = schedule(
        "criterion: l1, scope: global, order: largest, structure: Filters, rate: {events: 0.75}",
        name="[0.weight, 2.weight]",
    )
    run = started(run_of, text, model)
    found = []
    for epoch in range(3):  # 6 of 8 in 3 events
        run.begin(epoch)
        found.append((gone(model[0].weight), gone(model[2].weight)))
    assert found == [({2, 3}, set()), ({1, 2, 3}, {3}), ({1, 2, 3}, {1, 2, 3})]
    assert run.events.shortfalls() == []


@pytest.mark.parametrize("order", ["smallest", "largest", "random"])
@pytest.mark.parametrize("structure", ["Filters", "Elements", "Kernels", "Blocks"])
def test_of_all_layers_together_what_is_gone_stays_and_the_counts_are_exact(
    run_of: RunOf, structure: str, order: str
) -> None:
    model = net(conv(*range(1, 11)), nn.ReLU(), conv(*range(3, 13), inputs=10), nn.ReLU(), channels=10)
    total = {"Filters": 20, "Elements": 10 + 100, "Kernels": 10 + 100, "Blocks": 5 + 50}[structure]
    size = ", block_shape: [2, 1]" if structure == "Blocks" else ""
    arguments = f"scope: global, order: {order}, structure: {structure}{size}, rate: {{events: 0.8}}"
    run = started(run_of, schedule(arguments, "ending_epoch: 4", "[0.weight, 2.weight]"), model, epochs=5)
    draws, names = torch.Generator().manual_seed(0), ("0.weight", "2.weight")
    before = {name: torch.ones_like(run.parameters[name], dtype=torch.bool) for name in names}
    for event in range(1, 5):
        with torch.no_grad():
            for name in names:
                weight = run.parameters[name]
                weight.copy_(torch.randn(weight.shape, generator=draws) * before[name])
        run.begin(event - 1)
        now = {name: run.masks.keep(name) for name in names}
        assert all((before[name] | ~now[name]).all() for name in names)
        structures = sum(
            int(mask.flatten(1).any(1).sum()) if structure == "Filters" else int(mask.sum()) for mask in now.values()
        )
        assert structures // (2 if structure == "Blocks" else 1) == total - int(0.8 * total) * event // 4
        assert all(mask.any() for mask in now.values())
        before = now


class Residual(nn.Module):
    """x = stem(image); x = x + b(relu(x)); the classifier of relu(x)."""

    def __init__(self, stem: tuple[float, ...], b: tuple[float, ...]) -> None:
        super().__init__()
        self.stem, self.b = conv(*stem), conv(*b, inputs=len(stem))
        self.fc = nn.Linear(len(b), 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(torch.relu(x))
        logits: Tensor = self.fc(torch.relu(x).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("order", "expected"),
    # stem 1 2 3 4 and b 9 3 1 2.5: together 10 5 4 6.5.
    [("smallest", [{2}, {2, 1}, {2, 1, 3}]), ("largest", [{0}, {0, 3}, {0, 3, 1}])],
)
def test_channels_that_an_addition_joins_go_together_in_either_order(
    run_of: RunOf, order: str, expected: list[set[int]]
) -> None:
    model = Residual((1, 2, 3, 4), (9, 3, 1, 2.5))
    arguments = f"criterion: l1, scope: coupled, order: {order}, structure: Filters, rate: {{events: 0.75}}"
    run = started(run_of, schedule(arguments, name="b.weight"), model)
    for epoch, places in enumerate(expected):
        run.begin(epoch)
        assert gone(model.stem.weight) == gone(model.b.weight) == places


@pytest.mark.parametrize("order", ["largest", "random"])
def test_channels_that_an_addition_joins_stay_gone_together(run_of: RunOf, order: str) -> None:
    model = Residual(tuple(range(1, 17)), tuple(range(16, 0, -1)))
    arguments = f"scope: coupled, order: {order}, structure: Filters, rate: {{events: 0.75}}"
    run = started(run_of, schedule(arguments, "ending_epoch: 4", "stem.weight"), model, epochs=5)
    draws, before = torch.Generator().manual_seed(0), set[int]()
    for event in range(1, 5):  # 12 of 16
        with torch.no_grad():
            for name in ("stem.weight", "b.weight"):
                weight, keep = run.parameters[name], run.masks.keep(name)
                weight.copy_(torch.randn(weight.shape, generator=draws) * (1 if keep is None else keep))
        run.begin(event - 1)
        now = gone(model.b.weight)
        assert (len(now), now >= before, gone(model.stem.weight)) == (3 * event, True, now)
        before = now


@pytest.mark.parametrize("order", ["smallest", "largest", "random"])
def test_of_a_grouped_convolution_equally_many_of_each_group_go_and_stay_gone(run_of: RunOf, order: str) -> None:
    model = net(conv(1, 2, 3, 4), nn.ReLU(), conv(*range(1, 17), inputs=4, groups=2), nn.ReLU(), channels=16)
    arguments = f"order: {order}, structure: Filters, rate: {{events: 0.75}}"
    run = started(run_of, schedule(arguments, name="2.weight"), model)
    draws, before = torch.Generator().manual_seed(0), set[int]()
    for event in range(1, 4):  # 12 of 16: 4, 8, 12
        run.begin(event - 1)
        now = gone(model[2].weight)
        assert now >= before
        halves = [sorted(place % 8 for place in now if place // 8 == group) for group in (0, 1)]
        assert [len(half) for half in halves] == [2 * event, 2 * event]
        if event == 1 and order != "random":
            assert halves == [{"smallest": [0, 1], "largest": [6, 7]}[order]] * 2
        before = now
        with torch.no_grad():
            keep = run.masks.keep("2.weight")
            model[2].weight.copy_(torch.randn(model[2].weight.shape, generator=draws) * keep)
    assert run.events.shortfalls() == []


# --- what is refused --------------------------------------------------------------------------------------------------

OUTPUTS = "scores the outputs of a layer: structure should be Filters or Rows"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rate: {events: 1.5}", "should be less than or equal to 1"),
        ("rate: {events: -0.1}", "should be greater than or equal to 0"),
        (
            "rate: {events: 0.5, sparsity: 0.5}",
            "give exactly one of agp, baidu, bernoulli, events, macs, parameters, random, sparsity",
        ),
        ("rate: {threshold: 0.1}, order: largest", "`rate: threshold` is a threshold of magnitudes"),
        ("rate: {std: 0.1}, order: random", "`rate: std` is a threshold of magnitudes"),
        ("rate: {survivors_std: 0.1}, criterion: gradient", "`rate: survivors_std` is a threshold of magnitudes"),
        (
            "rate: {threshold: 0.1}, structure: Filters",
            "(of Elements l1, of others max or mean_abs), or a rate that is a sparsity",
        ),
        (
            "rate: {threshold: 0.1}, scope: global",
            "is a threshold that does not depend on the other weights: remove `scope: global`",
        ),
        ("rate: {events: 0.5}, criterion: taylor", f"`criterion: taylor` {OUTPUTS}, not Elements"),
        ("rate: {events: 0.5}, criterion: apoz, structure: Channels", f"`criterion: apoz` {OUTPUTS}, not Channels"),
        ("rate: {events: 0.5}, criterion: bn_scale, structure: Kernels", f"`criterion: bn_scale` {OUTPUTS}"),
        (
            "rate: {events: 0.5}, criterion: mean_activation, structure: Blocks, block_shape: [1, 1]",
            f"`criterion: mean_activation` {OUTPUTS}, not Blocks",
        ),
        ("rate: {events: 0.5}, order: backwards", "order"),
        ("rate: {events: 0.5}, batches: 0", "should be greater than or equal to 1"),
        (
            "rate: {events: 0.5}, order: random, criterion: l1",
            "`order: random` does not use a score: remove `criterion`",
        ),
        ("rate: {events: 0.5}, order: random, criterion: apoz, structure: Filters", "remove `criterion`"),
        ("rate: {events: 0.5}, order: random, batches: 3", "`batches` is for criteria that need images"),
        ("rate: {events: 0.5}, batches: 3", "`batches` is for criteria that need images"),
        ("rate: {events: 0.5}, criterion: l2, batches: 8", "`batches` is for criteria that need images"),
        ("rate: {threshold: 0.1}, batches: 3", "`batches` is for criteria that need images"),
        ("rate: {events: 0.5}, criterion: bn_scale, structure: Filters, batches: 3", "`batches` is for criteria that"),
        ("rate: {events: 0.5}, scope: coupled", "`scope: coupled` is for whole filters"),
        ("rate: {events: 0.5}, structure: Layer", "`scope: global`, which ranks layers"),
    ],
)
def test_what_does_not_fit_together_is_one_fault_that_says_why(
    faults_of: Callable[[str], list[str]], arguments: str, message: str
) -> None:
    (fault,) = faults_of(schedule(arguments))
    assert fault.startswith("s.yaml:3:")
    assert message in fault


@pytest.mark.parametrize("criterion", ["taylor", "apoz", "mean_activation", "feature_map", "running_feature_map"])
@pytest.mark.parametrize("structure", ["Filters", "Rows", "3D"])
def test_criteria_of_outputs_are_for_filters_and_rows(
    faults_of: Callable[[str], list[str]], criterion: str, structure: str
) -> None:
    assert faults_of(schedule(f"criterion: {criterion}, structure: {structure}, rate: {{events: 0.5}}")) == []
    assert faults_of(schedule(f"criterion: gradient, structure: {structure}, rate: {{sparsity: 0.5}}")) == []


def test_without_images_a_criterion_that_looks_at_them_says_so() -> None:
    arguments = {"structure": "Filters", "criterion": "apoz", "weights": ["w"], "rate": {"sparsity": 0.5}}
    with pytest.raises(LookupError, match="no images to take apoz of w from"):
        Pruner.model_validate(arguments).keep(
            Request({"w": torch.ones(2, 1)}, {"weights": ["w"]}, Window(epochs=[0]), 0)
        )
    # At random nothing is looked at.
    del arguments["criterion"]
    at_random = Pruner.model_validate({**arguments, "order": "random"})
    masks = at_random.keep(Request({"w": torch.ones(2, 1)}, {"weights": ["w"]}, Window(epochs=[0]), 0))
    assert int(masks["w"].sum()) == 1
