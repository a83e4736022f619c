"""`compress schema`: what an editor makes of the shipped files, of every component's example and of mistakes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from helpers import compress, succeed

from compressor.component import REGISTRY
from compressor.importing import plugins_allowed
from compressor.lookup import shipped_files
from compressor.schedule import grammar
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.registry import components

ROOT = Path(__file__).parents[2]
SCHEDULES = list(shipped_files("schedules").values())
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SECTIONS = [section for section in ("policies", "pruners", "regularizers", "lr_schedulers") if components(section)]
EXAMPLES = {
    f"{section}.{name}": cls.example for section in SECTIONS for name, cls in REGISTRY[section].items() if cls.example
}
FLAGS = {"schedules": [], "configs": ["--config"]}

Accepts = Callable[[str], bool]


def load(text: str) -> Any:
    """As an editor's YAML 1.2 does: 1e-4 is a number."""
    faults = Faults()
    data = parse("s.yaml", text, faults).data
    faults.raise_any()
    return data


def accepting(kind: str) -> Accepts:
    schema = json.loads(succeed("schema", *FLAGS[kind]))
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    return lambda text: bool(validator.is_valid(load(text)))


@pytest.fixture(scope="module")
def schedule() -> Accepts:
    """Whether the schema accepts a schedule's text."""
    return accepting("schedules")


@pytest.fixture(scope="module")
def config() -> Accepts:
    """Whether the schema accepts a configuration's text."""
    return accepting("configs")


@pytest.mark.parametrize("kind", FLAGS)
def test_the_schema_is_one_of_draft_07_whose_references_lead_somewhere(kind: str) -> None:
    schema = json.loads(succeed("schema", *FLAGS[kind]))
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema)
    references = set()

    def walk(node: Any) -> None:
        if isinstance(node, Mapping):
            references.update({node["$ref"]} if isinstance(node.get("$ref"), str) else ())
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema)
    assert references
    for reference in references:
        here: Any = schema
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]
        assert here


@pytest.mark.parametrize("kind", FLAGS)
def test_the_shipped_schema_is_the_commands_output(kind: str) -> None:
    assert (ROOT / kind / "schema.json").read_text() == succeed("schema", *FLAGS[kind])


@pytest.mark.parametrize("path", [*SCHEDULES, *CONFIGS], ids=lambda path: path.name)
def test_a_shipped_file_names_its_schema_in_its_first_line_and_fits_it(
    path: Path, schedule: Accepts, config: Accepts
) -> None:
    text = path.read_text()
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    beside = path.parent / first.partition("=")[2].strip()
    assert beside.resolve() == ROOT / path.relative_to(ROOT).parts[0] / "schema.json"
    assert (schedule if path in SCHEDULES else config)(text)


def test_there_are_shipped_files() -> None:
    assert len(SCHEDULES) >= 4
    assert len(CONFIGS) >= 5


@pytest.mark.parametrize("key", EXAMPLES)
def test_the_example_of_a_component_fits_the_schema(key: str, schedule: Accepts) -> None:
    assert schedule(EXAMPLES[key])


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 22
    assert {key.partition(".")[0] for key in EXAMPLES} >= {"pruners", "regularizers", "lr_schedulers"}


DISTILLER = """\
version: 1
pruners:
  low:
    class: AutomatedGradualPruner
    initial_sparsity: 0.05
    final_sparsity: 0.50
    weights: [module.layer1.0.conv1.weight]
  level:
    class: SparsityLevelParameterPruner
    levels: {module.fc.weight: 0.5}
lr_schedulers:
  lr: {class: MultiStepMultiGammaLR, milestones: [30, 60], gammas: [0.1, 0.2]}
  poly: {class: PolynomialLR, T_max: 10, power: 2}
regularizers:
  l1: {class: L1Regularizer, reg_regims: {module.fc.weight: 1e-4}, threshold_criteria: Max}
policies:
  - pruner: {instance_name: low}
    starting_epoch: 0
    ending_epoch: 30
    frequency: 2
  - pruner: {instance_name: level, args: {levels: {module.fc.weight: 0.7}, mini_batch_pruning_frequency: 16}}
    epochs: [0, 1, 2]
  - regularizer: {instance_name: l1, args: {keep_mask: true}}
    starting_epoch: 0
    ending_epoch: 30
    frequency: 1
  - lr_scheduler: {instance_name: lr}
    starting_epoch: 0
    ending_epoch: 30
    frequency: 1
"""

