"""A small schedule in Distiller's own style for each of its classes: it validates, and trains."""

from pathlib import Path

import pytest
import yaml
from helpers import DISTILLER, compress, metrics, saved
from torch import Tensor

CONFIG = """\
model: {name: lenet_5, conv_relu: true}
data: {name: digits, images: 64, batch: 32, validation: 0.1}
optimizer: {name: sgd, lr: 0.1}
epochs: 3
report: {html: false}
"""
"""Two steps an epoch. conv1 20x1x5x5, conv2 50x20x5x5, fc1 500x800, fc2 10x500."""

WHEN = """\
    starting_epoch: 0
    ending_epoch: 3
    frequency: 1
"""

FILTERS = """\
    group_type: {group}
    weights: [module.conv1.weight]
"""
AT_ONCE, AGP = "    desired_sparsity: 0.5\n", "    initial_sparsity: 0.05\n    final_sparsity: 0.5\n"
BLOCKS = "    kwargs:\n      block_shape: [10, 1, 1, 1]\n"

PRUNERS = {
    "MagnitudeParameterPruner": "    thresholds:\n      'module.conv1.weight': 0.05\n      '*': 0.01\n",
    "SensitivityPruner": "    sensitivities:\n      'module.conv1.weight': 0.5\n",
    "SparsityLevelParameterPruner": "    levels:\n      module.conv1.weight: 0.5\n",
    "AutomatedGradualPruner": f"{AGP}    weights: [module.conv1.weight]\n",
    "BaiduRNNPruner": "    q: 0.05\n    ramp_epoch_offset: 1\n    ramp_slope_mult: 2\n"
    "    weights: [module.conv1.weight]\n",
    "SplicingPruner": "    low_thresh_mult: 0.9\n    hi_thresh_mult: 1.1\n    sensitivity_multiplier: 0.01\n"
    "    sensitivities:\n      'module.conv1.weight': 0.3\n",
    "StructureParameterPruner": "    reg_regims:\n      module.conv1.weight: [0.1, 3D]\n"
    "      module.fc2.weight: [0.02, Cols]\n    threshold_criteria: Mean_Abs\n",
    "L1RankedStructureParameterPruner": AT_ONCE + FILTERS.format(group="Filters"),
    "L1RankedStructureParameterPruner_AGP": AGP + FILTERS.format(group="3D"),
    "L2RankedStructureParameterPruner": AT_ONCE + FILTERS.format(group="Filters"),
    "L2RankedStructureParameterPruner_AGP": AGP + FILTERS.format(group="Blocks") + BLOCKS,
    # Of conv2's channels: the filters of conv1 that make them go with them.
    "FMReconstructionChannelPruner": AT_ONCE + "    group_type: Channels\n    weights: [module.conv2.weight]\n",
    "RandomLevelStructureParameterPruner": "    sparsity_range: [0.5, 0.549]\n" + FILTERS.format(group="Filters"),
    **{
        f"{name}{end}": share + FILTERS.format(group="Filters")
        for name in (
            "ActivationAPoZRankedFilterPruner",
            "ActivationMeanRankedFilterPruner",
            "GradientRankedFilterPruner",
            "RandomRankedFilterPruner",
            "BernoulliFilterPruner",
        )
        for end, share in (("", AT_ONCE), ("_AGP", AGP))
    },
}

HALF = {name for name in PRUNERS if any(word in name for word in ("Ranked", "Level", "Gradual", "Reconstruction"))}
"""Those that leave exactly half of conv1: 250 of 500 weights."""

ARGS = {
    "SplicingPruner": "      args:\n        use_double_copies: True\n        keep_mask: True\n",
    "BernoulliFilterPruner": "      args:\n        mini_batch_pruning_frequency: 1\n        use_double_copies: True\n"
    "        discard_masks_at_minibatch_end: True\n",
}

REGULARIZERS = {
    "L1Regularizer": "    reg_regims:\n      'module.fc1.weight': 1.0e-4\n    threshold_criteria: Max\n",
    "GroupLassoRegularizer": "    reg_regims:\n      'module.conv2.weight': [1.0e-3, 3D]\n"
    "      'module.fc1.weight': [1.0e-4, Rows]\n    threshold_criteria: Max\n",
    "GroupVarianceRegularizer": "    reg_regims:\n      'module.conv2.weight': [1.0e-6, 3D]\n",
}

