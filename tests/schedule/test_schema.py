"""The JSON Schema accepts what is accepted, and refuses what an editor can see."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml

from compressor.lookup import shipped, shipped_files
from compressor.schedule import schema
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.registry import SECTIONS, components

EXAMPLES = {
    f"{section}.{name}": cls.example for section in SECTIONS for name, cls in components(section).items() if cls.example
}


@pytest.fixture(scope="module")
def schedules() -> jsonschema.Draft7Validator:
    jsonschema.Draft7Validator.check_schema(schema.schedule())
    return jsonschema.Draft7Validator(schema.schedule())


@pytest.fixture(scope="module")
def configs() -> jsonschema.Draft7Validator:
    jsonschema.Draft7Validator.check_schema(schema.config())
    return jsonschema.Draft7Validator(schema.config())


def load(text: str) -> Any:
    """As an editor's YAML 1.2 does, which reads 1e-4 as a number."""
    return parse("s.yaml", text, Faults()).data


@pytest.mark.parametrize("key", EXAMPLES)
def test_the_example_of_every_component_is_accepted(
    schedules: jsonschema.Draft7Validator, faults_of: Callable[[str], list[str]], key: str
) -> None:
    assert [error.message for error in schedules.iter_errors(load(EXAMPLES[key]))] == []
    assert faults_of(EXAMPLES[key]) == []


def test_every_shipped_file_is_accepted(
    schedules: jsonschema.Draft7Validator, configs: jsonschema.Draft7Validator
) -> None:
    for kind, validator in (("schedules", schedules), ("configs", configs)):
        files = shipped_files(kind)
        assert files
        for path in files.values():
            assert [error.message for error in validator.iter_errors(load(path.read_text()))] == [], path


@pytest.mark.parametrize("kind", ["schedules", "configs"])
def test_the_shipped_schema_is_the_one_of_the_components(kind: str) -> None:
    made = schema.schedule() if kind == "schedules" else schema.config()
    assert json.loads((shipped(kind) / "schema.json").read_text()) == json.loads(json.dumps(made))


GOOD = """\
version: 1
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 0.8, weights: [fc.weight]}
policies:
  - pruner: {instance_name: fine, args: {mini_batch_pruning_frequency: 16}}
    ending_epoch: 20
  - lr_scheduler: {class: StepLR, step_size: 30}
"""


LASSO = "class: GroupLassoRegularizer"


def test_a_good_schedule_is_accepted(schedules: jsonschema.Draft7Validator) -> None:
    schedules.validate(yaml.safe_load(GOOD))
    schedules.validate(yaml.safe_load(GOOD.replace("[fc.weight]", "['*', '!fc*']").replace("version: 1", "version: 2")))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 3"),
        ("weights: [fc.weight]", "weights: ['!fc.weight']"),
        ("weights: [fc.weight]", "weights: '!fc.weight'"),
        ("pruners:", "prunners:"),
        ("policies:", "policis:"),
        ("AutomatedGradualPruner", "AutomaticPruner"),
        ("AutomatedGradualPruner", "StepLR"),
        ("final_sparsity: 0.8, ", ""),
        ("final_sparsity: 0.8", "final_sparsity: 8"),
        ("final_sparsity: 0.8", "final_sparsity: high"),
        ("initial_sparsity", "initialsparsity"),
        ("instance_name", "instance"),
        ("mini_batch_pruning_frequency", "minibatch_pruning_frequency"),
        ("ending_epoch: 20", "ending_epoch: soon"),
        ("ending_epoch: 20", "end: 20"),
        ("class: StepLR", "class: SteppLR"),
        ("step_size: 30", "step: 30"),
        (GOOD[GOOD.index("policies:") :], "policies: []"),
        ("policies:", "gates: {}\npolicies:"),
        ("policies:", "config: lenet5_mnist\npolicies:"),
        ("ending_epoch: 20", "starting_step: 0\n    ending_step: 20"),
        ("ending_epoch: 20", "epochs: [1]\n    frequency: 2"),
        ("- lr_scheduler: {class: StepLR, step_size: 30}", "- noise: {instance_name: fine}"),
        ("- lr_scheduler: {class: StepLR, step_size: 30}", "- noise: {instance_name: fine, args: {kind: zeroing}}"),
        (
            "- lr_scheduler: {class: StepLR, step_size: 30}",
            f"- regularizer: {{{LASSO}, reg_regims: {{fc.weight: [3D, 1]}}}}",
        ),
    ],
)
def test_what_the_grammar_refuses_the_schema_refuses_too(
    schedules: jsonschema.Draft7Validator, faults_of: Callable[[str], list[str]], old: str, new: str
) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    assert faults_of(text)
    assert not schedules.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("old", ["epochs: 3", "name: lenet_5", "lr: 0.1"])
def test_a_configuration_without_what_it_needs_is_refused(configs: jsonschema.Draft7Validator, old: str) -> None:
    good = "model: {name: lenet_5}\ndata: {name: mnist}\noptimizer: {name: sgd, lr: 0.1}\nepochs: 3\n"
    configs.validate(yaml.safe_load(good))
    assert not configs.is_valid(yaml.safe_load(good.replace(old, "")))


@pytest.mark.parametrize("keys", ["starting_step: 0", "step_frequency: 2", "ending_step: 20, frequency: 2"])
def test_a_window_in_steps_is_a_whole_one(
    schedules: jsonschema.Draft7Validator, faults_of: Callable[[str], list[str]], keys: str
) -> None:
    text = "version: 2\npolicies:\n- {freeze: {weights: fc.weight}, starting_step: 2, ending_step: 20}\n"
    assert faults_of(text) == []
    schedules.validate(yaml.safe_load(text))
    wrong = text.replace("starting_step: 2, ending_step: 20", keys)
    assert faults_of(wrong)
    assert not schedules.is_valid(yaml.safe_load(wrong))


@pytest.mark.parametrize(
    ("kind", "text", "accepted"),
    [
        ("config", "{extends: base, optimizer: {momentum: 0.5}, data: {size: 8}, ema: null}", True),
        ("config", "{extends: base, optimizer: {momentum: 1.5}}", False),
        ("config", "{extends: [base]}", False),
        ("config", "{extends: null, optimizer: {momentum: 0.5}}", False),
        ("config", "{optimizer: {momentum: 0.5}}", False),
        ("config", "{model: {name: mlp}, data: {name: digits}, optimizer: {lr: 1}, epochs: 1, init: {}}", False),
        ("config", "{model: {name: mlp}, data: {name: digits}, optimizer: {}, epochs: 1}", False),
        ("schedule", "{version: 2, extends: base, pruners: {fine: {final_sparsity: 0.9}, other: null}}", True),
        ("schedule", "{version: 2, extends: base, pruners: {fine: 3}}", False),
        ("schedule", "{version: 2, extends: base, policies: [{pruner: {}}]}", False),
        ("schedule", "{extends: base}", False),
        ("schedule", "{version: 2, pruners: {fine: {final_sparsity: 0.9}}}", False),
    ],
)
def test_a_file_that_extends_another_one_has_parts_of_it(
    schedules: jsonschema.Draft7Validator,
    configs: jsonschema.Draft7Validator,
    kind: str,
    text: str,
    accepted: bool,
) -> None:
    assert (configs if kind == "config" else schedules).is_valid(yaml.safe_load(text)) == accepted
