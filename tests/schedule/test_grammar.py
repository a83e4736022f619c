"""A schedule's text, and every fault in it: where (line:column, from 1) and in which words."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from compressor.errors import UserError
from compressor.importing import plugins_allowed
from compressor.policies.policy import BoundPolicy
from compressor.schedule import distiller, grammar
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import Schedule
from compressor.schedule.registry import SECTIONS, components
from compressor.schedule.schedule import view_of

Read = Callable[[str], list[str]]
Parse = Callable[[str], Schedule]

GOOD = """\
version: 1
pruners:
  fine:
    class: AutomatedGradualPruner
    initial_sparsity: 0.05
    final_sparsity: 0.8
    weights: [module.fc.weight]
regularizers:
  l1: {class: L1Regularizer, reg_regims: {'*': 1e-4}}
lr_schedulers:
  lr: {class: StepLR, step_size: 30, gamma: 0.1}
policies:
  - pruner: {instance_name: fine, args: {mini_batch_pruning_frequency: 16}}
    starting_epoch: 0
    ending_epoch: 20
    frequency: 2
  - regularizer: {instance_name: l1}
    epochs: [0, 1, 2]
  - lr_scheduler: {instance_name: lr}
"""


class Net(nn.Module):
    """conv.weight [2, 1, 3, 3], fc.weight [2, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(8, 2)


def bound(schedule: Schedule, epochs: int = 20) -> list[BoundPolicy]:
    faults = Faults()
    policies = schedule.bind(Net(), epochs, faults).policies
    faults.raise_any()
    return list(policies)


def check(lines: list[str], *expected: tuple[str, str]) -> None:
    """Exactly one line for each (place, words...) in `expected`, in order."""
    assert len(lines) == len(expected), "\n".join(lines)
    for line, (place, words) in zip(lines, expected, strict=True):
        assert line.startswith(f"s.yaml:{place}: "), line
        assert all(word in line for word in words.split(" | ")), line


def test_the_grammars_own_example_is_read(schedule_of: Parse) -> None:
    schedule = schedule_of(GOOD)
    assert schedule.version == 1
    assert schedule.config is None
    assert [entry.key for entry in schedule.entries] == ["0.fine", "1.l1", "2.lr"]
    assert schedule.notes == []
    pruning, regularization, rate = (policy.policy for policy in bound(schedule))
    assert (pruning.name, regularization.name, rate.name) == ("pruner", "regularizer", "lr_scheduler")
    assert pruning.model_dump()["mini_batch_pruning_frequency"] == 16
    assert [e for e in range(30) if pruning.window.fires(e)] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [e for e in range(30) if regularization.window.fires(e)] == [0, 1, 2]
    assert [e for e in range(30) if rate.window.fires(e)] == list(range(20))


def test_no_version_means_1_and_every_section_but_policies_is_optional(schedule_of: Parse) -> None:
    schedule = schedule_of("policies:\n  - lr_scheduler: {class: ExponentialLR, gamma: 0.9}\n")
    assert schedule.version == 1
    assert len(schedule.entries) == 1


def test_policies_are_bound_in_file_order_with_the_weights_they_name(schedule_of: Parse) -> None:
    policies = bound(schedule_of(GOOD))
    assert [policy.key for policy in policies] == ["0.fine", "1.l1", "2.lr"]
    assert policies[0].targets == {"weights": ["fc.weight"]}
    assert policies[1].targets == {"reg_regims": {"conv.weight": 1e-4, "fc.weight": 1e-4}}


@pytest.mark.parametrize("value", ["3", "0", "-1", "'1'", "1.5", "true", "[1]", "", "latest", "{a: 1}"])
def test_a_version_other_than_1_or_2_is_a_fault(faults_of: Read, value: str) -> None:
    lines = faults_of(GOOD.replace("version: 1", f"version: {value}"))
    assert len(lines) == 1
    assert lines[0].startswith("s.yaml:1:")
    assert "'version' should be 1 or 2" in lines[0]


def test_version_2_names_a_configuration_and_may_have_gates(faults_of: Read, schedule_of: Parse) -> None:
    text = GOOD.replace("version: 1", "version: 2\nconfig: lenet5_mnist\ngates: {}")
    assert faults_of(text) == []
    schedule = schedule_of(text)
    assert (schedule.version, schedule.config) == (2, "lenet5_mnist")


def test_what_version_2_brought_is_a_fault_in_version_1(faults_of: Read) -> None:
    check(faults_of("config: x\ngates: {}\n" + GOOD), ("1:1", "'config' | version: 2"), ("2:1", "'gates' | version: 2"))
    check(
        faults_of(GOOD.replace("version: 1", "config: x")),
        ("1:1", "'config' | version: 2"),
    )


def test_step_windows_are_of_version_2(faults_of: Read) -> None:
    text = GOOD.replace("epochs: [0, 1, 2]", "starting_step: 0\n    ending_step: 5")
    assert faults_of(text.replace("version: 1", "version: 2")) == []
    lines = faults_of(text)
    assert lines
    assert all("version: 2" in line for line in lines)


def test_a_configuration_that_is_no_name_is_a_fault(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("version: 1", "version: 2\nconfig: [a]")), ("2:9", "'config' | got a list of 1"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1, 2]", "got a list of 2"), ("hello", "got 'hello'"), ("---", "got nothing"), ("3", "got 3")],
)
def test_a_schedule_that_is_no_mapping_is_one_fault(faults_of: Read, text: str, words: str) -> None:
    lines = faults_of(text)
    assert len(lines) == 1
    assert lines[0].startswith("s.yaml:1:")
    assert words in lines[0]


