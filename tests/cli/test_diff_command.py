"""`compress diff`: what two files mean, whatever they look like."""

import json
from pathlib import Path

import pytest
from helpers import PRUNE, TINY, compress

AGP = "class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.75"

SAME = {
    "the order of keys, comments and other forms of numbers": """\
policies:   # the policies first
  - {ending_epoch: 4, starting_epoch: 1, pruner: {instance_name: fine}}
  - regularizer: {instance_name: shrink}
  - lr_scheduler: {instance_name: steps}
lr_schedulers: {steps: {gamma: 1e-1, step_size: 2, class: StepLR}}
regularizers: {shrink: {reg_regims: {fc1.weight: 0.0001}, class: L1Regularizer}}
pruners: {fine: {weights: ['*'], final_sparsity: .75, initial_sparsity: 25e-2, class: AutomatedGradualPruner}}
config: tiny
version: 2
""",
    "anchors, components in their policies": f"""\
version: 2
config: tiny
policies:
  - {{pruner: {{{AGP}, weights: '*'}}, <<: &when {{starting_epoch: 1, ending_epoch: 4}}}}
  - {{regularizer: {{class: L1Regularizer, reg_regims: {{fc1.weight: 1e-4}}}}, <<: *when, starting_epoch: 0}}
  - {{lr_scheduler: {{class: StepLR, step_size: 2, gamma: 0.1}}, epochs: [3, 2, 1, 0]}}
""",
    "defaults that are written out, and the end of the run": f"""\
version: 2
config: tiny
pruners: {{fine: {{{AGP}, weights: '*'}}, unused: {{{AGP}, weights: fc1.weight}}}}
regularizers: {{shrink: {{class: L1Regularizer, reg_regims: {{fc1.weight: 1e-4}}, threshold_criteria: null}}}}
lr_schedulers: {{steps: {{class: StepLR, step_size: 2, gamma: 0.1}}}}
policies:
  - {{pruner: {{instance_name: fine, args: {{keep_mask: false}}}}, starting_epoch: 1, ending_epoch: 4, frequency: 1}}
  - {{regularizer: {{instance_name: shrink}}, starting_epoch: 0, ending_epoch: 4}}
  - {{lr_scheduler: {{instance_name: steps, args: {{origin: absolute}}}}}}
""",
    "names and patterns that select the same weights, the learning rate first": f"""\
version: 2
config: tiny
policies:
  - {{lr_scheduler: {{class: StepLR, step_size: 2, gamma: 0.1}}}}
  - {{pruner: {{{AGP}, weights: [fc2.weight, 'module.fc1*']}}, starting_epoch: 1, ending_epoch: 4}}
  - {{regularizer: {{class: L1Regularizer, reg_regims: {{'fc1.w*': 1e-4}}}}}}
""",
    "another schedule that it extends": "version: 2\nextends: prune\nconfig: tiny\n",
}
"""What means the same as PRUNE, under its configuration."""

OTHER = {
    "a value": (("final_sparsity: 0.75", "final_sparsity: 0.8"), "pruner fine: final_sparsity", "0.75", "0.8"),
    "a default": (
        ("{instance_name: fine}", "{instance_name: fine, args: {mask_gradients: true}}"),
        "pruner fine: mask_gradients",
        "false (default)",
        "true",
    ),
    "a window": (
        ("ending_epoch: 4", "ending_epoch: 3"),
        "pruner fine: when it acts",
        "{starting_epoch: 1, ending_epoch: 4, frequency: 1}",
        "{starting_epoch: 1, ending_epoch: 3, frequency: 1}",
    ),
    "the weights": (("weights: '*'", "weights: fc1.weight"), "pruner fine: weights", "[fc1.weight, fc2.weight]", "["),
    "a class": (("class: StepLR, step_size: 2", "class: ExponentialLR"), "lr_scheduler steps: class", "StepLR", "Exp"),
}


def differ(a: str, b: str, *more: str) -> list[str]:
    """The lines of two texts that differ."""
    Path("a.yaml").write_text(a)
    Path("b.yaml").write_text(b)
    result = compress("diff", "a.yaml", "b.yaml", *more)
    assert result.code == 1, result.out + result.err
    return result.out.splitlines()


def agree(a: str, b: str, *more: str) -> None:
    Path("a.yaml").write_text(a)
    Path("b.yaml").write_text(b)
    result = compress("diff", "a.yaml", "b.yaml", *more)
    assert (result.code, result.out, result.err) == (0, "no difference\n", "")


