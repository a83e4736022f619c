"""Distiller's rankers by activations, gradients and chance: what goes, on images and weights set by hand."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop
from torch import Tensor, nn
from torch.func import functional_call

from compressor.errors import UserError
from compressor.pruners.pruner import PrunerBase, Request
from compressor.schedule.registry import components
from compressor.sparsity.channels import Channels
from compressor.timing.window import Window

RunOf = Callable[..., Any]

APOZ = "ActivationAPoZRankedFilterPruner"
MEAN = "ActivationMeanRankedFilterPruner"
GRADIENT = "GradientRankedFilterPruner"
RANDOM = "RandomRankedFilterPruner"
BERNOULLI = "BernoulliFilterPruner"
LEVEL = "RandomLevelStructureParameterPruner"


def schedule(arguments: str, weights: str = "0.weight", when: str = "epochs: [0]", args: str = "") -> str:
    component = f"class: {arguments}, group_type: Filters, weights: [{weights}], args: {{{args}}}"
    return f"version: 1\npolicies:\n  - {{pruner: {{{component}}}, {when}}}\n"


def begun(run_of: RunOf, text: str, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> Any:
    """A run with these batches, in its first epoch."""
    run = run_of(text, model, batches=batches)
    run.begin(0)
    return run


def gone(run: Any, name: str) -> set[int]:
    """The filters of a weight that are masked, whole."""
    keep = run.masks.keep(name).flatten(1)
    assert torch.equal(keep.any(1), keep.all(1))
    return set(torch.where(~keep.any(1))[0].tolist())


def convolution(weights: Sequence[Sequence[float]], biases: Sequence[float] | None = None) -> nn.Conv2d:
    """1x1 filters."""
    layer = nn.Conv2d(len(weights[0]), len(weights), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights).reshape(layer.weight.shape))
        layer.bias.copy_(torch.tensor(biases or [0.0] * len(weights)))
    return layer


def net(*layers: nn.Module, channels: int) -> nn.Sequential:
    """The layers, global pooling and a classifier."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


# --- which go ---------------------------------------------------------------------------------------------------------

PIXELS = [(torch.tensor([[[[1.0, -2]]], [[[3, 4]]]]), torch.tensor([0, 1]))]
"""Two images of two pixels."""


def five() -> nn.Sequential:
    """Behind the activation, on the two images:

    x: 1 0, 3 4; -x: 0 2, 0 0; 1/4: all 1/4; x - 3: 0 0, 0 1; 2x: 2 0, 6 8. Shares of zeros: 1/4 3/4 0 3/4 1/4; means:
    2 1/2 1/4 1/4 4.
    """
    return net(convolution([[1.0], [-1], [0], [1], [2]], [0, 0, 0.25, -3, 0]), nn.ReLU(), channels=5)


RANKINGS = {APOZ: (1, 3, 0, 4, 2), MEAN: (2, 3, 1, 0, 4)}
"""Of equals the first goes first. By L1 norms it would be 2 0 1 3 4."""