@pytest.mark.parametrize("text", ["", "a: [", "!!python/name:os.system ''"])
def test_a_document_with_nothing_left_in_it_is_one_fault(faults_of: Read, text: str) -> None:
    assert len(faults_of(text)) == 1


def test_a_schedule_without_policies_is_a_fault(faults_of: Read) -> None:
    without = GOOD[: GOOD.index("policies:")]
    check(faults_of(without), ("1:1", "needs 'policies' | nothing"))
    check(faults_of(without + "policies: []\n"), ("12:11", "needs 'policies'"))
    check(faults_of(without + "policies:\n"), ("12:10", "needs 'policies'"))
    check(faults_of(without + "policies: {a: 1}\n"), ("12:11", "needs 'policies' | a mapping"))


def test_row_unknown_sections_are_an_error_with_the_nearest_name(faults_of: Read) -> None:
    check(
        faults_of("extention: {}\n" + GOOD + "zzz: 1\n"),
        ("1:1", "unknown key 'extention' | 'extensions'"),
        ("21:1", "unknown key 'zzz'"),
    )


@pytest.mark.parametrize("section", [*SECTIONS, "gates"])
def test_a_section_that_is_no_mapping_is_a_fault(faults_of: Read, section: str) -> None:
    text = f"version: 2\n{section}: [1, 2]\npolicies:\n  - lr_scheduler: {{class: StepLR, step_size: 3}}\n"
    check(faults_of(text), (f"2:{len(section) + 3}", f"'{section}' | a list of 2"))


def test_a_mistyped_section_is_a_fault_and_the_reference_that_it_breaks_is_named_too(faults_of: Read) -> None:
    check(
        faults_of(GOOD.replace("pruners:", "prunners:")),
        ("2:1", "unknown key 'prunners' | 'pruners'"),
        ("13:29", "'fine' | there are none"),
    )


def test_a_reference_to_nothing_is_a_fault_with_the_nearest_name(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("instance_name: fine", "instance_name: fin")), ("13:29", "'fin' | 'fine'"))
    check(faults_of(GOOD.replace("instance_name: fine", "instance_name: l1")), ("13:29", "'l1' | there are: fine"))
    check(faults_of(GOOD.replace("instance_name: fine", "instance_name: [fine]")), ("13:29", "a list of 1"))
    check(faults_of(GOOD.replace("instance_name: fine", "instance_name: 3")), ("13:29", "3 | there are: fine"))