@pytest.mark.parametrize("how", SAME)
def test_texts_of_one_meaning_have_no_difference(how: str) -> None:
    agree(PRUNE, SAME[how])
    agree(SAME[how], PRUNE)


@pytest.mark.parametrize("how", OTHER)
def test_a_difference_has_its_values_and_places(how: str) -> None:
    (old, new), what, first, second = OTHER[how]
    other = "# a line more\n" + PRUNE.replace(old, new)
    head, a, b, end = differ(PRUNE, other)
    line = PRUNE[: PRUNE.index(old)].count("\n") + 1
    assert (head, end) == (what, "1 difference")
    assert a.startswith(f"  a.yaml:{line}:")
    assert a.endswith(f": {first}")
    assert b.startswith(f"  b.yaml:{line + 1}:")
    assert f": {second}" in b


def test_a_policy_that_only_one_has_and_the_order() -> None:
    lines = PRUNE.splitlines(keepends=True)
    head, a, b, _ = differ(PRUNE, "".join(lines[:-2] + lines[-1:]))
    assert head == "regularizer shrink: only in a.yaml"
    assert a.startswith("  a.yaml:11:5: {class: L1Regularizer")
    assert b == "  b.yaml:9:1: -"
    swapped = "".join([*lines[:-3], lines[-2], lines[-3], lines[-1]])
    assert differ(PRUNE, swapped)[0] == "the order in which policies act"


LATE = """\
lr_schedulers: {steps: {class: StepLR, step_size: 2, gamma: 0.1}}
policies: [{lr_scheduler: {instance_name: steps}, starting_epoch: 2, ending_epoch: 4}]
"""
FILTERS = """\
pruners:
  low: {class: L1RankedStructureParameterPruner, group_type: %s, desired_sparsity: 0.5, noise: %s, weights: %s}
policies: [{pruner: {instance_name: low}, epochs: [0]}]
"""


def test_versions_differ_only_where_they_mean_something_else() -> None:
    """A late learning rate counts from the run's beginning in version 1; noise is a probability; rows are columns."""
    assert differ(LATE, f"version: 2\n{LATE}")[0] == "lr_scheduler steps: origin"
    agree(
        LATE,
        "version: 2\n" + LATE.replace("{instance_name: steps}", "{instance_name: steps, args: {origin: absolute}}"),
    )
    agree(
        LATE.replace("starting_epoch: 2", "starting_epoch: 0"), "version: 2\n" + LATE.replace("_epoch: 2", "_epoch: 0")
    )
    one = FILTERS % ("Filters", "0.5", "[module.a.weight, b.weight]")
    assert differ(one, f"version: 2\n{one}")[0] == "pruner low: noise.deviation"
    agree(one, "version: 2\n" + FILTERS % ("Filters", "{probability: 0.5}", "[b.weight, a.weight]"))
    agree(FILTERS % ("Rows", "0", "a.weight"), "version: 2\n" + FILTERS % ("Cols", "0", "a.weight"))


REMOVED = """\
pruners: {low: {class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: 'c*'}}
extensions: {thin: {class: FilterRemover, thinning_func_str: remove_filters}}
policies:
  - {pruner: {instance_name: low}, starting_epoch: 0, ending_epoch: %d}
  - {extension: {instance_name: thin}, epochs: [2]}
"""


def test_what_sparsity_refers_to_matters_only_after_a_removal() -> None:
    agree(REMOVED % 3, "version: 2\n" + REMOVED % 3)
    assert differ(REMOVED % 4, "version: 2\n" + REMOVED % 4)[0] == "pruner low: sparsity_of"


def test_the_order_of_weights_matters_to_a_leader_alone() -> None:
    led = FILTERS.replace("noise: %s", "group_dependency: Leader, noise: 0")
    assert differ(led % ("Filters", "[a.weight, b.weight]"), led % ("Filters", "[b.weight, a.weight]"))


def test_policies_that_share_a_component_share_its_constants() -> None:
    shared = """\
version: 2
pruners:
  a: &same {class: SensitivityPruner, sensitivities: {'*': 1}}
  b: *same
policies: [{pruner: {instance_name: a}, epochs: [0]}, {pruner: {instance_name: a}, epochs: [1]}]
"""
    found = differ(shared, shared.replace("instance_name: a}, epochs: [1]", "instance_name: b}, epochs: [1]"))
    assert found[0] == "pruner a: the policy whose component it shares"


