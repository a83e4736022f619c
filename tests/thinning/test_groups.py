"""Channel groups of small networks, read off the network by eye: members, joins, limits, reasons; names in braces."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.thinning import Group, channel_graph, groups, groups_as_table, groups_in_short
from compressor.thinning.group_table import in_braces


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def groups_of(forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> tuple[Group, ...]:
    return groups(channel_graph(Net(forward, **layers), (1, 6, 6)))


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def members(group: Group) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Who makes the channels, who reads them and what goes with them, each with its entries."""
    makers, readers, companions = ({one.name: one.entries for one in of} for of in (
        group.makers, group.readers, group.companions))  # fmt: skip
    return makers, readers, companions


def joins(group: Group) -> dict[str, int]:
    return {one.operation.lower(): one.times for one in group.joins}


def test_a_chain_has_a_group_for_each_layer_and_its_logits_stay() -> None:
    first, last = groups_of(
        lambda s, x: s.fc(mean(F.relu(s.bn(s.a(x))))), a=Conv2d(1, 4, 3), bn=BatchNorm2d(4), fc=Linear(4, 3)
    )
    assert (first.number, first.channels, first.reason, first.limits, first.joins) == (1, 4, None, (), ())
    assert members(first) == ({"a": 4}, {"fc": 4}, {"bn": 4})
    assert (last.number, last.channels, last.reason) == (2, 3, "they are the network's output")
    assert members(last) == ({"fc": 3}, {}, {})


def test_an_addition_puts_the_filters_of_two_layers_into_one_group() -> None:
    found = groups_of(
        lambda s, x: (lambda y: s.fc(mean(y + s.c(F.relu(s.b(y))))))(F.relu(s.a(x))),
        a=Conv2d(1, 4, 3), b=Conv2d(4, 5, 3, padding=1), c=Conv2d(5, 4, 3, padding=1), fc=Linear(4, 3),
    )  # fmt: skip
    assert [group.channels for group in found] == [4, 5, 3]
    assert members(found[0]) == ({"a": 4, "c": 4}, {"b": 4, "fc": 4}, {})
    assert joins(found[0]) == {"add": 1}
    assert members(found[1]) == ({"b": 5}, {"c": 5}, {})
    assert joins(found[1]) == {}


def test_a_concatenation_gives_the_layers_behind_it_several_groups() -> None:
    found = groups_of(
        lambda s, x: s.fc(mean(s.bn(torch.cat([s.a(x), s.b(x)], 1)))),
        a=Conv2d(1, 4, 3), b=Conv2d(1, 2, 3), bn=BatchNorm2d(6), fc=Linear(6, 3),
    )  # fmt: skip
    assert sorted(map(str, map(members, found))) == sorted(
        map(str, [({"a": 4}, {"fc": 4}, {"bn": 4}), ({"b": 2}, {"fc": 2}, {"bn": 2}), ({"fc": 3}, {}, {})])
    )
    assert [len(group.joins) for group in found] == [1, 1, 0]


def test_the_halves_of_a_chunk_are_one_group_of_pairs() -> None:
    split = groups_of(
        lambda s, x: (lambda p: mean(s.b(p[0]) + s.c(p[1])))(s.a(x).chunk(2, 1)),
        a=Conv2d(1, 8, 3), b=Conv2d(4, 3, 1), c=Conv2d(4, 3, 1),
    )  # fmt: skip
    assert members(split[0])[:2] == ({"a": 8}, {"b": 4, "c": 4})
    assert split[0].channels == 4
    glu = groups_of(
        lambda s, x: (lambda p: s.fc(mean(p[0] * torch.sigmoid(p[1]))))(s.a(x).chunk(2, 1)),
        a=Conv2d(1, 8, 3), fc=Linear(4, 3),
    )  # fmt: skip
    assert (glu[0].channels, members(glu[0])[:2]) == (4, ({"a": 8}, {"fc": 4}))
    assert "a (2 filters for each channel)" in "\n".join(groups_as_table(glu))


def test_a_flattened_channel_has_several_inputs() -> None:
    found = groups_of(lambda s, x: s.fc(torch.flatten(s.a(x), 1)), a=Conv2d(1, 3, 3), fc=Linear(48, 3))
    assert members(found[0]) == ({"a": 3}, {"fc": 48}, {})
    assert "fc (16 inputs for each channel)" in "\n".join(groups_as_table(found))


def test_depthwise_convolutions_go_with_their_channels_and_grouped_ones_limit_them() -> None:
    found = groups_of(
        lambda s, x: s.fc(mean(s.g(s.d(s.a(x))))),
        a=Conv2d(1, 4, 3), d=Conv2d(4, 4, 3, groups=4), g=Conv2d(4, 6, 1, groups=2), fc=Linear(6, 3),
    )  # fmt: skip
    assert members(found[0]) == ({"a": 4}, {"g": 4}, {"d": 4})
    equal = "the 2 groups of g must lose the same number of channels"
    assert [group.limits for group in found] == [(equal,), (equal,), ()]
    assert found[0].verdict == f"yes, but {equal}"