@pytest.mark.parametrize("name", RANKINGS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_filters_that_are_most_often_silent_or_lowest_on_average_go_first(run_of: RunOf, name: str, count: int) -> None:
    text = schedule(f"{name}, desired_sparsity: {(count + 0.1) / 5}")
    run = begun(run_of, text, five(), PIXELS)
    assert gone(run, "0.weight") == set(RANKINGS[name][:count])
    assert [place for place, bias in enumerate(run.model[0].weight.flatten(1).any(1)) if not bias]


@pytest.mark.parametrize("name", RANKINGS)
def test_agp_s_share_of_them_goes(run_of: RunOf, name: str) -> None:
    # 0.8 (1 - (1 - e / 2)^3): 0, 0.7, 0.8 of five filters.
    text = schedule(f"{name}_AGP, initial_sparsity: 0.0, final_sparsity: 0.8", when="ending_epoch: 3")
    run = begun(run_of, text, five(), PIXELS)
    for epoch, count in enumerate((0, 3, 4)):
        run.epoch(epoch)
        assert gone(run, "0.weight") == set(RANKINGS[name][:count])
    assert run.events.shortfalls() == []


@pytest.mark.parametrize("name", [APOZ, MEAN])
def test_so_many_batches_are_looked_at(run_of: RunOf, name: str) -> None:
    # On the second image alone the means are 3.5 0 .25 .5 7, and nothing of the second filter is ever positive.
    images, labels = PIXELS[0]
    batches = [(images[1:], labels[1:]), (images[:1], labels[:1])]
    run = begun(run_of, schedule(f"{name}, desired_sparsity: 0.2, batches: 1"), five(), batches)
    assert gone(run, "0.weight") == {1}
    run = begun(run_of, schedule(f"{name}, desired_sparsity: 0.2, batches: 2"), five(), batches)
    assert gone(run, "0.weight") == {RANKINGS[name][0]}


ONE_PIXEL = [(torch.tensor([[[[1.0]], [[-0.75]]]] * 2), torch.tensor([0, 1]))]
"""An image of two channels, once of either class."""


def three() -> nn.Sequential:
    """Behind the activation .25 .5 1; both logits' difference is theirs times 1, 1, -0.4 = .35.

    w dL/dw, up to one factor for all: 1 (1 - .75), 1 (.5 - 0), -.4 (1 - 0).
    """
    model = net(convolution([[1.0, 1], [0.5, 0], [1, 0]]), nn.ReLU(), channels=3)
    with torch.no_grad():
        model[-1].weight.copy_(torch.tensor([[1.0, 1, -0.4], [0, 0, 0]]))
        model[-1].bias.zero_()
    return model


@pytest.mark.parametrize(("count", "expected"), [(1, {0}), (2, {0, 2})])
@pytest.mark.parametrize("gradual", [False, True])
def test_the_smallest_sums_of_w_dl_dw_go_without_their_sign(
    run_of: RunOf, count: int, expected: set[int], gradual: bool
) -> None:
    # .25 .5 .4; with its sign 2 (or 1) would be first, by the sum of what has lost its sign 0 last.
    share = f"{(count + 0.1) / 3}"
    how = f"_AGP, initial_sparsity: {share}, final_sparsity: {share}" if gradual else f", desired_sparsity: {share}"
    run = begun(run_of, schedule(GRADIENT + how), three(), ONE_PIXEL)
    assert gone(run, "0.weight") == expected
    assert all(parameter.grad is None for parameter in run.model.parameters())


@pytest.mark.parametrize("group", ["Rows", "Channels", "Blocks"])
@pytest.mark.parametrize("name", [APOZ, MEAN, GRADIENT])
def test_only_filters_are_ranked_by_data_and_the_refusal_says_what_was_written(
    faults_of: Callable[[str], list[str]], name: str, group: str
) -> None:
    text = schedule(f"{name}, desired_sparsity: 0.5").replace("Filters", group)
    assert any(f"should be 'Filters' or '3D', got '{group}'" in line for line in faults_of(text))


# --- weights that an addition joins -----------------------------------------------------------------------------------


class Residual(nn.Module):
    """x = relu(stem(image)); relu(x + b(x)); a classifier."""

    def __init__(self, stem: Sequence[float], b: nn.Conv2d) -> None:
        super().__init__()
        self.stem = convolution([[1.0]] * 3, [-shift for shift in stem])
        self.b, self.fc = b, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        logits: Tensor = self.fc(torch.relu(x + self.b(x)).mean((2, 3)))
        return logits


def joined(by: str) -> tuple[Residual, list[tuple[Tensor, Tensor]]]:
    """Scores: of stem, the second filter first; of b, the first; their sum, the third."""
    if by == APOZ:
        # Pixels 1 2 3 4; positive are: above .5, 3.5, 2.5 (4, 1, 2 of 4), and of x - 4, x + 1, x - 1: 0, 4, 1 of 4.
        model = Residual([0.5, 3.5, 2.5], convolution([[0.0] * 3] * 3, [-4, 1, -1]))
        return model, [(torch.tensor([[[[1.0, 2, 3, 4]]]]), torch.tensor([0]))]
    # One pixel, 4: x is 3 1 2; x + b(x) is 3 - 3, 1 + 4, 2 - 1.5: 3, 6, 2.5 together.
    model = Residual([1, 3, 2], convolution([[-1.0, 0, 0], [0, 4, 0], [0, 0, -0.75]]))
    return model, [(torch.tensor([[[[4.0]]]]), torch.tensor([0]))]


@pytest.mark.parametrize("by", [APOZ, MEAN])
@pytest.mark.parametrize(
    ("weights", "leader", "first"),
    [
        ("stem.weight", "", {"stem": 1}),
        ("b.weight", "", {"b": 0}),
        ("stem.weight, b.weight", "", {"stem": 2, "b": 2}),
        ("b.weight, stem.weight", "", {"stem": 2, "b": 2}),
        ("stem.weight, b.weight", ", group_dependency: Leader", {"stem": 1, "b": 1}),
        ("b.weight, stem.weight", ", group_dependency: Leader", {"stem": 0, "b": 0}),
    ],
)
def test_weights_that_an_addition_joins_are_ranked_by_the_sum_or_by_the_leader(
    run_of: RunOf, by: str, weights: str, leader: str, first: dict[str, int]
) -> None:
    model, batches = joined(by)
    run = begun(run_of, schedule(f"{by}, desired_sparsity: 0.4{leader}", weights), model, batches)
    for layer, place in first.items():
        assert gone(run, f"{layer}.weight") == {place}
        assert run.masks.keep(f"{layer}.bias").tolist() == [place != number for number in range(3)]
    assert set(run.masks.owned(next(iter(run.events.memory)))) == {
        f"{n}.{o}" for n in first for o in ("weight", "bias")
    }


@pytest.mark.parametrize("arguments", [f"{RANDOM}, desired_sparsity: 0.4", f"{LEVEL}, sparsity_range: [0.34, 0.6]"])
def test_chance_takes_what_is_joined_together(run_of: RunOf, arguments: str) -> None:
    found = set()
    for seed in range(12):
        model, batches = joined(MEAN)
        torch.manual_seed(seed)
        run = begun(run_of, schedule(arguments, "stem.weight, b.weight"), model, batches)
        assert gone(run, "stem.weight") == gone(run, "b.weight")
        found |= gone(run, "stem.weight")
    assert found == {0, 1, 2}


# --- chance -----------------------------------------------------------------------------------------------------------


def pruner(name: str, **arguments: Any) -> PrunerBase:
    made = components("pruners")[name].model_validate({"group_type": "Filters", "weights": ["w"], **arguments})
    assert isinstance(made, PrunerBase)
    return made


def draws(one: PrunerBase, count: int, filters: int, seed: int = 0, time: int = 0, **asked: Any) -> Tensor:
    """[draws, filters]: what is gone."""
    torch.manual_seed(seed)
    window = Window(starting_epoch=0, ending_epoch=3) if time else Window(epochs=[0])
    question = Request({"w": torch.ones(filters, 2, 1, 1)}, {"weights": ["w"]}, window, time, **asked)
    return torch.stack([~one.keep(question)["w"].flatten(1).any(1) for _ in range(count)])


def assert_near(values: Tensor, mean: float, variance: float) -> None:
    """The mean of independent values, within four of its standard deviations."""
    assert abs(float(values.double().mean()) - mean) < 4 * (variance / len(values)) ** 0.5


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (RANDOM, {"desired_sparsity": 0.5}),
        (f"{RANDOM}_AGP", {"initial_sparsity": 0.5, "final_sparsity": 0.5}),
        (LEVEL, {"sparsity_range": [0.3, 0.7]}),
        (BERNOULLI, {"desired_sparsity": 0.5}),
        (f"{BERNOULLI}_AGP", {"initial_sparsity": 0.5, "final_sparsity": 0.5}),
    ],
)
def test_a_draw_is_reproduced_by_its_seed_and_each_is_another(name: str, arguments: dict[str, Any]) -> None:
    one = pruner(name, **arguments)
    first = draws(one, 5, 40)
    assert torch.equal(draws(one, 5, 40), first)
    assert not torch.equal(draws(one, 5, 40, seed=1), first)
    assert len({tuple(row.tolist()) for row in first}) == 5


