"""What `compress validate` and `compress plan` say of structures that do not fit, and of channels that are shared."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Result, compress, succeed

RANKED = "class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, group_type: "
GENERAL = "class: Pruner, rate: {sparsity: 0.5}, structure: "
PLACE = "s.yaml:3:11: "
"""Of the pruner, which stands inside its policy."""


@pytest.fixture(autouse=True)
def configs(work: Path) -> None:
    """Networks of all kinds of coupling, on the digits that scikit-learn has."""
    rest = "optimizer: {lr: 0.1}\nepochs: 3\nreport: {html: false}\n"
    for name, data in (
        ("lenet_5", "name: digits"),
        ("bn_cnn", "name: digits"),
        ("resnet20_cifar", "name: digits, size: 32, channels: 3"),
        ("squeezenet1_1", "name: digits, size: 64, channels: 3"),
    ):
        (work / f"{name}.yaml").write_text(f"model: {{name: {name}}}\ndata: {{{data}}}\n{rest}")
    (work / "folder.yaml").write_text(f"model: {{name: bn_cnn, num_classes: 3}}\ndata: {{name: imagefolder}}\n{rest}")


def schedule(component: str, weights: str, version: int) -> None:
    text = f"version: {version}\npolicies:\n- pruner: {{{component}, weights: {weights}}}\n  epochs: [0]\n"
    Path("s.yaml").write_text(text)


def validated(component: str, weights: str, config: str, version: int = 2) -> Result:
    schedule(component, weights, version)
    return compress("validate", "s.yaml", "-c", config)


def accepted(result: Result, *notes: str) -> None:
    """Exit 0, with a line for each note and no other; each begins with the pruner's place."""
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert len(lines) == len(notes), result.err
    assert [note for note, line in zip(notes, lines, strict=True) if note not in line] == [], result.err
    assert all(line.startswith(PLACE) for line in lines)


def refused(result: Result, *faults: str) -> None:
    """Exit 2, with a line for each fault and no other; each begins with the pruner's place, or one inside it."""
    assert result.code == 2, result.err
    lines = result.err.splitlines()
    assert len(lines) == len(faults), result.err
    assert [fault for fault, line in zip(faults, lines, strict=True) if fault not in line] == [], result.err
    assert all(line.startswith("s.yaml:3:") for line in lines)
    assert "Traceback" not in result.err


# --- channels that are shared ----------------------------------------------------------------------------------------

PARTNERS = "conv1.weight, layer1.1.conv2.weight, layer1.2.conv2.weight make the same channels (joined by add)"
STAGE = ("conv1.weight", "layer1.0.conv2.weight", "layer1.1.conv2.weight", "layer1.2.conv2.weight")
ALL_OF_IT = "[conv1.weight, 're:^layer1.*conv2.weight']"


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_broken_coupling_in_version_1_is_a_warning_that_says_which_weight_and_why(command: str) -> None:
    schedule(RANKED + "Filters", "[module.layer1.0.conv2.weight]", 1)
    result = compress(command, "s.yaml", "-c", "resnet20_cifar")
    accepted(result, "warning: layer1.0.conv2.weight is pruned by")
    assert f"but {PARTNERS}: it is masked, and cannot be thinned" in result.err


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_broken_coupling_in_version_2_is_an_error_with_a_way_out(command: str) -> None:
    schedule(RANKED + "Filters", "[layer1.0.conv2.weight]", 2)
    result = compress(command, "s.yaml", "-c", "resnet20_cifar")
    assert result.code == 2
    assert f"{PLACE}layer1.0.conv2.weight is pruned by" in result.err
    said = "conv1.weight, layer1.1.conv2.weight, layer1.2.conv2.weight, too, or use `scope: coupled` of `class: Pruner`"
    assert f"but {PARTNERS}: select {said}; all of this selection can be removed: `weights: [" in result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert not Path("runs").exists()