def test_a_mistyped_policies_key_is_one_fault(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("policies:", "policis:")), ("12:1", "unknown key 'policis' | 'policies'"))


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("final_sparsity", "finalsparsity", "6:5", "unknown key 'finalsparsity' | 'final_sparsity'"),
        ("    weights:", "    weight:", "7:5", "unknown key 'weight' | 'weights'"),
        ("    class:", "    clas:", "4:5", "'fine' | 'class' | 'clas'"),
        ("{instance_name: fine", "{instance_nam: fine", "13:14", "unknown key 'instance_nam' | 'instance_name'"),
        ("step_size", "stepsize", "11:23", "unknown key 'stepsize' | 'step_size'"),
        ("reg_regims", "reg_regimes", "9:30", "unknown key 'reg_regimes' | 'reg_regims'"),
        ("  - pruner:", "  - prunner:", "13:5", "unknown key 'prunner' | 'pruner'"),
    ],
)
def test_a_mistyped_required_key_is_one_fault(faults_of: Read, old: str, new: str, place: str, words: str) -> None:
    assert GOOD.count(old) == 1
    check(faults_of(GOOD.replace(old, new)), (place, words))


def test_a_required_argument_that_is_missing_is_named_at_its_component(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("    final_sparsity: 0.8\n", "")), ("4:5", "'fine' | needs the key 'final_sparsity'"))


def test_a_wrong_argument_is_a_fault_at_the_argument(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("0.8", "80")), ("6:21", "'final_sparsity' | 'fine' | got 80"))
    check(faults_of(GOOD.replace("0.8", "high")), ("6:21", "'final_sparsity' | number | got 'high'"))
    check(faults_of(GOOD.replace("step_size: 30", "step_size: 3.5")), ("11:34", "'step_size' | integer | got 3.5"))
    check(faults_of(GOOD.replace("'*': 1e-4", "'*': -1")), ("9:48", "'*' | got -1"))


def test_all_faults_of_a_file_come_at_once_in_file_order(faults_of: Read) -> None:
    text = GOOD.replace("initial_sparsity: 0.05", "initial_sparsity: -1").replace("L1Reg", "L9Reg")
    text = text.replace("gamma", "gama").replace("frequency: 2", "frequency: 0").replace("epochs: [0", "epoch: [0")
    text = text.replace("instance_name: lr", "instance_name: rl").replace("_pruning_frequency", "_pruning_frequenzy")
    check(
        faults_of("unknown: 1\n" + text),
        ("1:1", "unknown key 'unknown'"),
        ("6:23", "'initial_sparsity'"),
        ("10:15", "'L9Regularizer' | 'L1Regularizer'"),
        ("12:38", "unknown key 'gama' | 'gamma'"),
        ("17:16", "'frequency' | got 0"),
        ("19:5", "unknown key 'epoch' | 'epochs'"),
        ("20:35", "'rl' | there are: lr"),
    )


def test_unknown_args_are_a_fault_together_with_a_sound_component(faults_of: Read) -> None:
    check(
        faults_of(GOOD.replace("mini_batch_pruning_frequency", "minibatch_pruning_frequency")),
        ("13:42", "unknown key 'minibatch_pruning_frequency' | 'mini_batch_pruning_frequency'"),
    )


@pytest.mark.parametrize(
    ("args", "place", "words"),
    [
        ("args: {mini_batch_pruning_frequency: -1}", "13:72", "'mini_batch_pruning_frequency' | got -1"),
        ("args: 3", "13:41", "mapping | got 3"),
        ("args: {window: 3}", "13:42", "unknown key 'window'"),
        ("args: {pruner: 3}", "13:42", "unknown key 'pruner'"),
        ("arg: {}", "13:35", "unknown key 'arg' | 'args'"),
    ],
)
def test_row_unknown_policy_args_are_an_error(faults_of: Read, args: str, place: str, words: str) -> None:
    check(faults_of(GOOD.replace("args: {mini_batch_pruning_frequency: 16}", args)), (place, words))


