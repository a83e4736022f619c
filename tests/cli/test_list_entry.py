"""`compress list NAME`: one component with its arguments, as a user reads it before writing YAML."""

import re

import pytest
import yaml
from helpers import compress, succeed

from compressor.cli.completion import _KINDS
from compressor.experiment import catalogue as catalogues
from compressor.schedule import arguments, components

KINDS = catalogues.COMPONENTS


def test_each_argument_has_type_default_and_description() -> None:
    text = succeed("list", "AutomatedGradualPruner")
    said, _, rest = text.partition("arguments:\n")
    own, _, example = rest.partition("example:\n")
    assert said.startswith("AutomatedGradualPruner (pruners)\n\nPrune to a sparsity that rises along a cubic")
    keys = re.findall(r"^  (\w+): ", own, re.MULTILINE)
    assert keys == list(components("pruners")["AutomatedGradualPruner"].model_fields)
    assert "  final_sparsity: a number from 0 to 1 (required)" in own
    assert re.search(r"^  initial_sparsity: a number from 0 to 1 \(default: [\d.]+\)$", own, re.MULTILINE)
    assert yaml.safe_load(example)["pruners"]


def test_types_in_words() -> None:
    """Written from the classes by hand: a choice, a selector, an axis, a mapping, a whole number with both limits."""
    types = {one.name: one.type for one in arguments(components("pruners")["Pruner"])}
    assert types["criterion"] == "criterion: NAME or {NAME: arguments} (`compress list criteria`)"
    assert types["order"] == "smallest, largest or random"
    assert types["weights"] == "selector of weights: a name or pattern or a list of them"
    assert types["batches"] == "a whole number at least 1"
    ranked = {one.name: one.type for one in arguments(components("pruners")["L1RankedStructureParameterPruner"])}
    assert ranked["kwargs"] == "a mapping {block_shape: a list of 4: each a whole number}"


def test_a_policy_says_where_its_arguments_stand_and_which_need_version_2() -> None:
    text = succeed("list", "pruner")
    assert "Its arguments stand under `args:`" in text
    assert "  sparsity_of: dense or current (default: dense; needs version: 2)" in text
    assert "  window:" not in text


def test_a_name_of_two_kinds_is_shown_twice() -> None:
    heads = [line for line in succeed("list", "random").splitlines() if line.startswith("random (")]
    assert heads == ["random (criteria)", "random (rates)"]


def test_another_name_and_other_letters_are_found() -> None:
    assert "Another name of Filters." in succeed("list", "3D")
    assert succeed("list", "steplr").startswith("StepLR (lr-schedulers)")


def test_models_data_sets_and_files_are_shown_too() -> None:
    assert "  num_classes: int (default: 10)" in succeed("list", "lenet_5")
    assert "  conv_relu: bool (default: False)" in succeed("list", "lenet_5")
    assert "data: {name: digits}" in succeed("list", "digits")
    assert "lenet5_agp.yaml" in succeed("list", "lenet5_agp")


@pytest.mark.parametrize(("wrong", "meant"), [("StepLRR", "'StepLR'"), ("prunners", "'pruners'")])
def test_a_name_that_does_not_exist_is_exit_2_with_the_nearest(wrong: str, meant: str) -> None:
    result = compress("list", wrong)
    assert (result.code, result.out) == (2, "")
    assert f"there is no kind and no component '{wrong}'" in result.err
    assert meant in result.err


def test_lines_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    said, _, _ = succeed("list", "HardConcreteL0").partition("example:\n")
    assert max(map(len, said.splitlines())) <= 60


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_has_types_and_an_example(kind: str) -> None:
    for name in catalogues.catalogue(kind):
        for entry in catalogues.entries(name):
            assert entry.example, name
            assert [one.name for one in entry.arguments if one.type == "any value"] == [], name


def test_the_shell_completes_the_kinds_that_there_are() -> None:
    assert tuple(_KINDS) == catalogues.KINDS