def test_training_is_refused_as_validation_is() -> None:
    schedule(RANKED + "Filters", "[layer1.0.conv2.weight]", 2)
    result = compress("train", "-s", "s.yaml", "-c", "resnet20_cifar")
    assert result.code == 2
    assert f"{PLACE}layer1.0.conv2.weight is pruned by" in result.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("component", "weights", "version"),
    [
        (RANKED + "Filters", ALL_OF_IT, 1),
        (RANKED + "Filters", ALL_OF_IT, 2),
        (RANKED + "Filters, group_dependency: Leader", ALL_OF_IT, 1),
        (GENERAL + "Filters, scope: global", ALL_OF_IT, 2),
        (GENERAL + "Filters, scope: coupled", ALL_OF_IT, 2),
    ],
)
def test_weights_that_are_ranked_as_one_are_named(component: str, weights: str, version: int) -> None:
    result = validated(component, weights, "resnet20_cifar", version)
    accepted(result, f"ranks as one, for they share channels: {', '.join(STAGE)}")


def test_a_coupled_scope_names_what_it_pulls_in_after_what_is_listed() -> None:
    result = validated(GENERAL + "Filters, scope: coupled", f"[{STAGE[2]}]", "resnet20_cifar")
    accepted(result, f"for they share channels: {STAGE[2]}, {STAGE[0]}, {STAGE[1]}, {STAGE[3]}")


def test_a_plan_predicts_the_zeros_of_what_a_coupled_scope_pulls_in() -> None:
    schedule(GENERAL + "Filters, scope: coupled", f"[{STAGE[1]}]", 2)
    plan = json.loads(succeed("plan", "s.yaml", "-c", "resnet20_cifar", "--json"))
    sparsity = {row["name"]: row["sparsity"] for row in plan["predicted"]}
    assert {name: sparsity[name] for name in STAGE} == dict.fromkeys(STAGE, 0.5)


@pytest.mark.parametrize("version", [1, 2])
def test_the_first_convolutions_of_blocks_are_nobody_else_s_and_nothing_is_said(version: int) -> None:
    accepted(validated(RANKED + "Filters", "['re:^layer.*conv1.weight$']", "resnet20_cifar", version))
    accepted(validated(RANKED + "Filters", "['conv*.weight']", "bn_cnn", version))


@pytest.mark.parametrize("version", [1, 2])
def test_channels_that_others_read_too_are_broken_as_well(version: int) -> None:
    result = validated(RANKED + "Channels", "[layer1.0.conv1.weight]", "resnet20_cifar", version)
    why = "layer1.0.conv1.weight is pruned by 0.L1RankedStructureParameterPruner, but layer1.1.conv1.weight"
    (accepted if version == 1 else refused)(result, why)
    assert "read the same channels" in result.err


@pytest.mark.parametrize(("config", "weight"), [("lenet_5", "fc2.weight"), ("resnet20_cifar", "fc.weight")])
@pytest.mark.parametrize("group", ["Filters", "Rows"])
def test_who_prunes_whole_classes_is_refused_and_offered_the_exclusion(config: str, weight: str, group: str) -> None:
    said = f"{weight} makes the logits: 0.L1RankedStructureParameterPruner prunes whole classes of it ({group})"
    refused(validated(RANKED + group, f"[{weight}]", config), f"{said}: exclude it: '!{weight}'")
    if group == "Filters":  # in version 1 rows are inputs
        warning = f"warning: {said}, and its zeros cannot be thinned"
        accepted(validated(RANKED + group, f"[{weight}]", config, 1), warning)


@pytest.mark.parametrize(
    ("structure", "refuses"),
    [
        ("Filters, scope: coupled", True),
        ("Layer, scope: global", True),
        ("Blocks, block_shape: [2, 500]", True),
        ("Blocks, block_shape: [2, 250]", False),
        ("{Runs: 500}", True),
        ("{Runs: 250}", False),
        ("Cols", False),
    ],
)
def test_a_structure_that_has_all_weights_of_a_class_is_refused(structure: str, refuses: bool) -> None:
    result = validated(GENERAL + structure, "[fc2.weight]", "lenet_5")
    assert (result.code, "fc2.weight makes the logits" in result.err) == (2 if refuses else 0, refuses)