def test_empty_args_are_no_args(faults_of: Read) -> None:
    assert faults_of(GOOD.replace("args: {mini_batch_pruning_frequency: 16}", "args:")) == []
    assert faults_of(GOOD.replace("args: {mini_batch_pruning_frequency: 16}", "args: {}")) == []


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("AutomatedGradualPruner", "AutomaticGradualPruner", "4:12", "'AutomaticGradualPruner' | AutomatedGradual"),
        ("L1Regularizer", "l1", "9:15", "'l1' | L1Regularizer"),
        ("StepLR", "StepLr", "11:15", "'StepLr' | 'StepLR'"),
        ("StepLR", "os.system", "11:15", "no class 'os.system'"),
        ("StepLR", "Component", "11:15", "no class 'Component'"),
        ("StepLR", "3", "11:15", "'class' should be a name | got 3"),
        ("StepLR", "", "11:14", "'class' should be a name | got nothing"),
    ],
)
def test_row_a_class_outside_the_closed_registry_is_an_error_with_the_nearest_one(
    faults_of: Read, old: str, new: str, place: str, words: str
) -> None:
    check(faults_of(GOOD.replace(old, new)), (place, words))


def test_row_a_class_in_the_wrong_section_is_an_error_that_names_the_right_one(faults_of: Read) -> None:
    check(
        faults_of(GOOD.replace("class: L1Regularizer", "class: StepLR")), ("9:15", "'regularizers' | 'lr_schedulers'")
    )
    check(
        faults_of(GOOD.replace("class: StepLR", "class: AutomatedGradualPruner")),
        ("11:15", "AutomatedGradualPruner | 'lr_schedulers' | 'pruners'"),
    )


QUANTIZED = """\
quantizers:
  acts: {{class: {one}, bits_activations: 4, overrides: {{conv1: {{bits_weights: null}}}}}}
  weights: {{class: {other}}}
pruners:
  fine: {{class: AutomatedGradualPruner, initial_sparsity: 0.05, {final}: 0.8, weights: [fc.weight]}}
policies:
  - quantizer: {{instance_name: {named}}}
    starting_epoch: 0
    ending_epoch: 20
    frequency: 1
  - quantizer: {{instance_name: weights}}
  - pruner: {{instance_name: fine}}
"""
FINE = {"one": "PACTQuantizer", "other": "WRPNQuantizer", "final": "final_sparsity", "named": "acts"}


def test_row_quantizers_of_distiller_are_recognised_and_are_one_fault_together(faults_of: Read) -> None:
    said = "known from Distiller, and not built yet: {}. All else in the file is checked"
    check(faults_of(QUANTIZED.format(**FINE)), ("2:17", said.format("PACTQuantizer, WRPNQuantizer")))
    for name in distiller.QUANTIZERS:
        assert name not in components("quantizers")
        text = QUANTIZED.format(**{**FINE, "one": name, "other": name})
        check(faults_of(text), ("2:17", said.format(name)))
        check(
            faults_of(f"quantizers:\n  post: {{class: {name}}}\n"), ("2:17", said.format(name))
        )  # of trained networks
        inline = f"policies:\n  - quantizer: {{class: {name}, bits_weights: 4}}\n    epochs: [0]\n"
        check(faults_of(inline), ("2:24", said.format(name)))


def test_the_other_faults_of_a_file_with_quantizers_are_reported_with_it(faults_of: Read) -> None:
    known = ("2:17", "not built yet")
    misspelt = QUANTIZED.format(**{**FINE, "final": "final_sparsty"})
    check(faults_of(misspelt), known, ("5:65", "unknown key 'final_sparsty' | did you mean 'final_sparsity'"))
    unnamed = QUANTIZED.format(**{**FINE, "named": "act"})
    check(faults_of(unnamed), known, ("7:32", "no quantizer is called 'act' | 'acts'"))
    other = QUANTIZED.format(**{**FINE, "other": "WRPNQuantiser"})
    check(faults_of(other), known, ("3:20", "no class 'WRPNQuantiser' in 'quantizers' | did you mean 'WRPNQuantizer'"))
    window = QUANTIZED.format(**FINE).replace("ending_epoch", "ending_epok")
    check(faults_of(window), known, ("9:5", "unknown key 'ending_epok' | 'ending_epoch'"))
    moved = QUANTIZED.format(**FINE).replace("class: AutomatedGradualPruner", "class: PACTQuantizer")
    check(faults_of(moved), known, ("5:17", "PACTQuantizer does not belong under 'pruners', but under 'quantizers'"))


