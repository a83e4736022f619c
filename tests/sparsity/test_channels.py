"""Which slices share channels: on hand-written cells, and in networks with groups and branches, through schedules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.sparsity.channels import Channels, Slices

RunOf = Callable[..., Any]


def cells(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


# A residual net: stem and conv2 are added; conv1 between them; the stem's image has no channel that could go.
RESIDUAL = Channels(
    {
        ("stem", 0): cells(0, 1, 2),
        ("stem", 1): cells(-1, -1),
        ("conv1", 0): cells(3, 4),
        ("conv1", 1): cells(0, 1, 2),
        ("conv2", 0): cells(0, 1, 2),
        ("conv2", 1): cells(3, 4),
        ("fc", 0): cells(5, 6),
        ("fc", 1): cells(0, 1, 2),
        ("other", 1): cells(-1),
    }
)


def outputs(*names: str) -> list[Slices]:
    return [(name, 0) for name in names]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["stem", "conv1", "conv2"], [["stem", "conv2"], ["conv1"]]),
        (["conv2", "conv1", "stem"], [["conv2", "stem"], ["conv1"]]),
        (["conv1", "conv2", "fc", "stem"], [["conv1"], ["conv2", "stem"], ["fc"]]),
    ],
)
def test_what_shares_channels_is_one_set_and_sets_and_members_keep_their_order(
    names: list[str], expected: list[list[str]]
) -> None:
    assert RESIDUAL.joined(outputs(*names)) == [outputs(*members) for members in expected]


def test_what_is_in_no_graph_is_a_set_of_its_own() -> None:
    assert RESIDUAL.joined(outputs("stem", "unknown", "conv2")) == [outputs("stem", "conv2"), outputs("unknown")]


def test_channels_of_the_image_join_nothing() -> None:
    slices: list[Slices] = [("stem", 1), ("other", 1)]
    assert RESIDUAL.joined(slices) == [[("stem", 1)], [("other", 1)]]


def test_outputs_and_the_inputs_that_read_them_share_channels() -> None:
    slices: list[Slices] = [("conv1", 0), ("fc", 1), ("conv2", 1)]
    assert RESIDUAL.joined(slices) == [[("conv1", 0), ("conv2", 1)], [("fc", 1)]]


def test_one_cell_in_common_is_enough_and_a_bridge_joins_what_came_before_it() -> None:
    # a and b are concatenated, c is added to both.
    channels = Channels({("a", 0): cells(0, 1), ("b", 0): cells(2, 3), ("c", 0): cells(0, 1, 2, 3), ("d", 0): cells(9)})
    assert channels.joined(outputs("a", "b")) == [outputs("a"), outputs("b")]
    assert channels.joined(outputs("a", "d", "b", "c")) == [outputs("a", "b", "c"), outputs("d")]
    assert channels.joined(outputs("c", "b", "a")) == [outputs("c", "b", "a")]
    chain = Channels({("a", 0): cells(0, 1), ("b", 0): cells(1, 2), ("c", 0): cells(2, 3), ("d", 0): cells(3, -1)})
    assert chain.joined(outputs("d", "a", "c", "b")) == [outputs("d", "a", "c", "b")]


def test_many_places_of_one_channel_count_as_one() -> None:
    flattened = Channels({("conv", 0): cells(0, 1), ("fc", 1): cells(0, 0, 0, 1, 1, 1)})
    slices: list[Slices] = [("conv", 0), ("fc", 1)]
    assert flattened.joined(slices) == [slices]


@pytest.mark.parametrize(
    ("names", "dim", "expected"),
    [
        (["stem"], 0, ["stem", "conv2"]),
        (["conv2"], 0, ["conv2", "stem"]),
        (["conv1", "conv2"], 0, ["conv1", "conv2", "stem"]),
        (["fc"], 1, ["fc", "conv1"]),
        (["unknown"], 0, ["unknown"]),
    ],
)
def test_a_closure_has_the_given_first_and_then_all_that_share_their_channels_in_that_dim(
    names: list[str], dim: int, expected: list[str]
) -> None:
    assert RESIDUAL.with_coupled(names, dim) == expected


def test_a_closure_follows_bridges_that_were_not_given() -> None:
    channels = Channels({("a", 0): cells(0, 1), ("b", 0): cells(2, 3), ("c", 0): cells(0, 1, 2, 3), ("d", 0): cells(9)})
    assert channels.with_coupled(["a"], 0) == ["a", "b", "c"]
    assert channels.with_coupled(["b", "d"], 0) == ["b", "d", "a", "c"]


# --- through schedules ------------------------------------------------------------------------------------------------

POLICY = "version: 1\npolicies:\n  - pruner: {{{component}}}\n    epochs: [0]\n"
L1 = "class: L1RankedStructureParameterPruner, group_type: "
GLOBAL = "class: Pruner, structure: Filters, scope: global, "


def conv(*values: float, inputs: int = 1, groups: int = 1) -> nn.Conv2d:
    """1x1 filters; every weight of one has its value."""
    layer = nn.Conv2d(inputs, len(values), 1, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values).reshape(-1, 1, 1, 1).expand_as(layer.weight))
    return layer


def begun(run_of: RunOf, text: str, model: nn.Module, images: Tensor, epochs: int = 1) -> Any:
    """A run of a schedule, or of one pruner in epoch 0, after so many epochs."""
    run = run_of(text if "policies:" in text else POLICY.format(component=text), model)
    run.images(images)
    for epoch in range(epochs):
        run.epoch(epoch)
    return run


def alive(parameter: Tensor, dim: int = 0) -> str:
    """A sign for each slice: `#`, and `.` where it is all zero."""
    return "".join("#" if piece.any() else "." for piece in parameter.detach().movedim(dim, 0))


IMAGES = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def grouped(groups: int) -> nn.Sequential:
    """Eight filters, and a convolution of eight more in so many groups."""
    rising = [float(value) for value in range(1, 9)]
    layers = [conv(*rising), nn.ReLU(), conv(*rising[::-1], inputs=8, groups=groups), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("groups", "sparsity", "first", "second"),
    [
        (1, 0.5, "....####", "####...."),
        (2, 0.5, "..##..##", "##..##.."),
        (4, 0.5, ".#.#.#.#", "#.#.#.#."),
        (2, 1.0, "...#...#", "#...#..."),  # one of each group is spared
    ],
)
def test_channels_of_a_grouped_convolution_are_ranked_within_its_groups(
    run_of: RunOf, groups: int, sparsity: float, first: str, second: str
) -> None:
    model = grouped(groups)
    component = f"{L1}Filters, desired_sparsity: {sparsity}, weights: [0.weight, 2.weight]"
    run = begun(run_of, component, model, IMAGES)
    assert (alive(model[0].weight), alive(model[2].weight)) == (first, second)
    assert (alive(model[0].bias), alive(model[2].bias)) == (first, second)
    assert run.events.shortfalls() == []


def test_a_target_that_groups_make_unreachable_is_said(run_of: RunOf) -> None:
    model = grouped(4)  # floor(0.4 * 8) is 3, and 3 // 4 of each group is none
    run = begun(run_of, L1 + "Filters, desired_sparsity: 0.4, weights: [0.weight]", model, IMAGES)
    assert alive(model[0].weight) != "########" or run.said or run.events.shortfalls()


@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize(
    ("sparsity", "second", "expected"),
    [
        # Means of one input and of four: 1 2 3 4, and ...
        (0.5, (2.5, 1.5, 0.5, 9.0), ("..##", "#..#")),
        (0.25, (2.5, 1.5, 0.5, 9.0), (".###", "##.#")),
        (0.5, (0.1, 0.2, 0.3, 0.4), (".###", "...#")),  # one of each weight is spared
    ],
)
def test_a_global_scope_ranks_by_means_so_that_large_filters_have_no_advantage(
    run_of: RunOf, criterion: str, sparsity: float, second: tuple[float, ...], expected: tuple[str, str]
) -> None:
    model = nn.Sequential(conv(1, 2, 3, 4), conv(*second, inputs=4), nn.Flatten(), nn.Linear(64, 2))
    component = f"{GLOBAL}criterion: {criterion}, rate: {{sparsity: {sparsity}}}, weights: [0.weight, 1.weight]"
    begun(run_of, component, model, IMAGES)
    assert (alive(model[0].weight), alive(model[1].weight)) == expected


def test_layers_are_ranked_as_wholes_by_a_global_scope(run_of: RunOf) -> None:
    model = nn.Sequential(*(conv(value, value, inputs=2) for value in (3, 1, 2, 4)), nn.Flatten(), nn.Linear(32, 2))
    component = "class: Pruner, structure: Layer, scope: global, rate: {sparsity: 0.5}, weights: ['type:Conv2d']"
    begun(run_of, component, model, torch.rand(2, 2, 4, 4))
    assert [alive(model[number].weight) for number in range(4)] == ["##", "..", "..", "##"]


class Joined(nn.Module):
    """a and b side by side, added to c."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.fc = conv(1, 2), conv(5, 6), conv(1, 2, 1, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc((torch.cat([self.a(x), self.b(x)], 1) + self.c(x)).mean((2, 3)))
        return logits


