"""From the names in a schedule to the weights of a model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.schedule.faults import Faults
from compressor.schedule.grammar import Schedule
from compressor.schedule.selectors import NameFault, WeightNames, plain

Parse = Callable[[str], Schedule]
Bound = Callable[..., tuple[Any, list[str]]]


class Net(nn.Module):
    """conv1, layer1.0.conv1, layer1.1.conv1 (3x3), bn, up (transposed), fc1, fc2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.layer1 = nn.Sequential(
            nn.Sequential(),
            nn.Sequential(),
        )
        self.layer1[0].add_module("conv1", nn.Conv2d(2, 2, 3))
        self.layer1[1].add_module("conv1", nn.Conv2d(2, 2, 3))
        self.bn = nn.BatchNorm2d(2)
        self.up = nn.ConvTranspose2d(2, 2, 2)
        self.fc1 = nn.Linear(4, 4)
        self.fc2 = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return images


ALL = [
    "conv1.weight",
    "layer1.0.conv1.weight",
    "layer1.1.conv1.weight",
    "up.weight",
    "fc1.weight",
    "fc2.weight",
]


@pytest.fixture
def names() -> WeightNames:
    return WeightNames(Net())


@pytest.fixture
def bound(schedule_of: Parse) -> Bound:
    """`bound('weights', "[a, b]")` or `bound('levels', "{a: 1}")`: what the field is bound to, and the faults."""

    def bind(field: str, value: str, model: nn.Module | None = None, version: int = 1) -> tuple[Any, list[str]]:
        of = {
            "weights": "AutomatedGradualPruner, final_sparsity: 0.5",
            "levels": "SparsityLevelParameterPruner",
        }[field]
        text = f"pruners:\n  p: {{class: {of}, \n    {field}: {value}}}\npolicies:\n  - pruner: {{instance_name: p}}\n"
        text += f"version: {version}\n"
        faults = Faults()
        [policy] = schedule_of(text).bind(model or Net(), 5, faults).policies
        return policy.targets[field], faults.lines

    return bind


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("conv1.weight", ["conv1.weight"]),
        ("bn.weight", ["bn.weight"]),  # an exact name may be any parameter
        ("fc1.bias", ["fc1.bias"]),
        ("*", ALL),
        ("conv1*", ["conv1.weight"]),
        ("*conv1.weight", ["conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight"]),
        ("layer1*", ["layer1.0.conv1.weight", "layer1.1.conv1.weight"]),  # * crosses dots
        ("layer1.[!0].*", ["layer1.1.conv1.weight"]),
        ("fc?.weight", ["fc1.weight", "fc2.weight"]),
        ("fc[2-9].weight", ["fc2.weight"]),
        ("re:fc", ["fc1.weight", "fc2.weight"]),  # a search, not a full match
        (r"re:^conv1\.", ["conv1.weight"]),
        (r"re:(0|up)\.", ["layer1.0.conv1.weight", "up.weight"]),
        ("type:Conv2d", ["conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight"]),
        ("type:Linear", ["fc1.weight", "fc2.weight"]),
        ("type:ConvTranspose2d", ["up.weight"]),
    ],
)
def test_row_a_selector_means_exactly_these_weights_in_the_models_order(
    names: WeightNames, item: str, expected: list[str]
) -> None:
    assert names.select(item) == expected