def test_a_policy_that_is_no_mapping_or_has_no_kind_or_two_is_a_fault(faults_of: Read) -> None:
    policies = GOOD.replace("pruner: {instance_name: fine, args: {mini_batch_pruning_frequency: 16}}\n    ", "")
    check(faults_of(policies + "  - 3\n"), ("13:5", "exactly one of | got none"), ("19:5", "mapping | got 3"))
    two = GOOD.replace("  - lr_scheduler:", "  - regularizer: {instance_name: l1}\n    lr_scheduler:")
    check(faults_of(two), ("19:5", "exactly one of | lr_scheduler, noise, pruner, regularizer"))


def test_a_kind_needs_an_instance_name_or_a_class(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("{instance_name: l1}", "{}")), ("17:18", "instance_name or class"))
    check(faults_of(GOOD.replace("{instance_name: l1}", "l1")), ("17:18", "instance_name or class | got 'l1'"))
    check(faults_of(GOOD.replace("{instance_name: l1}", "")), ("17:17", "instance_name or class | got nothing"))
    check(faults_of(GOOD.replace("{instance_name: l1}", "{args: {}}")), ("17:18", "instance_name or class"))


@pytest.mark.parametrize(("weights", "got"), [("5", "5"), ("null", "nothing"), ("{fc: 1}", "a mapping")])
def test_what_is_no_selector_is_said_to_be_that(faults_of: Read, weights: str, got: str) -> None:
    said = f"should be a selector: a name or a list of names, got {got}"
    check(faults_of(GOOD.replace("[module.fc.weight]", weights)), ("7:14", f"'weights' of | : {said}"))


def test_a_component_that_is_no_mapping_or_has_no_class_is_a_fault(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("class: StepLR, ", "")), ("11:3", "'lr' needs the key 'class'"))
    check(
        faults_of(GOOD.replace("{class: StepLR, step_size: 30, gamma: 0.1}", "StepLR")),
        ("11:7", "'lr' should be a mapping | 'StepLR'"),
    )


def test_row_both_window_forms_at_once_are_an_error(faults_of: Read) -> None:
    check(faults_of(GOOD.replace("frequency: 2", "epochs: [1]")), ("13:5", "'epochs' | one form"))


@pytest.mark.parametrize(
    ("window", "place", "words"),
    [
        ("starting_epoch: 5\n    ending_epoch: 5", "17:5", "empty | 5"),
        ("starting_epoch: 6\n    ending_epoch: 5", "17:5", "empty | 6 | 5"),
        ("ending_epoch: 0", "18:19", "'ending_epoch' | got 0"),
        ("starting_epoch: -1", "18:21", "'starting_epoch' | got -1"),
        ("frequency: 0", "18:16", "'frequency' | got 0"),
        ("frequency: 1.5", "18:16", "'frequency' | integer"),
        ("epochs: []", "18:13", "'epochs' of the window: the list is empty: give at least one epoch"),
        ("epochs: 3", "18:13", "'epochs' | list | got 3"),
        ("epochs: [0, one]", "18:17", "integer | got 'one'"),
        ("epochs: [0, -1]", "17:5", "'epochs' has a number below 0"),
    ],
)
def test_a_window_that_cannot_be_is_a_fault(faults_of: Read, window: str, place: str, words: str) -> None:
    check(faults_of(GOOD.replace("epochs: [0, 1, 2]", window)), (place, words))


def test_row_frequency_and_both_range_ends_have_defaults(schedule_of: Parse) -> None:
    text = "policies:\n  - lr_scheduler: {class: StepLR, step_size: 3}\n"

    def epochs(window: str) -> list[int]:
        policy = bound(schedule_of(text + window), epochs=6)[0].policy
        return [epoch for epoch in range(12) if policy.window.fires(epoch)]

    assert epochs("") == [0, 1, 2, 3, 4, 5]
    assert epochs("    starting_epoch: 4\n") == [4, 5]
    assert epochs("    ending_epoch: 2\n") == [0, 1]
    assert epochs("    frequency: 4\n") == [0, 4]
    assert epochs("    starting_epoch: 1\n    frequency: 2\n") == [1, 3, 5]