@pytest.mark.parametrize("leader", ["", "group_dependency: Leader, "])
def test_no_weight_of_a_joint_ranking_loses_all_of_its_filters(run_of: RunOf, leader: str) -> None:
    model = Joined()
    component = f"{L1}Filters, {leader}desired_sparsity: 0.5, weights: [a.weight, b.weight, c.weight]"
    begun(run_of, component, model, IMAGES)
    assert [name for name in "abc" if "#" not in alive(model.get_parameter(f"{name}.weight"))] == []


class Mixed(nn.Module):
    """A convolution, pooled, and a linear layer over all pixels, added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(16, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).mean((2, 3)) + self.linear(x.flatten(1)))
        return logits


@pytest.mark.parametrize("structure", ["Filters", "Rows"])
def test_a_coupled_scope_takes_a_convolution_with_the_rows_of_a_linear_layer(run_of: RunOf, structure: str) -> None:
    model = Mixed()
    nn.init.ones_(model.linear.weight)
    model.conv.weight.data.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1, 1).expand(4, 1, 3, 3))
    component = f"class: Pruner, structure: {structure}, scope: coupled, rate: {{sparsity: 0.5}}"
    begun(run_of, component + ", weights: [linear.weight]", model, IMAGES)
    assert alive(model.linear.weight) == alive(model.conv.weight) == "..##"


def test_a_global_scope_ranks_joined_weights_by_the_mean_of_their_scores(run_of: RunOf) -> None:
    model = Mixed()  # both of the joined have means of 1 2 3 4, and the third weight has 3.5 and 9
    weights = [model.conv.weight, model.linear.weight, model.fc.weight]
    for weight, means in zip(weights, ((1, 2, 3, 4), (1, 2, 3, 4), (3.5, 9)), strict=True):
        weight.data.copy_(torch.tensor(means).reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight))
    begun(run_of, GLOBAL + "rate: {sparsity: 0.5}, weights: '*'", model, IMAGES)
    assert [alive(weight) for weight in weights] == ["...#", "...#", "##"]


class Flattened(nn.Module):
    """Ten channels of four pixels, that two linear layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = conv(*map(float, range(1, 11))), nn.AdaptiveAvgPool2d(2)
        self.a, self.b, self.fc = nn.Linear(40, 3), nn.Linear(40, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x)).flatten(1)
        logits: Tensor = self.fc(torch.cat([self.a(x), self.b(x)], 1))
        return logits


