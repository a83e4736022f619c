"""docs/migration.md: it has a row for each class and network that carries a name of Distiller; its example is valid."""

import re
from pathlib import Path

import yaml
from helpers import DISTILLER, compress, work  # noqa: F401

from compressor.models import catalogue
from compressor.schedule.distiller import QUANTIZERS, meaningless

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]
NAMED = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])}


def test_every_class_of_distiller_has_its_row() -> None:
    classes = {name for names in DISTILLER.values() for name in names} | set(QUANTIZERS)
    assert classes - NAMED == set()
    assert {name for name in NAMED if name.endswith(("Pruner", "Pruner_AGP", "Quantizer", "Remover"))} <= classes


def test_every_key_that_is_ignored_stands_there() -> None:
    for section in (None, "regularizers", "lr_schedulers", "extensions"):
        assert meaningless(section) - NAMED == set(), section


def test_the_networks_with_its_names_exist() -> None:
    text = PAGE[PAGE.index("### Its networks") : PAGE.index("### Its command line")]
    named = re.findall(r"`([a-z][a-z0-9_]+)`", text)
    assert len(named) >= 12
    assert set(named) - set(catalogue()) == set()


def test_the_example_is_a_valid_configuration_for_a_schedule_of_distiller() -> None:
    shown = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    Path("cifar.yaml").write_text(shown[1])
    filters = {
        "pruners": {
            "low": {
                "class": "L1RankedStructureParameterPruner_AGP",
                "initial_sparsity": 0.1,
                "final_sparsity": 0.5,
                "group_type": "Filters",
                "weights": ["module.layer2.0.conv1.weight"],
            }
        },
        "policies": [
            {"pruner": {"instance_name": "low"}, "starting_epoch": 0, "ending_epoch": 30, "frequency": 2},
        ],
    }
    Path("filters.yaml").write_text(yaml.safe_dump(filters))
    result = compress("validate", "filters.yaml", "-c", "cifar.yaml")
    assert (result.code, result.err) == (0, ""), result.err
