"""Ranked structures through schedules: which go, what goes with them, and who is ranked together. Weights by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.pruners.general import Pruner
from compressor.pruners.pruner import Request
from compressor.timing.window import Window

RunOf = Callable[..., Any]

L1 = "class: L1RankedStructureParameterPruner, group_type: "
GENERAL = "class: Pruner, criterion: l1, rate: {sparsity: 0.5}, structure: "
AT_ONCE = "version: {version}\npolicies:\n  - pruner: {{{component}}}\n    epochs: [0]\n"
IMAGES = torch.arange(32.0).reshape(2, 1, 4, 4) / 32


def conv(*norms: float, inputs: int = 1, groups: int = 1) -> nn.Conv2d:
    """1x1 filters of the given L1 norms, every weight of one the same; biases of 1."""
    layer = nn.Conv2d(inputs, len(norms), 1, groups=groups)
    layer.bias = nn.Parameter(torch.ones(len(norms)))
    layer.weight = nn.Parameter(
        (torch.tensor(norms) * groups / inputs).reshape(-1, 1, 1, 1).expand_as(layer.weight) + 0
    )
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """gamma 2, beta 3."""
    layer = nn.BatchNorm2d(channels)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 3.0)
    return layer


def linear(values: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(values[0]), len(values))
    layer.weight = nn.Parameter(torch.tensor(values))
    return layer


def net(*layers: nn.Module, channels: int) -> nn.Sequential:
    """The layers, global pooling and a classifier."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