@pytest.mark.parametrize(
    ("policy", "refuses"),
    [
        ("regularizer: LASSO [0.1, Rows]}, threshold: 0.1, threshold_criteria: Max}", True),
        (
            "regularizer: LASSO [0.1, Rows]}, proximal: true}",
            True,
        ),
        ("regularizer: LASSO [0.1, Cols]}, proximal: true}", False),
        ("regularizer: LASSO [0.1, Rows]}}", False),
        (
            "pruner: {class: StructureParameterPruner, reg_regims: {fc2.weight: [0.1, Rows]}, threshold_criteria: Max}",
            True,
        ),
    ],
)
def test_thresholds_on_whole_classes_are_refused_too(policy: str, refuses: bool) -> None:
    policy = policy.replace("LASSO", "{class: GroupLassoRegularizer, REGIMS").replace(
        "REGIMS", "reg_regims: {fc2.weight:"
    )
    Path("s.yaml").write_text(f"version: 2\npolicies:\n- {policy}\n  epochs: [0]\n")
    result = compress("validate", "s.yaml", "-c", "lenet_5")
    assert result.code == (2 if refuses else 0), result.err
    assert ("fc2.weight makes the logits" in result.err) == refuses
    assert ("leave it out" in result.err) == refuses


@pytest.mark.parametrize(
    ("policy", "weights"),
    [
        ("pruner: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 1.0, conv1.weight: 0.5}}", ["fc1.weight"]),
        ("pruner: {class: AutomatedGradualPruner, final_sparsity: 1.0, weights: 'fc*'}", ["fc1.weight", "fc2.weight"]),
        ("pruner: {class: Pruner, weights: 'fc*', scope: global, rate: {sparsity: 1.0}}", ["fc1.weight", "fc2.weight"]),
        (
            "dsd: {weights: fc1.weight, sparsity: 1.0, dense_epochs: 1, sparse_epochs: 1, redense_epochs: 1}",
            ["fc1.weight"],
        ),
    ],
)
def test_a_sparsity_of_1_on_the_only_path_is_refused(policy: str, weights: list[str]) -> None:
    said = f"{weights[0]} is all zero: the logits no longer depend on the image"
    Path("s.yaml").write_text(f"version: 2\npolicies:\n- {policy}\n  starting_epoch: 0\n  ending_epoch: 3\n")
    result = compress("validate", "s.yaml", "-c", "lenet_5")
    assert (result.code, said in result.err) == (2, True), result.err
    assert ("allow_empty_layers" in result.err) == policy.startswith("pruner")
    if policy.startswith("pruner"):
        text = Path("s.yaml").read_text().replace("}\n  start", ", args: {allow_empty_layers: true}}\n  start")
        Path("s.yaml").write_text(text)
        result = compress("validate", "s.yaml", "-c", "lenet_5")
        assert (result.code, "warning: " in result.err and said in result.err) == (0, True), result.err
        Path("s.yaml").write_text(text.replace("version: 2", "version: 1"))
        assert "'allow_empty_layers' needs `version: 2`" in compress("validate", "s.yaml", "-c", "lenet_5").err


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (1, "0.5 of the weights left then, that is 75.00 % of the dense weights"),
        (2, "0.5 of the dense weights, that is 0.00 % of those left then"),
    ],
)
def test_validate_and_plan_say_both_sparsities_after_a_removal(version: int, said: str) -> None:
    pruner = f"{{{RANKED}Filters, weights: [conv1.weight]}}"
    Path("s.yaml").write_text(
        f"version: {version}\npolicies:\n- pruner: {pruner}\n  epochs: [0, 2]\n"
        "- extension: {class: FilterRemover}\n  epochs: [1]\n"
    )
    line = f"s.yaml:3:3: 0.L1RankedStructureParameterPruner: in epoch 2, after the removal of channels: {said}"
    for command in ("validate", "plan"):
        assert compress(command, "s.yaml", "-c", "lenet_5").err.splitlines() == [line]


def test_a_dead_block_beside_a_live_shortcut_is_no_fault() -> None:
    accepted(validated("class: Pruner, rate: {sparsity: 1.0}", "[layer1.0.conv1.weight]", "resnet20_cifar"))
    refused(
        validated("class: Pruner, rate: {sparsity: 1.0}", "[conv1.weight]", "resnet20_cifar"),
        "conv1.weight is all zero",
    )


@pytest.mark.parametrize("component", [RANKED + "Cols", RANKED + "Channels", GENERAL + "Elements"])
def test_who_prunes_the_classifier_s_inputs_is_not(component: str) -> None:
    accepted(validated(component, "[fc2.weight]", "lenet_5"))


def test_filters_of_the_whole_network_are_joint_by_stage_and_warned_of_at_the_end() -> None:
    result = validated(RANKED + "Filters", "'*'", "resnet20_cifar", 1)
    accepted(result, ", ".join(STAGE), "layer2.0.downsample.0.weight", "layer3.0.downsample.0.weight", "fc.weight")


