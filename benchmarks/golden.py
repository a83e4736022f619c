"""Digests of runs, to see that a change of the code changes no bit: `make golden`.

    python -m benchmarks.golden                 one digest for each shipped schedule, run with --smoke
    python -m benchmarks.golden --components    one for each component's own example, a small network on the digits
    python -m benchmarks.golden --full          one full run on the digits for each kind of component (minutes)
    python -m benchmarks.golden --write FILE    also write them as JSON; --compare FILE: exit 1 where one differs
    python -m benchmarks.golden --record [NAME ...]
        write those of the shipped schedules with claims into records.json beside them, with this environment, and the
        fingerprint of the data where --data has them

compressor/experiment/digest.py says what is in a digest. Digests of two machines, or of two versions of torch, may
differ; runs are on one thread.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from torch import nn

from compressor import lookup
from compressor.cli import cli
from compressor.data import fingerprint
from compressor.errors import UserError
from compressor.experiment import building, digest, environment, records
from compressor.experiment.specification import specification
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.registry import components

CONFIGS = {"resnet20_cifar_agp": "resnet20_cifar10", "resnet20_cifar_filters": "resnet20_cifar10"}
"""Of schedules of version 1, which name none."""

FULL: dict[str, tuple[str, ...]] = {
    "lenet5_agp": (),
    "lenet5_elastic": ("epochs=4",),
    "lenet5_filters": ("epochs=10",),
    "lenet5_alternating": ("epochs=12",),
    "mlp_dropout_ratio": ("epochs=12",),
    "resnet20_depth": ("epochs=3",),
    "resnet18_l0": ("epochs=2",),
    "resnet20_cifar_drop_filter": (
        "epochs=2",
        "data.name=digits",
        "data.channels=3",
        "data.size=16",
        "data.augment=[]",
    ),
    "papers/dns_lenet300": ("epochs=6", "data.name=digits"),
    "papers/hashed8_mlp1000": ("epochs=2", "data.name=digits"),
    "papers/dropconnect_mlp800": ("epochs=3", "data.name=digits"),
    "papers/iht_lenet300": ("data.name=digits",),
    "papers/dsd_lenet300": ("data.name=digits",),
    "papers/channel_lenet5": ("epochs=3", "data.name=digits"),
    "papers/strided_lenet5": ("epochs=2", "data.name=digits"),
    "papers/gst_bn_cnn": ("epochs=6", "data.name=digits", "data.images=1000"),
    "papers/ssl_lenet5": ("epochs=3", "data.name=digits"),
    "papers/l0_lenet300": ("epochs=3", "data.name=digits"),
    "caffe_inv": ("epochs=2", "data.name=digits"),
}
"""Settings of the full runs: shorter, on the embedded digits."""

COMPONENT_CONFIG = """\
model: {name: 'benchmarks.golden:network'}
data: {name: digits, size: 12, batch: 64, validation: 0.1}
optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 0.01}
epochs: 4
ema: {decay: 0.8}
"""
STEPS = 21


def network(num_classes: int = 10) -> nn.Sequential:
    """Make the network whose names the components' examples select, for 1x12x12 images."""
    layers = [
        *[("conv1", nn.Conv2d(1, 4, 3)), ("bn1", nn.BatchNorm2d(4)), ("relu1", nn.ReLU()), ("pool1", nn.MaxPool2d(2))],
        *[("conv2", nn.Conv2d(4, 6, 3)), ("relu2", nn.ReLU()), ("flatten", nn.Flatten())],
        *[
            ("fc1", nn.Linear(54, 10)),
            ("relu3", nn.ReLU()),
            ("drop", nn.Dropout(0.2)),
            ("fc2", nn.Linear(10, num_classes)),
        ],
    ]
    return nn.Sequential(OrderedDict(layers))