class Residual(nn.Module):
    """As a pre-activation ResNet: x = stem(image); x = x + b(relu(bn(x))); the classifier of relu(final(x))."""

    def __init__(self, stem: tuple[float, ...], b: tuple[float, ...]) -> None:
        super().__init__()
        self.stem, self.b = conv(*stem), conv(*b, inputs=len(stem))
        self.bn, self.final = norm(len(stem)), norm(len(b))
        self.fc = nn.Linear(len(b), 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(torch.relu(self.bn(x)))
        logits: Tensor = self.fc(torch.relu(self.final(x)).mean((2, 3)))
        return logits


def begun(run_of: RunOf, component: str, model: nn.Module, images: Tensor = IMAGES, version: int = 1) -> Any:
    """A run of a pruner that prunes in epoch 0, which has begun."""
    return started(run_of, AT_ONCE.format(version=version, component=component), model, images)


def started(run_of: RunOf, text: str, model: nn.Module, images: Tensor = IMAGES, **options: Any) -> Any:
    run = run_of(text, model, **options)
    run.images(images)
    run.begin(0)
    return run


def alive(parameter: Tensor, dim: int = 0) -> str:
    """A sign for each slice: `#`, and `.` where it is all zero."""
    return "".join("#" if piece.any() else "." for piece in parameter.detach().movedim(dim, 0))


def changes(model: nn.Module, prune: Callable[[], object]) -> dict[str, str]:
    """By parameter that pruning changed: what is left along its first dim. What is not zero is as it was."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    prune()
    assert all(torch.equal(p[p != 0], before[name][p != 0]) for name, p in model.named_parameters())
    return {name: alive(p) for name, p in model.named_parameters() if not torch.equal(p, before[name])}


# --- how many, and which ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "options", "gone"),
    [
        (10, "desired_sparsity: 0.09", 0),
        (10, "desired_sparsity: 0.39", 3),
        (100, "desired_sparsity: 0.29", 28),  # 0.29 * 100 is 28.999999999999996
        (10, "desired_sparsity: 1", 9),  # one is spared
        (1, "desired_sparsity: 1", 0),
        (10, "desired_sparsity: 0.31, rounding_fn: ceil", 4),
        (10, "desired_sparsity: 0.3, rounding_fn: ceil", 3),
        (10, "desired_sparsity: 0.34, rounding_fn: round", 3),
        (10, "desired_sparsity: 0.36, rounding_fn: round", 4),
        (16, "desired_sparsity: 0.5, group_size: 4", 8),
        (16, "desired_sparsity: 0.7, group_size: 4", 8),  # 11.2, of which two fours
        (16, "desired_sparsity: 0.7, group_size: 4, rounding_fn: ceil", 12),
        (16, "desired_sparsity: 0.7, group_size: 4, rounding_fn: round", 12),
        (16, "desired_sparsity: 0.2, group_size: 4", 0),
        (10, "desired_sparsity: 0", 0),
        (10, "desired_sparsity: 0, rounding_fn: ceil", 0),
        (10, "desired_sparsity: 0.999", 9),
        (20, "desired_sparsity: 0.999, rounding_fn: ceil", 19),  # not 20
        (1, "desired_sparsity: 0.999, rounding_fn: ceil", 0),
        (10, "desired_sparsity: 0.25, rounding_fn: round", 2),  # 2.5: to even, as Python's
        (10, "desired_sparsity: 0.35, rounding_fn: round", 4),
        (7, "desired_sparsity: 1, group_size: 3", 6),
        (7, "desired_sparsity: 1, group_size: 7", 0),  # the only seven are all
        (5, "desired_sparsity: 0.5, group_size: 2, rounding_fn: ceil", 4),  # 1.25 pairs
    ],
)
def test_the_rounded_share_goes_and_one_is_always_spared(run_of: RunOf, total: int, options: str, gone: int) -> None:
    model = net(conv(*range(total, 0, -1)), channels=total)
    run = begun(run_of, f"{L1}Filters, {options}, weights: [0.weight]", model)
    assert alive(model[0].weight) == "#" * (total - gone) + "." * gone
    assert run.events.shortfalls() == []


def test_of_equal_filters_the_first_go(run_of: RunOf) -> None:
    model = net(conv(2, 1, 2, 1, 2, 2), channels=6)
    begun(run_of, L1 + "Filters, desired_sparsity: 0.5, weights: [0.weight]", model)
    assert alive(model[0].weight) == "..#.##"


@pytest.mark.parametrize(("criterion", "expected"), [("L1", ".#"), ("L2", "#.")])
def test_the_two_norms_rank_differently(run_of: RunOf, criterion: str, expected: str) -> None:
    model = nn.Sequential(linear([[3.0, 0.0], [2.0, 2.0]]), nn.ReLU(), nn.Linear(2, 2))
    component = f"class: {criterion}RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5"
    begun(run_of, component + ", weights: [0.weight]", model, torch.ones(2, 2))
    assert alive(model[0].weight) == expected  # 3 < 4, and 3 > sqrt(8)


@pytest.mark.parametrize("criterion", ["L1", "L2"])
def test_agp_s_shares_are_those_of_distiller(run_of: RunOf, criterion: str) -> None:
    # .05 .1397 .21662 .28172 .33601 .38045 .41603 .44375 .46458 .4795 .4895 .49557 .49869 .49984 .5, of 20.
    model = net(conv(*range(1, 21)), channels=20)
    run = started(
        run_of,
        f"pruners:\n  p: {{class: {criterion}RankedStructureParameterPruner_AGP, initial_sparsity: 0.05,"
        " final_sparsity: 0.5, group_type: Filters, weights: [0.weight]}\n"
        "policies:\n  - {pruner: {instance_name: p}, starting_epoch: 0, ending_epoch: 30, frequency: 2}\n",
        model,
        epochs=30,
    )
    counts = []
    for epoch in range(0, 30, 2):
        run.begin(epoch)
        counts.append(alive(model[0].weight).count("."))
    assert counts == [1, 2, 4, 5, 6, 7, 8, 8, 9, 9, 9, 9, 9, 9, 10]
    assert alive(model[0].weight) == "." * 10 + "#" * 10


@pytest.mark.parametrize(
    ("window", "counts"), [("epochs: [4, 0, 2]", [2, 2, 6, 6, 7]), ("epochs: [3]", [0, 0, 0, 7, 7])]
)
def test_agp_s_share_over_a_list_of_epochs(run_of: RunOf, window: str, counts: list[int]) -> None:
    # .2, half way .7 - .5 / 8 = .6375, and .7 of 10; of a single epoch the last at once.
    model = net(conv(*range(1, 11)), channels=10)
    component = "class: L1RankedStructureParameterPruner_AGP, group_type: Filters, weights: [0.weight]"
    text = f"policies:\n  - {{pruner: {{{component}, initial_sparsity: 0.2, final_sparsity: 0.7}}, {window}}}\n"
    run = started(run_of, text, model, epochs=5)
    for epoch, count in enumerate(counts):
        run.begin(epoch)
        assert alive(model[0].weight) == "." * count + "#" * (10 - count)
    assert run.events.shortfalls() == []


def test_noise_multiplies_each_norm_by_1_and_a_normal_number_of_that_deviation(
    run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 4 2 1 0 by 1 + (-1.8 -1.2 2 9) / 2: .4 .8 2 0.
    monkeypatch.setattr(torch, "randn", lambda shape, **kind: torch.tensor([-1.8, -1.2, 2, 9]).view(shape))
    for count, expected in ((1, "###."), (2, ".##."), (3, "..#.")):
        model = net(conv(4, 2, 1, 0), channels=4)
        component = f"{L1}Filters, desired_sparsity: {(count + 0.1) / 4}, noise: 0.5, weights: [0.weight]"
        begun(run_of, component, model, version=2)
        assert alive(model[0].bias) == expected


@pytest.mark.parametrize(
    ("draw", "expected"),
    [(0.24, ["###.", ".##.", ".#.."]), (0.25, ["###.", "##..", "#..."])],  # at random; by the norms 4 2 1 0
)
@pytest.mark.parametrize(("noise", "version"), [("0.25", 1), ("{probability: 0.25}", 2)])
def test_noise_is_in_version_1_the_probability_of_a_random_ranking(
    run_of: RunOf, monkeypatch: pytest.MonkeyPatch, draw: float, expected: list[str], noise: str, version: int
) -> None:
    # A filter of zeros is pruned first in any case.
    rand, drawn = torch.rand, torch.tensor([-1.0, 3.0, 2.0, 5.0])
    monkeypatch.setattr(torch, "rand", lambda *of, **how: torch.tensor(draw) if of == ((),) else rand(*of, **how))
    monkeypatch.setattr(torch, "randn", lambda *of, **how: drawn)
    for count in (1, 2, 3):
        model = net(conv(4, 2, 1, 0), channels=4)
        component = f"{L1}Filters, desired_sparsity: {(count + 0.1) / 4}, noise: {noise}, weights: [0.weight]"
        begun(run_of, component, model, version=version)
        assert alive(model[0].bias) == expected[count - 1]


def test_version_1_says_what_noise_means_and_refuses_what_is_no_probability(
    schedule_of: Callable[..., Any], faults_of: Callable[[str], list[str]]
) -> None:
    def text(noise: object, version: int = 1) -> str:
        component = f"{L1}Filters, desired_sparsity: 0.5, noise: {noise}, weights: [0.weight]"
        return AT_ONCE.format(version=version, component=component)

    [note] = schedule_of(text(0.5)).notes
    assert "`noise: 0.5` is in version 1 the probability of a random ranking, as in Distiller" in note
    assert schedule_of(text(0.0)).notes == schedule_of(text(1.5, 2)).notes == []
    for noise, version, said in (
        (1.5, 1, "should be less than or equal to 1, got 1.5"),
        (-0.5, 1, "should be greater than or equal to 0, got -0.5"),
        (-0.5, 2, "should be greater than or equal to 0, got -0.5"),
        ("much", 2, "should be a number, got 'much'"),
        ("{probability: 0.5}", 1, "should be a number, got a mapping"),
    ):
        [line] = faults_of(text(noise, version))
        assert line.startswith("s.yaml:3:")
        assert "'noise' of L1RankedStructureParameterPruner" in line or version == 1
        assert line.endswith(said)


@pytest.mark.parametrize("version", [1, 2])
def test_noise_comes_from_torch_s_generator_and_no_noise_draws_nothing(run_of: RunOf, version: int) -> None:
    def pruned(noise: float) -> str:
        model = net(conv(*[1.0] * 64), channels=64)
        torch.manual_seed(seed)
        component = f"{L1}Filters, desired_sparsity: 0.5, noise: {noise}, weights: [0.weight]"
        begun(run_of, component, model, version=version)
        return alive(model[0].weight)

    seed = 5
    first, drawn = pruned(1), torch.random.get_rng_state()
    assert pruned(1) == first
    assert first.count(".") == 32
    assert pruned(0) == "." * 32 + "#" * 32 != first
    torch.manual_seed(5)
    untouched = torch.random.get_rng_state()
    assert not torch.equal(drawn, untouched)
    pruned(0)
    assert torch.equal(torch.random.get_rng_state(), untouched)
    seed = 6
    assert pruned(1) != first


# --- of all layers together -------------------------------------------------------------------------------------------


def kept(rate: float, structure: str = "Filters", dense: dict[str, tuple[int, ...]] | None = None, **norms: Any) -> str:
    """A word for each weight, a sign for each of its filters, of these norms."""
    pruner = Pruner.model_validate(
        {"structure": structure, "scope": "global", "weights": list(norms), "rate": {"sparsity": rate}}
    )
    weights = {name: torch.tensor(values).reshape(-1, 1, 1, 1) for name, values in norms.items()}
    asked = Request(weights, {"weights": list(norms)}, Window(epochs=[0]), 0, dense=dense or {})
    return " ".join(alive(keep) for keep in pruner.keep(asked).values())


def test_of_all_layers_together_the_only_filter_of_a_weight_stays() -> None:
    assert kept(0.4, a=[0.1], b=[1.0, 2, 3, 4]) == "# ..##"
    assert kept(1.0, a=[1.0], b=[1.0]) == "# #"
    # 9 of 10, of which 5 are gone: three more, and the last of either stays.
    dense = {"a": (6, 1, 1, 1), "b": (4, 1, 1, 1)}
    assert kept(0.9, dense=dense, a=[0.1], b=[1.0, 2, 3, 4]) == "# ...#"


def test_of_all_layers_as_wholes_the_last_one_stays() -> None:
    assert kept(1.0, "Layer", a=[1.0, 1], b=[2.0, 2]) == ".. ##"


def test_filters_that_are_no_numbers_are_the_last_to_go_and_not_in_silence() -> None:
    nan = float("nan")
    assert kept(0.4, a=[nan, nan, nan, nan], b=[4.0, 3, 2, 1]) == "#### #..."
    assert kept(0.2, a=[1.0, nan, 3, 4], b=[4.0, 3, 2, 1.5]) == ".### ####"
    with pytest.raises(CompressError, match="cannot rank 6 scores: fewer than 4 of them are numbers"):
        kept(0.5, a=[nan, nan, nan, nan], b=[4.0, 3, 2, 1])


# --- rows, columns, channels, blocks ---------------------------------------------------------------------------------

TABLE = [[1.0, 4.0, 2.0, 9.0], [0.5, 1.0, 1.0, 1.0]]
"""Rows 16 and 3.5; columns 1.5, 5, 3, 10."""


@pytest.mark.parametrize(
    ("component", "version", "rows", "columns"),
    [
        (L1 + "Rows, desired_sparsity: 0.5", 2, "#.", "####"),
        (L1 + "Filters, desired_sparsity: 0.5", 1, "#.", "####"),
        (L1 + "3D, desired_sparsity: 0.5", 1, "#.", "####"),
        (L1 + "Cols, desired_sparsity: 0.5", 2, "##", ".#.#"),
        (L1 + "Cols, desired_sparsity: 0.5", 1, "##", ".#.#"),
        (L1 + "Channels, desired_sparsity: 0.5", 1, "##", ".#.#"),
        (L1 + "Rows, desired_sparsity: 0.5", 1, "##", ".#.#"),  # stored columns, as Distiller has it
        (GENERAL + "Rows", 2, "#.", "####"),
        (GENERAL + "Rows, scope: coupled", 2, "#.", "####"),
        (GENERAL + "Cols, scope: coupled", 2, "##", ".#.#"),
        (GENERAL + "Shapes", 2, "##", ".#.#"),
        (GENERAL + "Blocks, block_shape: [2, 2]", 2, "##", "..##"),
        (GENERAL + "Blocks, block_shape: [1, 4], scope: global", 2, "#.", "####"),
    ],
)
def test_each_structure_of_a_matrix_in_both_versions(
    run_of: RunOf, component: str, version: int, rows: str, columns: str
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), linear(TABLE), nn.ReLU(), nn.Linear(2, 2))
    begun(run_of, component + ", weights: [1.weight]", model, torch.ones(2, 3), version)
    assert (alive(model[1].weight), alive(model[1].weight, 1)) == (rows, columns)
    assert alive(model[1].bias) == ("##" if "Blocks" in component else rows)  # blocks are no whole outputs
    assert alive(model[0].bias) == "####"


def test_channels_of_a_convolution_go_and_nothing_else_does(run_of: RunOf) -> None:
    model = net(conv(1, 1, 1), norm(3), nn.Conv2d(3, 4, 1), channels=4)
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([2.0, 3.0, 1.0]).reshape(1, 3, 1, 1).expand(4, 3, 1, 1))
    channels = L1 + "Channels, desired_sparsity: 0.7, weights: [2.weight]"
    assert changes(model, lambda: begun(run_of, channels, model)) == {"2.weight": "####"}
    assert alive(model[2].weight, 1) == ".#."


def test_blocks_of_the_smallest_norm_go(run_of: RunOf) -> None:
    # Blocks of 2 filters x 1 channel: 3 12 7 / 6 5 9.
    model = nn.Sequential(linear([[1.0, 8, 3], [2, 4, 4], [5, 1, 1], [1, 4, 8]]), nn.ReLU(), nn.Linear(4, 2))
    component = L1 + "Blocks, kwargs: {block_shape: [2, 1, 1, 1]}, desired_sparsity: 0.5, weights: [0.weight]"
    begun(run_of, component, model, torch.ones(2, 3))
    assert model[0].weight.tolist() == [[0, 8, 3], [0, 4, 4], [0, 0, 1], [0, 0, 8]]


# --- what goes with a filter -----------------------------------------------------------------------------------------

FILTERS = L1 + "Filters, desired_sparsity: 0.5, weights: [0.weight]"


def test_a_filter_takes_its_bias_and_the_batch_norms_and_depthwise_filters_behind_it_and_nothing_else(
    run_of: RunOf,
) -> None:
    depthwise = conv(1, 2, 3, 4, inputs=4, groups=4)
    last = conv(1, 2, 3, inputs=4)
    model = net(conv(1, 4, 2, 3), norm(4), nn.ReLU(), depthwise, norm(4), nn.ReLU(), last, norm(3), channels=3)
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "4.weight", "4.bias")
    assert changes(model, lambda: begun(run_of, FILTERS, model)) == dict.fromkeys(names, ".#.#")


def test_the_neurons_of_a_linear_layer_take_their_bias_and_batch_norm_too(run_of: RunOf) -> None:
    bn = nn.BatchNorm1d(2)
    nn.init.ones_(bn.bias)
    model = nn.Sequential(linear(TABLE), bn, nn.ReLU(), nn.Linear(2, 2))
    found = changes(model, lambda: begun(run_of, FILTERS, model, torch.rand(2, 4)))
    assert found == dict.fromkeys(("0.weight", "0.bias", "1.weight", "1.bias"), "#.")


EVERY = ("stem.weight", "stem.bias", "b.weight", "b.bias", "bn.weight", "bn.bias", "final.weight", "final.bias")


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        # stem 1 2 3 4 and b 9 3 1 2.5: together 10 5 4 6.5.
        (L1 + "Filters, desired_sparsity: 0.5, weights: [stem.weight, b.weight]", "#..#"),
        (L1 + "Filters, desired_sparsity: 0.5, group_dependency: Leader, weights: [stem.weight, b.weight]", "..##"),
        (L1 + "Filters, desired_sparsity: 0.5, group_dependency: Leader, weights: [b.weight, stem.weight]", "##.."),
        (GENERAL + "Filters, scope: coupled, weights: [b.weight]", "#..#"),
        (GENERAL + "Filters, scope: coupled, weights: [stem.weight]", "#..#"),
    ],
)
def test_weights_that_an_addition_joins_are_ranked_as_one(run_of: RunOf, component: str, expected: str) -> None:
    model = Residual((1, 2, 3, 4), (9, 3, 1, 2.5))
    assert changes(model, lambda: begun(run_of, component, model)) == dict.fromkeys(EVERY, expected)


@pytest.mark.parametrize(("weight", "own"), [("stem", ("bn.weight", "bn.bias")), ("b", ())])
def test_a_batch_norm_behind_an_addition_stays_where_only_one_side_is_pruned(
    run_of: RunOf, weight: str, own: tuple[str, ...]
) -> None:
    model = Residual((1, 2, 3, 4), (1, 2, 3, 4))
    component = f"{L1}Filters, desired_sparsity: 0.5, weights: [{weight}.weight]"
    names = (f"{weight}.weight", f"{weight}.bias", *own)
    assert changes(model, lambda: begun(run_of, component, model)) == dict.fromkeys(names, "..##")


def test_a_filter_that_comes_back_brings_back_what_went_with_it(run_of: RunOf) -> None:
    model = net(conv(*range(1, 9)), norm(8), nn.ReLU(), conv(1, 1, inputs=8), channels=2)
    agp = "class: L1RankedStructureParameterPruner_AGP, group_type: Filters, weights: [0.weight]"
    policy = f"{{pruner: {{{agp}, initial_sparsity: 0.5, final_sparsity: 0, args: {{use_double_copies: true}}}}}}"
    run = started(run_of, f"policies:\n  - {policy}\n", model, epochs=4)
    names = ("0.weight", "0.bias", "1.weight", "1.bias")
    for epoch, expected in enumerate(("....####", "#######.", "########")):  # 4, 8 * 0.5 * (2 / 3)^3 = 1.19, 0.15
        model[0].weight.data.copy_((model[0].weight if epoch == 0 else model[0].weight.flip(0)).clone())
        run.epoch(epoch)
        assert {name: alive(run.seen[-1][name]) for name in names} == dict.fromkeys(names, expected)


def test_what_is_masked_stays_exactly_0_under_momentum_and_weight_decay(run_of: RunOf) -> None:
    model = net(conv(1, 4, 2, 3), norm(4), nn.ReLU(), conv(1, 1, inputs=4), channels=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    run = run_of(AT_ONCE.format(version=1, component=FILTERS), model, steps=3, optimizer=optimizer)
    run.images(IMAGES)
    for epoch, gradient in enumerate((1.0, -1.0, 0.5)):
        run.gradient = gradient
        run.epoch(epoch)
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            pruned = run.parameters[name].detach()[[0, 2]]
            assert torch.equal(pruned, torch.zeros_like(pruned))
            assert not torch.signbit(pruned).any()
