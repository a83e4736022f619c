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
    rest = "data: {name: digits, size: 8, images: 128}\noptimizer: {lr: 0.1}\nepochs: 1\n"
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


def test_such_a_network_has_a_report_and_thin_says_why_it_cannot(config: str) -> None:
    succeed("train", "-c", config, "--out", "run")
    assert "sparsity_all 0.00 % of 660 parameters" in succeed("report", "run")
    result = compress("thin", "run")
    assert result.code == 1
    assert "run: its channels cannot be removed: weight_norm computes 1.weight" in result.err
    assert "remove_weight_norm(layer)" in result.err