def test_without_a_configuration_selections_are_compared_as_text(work: Path) -> None:
    bare = PRUNE.replace("config: tiny\n", "")
    other = bare.replace("weights: '*'", "weights: [fc1.weight, fc2.weight]")
    assert differ(bare, other)[0] == "pruner fine: weights"
    assert "with --config, what they match is compared" in compress("diff", "a.yaml", "b.yaml").err
    agree(bare, other, "--config", "tiny")


def test_claims_are_compared_wherever_they_stand() -> None:
    one = PRUNE.replace("version: 2\nconfig: tiny\n", "")
    claim = "config: tiny\ntop1: {min: 90, seeds: 3}\n"
    Path("a.expect.yaml").write_text(claim)
    block = "expect:\n" + "".join(f"  {line}\n" for line in claim.splitlines())
    agree(one, f"version: 2\n{block}{one}")
    head, a, b, _ = differ(one, f"version: 2\n{block}{one}".replace("90", "95"))
    assert (head, a, b) == ("expect.top1.min", "  a.expect.yaml:2:8: 90.0", "  b.yaml:4:10: 95.0")


def test_the_configuration_that_a_schedule_names() -> None:
    Path("same.yaml").write_text("extends: tiny\nseed: 0\n")
    agree(PRUNE, PRUNE.replace("config: tiny", "config: same"))
    Path("same.yaml").write_text("extends: tiny\nseed: 1\n")
    assert differ(PRUNE, PRUNE.replace("config: tiny", "config: same"))[:2] == ["config", "  a.yaml:2:1: tiny"]


CONFIG = """\
epochs: 4
checkpoint: {keep: 2}
optimizer: {weight_decay: 0.0001, momentum: 9e-1, lr: 0.1, name: sgd}
data: {name: digits, batch: 64, size: 8, channels: 1, augment: []}
model: {name: mlp, inputs: 64, dropout: [0.2], hidden: [16], num_classes: 10}
init: default
report: {html: false}
"""


def test_configurations() -> None:
    agree(TINY, CONFIG)
    lenet = TINY.replace("mlp, hidden: [16], dropout: [0.2], inputs: 64", "lenet_5")
    agree(lenet, lenet.replace("lenet_5", "lenet_5, conv_relu: false"))  # the builder's own default
    assert differ(lenet, lenet.replace("lenet_5", "lenet_5, conv_relu: true"))[0] == "model.conv_relu"
    agree(TINY.replace("batch", "augment: [flip], batch"), TINY.replace("batch", "augment: [{flip: null}], batch"))
    found = differ(TINY + "init: here.pt\n", CONFIG.replace("default", "{path: ./here.pt, keep_zeros: true}"))
    assert found[0] == "init.keep_zeros"
    assert differ(TINY, CONFIG.replace("[0.2]", "[0.3]"))[:3] == [
        "model.dropout.0",
        "  a.yaml:1:44: 0.2",
        "  b.yaml:5:42: 0.3",
    ]


def test_json_has_values_and_places() -> None:
    Path("b.yaml").write_text(PRUNE.replace("gamma: 0.1", "gamma: 0.5"))
    result = compress("diff", "prune", "b.yaml", "--json")
    data = json.loads(result.out)
    assert (result.code, data["schema"], data["kind"], data["equal"]) == (1, 1, "schedules", False)
    (one,) = data["differences"]
    assert (one["part"], one["what"], one["a"]["value"], one["b"]["value"]) == (
        "policies",
        "lr_scheduler steps: gamma",
        0.1,
        0.5,
    )
    assert one["b"] == {"value": 0.5, "file": "b.yaml", "line": 8, "column": 40, "given": True}
    assert json.loads(compress("diff", "prune", "prune", "--json").out)["differences"] == []


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("prune", "tiny", "prune is a schedule and tiny is a configuration: two files of one kind are compared"),
        ("prune", "prun", "there is no schedule and no configuration 'prun': did you mean 'prune'?"),
        ("tiny", "tiny -c tiny", "--config is for two schedules"),
    ],
)
def test_what_cannot_be_compared_is_exit_2(a: str, b: str, said: str) -> None:
    result = compress("diff", a, *b.split())
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_faults_of_both_files_are_reported() -> None:
    Path("a.yaml").write_text(PRUNE.replace("final_sparsity: 0.75", "final_sparsity: 2"))
    Path("b.yaml").write_text(PRUNE.replace("weights: '*'", "weights: fc9.weight"))
    result = compress("diff", "a.yaml", "b.yaml")
    assert result.code == 2
    assert "a.yaml:4:" in result.err
    result = compress("diff", "prune", "b.yaml")
    assert result.code == 2
    assert "b.yaml:4:" in result.err
