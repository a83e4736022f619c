"""What only a run could refuse once, at its start or in a step: `validate` refuses it, with the line."""

from pathlib import Path

import composing
import pytest
import torch
from helpers import compress
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.registry import builders


class Added(nn.Module):
    """Two convolutions whose outputs are added."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3)
        self.fc = nn.Linear(3 * 36, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(torch.relu(self.conv1(x) + self.conv2(x)), 1))  # type: ignore[no-any-return]


def added(num_classes: Size = 10) -> Added:
    """A network of two convolutions that share their channels."""
    return Added(num_classes)


@pytest.fixture(autouse=True)
def _networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, builder in {**composing.NETWORKS, "added": added}.items():
        monkeypatch.setitem(builders(), name, builder)  # type: ignore[arg-type]


def refused(model: str, data: str, schedule: str, place: str, said: str) -> None:
    Path("c.yaml").write_text(
        f"model: {{name: {model}}}\ndata: {{name: digits, {data}}}\noptimizer: {{lr: 0.1}}\nepochs: 2\n"
    )
    Path("s.yaml").write_text(schedule)
    for command in (["validate", "s.yaml"], ["train", "--smoke", "-s", "s.yaml"]):
        result = compress(*command, "-c", "c.yaml")
        assert result.code == 2, result.err
        lines = result.err.removeprefix("error: ").splitlines()
        assert any(line.startswith(f"{place}: ") and said in line for line in lines), result.err
    assert not Path("runs").exists()


MLP = "mlp, hidden: [4], inputs: 64"
TWO = "version: 2\npolicies:\n"


@pytest.mark.parametrize(
    ("model", "policy", "said"),
    [
        (
            MLP,
            "gate: {class: NetworkSurgery, weights: '*', c: {fc1.weight: 1.0}}",
            "`c` has no value for fc2.weight, one of its weights: add it",
        ),
        (
            MLP,
            "gate: {class: NetworkSurgery, weights: '*', stop_step: {fc2.weight: 1}}",
            "`stop_step` has no value for fc1.weight, one of its weights: add it",
        ),
        (
            "bn_cnn, width: 2",
            "gate: {class: HashedWeights, weights: conv1.weight, compression: 0.5}",
            "HashedWeights needs weights of linear layers, conv1.weight is not one",
        ),
        (
            "added",
            "gate: {class: HardConcreteL0, weights: conv1.weight, structure: Filters, lambda: 0.1}",
            "all of its filters are shared with other layers: there is nothing to gate",
        ),
        (
            "tangled",
            "gate: {class: DropConnect, modules: mix}",
            "DropConnect expects inputs of shape (examples, features), mix gets Nx4x8x8",
        ),
        (
            "mlp, hidden: [5000], inputs: 64",
            "gate: {class: DropConnect, modules: fc1, sampling: per_example}",
            "draws 320,000,000 masks for fc1 at once (1000 examples x 320,000 weights), at most 268,435,456 are drawn",
        ),
        (
            MLP,
            "pruner: {class: SensitivityPruner, sensitivities: {'*': 0.5}, args: {fold_batchnorm: true}}",
            "fold_batchnorm: no batch norm follows any of its weights directly",
        ),
        (
            "odd",
            "pruner: {class: FMReconstructionChannelPruner, weights: twice.weight, group_type: Channels,"
            " desired_sparsity: 0.5}",
            "twice.weight is applied 2 times: it cannot be reconstructed",
        ),
        ("odd", "dropout: {modules: drop0}", "no weight comes before drop0: name one with `follow: {drop0: ...}`"),
        ("odd", "channel_pruning: {weights: twice.weight, sparsity: 0.5}", "twice.weight is applied 2 times"),
        ("odd", "channel_pruning: {weights: unused.weight, sparsity: 0.5}", "does not use unused.weight as it is"),
        (
            "tangled",
            "channel_pruning: {weights: mix.weight, sparsity: 0.5}",
            "mix.weight makes 4x8x6 outputs for an image, not a row: it cannot be reconstructed",
        ),
        (
            MLP,
            "lr_scheduler: {class: ExponentialLR, gamma: 1.0e+10, args: {interval: step}}",
            "ExponentialLR gives the learning rate inf at time",
        ),
    ],
)
def test_a_policy_is_refused_at_its_line(model: str, policy: str, said: str) -> None:
    data = "batch: 1000" if "per_example" in policy else "batch: 64"
    data += ", size: 8" if model in ("odd", "tangled", "added") or model.startswith("mlp") else ""
    kind = policy.partition(":")[0]
    refused(model, data, f"{TWO}- {policy}\n", f"s.yaml:3:{len(kind) + 5}", said)


@pytest.mark.parametrize(
    ("model", "other", "said"),
    [
        (
            "bn_cnn, width: 2",
            "gate: {class: HardConcreteL0, weights: conv1.weight, lambda: 0.1}\n  starting_epoch: 1",
            "channels of gated weights cannot be removed in training; use `compress thin` after the run",
        ),
    ],
)
def test_a_removal_that_can_remove_nothing_is_refused_at_its_line(model: str, other: str, said: str) -> None:
    schedule = f"{TWO}- extension: {{class: StructureRemover}}\n- {other}\n"
    refused(model, "size: 8", schedule, "s.yaml:3:3", said)
    Path("s.yaml").write_text(schedule.replace("Remover}", "Remover}\n  epochs: [2]"))  # after the run's end
    assert compress("validate", "s.yaml", "-c", "c.yaml").code == 0


@pytest.mark.parametrize(
    ("model", "data", "place", "said"),
    [
        ("mlp", "size: 8", "c.yaml:1:15", "the model mlp does not take digits images of 1x8x8: mat1 and mat2 shapes"),
        ("bn_cnn, num_classes: 7", "", "c.yaml:1:36", "model.num_classes is 7, but digits has 10 classes"),
        ("mlp", "mean: [0.1, 0.2]", "c.yaml:2:28", "data.mean: expected 1 value, got 2"),
        ("mlp", "channels: 3, std: [0.1, 0.2]", "c.yaml:2:40", "data.std: expected 3 values (one per channel) or 1"),
        ("mlp", "images: 1438", "c.yaml:2:30", "data.images: there are 1437 training images, fewer than 1438"),
        ("mlp", "images: 10, validation: 0.01", "c.yaml:2:46", "0.01 of 10 images leaves no image for validation"),
    ],
)
def test_a_configuration_is_refused_at_its_line(model: str, data: str, place: str, said: str) -> None:
    refused(model, data, f"{TWO}- freeze: {{weights: '*'}}\n", place, said)


def test_published_weights_of_a_model_that_has_none_are_refused(work: Path) -> None:
    (work / "s.yaml").write_text("version: 2\npolicies: [{freeze: {weights: '*'}}]\n")
    result = compress("validate", "s", "-c", "tiny", "--set", "model.pretrained=true")
    assert result.code == 2
    assert "--set model.pretrained=true: model 'mlp' has no published weights" in result.err


def test_so_are_those_of_a_factory_that_does_not_take_them(work: Path) -> None:
    (work / "mine_only.py").write_text(
        "from torch import nn\n\n\ndef make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    (work / "own.yaml").write_text(
        "model: {name: 'mine_only:make', pretrained: true}\ndata: {name: mnist}\noptimizer: {lr: 0.1}\nepochs: 1\n"
    )
    (work / "s.yaml").write_text("version: 2\npolicies: [{freeze: {weights: '*'}}]\n")
    result = compress("validate", "s", "-c", "own", "--allow-plugins")
    assert result.code == 2
    assert "own.yaml:1:45: model 'mine_only:make'" in result.err
    assert "pretrained" in result.err


@pytest.mark.parametrize(
    ("phases", "offers"),
    [
        ("dsd: {weights: '*', sparsity: 1.0, dense_epochs: 0, sparse_epochs: 1, redense_epochs: 1}", False),
        ("pruner: {class: SparsityLevelParameterPruner, levels: {'*': 1.0}}", True),
    ],
)
def test_empty_layers_are_offered_where_the_policy_can_allow_them(work: Path, phases: str, offers: bool) -> None:
    (work / "s.yaml").write_text(f"version: 2\npolicies: [{{{phases}}}]\n")
    result = compress("validate", "s", "-c", "tiny")
    assert result.code == 2
    assert "prunes all" in result.err
    assert ("allow_empty_layers" in result.err) == offers


def test_a_global_pruner_of_a_name_that_matches_nothing_is_one_fault(work: Path) -> None:
    (work / "s.yaml").write_text(
        "version: 2\npruners:\n"
        "  p: {class: Pruner, structure: Filters, scope: global, weights: ['fc9*'], rate: {sparsity: 0.5}}\n"
        "policies:\n  - {pruner: {instance_name: p}, epochs: [0]}\n"
    )
    result = compress("validate", "s.yaml", "-c", "tiny")
    assert result.code == 2
    assert result.err.startswith("s.yaml:3:67: 'fc9*' matches no weight: ")
    assert result.err.count("\n") == 1
