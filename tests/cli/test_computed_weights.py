"""A weight that a layer computes is refused by name, before anything is trained."""

from pathlib import Path

import pytest
from helpers import compress, succeed


@pytest.fixture
def config(work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network whose one linear layer is under the old weight_norm, as in many published networks."""
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    monkeypatch.syspath_prepend(work)
    (work / "normed_net.py").write_text(
        "import warnings\n"
        "from torch import nn\n"
        "def net(num_classes=10):\n"
        "    with warnings.catch_warnings():\n"
        "        warnings.simplefilter('ignore')\n"
        "        return nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, num_classes)))\n"
    )
    rest = "data: {name: digits, size: 8, images: 128}\noptimizer: {lr: 0.1}\nepochs: 1\nreport: {html: false}\n"
    (work / "c.yaml").write_text(f"model: {{name: 'normed_net:net'}}\n{rest}")
    return "c.yaml"


def test_validate_and_train_refuse_it_with_exit_2(work: Path, config: str) -> None:
    (work / "s.yaml").write_text("version: 2\npolicies:\n- freeze: {weights: 1.weight}\n")
    for command in (("validate", "s.yaml"), ("train", "-s", "s.yaml")):
        result = compress(*command, "-c", config)
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert "'1.weight' cannot be selected: weight_norm computes 1.weight" in result.err
    assert not (work / "runs").exists()


def test_such_a_network_has_a_report_and_nothing_to_thin(config: str) -> None:
    succeed("train", "-c", config, "--out", "run")
    assert "sparsity_all 0.00 % of 660 parameters" in succeed("report", "run")
    assert "nothing to remove: no filter and no channel is all zero (0 of 650 weights are zero)" in succeed(
        "thin", "run"
    )


PRUNED = """\
version: {version}
policies:
- pruner: {{class: Pruner, structure: Filters, weights: {weights}, rate: {{sparsity: 0.5}}}}
  epochs: [0]
"""
REMOVED = "- extension: {class: StructureRemover}\n  epochs: [0]\n"
KEPT = "weight_norm computes 5.weight"


def test_the_layers_beside_it_are_thinned_and_what_it_keeps_is_said_before_training(work: Path, config: str) -> None:
    (work / "deep_net.py").write_text(
        "import warnings\n"
        "from torch import nn\n"
        "def net(num_classes=10):\n"
        "    warnings.simplefilter('ignore')\n"
        "    last = nn.utils.weight_norm(nn.Linear(12, num_classes))\n"
        "    return nn.Sequential(\n"
        "        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), last)\n"
    )
    deep = ("-c", config, "--set", "model.name=deep_net:net")
    both = PRUNED.format(version=2, weights="[1.weight, 3.weight]")
    (work / "both.yaml").write_text(both)
    result = compress("validate", "both.yaml", *deep)
    assert result.code == 2
    said = f"3.weight is pruned by 0.Pruner, but {KEPT}: leave it out; all of this selection can be removed:"
    assert f"both.yaml:3:11: {said} `weights: [1.weight]`" in result.err
    (work / "both.yaml").write_text(both.replace("version: 2", "version: 1") + REMOVED)
    result = compress("train", "-s", "both.yaml", *deep, "--out", "run")
    assert result.code == 0, result.err
    assert f"warning: 3.weight is pruned by 0.Pruner, but {KEPT}: it is masked, and cannot be thinned" in result.out
    warned = "both.yaml:5:3: warning: 1.StructureRemover keeps the channels of 5.weight, which weight_norm computes: to"
    assert warned in result.out
    assert f"\n  3.weight: 6 zero filters stay: {KEPT}\n" in result.out
    (work / "one.yaml").write_text(PRUNED.format(version=2, weights="1.weight"))
    succeed("train", "-s", "one.yaml", *deep, "--out", "masked")
    before, after = 64 * 16 + 16 + 16 * 12 + 12 + 10 * 12 + 10 + 10, 64 * 8 + 8 + 8 * 12 + 12 + 10 * 12 + 10 + 10
    assert f"{before:,} parameters became {after:,}" in succeed("thin", "masked", "--no-latency")
    assert succeed("eval", "masked/thin.pt") == succeed("eval", "masked")
