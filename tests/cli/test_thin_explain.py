"""`compress thin --explain`: the channel groups on the terminal, as JSON and as a picture, before any run."""

import json
from pathlib import Path

import pytest
from helpers import compress, succeed

from compressor import files

TINY_GROUPS = [
    (16, ["fc1"], ["fc2"], None),
    (10, ["fc2"], [], "they are the network's output"),
]
"""Of `tiny`'s 64-16-10."""


def explained(*arguments: object) -> list[tuple[int, list[str], list[str], str | None]]:
    found = json.loads(succeed("thin", "--explain", "--json", *arguments))
    assert found["schema"] == 1
    return [
        (g["channels"], [m["name"] for m in g["makers"]], [m["name"] for m in g["readers"]], g["reason"])
        for g in found["groups"]
    ]


def test_a_configuration_is_explained_without_data_or_a_run() -> None:
    before = sorted(Path().iterdir())
    assert explained("-c", "tiny") == TINY_GROUPS
    assert explained("-c", "tiny", "--set", "model.hidden=[8]")[0][0] == 8
    assert sorted(Path().iterdir()) == before


def test_the_table_of_a_residual_network_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = succeed("thin", "--explain", "-c", "resnet20_cifar10").splitlines()
    assert max(map(len, lines)) <= 80
    # 16 + 3 x 16 + 32 + 3 x 32 + 64 + 3 x 64 channels, and 10 classes.
    said = "resnet20_cifar on images of 3x32x32: 13 groups; 448 of 458 channels can be removed"
    assert " ".join(" ".join(lines[:2]).split()) == said
    assert "    1        16  made by    conv1, layer1.{0..2}.conv2" in lines
    assert max(map(len, succeed("thin", "--explain", "-c", "resnet20_cifar10", "--wide").splitlines())) > 80


def test_a_picture_is_written_and_an_older_one_replaced_or_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("net.svg").write_text("older")
    assert "written: net.svg" in succeed("thin", "--explain", "-c", "tiny", "--svg", "net.svg")
    text = Path("net.svg").read_text()
    assert text.startswith("<svg ")
    assert "fc1" in text

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    result = compress("thin", "--explain", "-c", "tiny", "--svg", "net.svg")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: net.svg: cannot be written: ")
    assert Path("net.svg").read_text() == text
    assert [path.name for path in Path().glob("*.svg*")] == ["net.svg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--explain"], "there is no network to explain: give a CHECKPOINT, or --config with the model"),
        (["--explain", "-c", "tiny", "--out", "x.pt"], "--explain removes nothing: leave out --out"),
        (["--explain", "-c", "tiny", "--round-to", "1"], "leave out --round-to"),
        (["--svg", "x.svg", "run"], "give --explain, too"),
        (["--explain", "-c", "tiny", "--svg", "run/checkpoint.pt"], "the name of an SVG file ends in .svg"),
        (["--explain", "-c", "tiny", "--svg", "nowhere/x.svg"], "there is no folder nowhere"),
        (["--explain", "-c", "tinny"], "tiny"),
        (["--explain", "-c", "tiny", "--set", "model.name=mpl"], "mlp"),
        (["--explain", "-c", "tiny", "--set", "model.inputs=50"], "does not take"),
        (["--explain", "nowhere.pt"], "nowhere.pt"),
        ([], "Missing argument 'CHECKPOINT'"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], said: str) -> None:
    result = compress("thin", *arguments)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert len([line for line in result.err.splitlines() if "rror: " in line]) == 1
    assert "Traceback" not in result.err


STRUCTURE = "class: L1RankedStructureParameterPruner, group_type: Rows, desired_sparsity: 0.5, weights: [fc1.weight]"
ELEMENTS = "class: SparsityLevelParameterPruner, levels: {'*': 0.5}"


def plan(pruner: str, more: str = "", *flags: str) -> str:
    Path("s.yaml").write_text(f"version: 2\npolicies:\n- pruner: {{{pruner}}}\n  epochs: [0]\n{more}")
    return succeed("plan", "s.yaml", "-c", "tiny", *flags)


REMOVER = "- {extension: {class: StructureRemover}, epochs: [1]}\n"


def test_a_plan_of_structures_names_the_groups_that_they_prune() -> None:
    lines = plan(STRUCTURE).splitlines()
    start = lines.index("channel groups that are pruned (`compress thin --explain` shows all):")
    assert [line.split() for line in lines[start + 1 : start + 3]] == [
        ["group", "channels", "made", "by", "removable"],
        ["1", "16", "fc1", "yes"],
    ]
    [group] = json.loads(plan(STRUCTURE, "", "--json"))["channel_groups"]
    found = json.loads(succeed("thin", "--explain", "-c", "tiny", "--json"))["groups"]
    assert group == found[0]


def test_a_plan_of_elements_has_groups_only_where_channels_are_removed() -> None:
    assert "channel groups" not in plan(ELEMENTS)
    assert json.loads(plan(ELEMENTS, "", "--json"))["channel_groups"] == []
    assert len(json.loads(plan(ELEMENTS, REMOVER, "--json"))["channel_groups"]) == 2


FLATTENED = """\
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)

    def forward(self, x):
        return self.fc(self.a(x).view(-1, 144))
"""


def test_validate_and_plan_use_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("flattened_here.py").write_text(FLATTENED)
    config = "model: {name: 'flattened_here:Net'}\ndata: {name: digits, size: 8}\noptimizer: {lr: 0.1}\nepochs: 2\n"
    Path("net.yaml").write_text(config)
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    reason = explained("-c", "net")[0][3]
    assert reason is not None
    assert "flattened_here.py:9" in reason
    pruner = "class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5, weights: [a.weight]"
    Path("s.yaml").write_text(f"version: 1\npolicies:\n- pruner: {{{pruner}}}\n  epochs: [0]\n")
    assert f"but {reason}" in compress("validate", "s.yaml", "-c", "net").err
    assert f"no: {reason}" in succeed("plan", "s.yaml", "-c", "net")
