"""Third parties' components: modules that a schedule lists and a flag allows; entry points of installed packages."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import compress, interrupted, process, saved, succeed, write_tiny

from compressor.component import REGISTRY
from compressor.schedule import registry
from compressor.schedule.registry import components

PRUNER = '''\
"""Someone else's method."""

from pathlib import Path
from typing import ClassVar

import torch
from compressor.component import Weights as Selection
from compressor.pruners.pruner import PrunerBase

Path("imported").touch()


class {name}(PrunerBase, name="{name}"):
    """Prunes every `stride`-th weight."""

    weights: Selection
    stride: int = 2

    def keep(self, asked):
        masks = {{}}
        for name in asked.targets["weights"]:
            index = torch.arange(asked.weights[name].numel()).view(asked.weights[name].shape)
            masks[name] = index % self.stride != 0
        return masks
'''

SCHEDULE = """\
version: 2
config: tiny
plugins: [combs]
policies:
  - pruner: {class: Comb, weights: [fc1.weight], stride: 4}
    epochs: [0]
"""

MODULES = ("combs", "broken_combs", "combs_of_a_package")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `tiny` and a schedule, `elsewhere` with the plugin; what is registered is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    (tmp_path / "combed.yaml").write_text(SCHEDULE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "combs.py").write_text(PRUNER.format(name="Comb"))
    components("pruners")  # ours are in
    before = {section: dict(known) for section, known in REGISTRY.items()}
    monkeypatch.syspath_prepend(elsewhere)
    yield tmp_path
    for section in list(REGISTRY):
        REGISTRY[section].clear()
        REGISTRY[section].update(before.get(section, {}))
    for module in MODULES:
        sys.modules.pop(module, None)


def was_imported() -> bool:
    return "combs" in sys.modules or Path("imported").exists()


COMMANDS = {"validate": ("validate", "combed"), "plan": ("plan", "combed"), "train": ("train", "-s", "combed")}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_without_the_flag_no_command_imports_a_plugin_and_each_names_its_line(command: tuple[str, ...]) -> None:
    result = compress(*command)
    assert result.code == 2
    lines = [line for line in result.err.splitlines() if "combs" in line]
    assert len(lines) == 1
    assert "combed.yaml:3:11: " in lines[0]
    assert "--allow-plugins" in lines[0]
    assert not was_imported()
    assert "Comb" not in components("pruners")
    assert not Path("runs").exists()


def test_every_module_of_the_list_is_named_at_its_own_place(work: Path) -> None:
    (work / "combed.yaml").write_text(SCHEDULE.replace("[combs]", "\n  - combs\n  - other.combs"))
    result = compress("validate", "combed")
    assert result.code == 2
    assert "combed.yaml:4:5: " in result.err
    assert "combed.yaml:5:5: " in result.err
    assert "other.combs" in result.err
    assert not was_imported()


def test_a_plugin_through_an_override_needs_the_flag_too(work: Path) -> None:
    (work / "combed.yaml").write_text(SCHEDULE.replace("plugins: [combs]\n", ""))
    result = compress("validate", "combed", "--set", "schedule.plugins=[combs]")
    assert result.code == 2
    assert "--allow-plugins" in result.err
    assert not was_imported()


def test_with_the_flag_the_plugins_class_is_one_like_ours() -> None:
    assert succeed("validate", "combed", "--allow-plugins").startswith("combed: valid for tiny")
    plan = json.loads(succeed("plan", "combed", "--allow-plugins", "--json"))
    assert plan["policies"][0]["component"] == "Comb"
    assert plan["policies"][0]["weights"] == [{"name": "fc1.weight", "shape": [16, 64]}]
    assert "Prunes every `stride`-th weight." in succeed("list", "pruners")
    assert '"Comb"' in succeed("schema")


def test_a_plugins_arguments_are_checked_like_ours(work: Path) -> None:
    (work / "combed.yaml").write_text(SCHEDULE.replace("stride: 4", "stried: 4"))
    result = compress("validate", "combed", "--allow-plugins")
    assert result.code == 2
    assert "combed.yaml:5:" in result.err
    assert "did you mean 'stride'" in result.err
    (work / "combed.yaml").write_text(SCHEDULE.replace("class: Comb", "class: Combb"))
    assert "did you mean 'Comb'" in compress("validate", "combed", "--allow-plugins").err


def test_a_plugin_trains_and_resumes_to_the_same_bits(work: Path) -> None:
    succeed("train", "-s", "combed", "--allow-plugins", "--out", "whole")
    weight = saved(work / "whole" / "checkpoint.pt")["model"]["fc1.weight"]
    pruned = (torch.arange(1024) % 4 == 0).view(16, 64)
    assert torch.equal(weight == 0, pruned)
    assert json.loads((work / "whole" / "sparsity.json").read_text())["tensors"][0]["sparsity"] == 0.25
    interrupted("-s", "combed", "--allow-plugins", "--out", "run", epoch=1, step=3)
    refused = compress("train", "-s", "combed", "--out", "run", "--resume")
    assert (refused.code, "--allow-plugins" in refused.err) == (2, True)
    succeed("train", "-s", "combed", "--allow-plugins", "--out", "run", "--resume")
    assert torch.equal(saved(work / "run" / "checkpoint.pt")["model"]["fc1.weight"], weight)


def test_reports_and_evaluation_of_a_finished_run_need_no_plugin(work: Path) -> None:
    succeed("train", "-s", "combed", "--allow-plugins", "--out", "run", "--set", "epochs=1")
    sys.modules.pop("combs")
    Path("imported").unlink()
    REGISTRY["pruners"].pop("Comb")
    assert "25.00" in succeed("report", "run")
    assert "top-1" in succeed("eval", "run")
    assert not was_imported()


BROKEN = {
    "there is no such module": (None, "broken_combs"),
    "an import of its own fails": ("import not_there_at_all", "not_there_at_all"),
    "it does not parse": ("def broken(:", "SyntaxError"),
    "it raises with several lines": ("raise RuntimeError('first\\nsecond')", "RuntimeError: first"),
    "it leaves Python": ("import sys; sys.exit('bye')", "SystemExit"),
    "its class has the name of one of ours": (PRUNER.format(name="AutomatedGradualPruner"), "AutomatedGradualPruner"),
}


@pytest.mark.parametrize(("source", "words"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_plugin_that_cannot_be_imported_is_one_line_at_its_name(
    work: Path, command: str, source: str | None, words: str
) -> None:
    if source is not None:
        (work / "elsewhere" / "broken_combs.py").write_text(source)
    (work / "combed.yaml").write_text(
        SCHEDULE.replace("combs", "broken_combs").replace(
            "{class: Comb, weights: [fc1.weight], stride: 4}",
            "{class: AutomatedGradualPruner, final_sparsity: 0.5, weights: fc1.weight}",
        )
    )
    result = compress(command, "combed", "--allow-plugins")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "combed.yaml:3:11: " in line
    assert "broken_combs" in line
    assert words in line
    assert "second" not in line


def test_a_plugin_on_pythonpath_is_found_by_the_installed_command(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(work / "elsewhere"))
    result = process("validate", "combed", "--allow-plugins", cwd=work)
    assert (result.code, result.err) == (0, "")
    assert (work / "imported").exists()


# Installed packages.


@pytest.fixture
def package(work: Path) -> Iterator[Path]:
    """An installed package with an entry point; its metadata lie where `importlib.metadata` looks."""
    elsewhere = work / "elsewhere"
    (elsewhere / "combs_of_a_package.py").write_text(PRUNER.format(name="PackagedComb"))
    info = elsewhere / "combs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: combs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[compressor.components]\ncombs = combs_of_a_package\n")
    registry._import_all.cache_clear()
    yield elsewhere
    (info / "entry_points.txt").unlink()
    registry._import_all.cache_clear()


PACKAGED = """\
policies:
  - pruner: {class: PackagedComb, weights: [fc1.weight]}
"""


def test_a_component_of_an_installed_package_needs_no_flag(work: Path, package: Path) -> None:
    (work / "packaged.yaml").write_text(PACKAGED)
    assert "valid for tiny" in succeed("validate", "packaged", "-c", "tiny")
    assert "PackagedComb" in succeed("list", "pruners")
    succeed("train", "-s", "packaged", "-c", "tiny", "--out", "run", "--set", "epochs=1")
    assert json.loads((work / "run" / "sparsity.json").read_text())["tensors"][0]["sparsity"] == 0.5


def test_an_entry_point_may_name_the_class_in_the_module(work: Path, package: Path) -> None:
    points = package / "combs-1.0.dist-info" / "entry_points.txt"
    points.write_text("[compressor.components]\ncombs = combs_of_a_package:PackagedComb\n")
    assert "PackagedComb" in components("pruners")


def test_entry_points_of_other_groups_are_not_imported(work: Path, package: Path) -> None:
    points = package / "combs-1.0.dist-info" / "entry_points.txt"
    points.write_text("[someone.elses]\ncombs = combs_of_a_package\n")
    assert "PackagedComb" not in components("pruners")
    assert not Path("imported").exists()


def test_an_installed_package_that_cannot_be_imported_is_one_line(work: Path, package: Path) -> None:
    (package / "combs_of_a_package.py").write_text("import not_there_at_all\n")
    result = compress("validate", "prune")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "combs_of_a_package" in line
    assert "not_there_at_all" in line