def test_globs_and_types_range_over_prunable_weights_only(names: WeightNames) -> None:
    assert "bn.weight" not in names.select("*weight")
    assert names.select("*.*") == ALL
    with pytest.raises(NameFault):
        names.select("*.bias")
    with pytest.raises(NameFault):
        names.select("re:bn")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("conv1.weigth", ["'conv1.weigth' matches no weight", "did you mean 'conv1.weight'"]),
        ("fc3.weight", ["'fc3.weight' matches no weight", "'fc1.weight'", "'fc2.weight'"]),
        ("module.fc3.weight", ["'module.fc3.weight' matches no weight", "'fc1.weight'"]),
        ("fc3*", ["'fc3*' matches no weight"]),
        ("re:zzz", ["'re:zzz' matches no weight", "there are: "]),
        ("type:Conv3d", ["'type:Conv3d' matches no weight", "'Conv2d'"]),
        ("type:conv2d", ["'type:conv2d' matches no weight", "'Conv2d'"]),
        ("", ["'' matches no weight"]),
        ("conv1", ["'conv1' matches no weight", "'conv1."]),
        ("re:[", ["'[' is not a regular expression"]),
        ("re:(?P<a>x", ["is not a regular expression"]),
        ("re:a{99999999999999999999}", ["is too large"]),
    ],
)
def test_row_an_item_that_matches_nothing_is_an_error_that_names_the_nearest(
    names: WeightNames, item: str, words: list[str]
) -> None:
    with pytest.raises(NameFault) as caught:
        names.select(item)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_model_without_prunable_weights_says_so() -> None:
    with pytest.raises(NameFault, match="no convolution and no linear layer"):
        WeightNames(nn.BatchNorm2d(2)).select("*")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module.fc.weight", "fc.weight"),
        ("features.module.3.weight", "features.3.weight"),
        ("module.module.fc.weight", "fc.weight"),
        ("fc.module", "fc"),
        ("module", ""),
        ("modules.fc.weight", "modules.fc.weight"),
        ("my_module.fc.weight", "my_module.fc.weight"),
        ("fc.weight", "fc.weight"),
    ],
)
def test_row_names_module_component_is_dropped_wherever_it_stands(name: str, expected: str) -> None:
    assert plain(name) == expected


def test_row_names_module_component_is_dropped_on_both_sides() -> None:
    inner = Net()
    wrapped = nn.Module()
    wrapped.module = inner
    for model in (inner, wrapped, nn.ModuleDict({"module": nn.ModuleDict({"module": inner})})):
        names = WeightNames(model)
        own = {id(p): name for name, p in model.named_parameters()}
        for item in ("fc1.weight", "module.fc1.weight", "fc1.module.weight", "fc1*", "module.fc1.*"):
            assert names.select(item) == [own[id(inner.fc1.weight)]], item
        assert len(names.select("layer1*")) == 2
        assert len(names.select("re:^layer1")) == 2


def test_tied_weights_are_one_weight_known_by_its_first_name() -> None:
    model = Net()
    model.fc2 = nn.Linear(4, 4)
    model.fc2.weight = model.fc1.weight
    names = WeightNames(model)
    assert names.select("fc2.weight") == ["fc1.weight"]
    assert names.select("fc1.weight") == ["fc1.weight"]
    assert names.select("*") == ALL[:-1]
    assert names.select("type:Linear") == ["fc1.weight"]


def test_a_string_is_a_list_of_one(bound: Bound) -> None:
    assert bound("weights", "fc1.weight") == (["fc1.weight"], [])
    assert bound("weights", "'*'") == (ALL, [])


def test_a_list_is_the_union_without_repetitions(bound: Bound) -> None:
    found, faults = bound("weights", "[fc2.weight, 'fc*', module.fc2.weight, 'type:ConvTranspose2d']")
    assert faults == []
    assert found == ["fc2.weight", "fc1.weight", "up.weight"]


def test_every_item_of_a_list_that_matches_nothing_is_a_fault_at_the_item(bound: Bound) -> None:
    _, faults = bound("weights", "[fc9.weight, fc1.weight, 'x*']")
    assert [line.partition(": ")[0] for line in faults] == ["s.yaml:3:15", "s.yaml:3:39"]


def test_an_empty_list_is_a_fault_at_the_list(schedule_of: Parse, faults_of: Callable[[str], list[str]]) -> None:
    text = "version: 1\npolicies:\n  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.5, weights: []}\n"
    lines = faults_of(text)
    if not lines:
        faults = Faults()
        schedule_of(text).bind(Net(), 5, faults)
        lines = faults.lines
    assert len(lines) == 1
    assert lines[0].startswith("s.yaml:3:75: ")


