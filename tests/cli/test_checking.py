"""What is said before a run: all faults at once, each with its place; what a network, a path or a name may be."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Result, compress, environment, saved, succeed

from compressor.component import REGISTRY
from compressor.schedule.registry import components

PLACE = re.compile(r"^(?:error: )?(\S+):(\d+):(\d+): ")


def written(name: str, text: str) -> None:
    Path(name).write_text(text)


def refused(result: Result, *words: str) -> None:
    """Exit 2, all the words on stderr, and no run folder."""
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    assert [word for word in words if word not in result.err] == [], result.err
    assert not Path("runs").exists()


def places(result: Result) -> list[str]:
    """file:line of every line on stderr that has a place."""
    found = [PLACE.match(line) for line in result.err.splitlines()]
    return [f"{match[1]}:{match[2]}" for match in found if match]


# --- validate: the configuration's faults with the schedule's -------------------------------------------------------

FAULTY_SCHEDULE = """\
version: 2
regularizers:
  shrink: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}, bogus: 3}
policies:
  - {regularizer: {instance_name: shrink}}
"""

MODEL, DATA = "model: {name: mlp, hidden: [16], inputs: 64}", "data: {name: digits, batch: 64}"


@pytest.mark.parametrize(
    ("model", "data", "expected", "word"),
    [
        ("model: {name: mpl}", DATA, "bad.yaml:1:15", "did you mean 'mlp'"),
        ("model: {name: mlp, hiden: [16]}", DATA, "bad.yaml:1:27", "did you mean 'hidden'"),
        (MODEL, "data: {name: digit}", "bad.yaml:2:14", "did you mean 'digits'"),
        (MODEL, "data: {name: digits, mean: [2.0]}", "bad.yaml:2:29", "1"),
    ],
    ids=["model.name", "builder argument", "data.name", "mean"],
)
def test_validate_reports_a_fault_of_the_configuration_together_with_the_schedules(
    model: str, data: str, expected: str, word: str
) -> None:
    written("bad.yaml", f"{model}\n{data}\noptimizer: {{lr: 0.1}}\nepochs: 3\n")
    written("s.yaml", FAULTY_SCHEDULE)
    result = compress("validate", "s.yaml", "-c", "bad")
    assert result.code == 2
    assert len(places(result)) == len(result.err.splitlines()) == 2, result.err
    assert "s.yaml:3" in places(result)
    (line,) = [line for line in result.err.splitlines() if expected in line]
    assert word in line


@pytest.mark.parametrize("mean", ["", ", mean: [2.0]"], ids=["names", "names and mean"])
def test_validate_reports_every_fault_of_both_files_at_once(mean: str) -> None:
    written("bad.yaml", f"model: {{name: mpl}}\ndata:\n  {{name: digit{mean}}}\noptimizer: {{lr: 0.1}}\nepochs: 3\n")
    written("s.yaml", FAULTY_SCHEDULE)
    result = compress("validate", "s.yaml", "-c", "bad")
    assert result.code == 2
    assert {"s.yaml:3", "bad.yaml:1", "bad.yaml:3"} <= set(map(basename, places(result))), result.err
    assert [word for word in ("'mpl'", "'digit'", "bogus") if word not in result.err] == []
    assert not mean or "mean" in result.err


def basename(place: str) -> str:
    return place.rpartition("/")[2]


def test_a_weight_that_matches_nothing_is_said_together_with_the_data_set() -> None:
    written("bad.yaml", f"{MODEL}\ndata: {{name: digit}}\noptimizer: {{lr: 0.1}}\nepochs: 3\n")
    written("s.yaml", "policies:\n  - pruner: {class: SparsityLevelParameterPruner, levels: {fc9.weight: 0.5}}\n")
    result = compress("validate", "s.yaml", "-c", "bad")
    assert result.code == 2
    assert sorted(map(basename, places(result))) == ["bad.yaml:2", "s.yaml:2"], result.err


def test_a_regularizer_called_data_is_an_error_with_its_place() -> None:
    written(
        "s.yaml",
        "version: 2\nconfig: tiny\nregularizers:\n  data: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}}\n"
        "policies:\n  - {regularizer: {instance_name: data}}\n",
    )
    for command in (("validate", "s.yaml"), ("train", "-s", "s.yaml"), ("plan", "s.yaml")):
        refused(compress(*command), "s.yaml:4:3", "'data'")


def test_a_quantizer_and_the_policy_that_names_it_are_one_error() -> None:
    written(
        "s.yaml",
        "version: 1\nquantizers:\n  net_quantizer:\n    class: DorefaQuantizer\n    bits_activations: 4\n"
        "    bits_weights: 4\n"
        "lr_schedulers:\n  lr: {class: StepLR, step_size: 2, gamma: 0.1}\n"
        "policies:\n  - quantizer: {instance_name: net_quantizer}\n    epochs: [0]\n"
        "  - lr_scheduler: {instance_name: lr}\n",
    )
    result = compress("validate", "s.yaml", "-c", "tiny")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1, result.err
    assert "DorefaQuantizer" in result.err
    assert "not built yet" in result.err


def test_an_extension_policy_that_names_nothing_is_still_an_error() -> None:
    written("s.yaml", "version: 1\npolicies:\n  - extension: {instance_name: nothing}\n    epochs: [0]\n")
    refused(compress("validate", "s.yaml", "-c", "tiny"), "s.yaml:3:32")


PLATEAU = "policies:\n  - lr_scheduler: {class: ReduceLROnPlateau, factor: 0.5, patience: 0}\n"


@pytest.mark.parametrize("command", [("validate",), ("plan",), ("train", "-s")], ids=lambda value: value[0])
def test_a_plateau_without_images_held_out_is_a_fault_everywhere(command: tuple[str, ...]) -> None:
    written("s.yaml", PLATEAU)
    result = compress(*command, "s.yaml", "-c", "tiny", "--set", "data.validation=0")
    refused(result, "s.yaml:2:5", "needs validation images")
    if command[0] != "train":
        assert compress(*command, "s.yaml", "-c", "tiny").code == 0


@pytest.mark.parametrize("command", ["validate", "plan", "train"])
@pytest.mark.parametrize(
    ("model", "data", "wanted", "has"),
    [("resnet20_cifar", "name: digits", 3, 1), ("lenet_5", "name: cifar10, size: 28", 1, 3)],
)
def test_images_of_other_channels_than_the_network_wants_are_a_fault_where_channels_are_followed(
    command: str, model: str, data: str, wanted: int, has: int
) -> None:
    written("c.yaml", f"model: {{name: {model}}}\ndata: {{{data}}}\noptimizer: {{lr: 0.1}}\nepochs: 3\n")
    pruner = (
        "{class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: conv1.weight}"
    )
    written("s.yaml", f"policies:\n  - pruner: {pruner}\n")
    given = ("-s", "s.yaml") if command == "train" else ("s.yaml",)
    result = compress(command, *given, "-c", "c")
    channels = "1 channel" if wanted == 1 else f"{wanted} channels"
    said = f"the model expects {channels}, the images have {has}: set data.channels: {wanted}"
    refused(result, "s.yaml:2:", said)
    assert len(result.err.splitlines()) == 1, result.err
    if command != "train":
        succeed(command, *given, "-c", "c", "--set", f"data.channels={wanted}")


KEEP = "`keep_mask: true`"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("regularizer: {class: L2Regularizer, reg_regims: {fc1.weight: 1e-4}, args: {keep_mask: true}}", [KEEP]),
        ("regularizer: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}, args: {keep_mask: true}}", [KEEP]),
        (
            "pruner: {class: SplicingPruner, sensitivities: {fc1.weight: 0}, low_thresh_mult: 0.9, hi_thresh_mult: 1}",
            ["SplicingPruner", "use_double_copies: true"],
        ),
    ],
    ids=["L2", "plain L1", "SplicingPruner"],
)
def test_what_a_policy_s_mode_cannot_do_is_an_error_with_its_place(policy: str, words: list[str]) -> None:
    written("s.yaml", f"version: 2\npolicies:\n  - {policy}\n")
    for command in (("validate", "s.yaml"), ("train", "-s", "s.yaml")):
        refused(compress(*command, "-c", "tiny"), "s.yaml:3:", *words)


@pytest.mark.parametrize("how", ["proximal: true", "threshold: 1e-3", "threshold_criteria: Max"])
def test_an_l1_that_makes_zeros_may_keep_them(how: str) -> None:
    l1 = f"{{class: L1Regularizer, reg_regims: {{fc1.weight: 1e-4}}, {how}, args: {{keep_mask: true}}}}"
    written("s.yaml", f"version: 2\npolicies:\n  - regularizer: {l1}\n")
    succeed("validate", "s.yaml", "-c", "tiny")


# --- networks and modules ------------------------------------------------------------------------------------------


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the console script has it, the working directory is not in sys.path; what is imported is forgotten."""
    here = ("", ".", str(Path.cwd()))
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in here])
    components("pruners")  # ours are in
    before = {section: dict(known) for section, known in REGISTRY.items()}
    loaded = set(sys.modules)
    yield
    for section in list(REGISTRY):
        REGISTRY[section].clear()
        REGISTRY[section].update(before.get(section, {}))
    for module in set(sys.modules) - loaded:
        if module.startswith("zz_"):
            del sys.modules[module]