def test_random_filters_go_in_the_exact_number_and_each_as_often() -> None:
    found = draws(pruner(RANDOM, desired_sparsity=0.39), 2000, 10)
    assert set(found.sum(1).tolist()) == {3}
    for filter_ in found.T:
        assert_near(filter_, 0.3, 0.3 * 0.7)
    gradual = pruner(f"{RANDOM}_AGP", final_sparsity=0.8)
    counts = [set(draws(gradual, 20, 10, time=time).sum(1).tolist()) for time in (1, 2)]
    assert counts == [{7}, {8}]  # 0.8 (1 - 1/8), 0.8


def test_the_random_level_lies_evenly_in_its_range() -> None:
    found = draws(pruner(LEVEL, sparsity_range=[0.1, 0.5]), 1000, 20)
    counts = found.sum(1)
    # floor(20 u), u evenly in 0.1 .. 0.5: 2, 3 ... 9, each as often; their mean is 5.5, their variance 63 / 12.
    assert set(counts.tolist()) == set(range(2, 10))
    assert_near(counts, 5.5, 63 / 12)
    assert all(abs(times - 125) < 4 * (1000 / 8 * 7 / 8) ** 0.5 for times in Counter(counts.tolist()).values())
    for filter_ in found.T:
        assert_near(filter_, 5.5 / 20, 5.5 / 20 * 14.5 / 20)
    assert set(draws(pruner(LEVEL, sparsity_range=[0.3, 0.3]), 20, 20).sum(1).tolist()) == {6}