@pytest.mark.parametrize("order", [1, -1])
def test_in_a_mapping_the_most_exact_key_wins_name_then_glob_then_type_then_star(bound: Bound, order: int) -> None:
    keys = ["'*': 0.1", "'type:Conv2d': 0.2", "'layer1*': 0.3", "layer1.1.conv1.weight: 0.4"][::order]
    found, faults = bound("levels", "{" + ", ".join(keys) + "}")
    assert faults == []
    assert found == {
        "conv1.weight": 0.2,
        "layer1.0.conv1.weight": 0.3,
        "layer1.1.conv1.weight": 0.4,
        "up.weight": 0.1,
        "fc1.weight": 0.1,
        "fc2.weight": 0.1,
    }


def test_a_regular_expression_ranks_with_the_globs(bound: Bound) -> None:
    assert bound("levels", "{'type:Linear': 0.2, 're:^fc1': 0.3}")[0] == {"fc1.weight": 0.3, "fc2.weight": 0.2}
    _, faults = bound("levels", "{'fc*': 0.2, 're:^fc1': 0.3}")
    assert len(faults) == 1


def test_two_globs_that_tie_with_different_values_are_an_error_at_the_second(bound: Bound) -> None:
    _, faults = bound("levels", "{'fc*': 0.2, '*1.weight': 0.3}")
    assert len(faults) == 1
    assert faults[0].startswith("s.yaml:3:26: ")
    assert all(word in faults[0] for word in ("'fc*'", "'*1.weight'", "'fc1.weight'", "0.2", "0.3"))


def test_two_globs_that_tie_with_the_same_value_are_none(bound: Bound) -> None:
    found, faults = bound("levels", "{'fc*': 0.2, 'fc1*': 0.2}")
    assert faults == []
    assert found == {"fc1.weight": 0.2, "fc2.weight": 0.2}


@pytest.mark.parametrize("order", [1, -1])
def test_an_exact_name_decides_between_two_globs_that_tie_wherever_it_stands(bound: Bound, order: int) -> None:
    keys = ["fc1.weight: 0.4", "'fc*': 0.2", "'*fc1.weight': 0.3"][::order]
    found, faults = bound("levels", "{" + ", ".join(keys) + "}")
    assert faults == []
    assert found == {"fc1.weight": 0.4, "fc2.weight": 0.2}


def test_two_spellings_of_one_name_with_different_values_are_an_error(bound: Bound) -> None:
    _, faults = bound("levels", "{fc1.weight: 0.2, module.fc1.weight: 0.3}")
    assert len(faults) == 1


def test_two_names_of_one_tied_weight_with_different_values_are_an_error(bound: Bound) -> None:
    model = Net()
    model.fc2 = nn.Linear(4, 4)
    model.fc2.weight = model.fc1.weight
    _, faults = bound("levels", "{fc1.weight: 0.2, fc2.weight: 0.3}", model)
    assert len(faults) == 1
    assert bound("levels", "{fc1.weight: 0.2, fc2.weight: 0.2}", model) == ({"fc1.weight": 0.2}, [])


def test_a_key_of_a_mapping_that_matches_nothing_is_a_fault_at_the_key(bound: Bound) -> None:
    found, faults = bound("levels", "{fc9.weight: 0.2, 'fc*': 0.3}")
    assert len(faults) == 1
    assert faults[0].startswith("s.yaml:3:14: 'fc9.weight' matches no weight")
    assert found == {"fc1.weight": 0.3, "fc2.weight": 0.3}


def test_names_are_found_on_a_model_without_storage(bound: Bound) -> None:
    with torch.device("meta"):
        model = Net()
    assert bound("weights", "['fc*']", model) == (["fc1.weight", "fc2.weight"], [])