def test_columns_of_two_readers_go_on_going_after_the_network_was_thinned(run_of: RunOf) -> None:
    model = Flattened()
    text = (
        "pruners:\n  p: {class: L1RankedStructureParameterPruner_AGP, group_type: Cols, initial_sparsity: 0.2,"
        " final_sparsity: 0.5, weights: [a.weight, b.weight]}\n"
        "extensions:\n  e: {class: ChannelRemover, thinning_func_str: remove_channels, arch: x, dataset: y}\n"
        "policies:\n  - {pruner: {instance_name: p}, starting_epoch: 0, ending_epoch: 3}\n"
        "  - {extension: {instance_name: e}, epochs: [0]}\n"
    )
    run = begun(run_of, text, model, IMAGES, epochs=1)
    assert model.a.weight.shape == (3, 32)  # two of ten channels
    run.epoch(1)
    run.epoch(2)
    assert alive(model.a.weight, 1).count(".") == 16  # half of the eight that are left, of four columns each
    assert run.events.shortfalls() == []


class Beside(nn.Module):
    """Two convolutions that read the image's channel and, behind or before it, four that are made of it."""

    def __init__(self, image_first: bool) -> None:
        super().__init__()
        self.image_first, self.make, self.fc = image_first, conv(1, 1, 1, 1), nn.Linear(4, 2)
        self.a, self.b = conv(1, 1, inputs=5), conv(1, 1, inputs=5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.make(x)] if self.image_first else [self.make(x), x], 1)
        logits: Tensor = self.fc(torch.cat([self.a(x), self.b(x)], 1).mean((2, 3)))
        return logits


@pytest.mark.parametrize("image_first", [False, True])
def test_channels_beside_those_of_the_image_are_joined_where_they_lie(run_of: RunOf, image_first: bool) -> None:
    run = begun(
        run_of, L1 + "Channels, desired_sparsity: 0.5, weights: [a.weight, b.weight]", Beside(image_first), IMAGES
    )
    with torch.no_grad():
        for layer in (run.model.a, run.model.b):
            assert layer.weight.shape[1] == 5
    assert alive(run.model.a.weight, 1) == alive(run.model.b.weight, 1)
    assert alive(run.model.a.weight, 1).count(".") == 2