def test_what_keeps_a_group_is_named_and_the_others_are_free() -> None:
    found = groups_of(
        lambda s, x: s.fc(s.ln(F.relu(s.b(F.relu(mean(s.a(x))))))),
        a=Conv2d(1, 4, 3), b=Linear(4, 5), ln=nn.LayerNorm(5), fc=Linear(5, 3),
    )  # fmt: skip
    assert [group.reason is None for group in found] == [True, False, False]
    assert "ln" in str(found[1].reason)
    assert "LayerNorm" in str(found[1].reason)


def test_a_filter_whose_channel_is_not_0_without_it_is_limited() -> None:
    first, _ = groups_of(lambda s, x: s.fc(mean(torch.sigmoid(s.a(x)))), a=Conv2d(1, 4, 3), fc=Linear(4, 3))
    assert first.reason is None
    assert len(first.limits) == 1
    assert "absorb a constant" in first.verdict


def test_layers_that_the_forward_pass_does_not_use_have_no_group() -> None:
    found = groups_of(lambda s, x: s.fc(mean(s.a(x))), a=Conv2d(1, 4, 3), unused=Conv2d(4, 7, 3), fc=Linear(4, 3))
    assert [group.channels for group in found] == [4, 3]


def test_the_data_of_a_group_are_all_its_fields_but_the_cells() -> None:
    first, _ = groups_of(lambda s, x: s.fc(mean(s.a(x))), a=Conv2d(1, 4, 3), fc=Linear(4, 3))
    assert first.data() == {
        "number": 1, "channels": 4, "makers": ({"name": "a", "entries": 4},),
        "readers": ({"name": "fc", "entries": 4},), "companions": (), "joins": (), "limits": (), "reason": None,
    }  # fmt: skip


# --- as text ---------------------------------------------------------------------------------------------------------


def expanded(names: list[str]) -> list[str]:
    """What a shell makes of names with braces."""
    found = []
    for name in names:
        choices = []
        for part in re.split(r"({[^}]*})", name):
            inside = part.strip("{}")
            if ".." in inside and part.startswith("{"):
                first, last = map(int, inside.split(".."))
                choices.append([str(number) for number in range(first, last + 1)])
            else:
                choices.append(inside.split(",") if part.startswith("{") else [part])
        found += ["".join(one) for one in itertools.product(*choices)]
    return found


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2"], ["conv1", "layer1.{0..2}.conv2"]),
        (["b.0.c.0", "b.0.c.1", "b.1.c.0", "b.1.c.1"], ["b.{0,1}.c.{0,1}"]),
        (["b.0.c.0", "b.0.c.1", "b.1.c.0"], ["b.0.c.{0,1}", "b.1.c.0"]),
        (["f.0", "f.2", "f.10"], ["f.{0,2,10}"]),
        (["x01", "x02", "x03"], ["x{01,02,03}"]),
        (["a", "a", ""], ["a", ""]),
        ([], []),
    ],
)
def test_names_that_differ_in_a_number_are_one_in_braces(names: list[str], short: list[str]) -> None:
    assert in_braces(names) == short
    assert sorted(expanded(in_braces(names))) == sorted(set(names))


def test_a_table_fits_the_terminal_and_says_all() -> None:
    found = groups_of(
        lambda s, x: s.fc(mean(s.branch1_of_the_first_block(x) + s.branch2_of_the_first_block(x))),
        branch1_of_the_first_block=Conv2d(1, 4, 3), branch2_of_the_first_block=Conv2d(1, 4, 3), fc=Linear(4, 3),
    )  # fmt: skip
    [whole] = [line for line in groups_as_table(found) if "made by" in line and "branch" in line]
    assert whole.split() == ["1", "4", "made", "by", "branch{1,2}_of_the_first_block"]
    lines = groups_as_table(found, 60)
    assert max(map(len, lines)) <= 60
    assert lines[0].split() == ["group", "channels"]
    text = " ".join(" ".join(lines).split())
    assert "1 4 made by branch{1,2}_of_the_first_block read by fc joined by" in text
    assert text.endswith("2 3 made by fc removable no: they are the network's output")


def test_short_lines_name_below_what_was_cut() -> None:
    found = groups_of(lambda s, x: s.fc(mean(s.a(x))), a=Conv2d(1, 4, 3), fc=Linear(4, 3))
    assert [line.split()[:4] for line in groups_in_short(found)[1:]] == [
        ["1", "4", "a", "yes"],
        ["2", "3", "fc", "no:"],
    ]
    lines = groups_in_short(found, 40)
    assert max(map(len, lines)) <= 40
    assert lines[-1] == "no: they are the network's output"


def test_a_name_that_is_longer_than_the_terminal_is_broken_not_cut() -> None:
    name = "a_name_of_forty_letters_that_nobody_types"
    found = groups_of(lambda s, x: s.fc(mean(getattr(s, name)(x))), **{name: Conv2d(1, 4, 3)}, fc=Linear(4, 3))
    lines = groups_as_table(found, 50)
    assert max(map(len, lines)) <= 50
    assert name in "".join(line[28:] for line in lines)
