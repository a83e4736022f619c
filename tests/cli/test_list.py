"""`compress list`: what there is, by kind, each with a line that says what it is."""

from pathlib import Path

import pytest
from helpers import compress, succeed

ROOT = Path(__file__).parents[2]

CIFAR_RESNETS = "resnet20_cifar resnet32_cifar resnet44_cifar resnet56_cifar plain20_cifar"
PREACT = (
    "preact_resnet20_cifar preact_resnet32_cifar preact_resnet44_cifar preact_resnet56_cifar preact_resnet110_cifar"
)
VGGS = " ".join(f"vgg{depth}_cifar vgg{depth}_bn_cifar" for depth in (11, 13, 16, 19))

RANKED = (
    "L1RankedStructureParameterPruner L2RankedStructureParameterPruner ActivationAPoZRankedFilterPruner"
    " ActivationMeanRankedFilterPruner GradientRankedFilterPruner RandomRankedFilterPruner BernoulliFilterPruner"
)

KNOWN = {
    "policies": "pruner regularizer lr_scheduler batchnorm",
    "pruners": "MagnitudeParameterPruner SensitivityPruner SparsityLevelParameterPruner AutomatedGradualPruner"
    " BaiduRNNPruner SplicingPruner Pruner StructureParameterPruner RandomLevelStructureParameterPruner"
    f" {RANKED} {' '.join(f'{name}_AGP' for name in RANKED.split())}",
    "criteria": "l1 l2 gradient taylor apoz mean_activation feature_map running_feature_map bn_scale"
    " expected_activation random max mean_abs",
    "structures": "Elements 2D Kernels Filters 3D Channels Rows Cols 4D Layer Shapes Blocks Taps Runs",
    "allocations": "uniform global",
    "rates": "sparsity agp events random threshold baidu std survivors_std bernoulli",
    "regularizers": "L1Regularizer L2Regularizer GroupLassoRegularizer GroupVarianceRegularizer",
    "extensions": "FilterRemover ChannelRemover StructureRemover",
    "gates": "HardConcreteL0 NetworkSurgery",
    "lr-schedulers": "StepLR MultiStepLR ConstantLR LinearLR ExponentialLR CosineAnnealingLR CyclicLR OneCycleLR"
    " CosineAnnealingWarmRestarts PolynomialLR MultiStepMultiGammaLR ReduceLROnPlateau",
    "models": f"{CIFAR_RESNETS} {PREACT} {VGGS} mobilenet alexnet_bn preact_resnet50 lenet_5"
    " simplenet_cifar simplenet_mnist wrn_28_10_cifar bn_cnn mlp"
    " resnet18 resnet50 mobilenet_v2 vgg16",
    "datasets": "mnist fashion_mnist cifar10 cifar100 imagefolder digits",
    "schedules": "",
    "configs": "",
}
"""What the spec names, by kind."""


def entries(kind: str) -> dict[str, str]:
    """Name -> its line, from the text of one kind."""
    found = {}
    for line in succeed("list", kind).splitlines():
        name, _, said = line.partition(" ")
        assert name not in found
        found[name] = said.strip()
    return found


@pytest.mark.parametrize("kind", [kind for kind in KNOWN if kind != "gates"])
def test_every_kind_lists_what_the_spec_names_with_a_line_each(kind: str) -> None:
    found = entries(kind)
    assert set(KNOWN[kind].split()) <= set(found)
    assert found
    assert [name for name, said in found.items() if len(said) < 5] == []


@pytest.mark.parametrize("kind", ["schedules", "configs"])
def test_all_shipped_files_are_listed(kind: str) -> None:
    paths = [path for path in (ROOT / kind).rglob("*.yaml") if not path.name.endswith(".expect.yaml")]
    files = {path.relative_to(ROOT / kind).with_suffix("").as_posix() for path in paths}
    assert len(files) >= {"schedules": 4, "configs": 5}[kind]
    assert set(entries(kind)) == files


def test_names_and_lines_stand_in_columns() -> None:
    lines = succeed("list", "pruners").splitlines()
    starts = {len(line) - len(line.partition(" ")[2].lstrip()) for line in lines}
    assert len(starts) == 1
    assert lines == sorted(lines)


def test_without_a_kind_all_kinds_are_listed_under_their_headings() -> None:
    text = succeed("list")
    headings = [line for line in text.splitlines() if not line.startswith(" ")]
    assert headings == [f"{kind}:" for kind in KNOWN]
    for kind in KNOWN:
        block = text.partition(f"{kind}:\n")[2].splitlines()[: len(succeed("list", kind).splitlines())]
        assert [line.strip() for line in block] == [line.strip() for line in succeed("list", kind).splitlines()]


def test_a_kind_that_does_not_exist_is_exit_2_and_names_those_that_do() -> None:
    result = compress("list", "prunners")
    assert result.code == 2
    assert "pruners" in result.err
    assert "Traceback" not in result.err
