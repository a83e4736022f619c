"""`--init` says how many zeros the checkpoint has; `--keep-zeros` and `keep_zeros: true` hold them."""

import re
from pathlib import Path

import pytest
import torch
from helpers import compress, metrics, succeed

SMALL = ("--set", "data.images=128", "--set", "epochs=1")
SPARSE = """\
version: 2
policies:
- {pruner: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 0.75}}, epochs: [0]}
"""


@pytest.fixture
def sparse(work: Path) -> str:
    """A checkpoint with 768 of 1,024 + 160 weights zero."""
    (work / "sparse.yaml").write_text(SPARSE)
    succeed("train", "-s", "sparse.yaml", "-c", "tiny", *SMALL, "--out", "sparse")
    return "sparse/checkpoint.pt"


def zeros(run: str) -> int:
    model = torch.load(f"{run}/checkpoint.pt", weights_only=True)["model"]
    return int((model["fc1.weight"] == 0).sum())


def test_zeros_that_will_be_trained_again_are_counted_aloud_and_flag_and_key_hold_them(sparse: str, work: Path) -> None:
    source = str(work / sparse)
    plain = succeed("train", "-c", "tiny", *SMALL, "--init", sparse, "--out", "plain")
    said = f"warning: {source} has 768 zero weights, 64.9 % of 1,184: they are trained again"
    assert next(line for line in plain.splitlines() if "zero weights" in line).startswith(said)
    assert "--keep-zeros" in plain
    assert zeros("plain") < 100
    assert said in (work / "plain" / "log.txt").read_text()
    held = succeed("train", "-c", "tiny", *SMALL, "--init", sparse, "--keep-zeros", "--out", "held")
    assert f"{source} has 768 zero weights, 64.9 % of 1,184: they stay zero to the end" in held
    assert "warning" not in held
    assert zeros("held") == 768
    assert metrics(work / "held")[0]["sparsity"] == pytest.approx(768 / 1184)
    assert re.search(r"^total +1,184 +416 +64\.86 ", held, re.MULTILINE)
    # The key of the configuration says the same, and so does the folder that it wrote.
    (work / "kept.yaml").write_text((work / "tiny.yaml").read_text() + f"init: {{path: {sparse}, keep_zeros: true}}\n")
    succeed("train", "-c", "kept", *SMALL, "--out", "key")
    assert (work / "key" / "config.yaml").read_text() == (work / "held" / "config.yaml").read_text()
    assert metrics(work / "key") == metrics(work / "held")
    # What it began with may be gone afterwards.
    (work / sparse).unlink()
    assert "finished already" in succeed("train", "--resume", "--out", "key")
    assert "64.86" in succeed("report", "key")


def test_a_dense_checkpoint_has_no_zeros_to_speak_of(work: Path) -> None:
    """Its biases begin at 0; it has no epoch of training behind it."""
    succeed("train", "-c", "tiny", *SMALL, "--set", "init=xavier", "--set", "optimizer.lr=1e-30", "--out", "dense")
    start = ("train", "-c", "tiny", *SMALL, "--init", "dense/checkpoint.pt")
    assert "zero weights" not in succeed(*start, "--out", "plain")
    assert "has no zero weights that could be kept" in succeed(*start, "--keep-zeros", "--out", "held")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{pth: a.pt}", "unknown key 'pth' in the configuration: did you mean 'path'?"),
        ("{path: 3}", "'path' of the configuration: should be a string, got 3"),
        ("{path: tiny.yaml, keep_zeros: 1}", "'keep_zeros' of the configuration: should be a boolean, got 1"),
        ("{keep_zeros: true}", "the configuration needs the key 'path'"),
        ("{path: gone.pt}", "'gone.pt' is not a checkpoint file"),
        ("{path: xavier, keep_zeros: true}", "no checkpoint file 'xavier': write `init: xavier`, which has no zeros"),
        ("[a.pt]", "'init' of the configuration: should be a string"),
    ],
)
def test_what_is_wrong_with_init_is_said_in_one_line(given: str, said: str) -> None:
    result = compress("train", "-c", "tiny", "--set", f"init={given}")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert said in result.err


def test_the_flag_needs_a_checkpoint() -> None:
    result = compress("train", "-c", "tiny", "--keep-zeros")
    assert result.code == 2
    assert "--keep-zeros needs a checkpoint: --init CHECKPOINT, or `init: CHECKPOINT` in the conf" in result.err


def test_an_initialization_by_name_says_what_it_does_not_draw(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    monkeypatch.syspath_prepend(work)
    (work / "two_nets.py").write_text(
        "from torch import nn\n"
        "class lstm(nn.Module):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__()\n"
        "        self.r, self.fc = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.fc(self.r(x.squeeze(1))[0][:, -1])\n"
        "def normed(num_classes=10):\n"
        "    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, num_classes)))\n"
    )
    rest = "data: {name: digits, size: 8}\noptimizer: {lr: 0.1}\nepochs: 1\ninit: kaiming\nreport: {html: false}\n"
    (work / "lstm.yaml").write_text(f"model: {{name: 'two_nets:lstm'}}\n{rest}")
    (work / "normed.yaml").write_text(f"model: {{name: 'two_nets:normed'}}\n{rest}")
    (work / "s.yaml").write_text("version: 2\npolicies:\n- freeze: {weights: fc.weight}\n")
    result = compress("validate", "s.yaml", "-c", "lstm.yaml")
    assert result.code == 0
    names = "r.weight_ih_l0, r.weight_hh_l0"
    assert result.err == (
        "lstm.yaml:5:7: init: kaiming replaces the weights of convolutions and linear layers by new random ones, also"
        " those that two_nets:lstm has loaded; `init: default` keeps them\n"
        f"lstm.yaml:5:7: init: kaiming draws convolutions and linear layers; {names} begin as PyTorch draws them\n"
    )
    result = compress("train", "-c", "normed.yaml")
    assert result.code == 2
    assert "normed.yaml:5:7: init: kaiming: WeightNorm computes 1.weight from" in result.err