# --- structures that do not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_filters_of_a_linear_layer_are_its_rows(version: int) -> None:
    accepted(validated(RANKED + "Filters", "[conv2.weight, fc1.weight]", "lenet_5", version))


@pytest.mark.parametrize(
    ("component", "weights", "faults"),
    [
        (
            RANKED + "Rows",
            "[conv1.weight, fc1.weight]",
            ["conv1.weight: Rows are structures of weights of linear layers, this weight's shape is 20x1x5x5"],
        ),
        (
            RANKED + "Cols",
            "['conv*.weight']",
            ["conv1.weight: Cols are structures", "conv2.weight: Cols are structures"],
        ),
        (GENERAL + "Kernels", "[fc1.weight]", ["fc1.weight: 2D are structures of weights of 1-d convolutions"]),
        (GENERAL + "Shapes", "[fc1.bias]", ["fc1.bias: Shapes are structures"]),
        (
            RANKED + "Blocks, kwargs: {block_shape: [4, 2, 1, 1]}",
            "[conv1.weight, conv2.weight, fc1.weight]",
            [
                "conv1.weight: 20 filters x 1 channels are not divisible by 4 x 2",
                "conv2.weight: 50 filters x 20 channels are not divisible by 4 x 2",
            ],
        ),
        (
            GENERAL + "Blocks, block_shape: [3, 1]",
            "[fc2.weight]",
            ["fc2.weight: 10 filters x 500 channels are not divisible by 3 x 1"],
        ),
    ],
)
def test_weights_that_cannot_be_cut_so_are_one_fault_each(component: str, weights: str, faults: list[str]) -> None:
    refused(validated(component, weights, "lenet_5"), *faults)


@pytest.mark.parametrize(("version", "notes"), [(1, ["ranks stored columns (inputs) in version 1"]), (2, [])])
def test_rows_of_version_1_are_said_to_be_columns(version: int, notes: list[str]) -> None:
    accepted(validated(RANKED + "Rows", "[fc1.weight]", "lenet_5", version), *notes)


@pytest.mark.parametrize("version", [1, 2])
def test_rows_of_the_general_pruner_are_rows_in_both_versions(version: int) -> None:
    accepted(validated(GENERAL + "Rows", "[fc1.weight]", "lenet_5", version))


@pytest.mark.parametrize(
    ("component", "said"),
    [
        (RANKED + "Filter", "should be 'Filters', '3D', 'Channels', 'Rows', 'Cols' or 'Blocks', got 'Filter'"),
        (RANKED + "Kernels", "'Filters', '3D', 'Channels', 'Rows', 'Cols' or 'Blocks', got 'Kernels'"),
        (GENERAL + "Chanels", "there is no structure 'Chanels': did you mean 'Channels'"),
        (RANKED + "Blocks", "belongs to `group_type: Blocks`"),
        (RANKED + "Filters, kwargs: {block_shape: [2, 1, 1, 1]}", "belongs to `group_type: Blocks`"),
        (RANKED + "Blocks, kwargs: {block_shape: [2, 1]}", "block_shape"),
        (RANKED + "Blocks, kwargs: {block_shape: [2, 1, 3, 3]}", "should be [filters, channels, 1, 1]"),
        (RANKED + "Blocks, kwargs: {block_shape: [0, 1, 1, 1]}", "should be [filters, channels, 1, 1]"),
        (RANKED + "Blocks, kwargs: {blok_shape: [2, 1, 1, 1]}", "did you mean 'block_shape'"),
        (RANKED + "Filters, group_size: 0", "group_size"),
        (RANKED + "Filters, rounding_fn: up", "'floor', 'ceil' or 'round', got 'up'"),
        (RANKED + "Filters, noise: -1", "noise"),
        (RANKED + "Filters, group_dependency: leader", "got 'leader'"),
        (RANKED.replace("0.5", "-0.5") + "Filters", "'desired_sparsity' of L1RankedStructureParameterPruner"),
        (RANKED.replace("0.5", ".nan") + "Filters", "'.nan' is not a finite number"),
        (RANKED.replace("0.5", "half") + "Filters", "should be a number, got 'half'"),
        (RANKED.replace("Pruner", "Pruner_AGP") + "Filters, final_sparsity: 0.5", "unknown key 'desired_sparsity'"),
        (RANKED.replace("L1", "L3") + "Filters", "no class 'L3RankedStructureParameterPruner' in 'pruners': did you"),
        (
            "class: RandomLevelStructureParameterPruner, group_type: Filters, sparsity_range: [.nan, 0.1]",
            "'sparsity_range': '.nan' is",
        ),
        (GENERAL + "Filters, criterion: apox", "there is no criterion 'apox': did you mean 'apoz'?"),
        (GENERAL.replace("sparsity: 0.5", "agp: {final_sparsity: 1.5}") + "Filters", "'final_sparsity' of Pruner"),
        (GENERAL.replace("sparsity: 0.5", "agpp: {final_sparsity: 0.5}") + "Filters", "did you mean 'agp'"),
        (GENERAL + "Blocks", "`structure: Blocks` needs `block_shape: [filters, channels]`"),
        (GENERAL + "Filters, block_shape: [2, 2]", "`block_shape: [filters, channels]` belongs to"),
        (GENERAL + "Kernels, scope: coupled", "not 2D"),
        (GENERAL + "4D", "`scope: global`, which ranks layers"),
        (
            "class: Pruner, structure: Filters, rate: {threshold: 0.1}",
            "of others max or mean_abs), or a rate that is a sparsity",
        ),
        (
            "class: Pruner, structure: Filters, rate: {std: 0.1}",
            "of others max or mean_abs), or a rate that is a sparsity",
        ),
    ],
)
def test_a_wrong_option_is_one_fault_with_its_place(
    faults_of: Callable[[str], list[str]], component: str, said: str
) -> None:
    schedule(component, "[w]", 2)
    (fault,) = faults_of(Path("s.yaml").read_text())
    assert fault.startswith("s.yaml:3:")
    assert said in fault