GOOD = {
    "distiller's own way": DISTILLER,
    "everything inline": """\
version: 2
config: lenet5_digits
plugins: [json]
policies:
  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.5, weights: '*', args: {use_double_copies: true}}
    starting_step: 0
    ending_step: 100
    step_frequency: 10
  - lr_scheduler: {class: StepLR, step_size: 3, args: {origin: start, interval: step}}
""",
    "PolynomialLR by torch's name": "policies:\n  - lr_scheduler: {class: PolynomialLR, total_iters: 10, power: 2}\n",
    "a plateau of its own": "policies:\n  - lr_scheduler: {class: ReduceLROnPlateau, metric: top1, factor: 0.5}\n",
    "the general form": """\
policies:
  - pruner: {class: Pruner, criterion: l1, structure: Elements, weights: ['type:Linear'], rate: {std: 0.5}}
""",
    "levels by whole numbers": """\
pruners:
  p: {class: SparsityLevelParameterPruner, levels: {'*': 0, fc1.weight: 1}}
policies:
  - pruner: {instance_name: p}
""",
    "empty args": """\
policies:
  - lr_scheduler: {class: StepLR, step_size: 3, args: {}}
""",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_validate_accepts_the_schema_accepts(text: str, schedule: Accepts) -> None:
    faults = Faults()
    with plugins_allowed():
        grammar.read(parse("s.yaml", text, faults), faults)
    assert faults.lines == []
    assert schedule(text)


BASE = """\
version: 2
config: tiny
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.8, weights: [fc1.weight]}
regularizers:
  l1: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}}
lr_schedulers:
  lr: {class: StepLR, step_size: 2}
policies:
  - pruner: {instance_name: fine, args: {keep_mask: true}}
    starting_epoch: 0
    ending_epoch: 3
  - regularizer: {instance_name: l1}
  - lr_scheduler: {instance_name: lr, args: {interval: epoch}}
    epochs: [0, 1]
"""

MISTAKES = {
    "an unknown section": ("regularizers:", "regularisers:"),
    "an unknown class": ("AutomatedGradualPruner", "AutomatedGradualPrunner"),
    "a class of another section": ("class: L1Regularizer", "class: StepLR"),
    "an unknown argument": ("final_sparsity", "finally_sparse"),
    "a missing argument": (", weights: [fc1.weight]", ""),
    "an argument out of its range": ("final_sparsity: 0.8", "final_sparsity: 80"),
    "an argument of another type": ("step_size: 2", "step_size: two"),
    "an unknown policy argument": ("keep_mask", "keep_masks"),
    "a policy argument of another kind": ("interval: epoch", "keep_mask: true"),
    "an unknown choice": ("interval: epoch", "interval: fortnight"),
    "an unknown kind of policy": ("- regularizer:", "- penalty:"),
    "an unknown key of a window": ("ending_epoch", "ending_epok"),
    "a window of another type": ("starting_epoch: 0", "starting_epoch: now"),
    "a policy without a component": ("{instance_name: l1}", "{}"),
    "a version from the future": ("version: 2", "version: 3"),
    "no policies": ("policies:", "x-policies:"),
}


@pytest.mark.parametrize(("old", "new"), MISTAKES.values(), ids=MISTAKES)
def test_a_schedule_with_a_mistake_does_not_fit(old: str, new: str, schedule: Accepts) -> None:
    assert schedule(BASE)
    assert BASE.count(old) == 1
    text = BASE.replace(old, new)
    assert not schedule(text)
    Path("s.yaml").write_text(text)
    assert compress("validate", "s.yaml", "-c", "tiny").code == 2  # nor is it valid


WHOLE = """\
model: {name: mlp, hidden: [16], inputs: 64}
data: {name: digits, size: 8, batch: 64, validation: 0.1, augment: [crop]}
optimizer: {name: adam, lr: 0.1, betas: [0.9, 0.99], weight_decay: 1e-4, accumulate: 2}
epochs: 4
ema: {decay: 0.9}
precision: bf16
checkpoint: {every_minutes: 5}
"""

CONFIG_MISTAKES = {
    "an unknown key": ("epochs:", "epoch:"),
    "an unknown key of a block": ("weight_decay", "weight_decoy"),
    "an unknown optimizer": ("name: adam", "name: adamant"),
    "no data": ("data:", "x-data:"),
    "no learning rate": ("lr: 0.1, ", ""),
    "a learning rate below 0": ("lr: 0.1", "lr: -0.1"),
    "a batch of nothing": ("batch: 64", "batch: 0"),
    "a share above 1": ("validation: 0.1", "validation: 1.5"),
    "three betas": ("[0.9, 0.99]", "[0.9, 0.99, 0.999]"),
    "an unknown augmentation": ("[crop]", "[cropp]"),
    "an unknown precision": ("bf16", "bf17"),
    "a decay of another type": ("decay: 0.9}", "decay: much}"),
}


@pytest.mark.parametrize(("old", "new"), CONFIG_MISTAKES.values(), ids=CONFIG_MISTAKES)
def test_a_configuration_with_a_mistake_does_not_fit(old: str, new: str, config: Accepts) -> None:
    assert config(WHOLE)
    assert WHOLE.count(old) == 1
    assert not config(WHOLE.replace(old, new))


def test_a_builders_own_arguments_fit(config: Accepts) -> None:
    assert config(WHOLE.replace("hidden: [16]", "hidden: [16], dropout: [0.5]"))


def test_the_resolved_configuration_of_a_run_fits(config: Accepts) -> None:
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--out", "run")
    text = Path("run/config.yaml").read_text()
    assert yaml.safe_load(text)["epochs"] == 1
    assert config(text)


@pytest.mark.parametrize("section", [section for section in SECTIONS if section != "policies"])
def test_every_registered_component_is_in_the_schema_under_its_section(section: str) -> None:
    blocks = json.loads(succeed("schema"))["$defs"][section]["anyOf"]
    assert [block["properties"]["class"]["const"] for block in blocks] == sorted(components(section))
    assert all(
        block["description"] == components(section)[block["properties"]["class"]["const"]].summary() for block in blocks
    )