def test_a_random_level_goes_in_groups_and_by_any_rounding() -> None:
    def counts(**arguments: Any) -> set[int]:
        return set(draws(pruner(LEVEL, **arguments), 40, 20).sum(1).tolist())

    # 6 of 20: one four and a half; 20 u, u evenly in .3 .. .5, in fours: 6 .. 10.
    assert counts(sparsity_range=[0.3, 0.3], group_size=4) == {4}
    assert counts(sparsity_range=[0.3, 0.3], group_size=4, rounding_fn="ceil") == {8}
    assert counts(sparsity_range=[0.3, 0.5], group_size=4) == {4, 8}
    assert counts(sparsity_range=[1.0, 1.0], group_size=3) == {18}  # one is spared, and with it its three


def test_all_weights_of_one_draw_have_one_random_level() -> None:
    one = pruner(LEVEL, sparsity_range=[0.0, 0.9], weights=["a", "b"])
    weights = {"a": torch.ones(30, 1), "b": torch.ones(30, 1)}
    torch.manual_seed(0)
    for _ in range(5):
        masks = one.keep(Request(weights, {"weights": ["a", "b"]}, Window(epochs=[0]), 0))
        assert masks["a"].sum() == masks["b"].sum()
        assert not torch.equal(masks["a"], masks["b"])


def test_a_random_level_reaches_its_least_share(run_of: RunOf) -> None:
    model = net(convolution([[1.0]] * 10), nn.ReLU(), channels=10)
    run = begun(run_of, schedule(f"{LEVEL}, sparsity_range: [0.3, 0.6]"), model, PIXELS)
    assert 3 <= len(gone(run, "0.weight")) <= 6
    assert run.events.shortfalls() == []
    assert pruner(LEVEL, sparsity_range=[0.3, 0.6]).threshold({}, Window(epochs=[0]), 0) == (
        "a sparsity drawn between 0.3 and 0.6"
    )


@pytest.mark.parametrize("share", ["[0.5, 0.1]", "[0.1]", "[0.1, 0.2, 0.3]", "[0.1, 1.5]", "0.1"])
def test_what_is_no_range_is_refused(run_of: RunOf, share: str) -> None:
    with pytest.raises(UserError, match="sparsity_range"):
        run_of(schedule(f"{LEVEL}, sparsity_range: {share}"), five())


