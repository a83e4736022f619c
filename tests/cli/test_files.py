"""Where schedules and configurations are found, and how they are overridden."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import PRUNE, TINY, compress, metrics, succeed

from compressor.lookup import shipped_files

SHIPPED = Path(__file__).resolve().parents[2]


def test_a_path_is_a_file_wherever_it_lies(work: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "s.yaml").write_text(PRUNE)
    (elsewhere / "c.yml").write_text(TINY)
    assert "valid" in succeed("validate", elsewhere / "s.yaml", "--config", elsewhere / "c.yml")
    assert "valid" in succeed("validate", elsewhere / "s", "-c", elsewhere / "c")


@pytest.mark.parametrize(
    ("schedule", "config"),
    [
        ("prune.yaml", "tiny.yaml"),
        ("schedules/prune.yaml", "configs/tiny.yaml"),
        ("prune.yml", "configs/tiny.yml"),
        ("schedules/lab/prune.yaml", "configs/lab/tiny.yaml"),
    ],
)
def test_a_bare_name_is_found_here_and_in_the_folders_of_its_kind(work: Path, schedule: str, config: str) -> None:
    for path, text in ((schedule, PRUNE), (config, TINY)):
        (work / Path(path).name.replace(".yml", ".yaml")).unlink(missing_ok=True)
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    lab = "lab/" if "lab" in schedule else ""
    assert "valid" in succeed("validate", f"{lab}prune", "-c", f"{lab}tiny")


def test_what_lies_here_is_taken_before_schedules_and_that_before_the_package(work: Path) -> None:
    (work / "schedules").mkdir()

    def final_sparsity() -> float:
        shutil.rmtree("run", ignore_errors=True)
        at_once = ["--set", "epochs=1", "--set", "schedule.policies=[{pruner: {instance_name: gradual}}]"]
        succeed("train", "-s", "lenet5_agp", "-c", "tiny", *at_once, "--out", "run")
        sparsity: float = metrics(Path("run"))[-1]["sparsity"]
        return sparsity

    assert final_sparsity() == pytest.approx(0.9, abs=1e-3)  # the shipped one
    text = "{version: 2, pruners: {gradual: {class: AutomatedGradualPruner, final_sparsity: %s, weights: '*'}}}"
    (work / "schedules" / "lenet5_agp.yaml").write_text(text % 0.5)
    assert final_sparsity() == pytest.approx(0.5, abs=1e-3)
    (work / "lenet5_agp.yaml").write_text(text % 0.25)
    assert final_sparsity() == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("kind", ["schedules", "configs"])
def test_every_shipped_file_is_found_by_its_bare_name_from_anywhere(work: Path, kind: str) -> None:
    shipped = shipped_files(kind)
    assert shipped
    for name in shipped:
        # A key that does not exist: that the file was found is what counts here, test_shipped_files validates each.
        files = ["prune", "-c", name] if kind == "configs" else [name]
        result = compress("validate", *files, "--set", "epohcs=1")
        assert (result.code, f"no {kind[:-1]} " in result.err) == (2, False)
        assert "epohcs" in result.err


def test_a_value_is_not_set_in_a_configuration_that_is_not_there(work: Path) -> None:
    (work / "alone.yaml").write_text("version: 2\npolicies:\n  - lr_scheduler: {class: ConstantLR, factor: 1.0}\n")
    assert compress("validate", "alone").code == 0
    result = compress("validate", "alone", "--set", "epochs=3")
    assert (result.code, "--set epochs: there is no configuration" in result.err) == (2, True)


def test_a_schedule_names_its_own_config_and_the_flag_overrides_it(work: Path) -> None:
    (work / "other.yaml").write_text(TINY.replace("[16]", "[8]"))
    succeed("train", "-s", "prune")
    succeed("train", "-s", "prune", "-c", "other")
    assert config("runs/prune-tiny-1")["model"]["hidden"] == [16]
    assert config("runs/prune-other-1")["model"]["hidden"] == [8]


def config(folder: str) -> dict[str, Any]:
    """A run's resolved configuration."""
    found: dict[str, Any] = yaml.safe_load(Path(folder, "config.yaml").read_text())
    return found


def test_set_addresses_the_config_and_schedule_set_the_schedule(work: Path) -> None:
    sets = {
        "data.batch": "100",
        "optimizer.lr": "5e-2",
        "model.hidden": "[8]",
        "checkpoint.every_epochs": "2",  # a block that the file does not have
        "schedule.pruners.fine.final_sparsity": "0.5",
        "schedule.regularizers.shrink.reg_regims.fc1.weight": "2e-4",  # a key with a dot in it
        "schedule.policies.0.ending_epoch": "3",
    }
    succeed("train", "-s", "prune", *(f"--set={key}={value}" for key, value in sets.items()), "--out", "run")
    resolved = config("run")
    assert resolved["data"]["batch"] == 100
    assert resolved["optimizer"] == {**resolved["optimizer"], "lr": 0.05, "momentum": 0.9}
    assert resolved["model"]["hidden"] == [8]
    assert resolved["checkpoint"]["every_epochs"] == 2
    schedule = yaml.safe_load(Path("run/schedule.yaml").read_text())
    assert schedule["pruners"]["fine"]["final_sparsity"] == 0.5
    assert schedule["regularizers"]["shrink"]["reg_regims"] == {"fc1.weight": 2e-4}
    assert schedule["policies"][0] == {"pruner": {"instance_name": "fine"}, "starting_epoch": 1, "ending_epoch": 3}
    # floor(0.5 * 8 * 64) + floor(0.5 * 10 * 8) zeros of 592 weights
    assert metrics(Path("run"))[-1]["sparsity"] == pytest.approx((256 + 40) / 592)


def test_the_seed_flag_is_the_configs_seed(work: Path) -> None:
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--seed", "7", "--out", "flag")
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--set", "seed=7", "--out", "set")
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--out", "default")
    assert config("flag")["seed"] == 7
    assert metrics(Path("flag")) == metrics(Path("set"))
    assert metrics(Path("flag")) != metrics(Path("default"))