LR_SCHEDULERS = {
    "PolynomialLR": ("    T_max: 4\n    power: 2\n", [0.1, 0.1 * 9 / 16, 0.1 * 4 / 16]),
    "MultiStepMultiGammaLR": ("    milestones: [1, 2]\n    gammas: [0.5, 0.1]\n", [0.1, 0.05, 0.005]),
}

EXTENSIONS = {  # what is pruned before, the function, the weight that becomes smaller and its shape then
    "FilterRemover": ("Filters", "module.conv1.weight", "remove_filters", "conv1.weight", (10, 1, 5, 5)),
    "ChannelRemover": ("Channels", "module.conv2.weight", "remove_channels", "conv1.weight", (10, 1, 5, 5)),
    "StructureRemover": ("Filters", "module.conv1.weight", "contract_model", "conv2.weight", (50, 10, 5, 5)),
}


def file(section: str, name: str, arguments: str, args: str = "", when: str = WHEN) -> str:
    kind = section.removesuffix("s")
    return (
        f"version: 1\n{section}:\n  an_instance:\n    class: {name}\n{arguments}\n"
        f"policies:\n  - {kind}:\n      instance_name: an_instance\n{args}{when}"
    )


def trained(text: str, work: Path) -> dict[str, Tensor]:
    """The weights after `compress validate` and `compress train` said that all is well."""
    (work / "small.yaml").write_text(CONFIG)
    (work / "distiller.yaml").write_text(text)
    result = compress("validate", "distiller.yaml", "-c", "small")
    assert (result.code, "warning" in result.err) == (0, False), result.err
    assert "valid for small" in result.out
    result = compress("train", "-s", "distiller.yaml", "-c", "small", "--out", "run", "--device", "cpu")
    assert result.code == 0, result.err
    assert [line["epoch"] for line in metrics(work / "run")] == [0, 1, 2]
    found: dict[str, Tensor] = saved(work / "run" / "checkpoint.pt")["model"]
    return found


def test_there_is_a_file_for_every_class() -> None:
    by_section = {
        "pruners": PRUNERS,
        "regularizers": REGULARIZERS,
        "lr_schedulers": LR_SCHEDULERS,
        "extensions": EXTENSIONS,
    }
    assert {section: sorted(names) for section, names in by_section.items()} == {
        section: sorted(names) for section, names in DISTILLER.items()
    }


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner(name: str, work: Path) -> None:
    zeros = int((trained(file("pruners", name, PRUNERS[name], ARGS.get(name, "")), work)["conv1.weight"] == 0).sum())
    if name in HALF:
        assert zeros == 250
    elif name in ARGS and "discard" in ARGS[name]:
        assert zeros == 0
    else:
        assert 0 < zeros < 500


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer(name: str, work: Path) -> None:
    trained(file("regularizers", name, REGULARIZERS[name]), work)
    assert all(line["losses"]["an_instance"] > 0 for line in metrics(work / "run"))


@pytest.mark.parametrize("name", LR_SCHEDULERS)
def test_a_learning_rate_schedule(name: str, work: Path) -> None:
    arguments, rates = LR_SCHEDULERS[name]
    trained(file("lr_schedulers", name, arguments), work)
    assert [line["lr"] for line in metrics(work / "run")] == pytest.approx(rates)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_an_extension(name: str, work: Path) -> None:
    group, weight, function, smaller, shape = EXTENSIONS[name]
    pruner = f"{AT_ONCE}    group_type: {group}\n    weights: [{weight}]\n"
    arguments = f"    thinning_func_str: {function}\n"
    first = yaml.safe_load(file("pruners", "L1RankedStructureParameterPruner", pruner))
    second = yaml.safe_load(file("extensions", name, arguments, when="    epochs: [1]\n"))
    whole = {**first, **second, "policies": first["policies"] + second["policies"]}
    whole["policies"][0].update(starting_epoch=0, ending_epoch=1)
    assert trained(yaml.safe_dump(whole, sort_keys=False), work)[smaller].shape == shape