def _train(out: Path, *arguments: str) -> str:
    """Run `compress train` in this process; return the digest, or why there is none."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli(["train", "--out", str(out), *arguments], standalone_mode=False)
        except Exception as error:
            if not (out / "sparsity.json").is_file():  # a target that was missed is no failure here
                return f"failed: {str(error).splitlines()[0]}"
    return digest.of_run(out)


def shipped() -> list[str]:
    """Return the names of all shipped schedules."""
    return sorted(lookup.shipped_files("schedules"))


def windowed(text: str) -> str:
    """Return a schedule with each window moved to epochs 1 and 2, or their steps."""
    data: Any = parse("example.yaml", text, Faults()).data
    for policy in data["policies"]:
        by_step = any(key in policy for key in ("starting_step", "ending_step", "step_frequency"))
        for key in ("epochs", "frequency", "step_frequency"):
            policy.pop(key, None)
        unit, scale = ("step", STEPS) if by_step else ("epoch", 1)
        policy.update({f"starting_{unit}": scale, f"ending_{unit}": 3 * scale})
    return yaml.safe_dump(data, sort_keys=False)


def examples() -> dict[str, str]:
    """Return the example of every component that a schedule can apply."""
    sections = ("pruners", "regularizers", "lr_schedulers", "gates", "extensions", "policies")
    return {
        f"{section}.{name}": cls.example
        for section in sections
        for name, cls in sorted(components(section).items())
        if cls.example
    }


def runs(components_too: bool, full: bool) -> Iterator[tuple[str, str]]:
    """Yield the name and the digest of each run."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        nowhere = str(work / "no-data")  # so that other sets than the digits are random images everywhere
        if not components_too and not full:
            for schedule in shipped():
                config = ("-c", CONFIGS[schedule]) if schedule in CONFIGS else ()
                yield schedule, _train(work / schedule, "-s", schedule, *config, "--smoke", "--data", nowhere)
        if components_too:
            (work / "golden.yaml").write_text(COMPONENT_CONFIG)
            for key, text in examples().items():
                (work / f"{key}.yaml").write_text(windowed(text))
                yield key, _train(work / key, "-s", str(work / f"{key}.yaml"), "-c", str(work / "golden.yaml"))
        if full:
            for schedule, settings in FULL.items():
                sets = [argument for setting in settings for argument in ("--set", setting)]
                yield schedule, _train(work / schedule, "-s", schedule, *sets, "--data", nowhere)


def record(names: Sequence[str], data: Path | None) -> None:
    """Write the records of shipped schedules, those that claim something where no names are given."""
    files = lookup.shipped_files("schedules")
    for name in names or shipped():
        path, spec = files[name], specification(name, CONFIGS.get(name))
        if spec.schedule is None or spec.schedule.claim is None:
            continue
        try:
            prints = fingerprint(building.load_data(spec.config, data))
        except UserError as error:
            click.echo(f"{name}: {str(error).splitlines()[0]}")
            prints = None
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            made = records.record(spec, environment.here(torch.device("cpu")), prints)
        records.write(path, made)
        click.echo(f"{made.smoke}  {name}")


@click.command()
@click.option("--components", "of_components", is_flag=True)
@click.option("--full", is_flag=True)
@click.option("--write", type=click.Path(path_type=Path))
@click.option("--compare", type=click.Path(path_type=Path, exists=True))
@click.option("--record", "recording", is_flag=True)
@click.argument("names", nargs=-1)
@click.option("--data", type=click.Path(path_type=Path, exists=True))
def main(
    of_components: bool,
    full: bool,
    write: Path | None,
    compare: Path | None,
    recording: bool,
    names: tuple[str, ...],
    data: Path | None,
) -> None:
    """Print one digest a run."""
    os.environ.pop("COMPRESS_DATA", None)
    os.environ["COMPRESS_ALLOW_PLUGINS"] = "1"  # for `network` of this file
    torch.set_num_threads(1)
    if recording:
        record(names, data)
        return
    before = json.loads(compare.read_text()) if compare is not None else {}
    found: dict[str, str] = {}
    differ = 0
    for name, value in runs(of_components, full):
        found[name] = value
        other = compare is not None and before.get(name) != value
        differ += other
        click.echo(f"{value[:64]}  {name}{'  differs' if other else ''}")
    if write is not None:
        write.write_text(json.dumps(found, indent=1) + "\n")
    if compare is not None:
        missing = sorted(set(before) - set(found))
        click.echo(
            f"{len(found) - differ} of {len(found)} equal" + (f"; not run: {', '.join(missing)}" if missing else "")
        )
        sys.exit(1 if differ or missing else 0)


if __name__ == "__main__":
    main()