@pytest.mark.parametrize(
    ("arguments", "version"),
    [
        (f"{RANDOM}, desired_sparsity: 0.5", 1),
        (f"{RANDOM}_AGP, initial_sparsity: 0.125, final_sparsity: 0.5", 1),
        (f"{LEVEL}, sparsity_range: [0.5, 0.5]", 1),
        ("L1RankedStructureParameterPruner, desired_sparsity: 0.5, noise: 3", 2),
        ("L1RankedStructureParameterPruner, desired_sparsity: 0.5, noise: 1", 1),
    ],
)
def test_draws_over_a_window_leave_the_share_that_they_promise(arguments: str, version: int) -> None:
    # What one draw has zeroed stays 0 behind the relu: the next one takes it first.
    run = Loop(
        small(nn.BatchNorm2d(8), filters=8),
        [BATCH] * 3,
        schedule(arguments, when="ending_epoch: 8").replace("version: 1", f"version: {version}"),
        epochs=8,
        optimizer={"lr": 0.05},
    ).run()
    assert int((~run.after[-1]["0.weight"].flatten(1).any(1)).sum()) == 4


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("arguments", "ignored"),
    [
        (f"{RANDOM}, desired_sparsity: 0.5", {"noise"}),
        (f"{RANDOM}_AGP, final_sparsity: 0.5", {"noise"}),
        (f"{LEVEL}, sparsity_range: [0.1, 0.5]", {"noise"}),
        (f"{BERNOULLI}, desired_sparsity: 0.5", {"noise", "group_size", "rounding_fn"}),
        (f"{BERNOULLI}_AGP, final_sparsity: 0.5", {"noise", "group_size", "rounding_fn"}),
    ],
)
def test_what_chance_does_not_look_at_is_refused_unless_it_says_nothing(
    faults_of: Callable[[str], list[str]], arguments: str, ignored: set[str], version: int
) -> None:
    def refused(more: str) -> list[str]:
        text = schedule(f"{arguments}, {more}").replace("version: 1", f"version: {version}")
        lines = faults_of(text)
        assert all(line.startswith("s.yaml:3:") for line in lines)
        return lines

    assert refused("noise: 0.0, group_size: 1, rounding_fn: floor") == []  # as Distiller's own files may say
    for key, value in (("noise", 0.1), ("group_size", 2), ("rounding_fn", "ceil")):
        lines = refused(f"{key}: {value}")
        assert len(lines) == (key in ignored)
        assert all(f"draws at random and does not use '{key}': remove it" in line for line in lines)