LAYER1 = ["layer1.0.conv1.weight", "layer1.1.conv1.weight"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("['*', '!fc*']", ["conv1.weight", *LAYER1, "up.weight"]),
        ("['!fc*', '*']", ["conv1.weight", *LAYER1, "up.weight"]),  # a glob is more exact than '*', wherever it stands
        ("['*', '!fc2.weight']", ALL[:-1]),
        ("['*', '!fc*', fc2.weight]", ["conv1.weight", *LAYER1, "up.weight", "fc2.weight"]),  # a name beats a glob
        ("['*', '!fc2.weight', 'fc*']", ALL[:-1]),
        ("['layer1*', 'fc*', '!*1.weight']", ["fc2.weight"]),  # of two globs the later wins
        ("['*', '!type:Linear', '!re:^layer']", ["conv1.weight", "up.weight"]),
        ("['*', '!type:Linear', 'fc2*']", ["conv1.weight", *LAYER1, "up.weight", "fc2.weight"]),
        ("['*', '!fc2.weight', '!fc*']", ["conv1.weight", *LAYER1, "up.weight"]),  # twice excluded is excluded
        ("['*', '!module.fc1.weight']", [*ALL[:-2], "fc2.weight"]),
    ],
)
def test_an_exclamation_mark_excludes_and_the_most_exact_then_the_later_item_wins(
    bound: Bound, value: str, expected: list[str]
) -> None:
    found, faults = bound("weights", value, version=2)
    assert faults == []
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("value", "column", "words"),
    [
        ("['*', '!fc9*']", 20, "'!fc9*' excludes nothing: 'fc9*' matches no weight: "),
        ("['conv1*', '!fc*']", 25, "'!fc*' excludes nothing: no other item selects what it matches"),
        ("['*', '!fc2*', fc2.weight]", 20, "'!fc2*' excludes nothing: "),
        ("['!*1.weight', 'layer1*', 'fc*']", 15, "'!*1.weight' excludes nothing: "),
        ("['fc*', '!re:fc']", 15, "nothing is selected"),
    ],
)
def test_what_excludes_nothing_or_all_is_a_fault_at_the_item(bound: Bound, value: str, column: int, words: str) -> None:
    _, faults = bound("weights", value, version=2)
    assert len(faults) == 1
    assert faults[0].startswith(f"s.yaml:3:{column}: ")
    assert words in faults[0]


@pytest.mark.parametrize(
    ("line", "version", "words"),
    [
        ("{class: AutomatedGradualPruner, final_sparsity: 0.5, weights: ['*', '!fc*']}", 1, "needs `version: 2`"),
        ("{class: AutomatedGradualPruner, final_sparsity: 0.5, weights: '!fc*'}", 2, "as in ['*', '!fc*']"),
        ("{class: AutomatedGradualPruner, final_sparsity: 0.5, weights: ['!fc*', '!up*']}", 2, "as in ['*', '!fc*']"),
        ("{class: SparsityLevelParameterPruner, levels: {'*': 0.5, '!fc*': 0.1}}", 2, "mappings cannot"),
        ("{class: AutomatedGradualPruner, final_sparsity: 0.5, weights: ['*', !fc* ]}", 2, "needs quotes: '!fc*'"),
    ],
)
def test_an_exclusion_needs_version_2_a_list_and_something_to_exclude_from(
    faults_of: Callable[[str], list[str]], line: str, version: int, words: str
) -> None:
    fault = "; ".join(faults_of(f"version: {version}\npolicies:\n  - pruner: {line}\n"))
    assert fault.startswith("s.yaml:3:")
    assert words in fault


def test_modules_are_excluded_too(schedule_of: Parse) -> None:
    text = "version: 2\npolicies:\n  - gate: {class: DropConnect, modules: ['fc*', '!fc2'], activation: none}\n"
    faults = Faults()
    [policy] = schedule_of(text).bind(Net(), 5, faults).policies
    assert (policy.targets["modules"], faults.lines) == (["fc1"], [])