NETWORKS = """\
from torch import nn

def narrow(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))

def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.mark.parametrize(
    ("factory", "classes", "words"),
    [("narrow", 10, ["7 outputs"]), ("narrow", None, ["7 outputs"]), ("plain", 12, ["10 outputs", "12"])],
)
@pytest.mark.usefixtures("modules")
def test_a_network_with_too_few_outputs_is_refused_before_a_run_folder_is_made(
    factory: str, classes: int | None, words: list[str]
) -> None:
    written("zz_networks.py", NETWORKS)
    model = f"{{name: 'zz_networks:{factory}'" + (f", num_classes: {classes}}}" if classes else "}")
    train = ("train", "-c", "tiny", "--set", f"model={model}", "--allow-plugins")
    refused(compress(*train), *words)
    refused(compress(*train, "--out", "mine"), *words)
    assert not Path("mine").exists()


@pytest.mark.parametrize("command", [("train", "-s", "s"), ("validate", "s"), ("plan", "s")], ids=lambda c: c[0])
def test_a_network_without_parameters_is_refused(command: tuple[str, ...]) -> None:
    written("s.yaml", "policies:\n  - lr_scheduler: {class: StepLR, step_size: 1}\n")
    model = "model={name: 'torch.nn:Identity'}"
    refused(compress(*command, "-c", "tiny", "--set", model, "--allow-plugins"), "torch.nn:Identity", "no parameters")
    refused(compress("train", "-c", "tiny", "--set", model, "--allow-plugins"), "torch.nn:Identity", "no parameters")


IMAGES = """\
import torch

