"""Every shipped schedule and configuration, and every component's own example: validated, planned, trained one step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import compress, interrupted, saved, succeed

from compressor.component import REGISTRY, Component
from compressor.config import DataConfig
from compressor.data.images import DataSet
from compressor.data.memory import in_memory
from compressor.data.registry import BUILDERS, Builder, builders
from compressor.lookup import shipped_files
from compressor.schedule.registry import components

ROOT = Path(__file__).parents[2]
SCHEDULES = list(shipped_files("schedules").values())
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

FROM_TRAINED = {"papers/dns_lenet300", "papers/dns_lenet5"}
"""Of random weights the first step of network surgery leaves none: these begin with a trained network (`--init`)."""
WITHOUT_CONFIG = {
    "resnet20_cifar_agp": ["-c", "resnet20_cifar10"],
    "resnet20_cifar_filters": ["-c", "resnet20_cifar10", "--set", "epochs=8"],
}
"""Version 1 cannot name its configuration."""

JOINT = ("resnet18_gst",)
"""Channels that several weights share are pruned on purpose."""

OVERLAPPING = ("papers/ssl_lenet5", "papers/ssl_mlp")
"""Two pruners of one weight on purpose: its rows and its columns."""

SHAPES = {
    "mnist": (1, 28, 28, 10),
    "fashion_mnist": (1, 28, 28, 10),
    "digits": (1, 28, 28, 10),
    "cifar10": (3, 32, 32, 10),
    "cifar100": (3, 32, 32, 100),
}
"""Channels, height, width, classes."""

FEW = (
    *("caffe_inv", "dns_lenet300", "l0_lenet300", "lenet5_agp", "mlp_dropout_ratio", "resnet20_depth"),
    *("lenet5_digits", "mlp_digits", "resnet20_cifar10"),
)
"""The files of which `make test` trains a step; of the others that is slow."""

SMALL = ("--set", "data.batch=4", "--set", "data.images=null")
MLP_DROP = "schedule.policies.0.dropout={modules: 'drop*', follow: {drop1: fc1.weight}}"


def applied() -> dict[str, type[Component]]:
    """Every component that a schedule can name; of the policies those that are their own component."""
    sections = ["pruners", "regularizers", "lr_schedulers", *(s for s in ("gates", "extensions") if components(s))]
    found = {f"{section}.{name}": cls for section in sections for name, cls in sorted(REGISTRY[section].items())}
    alone = {name: cls for name, cls in components("policies").items() if getattr(cls, "component", "") is None}
    return found | {f"policies.{name}": cls for name, cls in alone.items()}


COMPONENTS = applied()


def stand_in(name: str) -> Builder:
    """Random images of a data set's shape: two of each class to train on, one to test."""
    channels, height, width, classes = SHAPES[name]

    def build(config: DataConfig, root: Path, seed: int) -> DataSet:
        draws = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (3 * classes, channels, height, width), generator=draws, dtype=torch.uint8)
        labels = torch.arange(3 * classes) % classes
        train, test = slice(None, 2 * classes), slice(2 * classes, None)
        names = [str(number) for number in range(classes)]
        return in_memory(name, (images[train], labels[train]), (images[test], labels[test]), names, config)

    return Builder("random", build, shape=SHAPES[name][:3])


@pytest.fixture(autouse=True)
def no_data_set_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in builders():
        if name in SHAPES:
            monkeypatch.setitem(BUILDERS, name, stand_in(name))


def one_step(*arguments: object) -> dict[str, Any]:
    """Train until the first step is taken; gives the checkpoint."""
    interrupted(*arguments, *SMALL, "--out", "run", "--device", "cpu", epoch=0, step=0)
    checkpoint = saved(Path("run/checkpoint.pt"))
    assert checkpoint["state"]["progress"]["epoch"] == 0
    assert checkpoint["state"]["progress"]["step"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint["model"].values())
    return checkpoint


def plan(*arguments: object) -> dict[str, Any]:
    """The plan."""
    found: dict[str, Any] = json.loads(succeed("plan", *arguments, "--json"))
    return found


def test_there_are_as_many_files_and_components_as_we_know() -> None:
    assert len(SCHEDULES) >= 4
    assert len(CONFIGS) >= 5
    assert len([key for key in COMPONENTS if key.startswith("pruners.")]) >= 7
    assert len([key for key in COMPONENTS if key.startswith("regularizers.")]) >= 2
    assert len([key for key in COMPONENTS if key.startswith("lr_schedulers.")]) >= 13
    assert len(COMPONENTS) >= 22
    assert {path.stem for path in SCHEDULES} >= {"caffe_inv", "lenet5_agp", "lenet5_elastic", "resnet20_cifar_agp"}


def few(paths: list[Path]) -> list[Any]:
    """Parameters for a test of each file, slow but for `FEW`."""
    return [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem not in FEW)) for path in paths]