@pytest.mark.parametrize(
    ("window", "epochs", "warned"),
    [
        ("ending_epoch: 20", 20, False),
        ("ending_epoch: 20", 19, True),
        ("ending_epoch: 20\n    frequency: 2", 19, False),  # fires last in 18
        ("starting_epoch: 30", 20, True),
        ("epochs: [0, 25]", 20, True),
        ("epochs: [19, 0]", 20, False),
    ],
)
def test_row_a_window_that_the_run_never_reaches_is_a_warning(
    schedule_of: Parse, window: str, epochs: int, warned: bool
) -> None:
    schedule = schedule_of(f"policies:\n  - lr_scheduler: {{class: StepLR, step_size: 3}}\n    {window}\n")
    assert schedule.notes == []
    faults = Faults()
    notes = schedule.bind(Net(), epochs, faults).check(view_of(Net(), epochs=epochs), faults).notes
    assert len(notes) == warned
    if warned:
        assert notes[0].startswith("s.yaml:2:5: warning: ")
        assert f"{epochs - 1}" in notes[0]


def test_a_step_window_that_the_run_may_reach_is_no_warning(schedule_of: Parse) -> None:
    schedule = schedule_of(
        "version: 2\npolicies:\n  - regularizer: {class: L1Regularizer, reg_regims: {'*': 1}}\n    ending_step: 100\n"
    )
    bound(schedule, epochs=20)  # how many steps an epoch has is not known here
    assert schedule.notes == []


def test_a_component_that_no_policy_uses_is_a_warning_at_its_name(schedule_of: Parse) -> None:
    schedule = schedule_of(
        GOOD.replace("regularizers:", "regularizers:\n  two: {class: L1Regularizer, reg_regims: {a: 1}}")
    )
    assert len(schedule.notes) == 1
    assert schedule.notes[0].startswith("s.yaml:9:3: warning: ")
    assert "'two'" in schedule.notes[0]


INLINE = """\
version: 1
policies:
  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.8, weights: '*', args: {mini_batch_pruning_frequency: 4}}
    ending_epoch: 20
"""


def test_row_a_component_may_stand_inline_in_its_policy(schedule_of: Parse) -> None:
    [policy] = bound(schedule_of(INLINE))
    assert policy.key == "0.AutomatedGradualPruner"
    assert policy.targets == {"weights": ["conv.weight", "fc.weight"]}
    dumped = policy.policy.model_dump()
    assert dumped["mini_batch_pruning_frequency"] == 4
    assert policy.policy.pruner.final_sparsity == 0.8  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("{class", "{instance_name: x, class", "3:14", "instance_name or class, not both"),
        ("final_sparsity", "finl_sparsity", "3:45", "unknown key 'finl_sparsity' | 'final_sparsity'"),
        ("AutomatedGradualPruner", "StepLR", "3:21", "StepLR | 'pruners' | 'lr_schedulers'"),
        ("0.8", "8", "3:61", "'final_sparsity' | got 8"),
        ("frequency: 4}", "frequency: -4}", "3:117", "got -4"),
        ("{class", "{clas", "3:14", "unknown key 'clas' | class"),
    ],
)
def test_faults_of_an_inline_component_have_their_places(
    faults_of: Read, old: str, new: str, place: str, words: str
) -> None:
    check(faults_of(INLINE.replace(old, new)), (place, words))


def test_one_instance_may_serve_two_policies(schedule_of: Parse) -> None:
    schedule = schedule_of(GOOD + "  - {pruner: {instance_name: fine}, epochs: [25]}\n")
    assert [policy.key for policy in bound(schedule, 30)] == ["0.fine", "1.l1", "2.lr", "3.fine"]


