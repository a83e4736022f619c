"""Keys of Distiller that mean nothing here: version 1 warns of them and ignores them, version 2 refuses them."""

from collections.abc import Callable

import pytest

from compressor.schedule.grammar import Schedule

FILE = """\
version: {version}
regularizers:
  l1: {{class: L1Regularizer, reg_regims: {{fc.weight: 1e-4}}{regularizer}}}
pruners:
  p: {{class: SparsityLevelParameterPruner, levels: {{fc.weight: 0.5}}{pruner}}}
extensions:
  e: {{class: FilterRemover, thinning_func_str: remove_filters{extension}}}
lr_schedulers:
  lr: {{class: StepLR, step_size: 3{lr}}}
policies:
  - regularizer: {{instance_name: l1, args: {{keep_mask: {keep}}}}}
  - pruner: {{instance_name: p, args: {{keep_mask: false{args}}}}}
  - extension: {{instance_name: e}}
  - lr_scheduler: {{instance_name: lr}}
"""
EMPTY = dict.fromkeys(("regularizer", "pruner", "extension", "lr", "args"), "") | {"keep": "false"}


def text(version: int, **given: str) -> str:
    return FILE.format(version=version, **{**EMPTY, **given})


@pytest.mark.parametrize(
    ("block", "key", "value", "line"),
    [
        ("lr", "verbose", "true", 9),
        ("lr", "last_epoch", "-1", 9),
        ("pruner", "name", "low", 5),
        ("extension", "layer_names", "[fc]", 7),
        ("extension", "arch", "resnet20_cifar", 7),
        ("extension", "dataset", "cifar10", 7),
        ("regularizer", "keep_mask", "true", 3),
        ("regularizer", "remove_channels", "true", 3),
        ("args", "remove_channels", "true", 12),
    ],
)
def test_a_key_without_a_meaning_is_a_warning_in_version_1_and_an_error_in_version_2(
    schedule_of: Callable[[str], Schedule],
    faults_of: Callable[[str], list[str]],
    block: str,
    key: str,
    value: str,
    line: int,
) -> None:
    given = {block: f", {key}: {value}"}
    schedule = schedule_of(text(1, **given))
    [note] = schedule.notes
    assert note.startswith(f"s.yaml:{line}:")
    assert f"warning: {key!r} has no meaning here, it is ignored" in note
    plain = schedule_of(text(1))
    assert [entry.policy for entry in schedule.entries] == [entry.policy for entry in plain.entries]
    assert plain.notes == []
    [fault] = faults_of(text(2, **given))
    assert fault.startswith(f"s.yaml:{line}:")
    assert f"unknown key {key!r}" in fault


def test_a_regularizer_s_mask_of_nothing_is_a_warning_in_version_1_and_an_error_in_version_2(
    schedule_of: Callable[[str], Schedule], faults_of: Callable[[str], list[str]]
) -> None:
    schedule = schedule_of(text(1, keep="true"))
    [note] = schedule.notes
    assert note.startswith("s.yaml:11:")
    assert "warning: `keep_mask: true` has no meaning here" in note
    assert schedule.entries[0].policy == schedule_of(text(1)).entries[0].policy
    [fault] = faults_of(text(2, keep="true"))
    assert "makes no zeros" in fault
    assert schedule_of(text(1, keep="true", regularizer=", threshold: 1e-3")).notes == []


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"lr": ", verbos: true"}, "verbos"),
        ({"pruner": ", last_epoch: 1"}, "last_epoch"),
        ({"lr": ", layer_names: [fc]"}, "layer_names"),
        ({"extension": ", keep_mask: true"}, "keep_mask"),
        ({"pruner": ", keep_mask: true"}, "keep_mask"),
        ({"args": ", remove_filters: true"}, "remove_filters"),
    ],
)
def test_any_other_unknown_key_is_an_error(
    faults_of: Callable[[str], list[str]], version: int, given: dict[str, str], key: str
) -> None:
    [fault] = faults_of(text(version, **given))
    assert f"unknown key {key!r}" in fault


REPEATED = "version: {version}\npolicies:\n  - lr_scheduler: {{class: StepLR, step_size: 3, {more}}}\n"


def test_an_equal_repeated_key_is_a_warning_in_version_1_and_an_error_in_version_2(
    schedule_of: Callable[[str], Schedule], faults_of: Callable[[str], list[str]]
) -> None:
    said = "the key 'step_size' is given twice: remove one; the first is at line 3"
    assert schedule_of(REPEATED.format(version=1, more="step_size: 3")).notes == [f"s.yaml:3:49: warning: {said}"]
    assert faults_of(REPEATED.format(version=2, more="step_size: 3")) == [f"s.yaml:3:49: {said}"]
    for other in ("4", "3.0", "'3'", "[3]"):
        assert f"s.yaml:3:49: {said}" in faults_of(REPEATED.format(version=1, more=f"step_size: {other}"))


RECONSTRUCTED = """\
version: {version}
policies:
  - pruner: {{class: FMReconstructionChannelPruner, group_type: Channels, desired_sparsity: 0.5, weights: [fc.weight],
             {key}: 0.25}}
    epochs: [0]
"""


def test_ranking_noise_is_the_noise_of_the_one_class_that_calls_it_so_in_version_1(
    schedule_of: Callable[[str], Schedule], faults_of: Callable[[str], list[str]]
) -> None:
    [named] = schedule_of(RECONSTRUCTED.format(version=1, key="ranking_noise")).entries
    [usual] = schedule_of(RECONSTRUCTED.format(version=1, key="noise")).entries
    assert named.policy == usual.policy
    assert "probability=0.25" in repr(named.policy)
    [fault] = faults_of(RECONSTRUCTED.format(version=2, key="ranking_noise"))
    assert "unknown key 'ranking_noise'" in fault