FREE = {"dense": {"w": (40, 2, 1, 1)}}
GROUPED = {"channels": lambda: Channels({("w", 0): torch.arange(16)}, torch.arange(16) // 2)}


@pytest.mark.parametrize("asked", [{}, FREE, GROUPED], ids=["plain", "thinned before", "grouped convolution"])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_bernoulli_drops_each_filter_by_itself(share: float, asked: dict[str, Any]) -> None:
    # The number is binomial: mean 16 p, variance 16 p q; that of a sample's variance is v^2 (2 / n + kurtosis / n).
    found = draws(pruner(BERNOULLI, desired_sparsity=share), 3000, 16, **asked)
    counts, variance = found.sum(1).double(), 16 * share * (1 - share)
    assert_near(counts, 16 * share, variance)
    kurtosis = (1 - 6 * share * (1 - share)) / variance
    spread = variance * ((2 + kurtosis) / 3000) ** 0.5
    assert abs(float(counts.var()) - variance) < 4 * spread
    for filter_ in found.T:
        assert_near(filter_, share, share * (1 - share))


def test_bernoulli_spares_one_and_promises_nothing() -> None:
    every = draws(pruner(BERNOULLI, desired_sparsity=1), 400, 4)
    assert set(every.sum(1).tolist()) == {3}
    for filter_ in every.T:
        assert_near(filter_, 0.75, 0.75 * 0.25)
    assert not draws(pruner(BERNOULLI, desired_sparsity=0.0), 50, 4).any()
    assert int(draws(pruner(BERNOULLI, desired_sparsity=0.9), 200, 2).sum(1).max()) == 1
    one = pruner(f"{BERNOULLI}_AGP", final_sparsity=0.8)
    window = Window(starting_epoch=0, ending_epoch=3)
    assert one.goals({"weights": ["w"]}, window, 2) == []
    assert [one.threshold({}, window, time) for time in (0, 1, 2)] == [
        f"each with probability {share}" for share in ("0", "0.7", "0.8")
    ]
    assert_near(draws(one, 2000, 8, time=1).sum(1), 8 * 0.7, 8 * 0.7 * 0.3 + 0.06)  # less what is spared: 8 * .7^8


# --- survivors of a draw for one step ---------------------------------------------------------------------------------

IMAGES = torch.rand(8, 1, 3, 3, generator=torch.Generator().manual_seed(4))
BATCH = (IMAGES, torch.tensor([0, 1, 0, 1, 1, 1, 0, 0]))
DROP = f"{BERNOULLI}, desired_sparsity: 0.5"
EACH = "mini_batch_pruning_frequency: 1, discard_masks_at_minibatch_end: true"
COPIES = f"{EACH}, use_double_copies: true"
"""Half of the filters: what stays is doubled, which is exact."""
STILL = {"lr": 1e-60}
"""In single precision 0: no weight moves."""


def dropping(
    model: nn.Module, args: str = COPIES, text: str = DROP, weights: str = "0.weight", steps: int = 6, **settings: Any
) -> Loop:
    """`steps` steps on the same images in each of three epochs."""
    torch.manual_seed(2)
    settings = {"epochs": 3, "optimizer": {"lr": 0.05}, **settings}
    return Loop(model, [BATCH] * steps, schedule(text, weights, "ending_epoch: 3", args), **settings)


def small(*behind: nn.Module, filters: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    return net(nn.Conv2d(1, filters, 2), *behind, nn.ReLU(), channels=filters)


def outputs(model: nn.Module, values: dict[str, Tensor], depth: int, buffers: dict[str, Tensor]) -> Tensor:
    """What the first `depth` layers give in training mode, with these weights."""
    first = copy.deepcopy(model)[:depth].train()
    return functional_call(first, ({n: v for n, v in values.items() if int(n[0]) < depth}, buffers), (IMAGES,))


NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {
    "bare": list,
    "batch norm": lambda: [nn.BatchNorm2d(2, eps=1e-12)],
    "depthwise": lambda: [nn.ReLU(), nn.Conv2d(2, 2, 1, groups=2)],
    "batch norms and depthwise": lambda: [
        nn.BatchNorm2d(2, eps=1e-12),
        nn.ReLU(),
        nn.Conv2d(2, 2, 1, groups=2, bias=False),
        nn.BatchNorm2d(2, eps=1e-12),
    ],
}


@pytest.mark.parametrize(
    ("key", "args", "weights"),
    [
        *((key, COPIES, "0.weight") for key in NETWORKS),
        ("depthwise", COPIES, "0.weight, 2.weight"),
        ("batch norms and depthwise", COPIES, "0.weight, 3.weight"),
        ("batch norms and depthwise", f"{EACH}, mask_on_forward_only: true", "0.weight"),
        ("bare", EACH, "0.weight"),
    ],
)
def test_in_the_forward_pass_the_outputs_that_stay_are_as_much_larger(key: str, args: str, weights: str) -> None:
    model = small(*NETWORKS[key]())
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.5, 1.0)
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.2, 1.0)
    before = [{name: p.detach().clone() for name, p in model.named_parameters()}]
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    depth = len(model) - 3
    run = dropping(model, args, weights=weights, optimizer=STILL).run()
    kinds = Counter[int]()
    for forward in run.forwards:
        live = forward["0.weight"].flatten(1).any(1)
        kinds[int(live.sum())] += 1
        plain = outputs(model, before[0], depth, buffers)
        if args != COPIES:  # what was dropped is 0 from then on
            before[0] = {n: v.clone() for n, v in before[0].items()}
            for name, value in before[0].items():
                if int(name[0]) < depth:
                    value[~live] = 0
            plain = outputs(model, before[0], depth, buffers)
        found = outputs(model, forward, depth, buffers)
        torch.testing.assert_close(found[:, live], 2 * plain[:, live])
        assert torch.equal(found[:, ~live], torch.zeros_like(found[:, ~live]))
    if args == COPIES:
        assert set(kinds) == {1, 2}  # one is spared, and at times nothing is dropped


class Joined(nn.Module):
    """A batch norm over the outputs of two convolutions, the first of which is dropped from."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.bn = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 1), nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(torch.cat([self.a(x), self.b(x)], 1)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def test_what_others_say_through_the_same_batch_norm_stays_as_it_is() -> None:
    model = Joined()
    nn.init.ones_(model.bn.bias)
    text = schedule(DROP, "a.weight", "ending_epoch: 3", COPIES)
    run = Loop(model, [BATCH] * 4, text, epochs=3, optimizer=STILL).run()
    for forward in run.forwards:
        live = forward["a.weight"].flatten(1).any(1).float()
        expected = torch.cat([2 * live, torch.ones(3)])
        assert torch.equal(forward["bn.weight"], expected)
        assert torch.equal(forward["bn.bias"], expected)
        assert torch.equal(forward["b.weight"], model.b.weight)
        assert torch.equal(forward["b.bias"], model.b.bias)
        assert torch.equal(forward["a.bias"], 2 * live * model.a.bias)


def test_a_dropped_input_channel_leaves_biases_as_they_are() -> None:
    torch.manual_seed(0)
    model = net(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), channels=3)
    text = schedule(DROP, "2.weight", "ending_epoch: 1", COPIES).replace("Filters", "Channels")
    weight, own = model[2].weight.detach().clone(), dict(model.named_parameters())
    run = Loop(model, [BATCH] * 6, text, epochs=1, optimizer=STILL).run()
    for forward in run.forwards:
        live = forward["2.weight"].any(0).flatten()
        assert torch.equal(forward["2.weight"], 2 * weight * live.reshape(1, 4, 1, 1))
        assert all(torch.equal(forward[name], own[name]) for name in own if name != "2.weight")


@pytest.mark.parametrize(("key", "accumulate"), [("bare", 1), ("bare", 2), ("batch norm", 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_step_is_plain_sgd_by_the_scaled_pass_s_gradient_and_nothing_adds_up(
    key: str, accumulate: int, masked: bool
) -> None:
    model = small(*NETWORKS[key]())
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = copy.deepcopy(model).train()
    args = f"{COPIES}, mask_gradients: {str(masked).lower()}"
    run = dropping(model, args, optimizer={"lr": 0.05, "accumulate": accumulate}).run()
    drawn = {"0.weight", "0.bias", *(("1.weight", "1.bias") if key == "batch norm" else ())}
    for before, forward, after in zip([start, *run.after[:-1]], run.forwards[::accumulate], run.after, strict=True):
        live = forward["0.weight"].flatten(1).any(1)
        factor = {}
        for name, value in before.items():
            side = (-1,) + (1,) * (value.dim() - 1)
            factor[name] = (live * 2.0).reshape(side) if name in drawn else torch.ones(())
            assert torch.equal(forward[name], value * factor[name]), name
        there = {name: value.clone().requires_grad_() for name, value in forward.items()}
        loss = nn.functional.cross_entropy(functional_call(plain, there, (IMAGES,)), BATCH[1])
        gradients = torch.autograd.grad(loss, list(there.values()))
        for (name, value), gradient in zip(before.items(), gradients, strict=True):
            by = factor[name] if masked or name not in drawn else torch.tensor(2.0)
            torch.testing.assert_close(after[name], value - 0.05 * by * gradient, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(p, run.after[-1][name]) for name, p in model.named_parameters())


def test_without_double_copies_what_was_dropped_starts_again_at_0() -> None:
    run = dropping(small(), EACH).run()
    dropped = [~forward["0.weight"].flatten(1).any(1) for forward in run.forwards]
    for gone_, after in zip(dropped, run.after, strict=True):
        assert not after["0.weight"][gone_].any()
    assert torch.stack(dropped).any(0).all()


@pytest.mark.parametrize(
    "args", ["mini_batch_pruning_frequency: 1", "mini_batch_pruning_frequency: 1, use_double_copies: true"]
)
def test_a_draw_that_stays_in_force_is_not_scaled(args: str) -> None:
    model = small(nn.BatchNorm2d(2))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = dropping(model, args, optimizer=STILL).run()
    for forward in run.forwards:
        for name, value in before.items():
            assert torch.equal(forward[name][forward[name] != 0], value[forward[name] != 0])
    assert list(run.session.substitutions) == []


def test_the_draws_of_every_so_many_steps_are_for_one_step_each() -> None:
    # 3 epochs of 5 steps, every 4: at each epoch's first step, and at 4, 8, 12 of all.
    args = COPIES.replace("frequency: 1", "frequency: 4")
    model = small(filters=8)
    before = model[0].weight.detach().clone()
    run = dropping(model, args, steps=5, optimizer=STILL).run()
    other = [step for step, forward in enumerate(run.forwards) if not torch.equal(forward["0.weight"], before)]
    assert other == [0, 4, 5, 8, 10, 12]
    assert not any(parameters.eq(0).all() for parameters in run.evaluated[-1].values())
    assert torch.equal(run.evaluated[-1]["0.weight"], before)


def test_with_agp_the_factor_rises_with_the_probability() -> None:
    # p = 0.5 (1 - (1 - e / 2)^3): 0, 0.4375, 0.5.
    model = small(filters=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    text = f"{BERNOULLI}_AGP, initial_sparsity: 0, final_sparsity: 0.5"
    run = dropping(model, text=text, optimizer=STILL).run()
    for step, forward in enumerate(run.forwards):
        live = forward["0.weight"].flatten(1).any(1)
        for name in ("0.weight", "0.bias"):
            factor = (1, 1 / 0.5625, 2)[step // 6]
            torch.testing.assert_close(forward[name][live], before[name][live] * factor)
    assert all(forward["0.weight"].flatten(1).any(1).all() for forward in run.forwards[:6])


def test_the_last_draw_can_be_kept_and_is_not_scaled_then() -> None:
    model = small(filters=6)
    before = model[0].weight.detach().clone()
    args = f"{COPIES}, keep_mask: true"
    run = Loop(model, [BATCH] * 3, schedule(DROP, args=args), epochs=2, optimizer=STILL, seed=1).run()
    live = run.forwards[2]["0.weight"].flatten(1).any(1)
    assert int((~live).sum()) > 0
    for forward in [*run.forwards[3:], run.evaluated[-1]]:
        assert torch.equal(forward["0.weight"], before * live.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("first", ["pruner", "thinner"])
def test_channels_may_be_removed_in_between(first: str) -> None:
    # Another pruner's filter is cut off in epoch 1, where a draw is made already (and goes, too) or is yet to come.
    model = small(nn.BatchNorm2d(6), filters=6)
    level = schedule("L1RankedStructureParameterPruner, desired_sparsity: 0.2", when="epochs: [0]")
    thinner = "  - {extension: {class: FilterRemover}, epochs: [1]}\n"
    drop = schedule(DROP, when="ending_epoch: 3", args=COPIES).partition("policies:\n")[2]
    text = level + (drop + thinner if first == "pruner" else thinner + drop)
    run = Loop(model, [BATCH] * 3, text, epochs=3, optimizer=STILL).run()
    widths = [len(forward["0.weight"]) for forward in run.forwards]
    assert set(widths[:3]) == {6}
    assert len(set(widths[3:])) == 1
    assert widths[3] < 6 if first == "pruner" else widths[3] == 5
    before = {name: p.detach() for name, p in model.named_parameters()}
    for forward in run.forwards[4:]:
        live = forward["0.weight"].flatten(1).any(1)
        for name in ("0.bias", "1.weight"):
            assert torch.equal(forward[name], 2 * live * before[name])


def test_every_epoch_may_be_the_best_one_where_no_draw_outlives_its_step() -> None:
    def first_epoch(args: str) -> int:
        return dropping(small(), args).session.events.settled()

    assert first_epoch(COPIES) == 0
    assert first_epoch(f"{COPIES}, keep_mask: true") == 2
    assert first_epoch("use_double_copies: true") == 2


@pytest.mark.parametrize(("frequency", "average"), [(1, None), (2, {"decay": 0.8})])
def test_a_resumed_run_goes_on_to_the_same_bits(frequency: int, average: dict[str, float] | None) -> None:
    args = COPIES.replace("frequency: 1", f"frequency: {frequency}")
    settings: dict[str, Any] = {"optimizer": {"lr": 0.05, "momentum": 0.9}, "ema": average}

    def loop(seed: int) -> Loop:
        return dropping(small(nn.BatchNorm2d(4), filters=4), args, steps=3, seed=seed, **settings)

    whole = loop(0).run()
    assert len(whole.snapshots) == 3 * (3 + 1)
    for moment in [(0, 1), (0, 3), (1, 0), (1, 2), (2, 0), (2, 1)]:
        again = loop(7).resume(whole.at(moment))
        assert difference(again.at((3, 0)), whole.at((3, 0))) is None, moment
    assert difference(loop(7).run().at((3, 0)), whole.at((3, 0))) is not None