def under_its_bare_name(path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """The name of a shipped schedule, its content, and the options that it needs."""
    name = path.relative_to(ROOT / "schedules").with_suffix("").as_posix()
    text = yaml.safe_load(path.read_text())
    return name, text, [] if "config" in text else WITHOUT_CONFIG[name]


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_a_shipped_schedule_validates_and_plans_under_its_bare_name(path: Path) -> None:
    name, text, options = under_its_bare_name(path)
    config = text.get("config") or options[1]
    result = compress("validate", name, *options)
    notes = [line for line in result.err.splitlines() if "ranks as one, for they share channels" not in line]
    assert (result.code, notes) == (0, [])
    assert bool(result.err) == (name in JOINT)
    assert f"valid for {config.rpartition('/')[2]}" in result.out
    planned = plan(name, *options)
    assert len(planned["policies"]) == len(text["policies"])
    assert all(policy["fires"] for policy in planned["policies"])
    without = ("lr_scheduler", "extension", "instability")
    assert all(policy["weights"] for policy in planned["policies"] if policy["kind"] not in without)
    assert bool(planned["conflicts"]) == (name in OVERLAPPING)
    assert len(planned["lr"]) == planned["epochs"]


@pytest.mark.parametrize("path", few(SCHEDULES))
def test_a_shipped_schedule_trains_a_step(path: Path) -> None:
    name, _, options = under_its_bare_name(path)
    if name in FROM_TRAINED:
        result = compress("train", "-s", name, *options, *SMALL, "--out", "run", "--device", "cpu")
        assert result.code == 1
        assert "the logits no longer depend on the image" in result.err
    else:
        one_step("-s", name, *options)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_configuration_plans_under_its_bare_name(path: Path) -> None:
    Path("s.yaml").write_text("policies:\n  - lr_scheduler: {class: ConstantLR, factor: 1.0}\n")
    name = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    assert f"valid for {path.stem}" in succeed("validate", "s.yaml", "-c", name)
    planned = plan("s.yaml", "-c", name)
    config = yaml.safe_load(path.read_text())
    assert planned["epochs"] == config["epochs"]
    assert planned["lr"] == [config["optimizer"]["lr"]] * config["epochs"]


@pytest.mark.parametrize("path", few(CONFIGS))
def test_a_shipped_configuration_trains_a_dense_step(path: Path) -> None:
    name = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    config = yaml.safe_load(path.read_text())
    if config["data"]["name"] == "imagefolder":
        return  # there is no folder of images here
    checkpoint = one_step("-c", name)
    assert sum(tensor.numel() for name, tensor in checkpoint["model"].items() if name.endswith("weight")) > 0
    assert checkpoint["classes"] == [str(number) for number in range(SHAPES[config["data"]["name"]][3])]


def example(key: str) -> list[str]:
    """Write a component's example; the options with which it is valid."""
    Path("example.yaml").write_text(COMPONENTS[key].example)
    files = ["example.yaml", "-c", "lenet5_digits"]
    if key == "policies.dropout":  # LeNet-5 has none
        files += ["--set", "model={name: mlp, hidden: [300], dropout: [0.5]}", "--set", MLP_DROP]
    if key == "policies.batchnorm":  # nor of these
        files += ["--set", "model={name: bn_cnn}"]
    if key.startswith("pruners.Activation"):  # nor activations behind convolutions, as Caffe has it
        files += ["--set", "model.conv_relu=true"]
    return files


@pytest.mark.parametrize("key", COMPONENTS)
def test_the_example_of_a_component_validates_and_plans(key: str) -> None:
    files = example(key)
    result = compress("validate", *files)
    section, _, name = key.partition(".")
    idle = "nothing is pruned before it acts" if section == "extensions" else ""
    assert (result.code, result.err.count("\n")) == (0, int(bool(idle)))
    assert idle in result.err
    planned = plan(*files)
    own = [policy for policy in planned["policies"] if policy["component"] == name]
    assert own
    assert all(policy["fires"][0] == 0 for policy in own) or section == "extensions"
    without = section in ("lr_schedulers", "extensions") or key in ("policies.batchnorm", "policies.instability")
    assert all(policy["weights"] for policy in own) != without


@pytest.mark.slow  # the contracts train the same examples, without the command
@pytest.mark.parametrize("key", COMPONENTS)
def test_the_example_of_a_component_trains_a_step(key: str) -> None:
    files = example(key)
    section, _, name = key.partition(".")
    own = [policy for policy in plan(*files)["policies"] if policy["component"] == name]
    checkpoint = one_step("-s", *files)
    owners = set(checkpoint["state"]["masks"]["owned"])
    masks = section == "pruners" or key in ("policies.iht", "policies.strided", "policies.channel_pruning")
    assert masks == any(policy["key"] in owners for policy in own)


def test_control_a_step_is_a_step_of_training() -> None:
    first = one_step("-c", "lenet5_digits")["model"]
    interrupted("-c", "lenet5_digits", *SMALL, "--out", "other", "--device", "cpu", epoch=0, step=1)
    second = saved(Path("other/checkpoint.pt"))["model"]
    assert all(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["schedules", "configs"])
def test_the_shipped_files_are_found_from_any_folder_and_a_file_here_comes_first(kind: str) -> None:
    assert "valid for lenet5_digits" in succeed("validate", "lenet5_agp")
    stem = {"schedules": "lenet5_agp", "configs": "lenet5_digits"}[kind]
    (Path(kind)).mkdir()
    (Path(kind) / f"{stem}.yaml").write_text("nothing: of this kind\n")
    result = compress("validate", "lenet5_agp")
    assert result.code == 2
    assert f"{kind}/{stem}.yaml:1:" in result.err