def test_names_that_the_model_does_not_have_are_faults_at_the_selector(schedule_of: Parse) -> None:
    text = GOOD.replace("[module.fc.weight]", "[fc.weight, module.fcc.weight, 'layer*']")
    text = text.replace("{'*': 1e-4}", "{'type:Conv3d': 1, re:^x: 2}")
    faults = Faults()
    schedule_of(text).bind(Net(), 20, faults)
    check(
        faults.lines,
        ("7:26", "'module.fcc.weight' | 'fc.weight'"),
        ("7:45", "'layer*'"),
        ("9:43", "'type:Conv3d' | Conv2d"),
        ("9:61", "'re:^x'"),
    )


def test_a_selector_of_an_inline_component_has_its_place_too(schedule_of: Parse) -> None:
    faults = Faults()
    schedule_of(INLINE.replace("'*'", "conv.weigth")).bind(Net(), 20, faults)
    check(faults.lines, ("3:75", "'conv.weigth' | 'conv.weight'"))


def test_a_value_that_was_set_by_a_flag_is_reported_under_the_flag(schedule_of: Parse) -> None:
    schedule = schedule_of(GOOD)
    schedule.document.set("pruners.fine.final_sparsity", 7, "--set schedule.pruners.fine.final_sparsity=7")
    faults = Faults()
    grammar.read(schedule.document, faults)
    assert len(faults.lines) == 1
    assert faults.lines[0].startswith("--set schedule.pruners.fine.final_sparsity=7: ")


def test_row_lr_origin_absolute_is_the_default_in_version_1_and_start_in_version_2(schedule_of: Parse) -> None:
    text = "policies:\n  - lr_scheduler: {class: StepLR, step_size: 3}\n"
    origin = [bound(schedule_of(f"version: {v}\n{text}"))[0].policy.model_dump()["origin"] for v in (1, 2)]
    assert origin == ["absolute", "start"]
    told = text.replace("step_size: 3", "step_size: 3, args: {origin: start}")
    assert bound(schedule_of(told))[0].policy.model_dump()["origin"] == "start"


def test_faults_raise_as_one_user_error(schedule_of: Parse) -> None:
    with pytest.raises(UserError, match=r"s\.yaml:6:21: .*\ns\.yaml:11:34: "):
        schedule_of(GOOD.replace("0.8", "80").replace("step_size: 30", "step_size: 3.5"))


PLUGIN = """\
from typing import ClassVar
from compressor.regularizers.regularizer import Regularizer


class Mine(Regularizer, name="{name}"):
    \"\"\"One of a third party.\"\"\"

    strength: float
"""


def plugged(module: str, name: str, *, allow: bool) -> list[str]:
    text = f"plugins: [{module}]\npolicies:\n  - regularizer: {{class: {name}, strength: 0.5}}\n"
    faults = Faults()
    with plugins_allowed(allow):
        grammar.read(parse("s.yaml", text, faults), faults)
    return faults.lines


def test_row_plugins_are_imported_when_the_command_allows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_test_grammar.py").write_text(PLUGIN.format(name="OfTestGrammar"))
    monkeypatch.syspath_prepend(tmp_path)
    refused = plugged("plugin_of_test_grammar", "OfTestGrammar", allow=False)
    check(refused, ("1:11", "'plugin_of_test_grammar' | --allow-plugins"), ("3:26", "no class 'OfTestGrammar'"))
    assert "plugin_of_test_grammar" not in sys.modules
    try:
        assert plugged("plugin_of_test_grammar", "OfTestGrammar", allow=True) == []
    finally:
        components("regularizers").pop("OfTestGrammar", None)
        sys.modules.pop("plugin_of_test_grammar", None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import not_there_at_all", "not_there_at_all"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_a_fault_at_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    (tmp_path / "broken_plugin_of_test_grammar.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    lines = plugged("broken_plugin_of_test_grammar", "L1Regularizer", allow=True)
    assert lines[0].startswith("s.yaml:1:11: ")
    assert "'broken_plugin_of_test_grammar'" in lines[0]
    assert words in lines[0]


def test_plugins_that_are_no_list_of_names_are_a_fault(faults_of: Read) -> None:
    check(faults_of("plugins: mine\n" + GOOD), ("1:10", "'plugins' | list"))
    check(faults_of("plugins: [3]\n" + GOOD), ("1:10", "'plugins' | list"))