# --- where channels are not known ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_network_whose_code_asks_for_values_is_followed_with_values(command: str) -> None:
    Path("asking.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self, num_classes=10):\n"
        "        super().__init__()\n        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)\n"
        "        self.fc = nn.Linear(8, num_classes)\n    def forward(self, x):\n"
        "        x = x if float(x.sum()) < 1e9 else -x\n        return self.fc((self.a(x) + self.b(x)).mean((2, 3)))\n"
    )
    schedule(RANKED + "Filters", "[a.weight]", 2)
    options = ("--set", "model={name: asking:Net}", "--set", "data.size=8", "--allow-plugins")
    result = compress(command, "s.yaml", "-c", "squeezenet1_1", *options)
    assert result.code == 2, result.err
    assert (
        "a.weight is pruned by 0.L1RankedStructureParameterPruner, but b.weight makes the same channels" in result.err
    )


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_images_of_unknown_shape_are_said_and_a_size_makes_them_known(command: str) -> None:
    schedule(RANKED + "Filters", "[conv1.weight]", 2)
    result = compress(command, "s.yaml", "-c", "folder")
    accepted(result, "shares with other weights depends on the images' shape")
    sized = ("--set", "data.size=32", "--set", "model.in_channels=3")
    accepted(compress(command, "s.yaml", "-c", "folder", *sized))


@pytest.mark.parametrize("config", ["squeezenet1_1", "folder"])
def test_single_weights_and_kernels_need_no_channels(config: str) -> None:
    accepted(validated(GENERAL + "Kernels", "['type:Conv2d']", config))
    accepted(validated(GENERAL + "Elements", "'*'", config))


def test_blocks_of_a_weight_that_was_thinned_in_the_meantime_end_in_no_traceback() -> None:
    Path("s.yaml").write_text(
        "extensions:\n  thin: {class: FilterRemover, thinning_func_str: remove_filters, arch: a, dataset: b}\n"
        f"policies:\n  - pruner: {{{RANKED}Filters, weights: [conv1.weight]}}\n    epochs: [0]\n"
        "  - extension: {instance_name: thin}\n    epochs: [0]\n"  # 20 filters become 10
        f"  - pruner: {{{RANKED}Blocks, kwargs: {{block_shape: [1, 4, 1, 1]}}, weights: [conv2.weight]}}\n"
        "    epochs: [1]\n"
    )
    succeed("validate", "s.yaml", "-c", "lenet_5")
    result = compress("train", "-s", "s.yaml", "-c", "lenet_5", "--set", "epochs=2")
    assert "RuntimeError" not in result.err
    assert "internal error" not in result.err