class Noise:
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((1, 8, 8), index / 40), index % 10

def make():
    return Noise(), Noise()
"""

PLUGIN = """\
import torch
from compressor.component import Weights as Selection
from compressor.pruners.pruner import PrunerBase

class ZzComb(PrunerBase, name="ZzComb"):
    weights: Selection

    def keep(self, asked):
        shapes = {name: asked.weights[name].shape for name in asked.targets["weights"]}
        return {name: torch.arange(shape.numel()).view(shape) % 2 != 0 for name, shape in shapes.items()}
"""


@pytest.mark.usefixtures("modules")
def test_modules_in_the_working_directory_work_for_models_data_and_plugins_alike() -> None:
    written("zz_networks.py", NETWORKS)
    written("zz_images.py", IMAGES)
    written("zz_combs.py", PLUGIN)
    written(
        "s.yaml",
        "version: 2\nplugins: [zz_combs]\npolicies:\n  - pruner: {class: ZzComb, weights: ['*']}\n    epochs: [0]\n",
    )
    sets = ["--set", "model={name: 'zz_networks:plain'}", "--set", "data={name: 'zz_images:make', batch: 8}"]
    train = ("-c", "tiny", *sets, "--set", "epochs=1", "--allow-plugins")
    assert str(Path.cwd()) not in sys.path
    succeed("validate", "s.yaml", *train)
    succeed("plan", "s.yaml", *train)
    succeed("train", "-s", "s.yaml", *train, "--out", "run")
    assert "zz_combs" in sys.modules
    assert (saved(Path("run/checkpoint.pt"))["model"]["1.weight"] == 0).float().mean().item() == 0.5


@pytest.mark.parametrize("kind", ["model", "data", "plugin"])
@pytest.mark.usefixtures("modules")
def test_each_kind_finds_its_module_in_the_working_directory_first_and_alone(kind: str) -> None:
    name = f"zz_only_{kind}"
    text = {"model": NETWORKS, "data": IMAGES, "plugin": PLUGIN}[kind]
    written(f"{name}.py", text)
    plugin = f"plugins: [{name}]\npolicies:\n  - pruner: {{class: ZzComb, weights: ['*']}}\n    epochs: [0]\n"
    other = "policies:\n  - lr_scheduler: {class: StepLR, step_size: 1}\n"
    written("s.yaml", "version: 2\n" + (plugin if kind == "plugin" else other))
    sets = {
        "model": [f"model={{name: '{name}:plain'}}"],
        "data": [f"data={{name: '{name}:make', batch: 8}}"],
        "plugin": [],
    }
    arguments = [f"--set={text}" for text in [*sets[kind], "epochs=1"]]
    succeed("train", "-s", "s.yaml", "-c", "tiny", *arguments, "--allow-plugins", "--out", "run")


@pytest.mark.usefixtures("modules")
def test_a_module_that_is_nowhere_says_where_it_was_looked_for() -> None:
    here = str(Path.cwd())
    written("s.yaml", "version: 2\nplugins: [zz_nowhere]\npolicies: [{lr_scheduler: {class: StepLR, step_size: 1}}]\n")
    train = ("train", "-c", "tiny", "--allow-plugins")
    refused(compress(*train, "--set", "model={name: 'zz_nowhere:make'}"), "zz_nowhere", here)
    refused(compress(*train, "--set", "data={name: 'zz_nowhere:make'}"), "zz_nowhere", here)
    refused(compress(*train, "-s", "s.yaml"), "zz_nowhere", here)


# --- plan, paths, pipes --------------------------------------------------------------------------------------------


def test_plan_counts_the_data_set_s_classes_not_the_published_thousand() -> None:
    written(
        "big.yaml",
        "model: {name: resnet18}\ndata: {name: digits, size: 32, channels: 3}\noptimizer: {lr: 0.1}\nepochs: 2\n",
    )
    written("s.yaml", "policies:\n  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.5, weights: '*'}\n")
    plan = json.loads(succeed("plan", "s.yaml", "-c", "big", "--json"))
    rows = {row["name"]: row for row in plan["predicted"]}
    assert rows["fc.weight"]["shape"] == [10, 512]
    assert rows["fc.weight"]["weights"] == 5120
    (policy,) = plan["policies"]
    assert {"name": "fc.weight", "shape": [10, 512]} in policy["weights"]
    assert "10x512" in succeed("plan", "s.yaml", "-c", "big")


@pytest.mark.parametrize("command", [("train",), ("train", "-s", "prune"), ("validate", "prune"), ("plan", "prune")])
def test_an_empty_configuration_name_is_refused(command: tuple[str, ...]) -> None:
    refused(compress(*command, "-c", ""))
    assert compress(*command, "-c", "").err.count("\n") == 1


@pytest.mark.parametrize("name", ["a #1.pt", "12", "null", "1e3", "{x}.pt", "a: b.pt", "[w].pt", "~"])
def test_init_takes_a_path_as_it_stands_however_yaml_would_read_it(name: str) -> None:
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--out", "first")
    Path("first/checkpoint.pt").rename(name)
    slow = ["--set", "epochs=1", "--set", "optimizer.lr=1e-12", "--set", "optimizer.weight_decay=0"]
    succeed("train", "-c", "tiny", *slow, "--init", name, "--out", "second")
    ours, theirs = saved(Path("second/checkpoint.pt"))["model"], saved(Path(name))["model"]
    assert all((ours[key] - theirs[key]).abs().max() < 1e-6 for key in theirs)
    assert saved(Path("second/checkpoint.pt"))["config"]["init"] == str(Path.cwd() / name)


def test_a_reader_that_goes_away_does_not_end_the_run(work: Path) -> None:
    binary = shlex.quote(str(Path(sys.executable).with_name("compress")))
    command = f"{binary} train -s prune --out run | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=work, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert (work / "run" / "sparsity.json").exists()
    assert saved(work / "run" / "checkpoint.pt")["finished"] is True
