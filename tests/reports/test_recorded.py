"""What a run's folder has recorded: read whole, read in part, refused with the file's name."""

import json
from pathlib import Path

import pytest

from compressor.config import Config
from compressor.errors import UserError
from compressor.reports import read, reference_run

CONFIG = """\
model: {name: lenet5}
data: {name: digits}
optimizer: {lr: 0.1}
epochs: 2
"""


def line(epoch: int) -> str:
    return json.dumps({"epoch": epoch, "train": {"loss": None}, "lr": 0.1, "of a later version": 1}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run of an older version, with two epochs."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "metrics.jsonl").write_text(line(0) + line(1))
    return tmp_path


def test_of_an_older_run_what_is_there_is_read_and_the_rest_is_named(folder: Path) -> None:
    found = read(folder)
    assert [one.epoch for one in found.epochs] == [0, 1]
    assert found.epochs[0].train == {"loss": None}
    assert (found.schedule, found.figures, found.report, found.layers) == (None, None, None, [])
    assert found.not_recorded == [
        "layers.jsonl: not recorded",
        "figures.json: not recorded",
        "sparsity.json: not recorded",
        "environment.json: not recorded",
    ]


def test_a_torn_line_is_left_out_and_the_last_line_of_an_epoch_counts(folder: Path) -> None:
    layers = '{"epoch": 1, "layers": {"w": {"sparsity": %s}}}\n'
    (folder / "layers.jsonl").write_text(layers % 0.1 + layers % 0.2 + '{"epoch": 2, "lay')
    found = read(folder)
    assert [(one.epoch, one.layers["w"].sparsity) for one in found.layers] == [(1, 0.2)]
    assert found.not_recorded[:2] == ["layers.jsonl: 1 torn line", "layers.jsonl: epoch 0 not recorded"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("figures.json", '{"schema": 2}', r"figures\.json: its schema is 2, this version reads 1"),
        ("figures.json", "{", r"figures\.json: damaged: "),
        ("figures.json", '{"schema": 1, "activations": {"after": "x"}}', r"damaged: activations\.after: "),
        ("environment.json", "[", r"environment\.json: damaged: "),
        ("metrics.jsonl", "", r"metrics\.jsonl has no epoch"),
        ("config.yaml", "model: 1\n", r"config\.yaml: not the configuration of a run: model: "),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(folder: Path, name: str, text: str, said: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read(folder)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run's folder: it has no config\.yaml and no metrics\.jsonl"):
        read(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file: give a run's folder"):
        read(tmp_path / "file")


def test_the_run_of_init_is_the_reference_where_it_has_figures(tmp_path: Path) -> None:
    base = {"model": {"name": "lenet5"}, "data": {"name": "digits"}, "optimizer": {"lr": 0.1}, "epochs": 1}

    def config(**more: object) -> Config:
        return Config.model_validate({**base, **more})

    named = {"reference": "runs/dense"}
    assert reference_run(config()) is None
    assert reference_run(config(report=named)) == Path("runs/dense")
    assert reference_run(config(init=str(tmp_path), report=named)) == Path("runs/dense")
    (tmp_path / "figures.json").write_text("{}")
    assert reference_run(config(init=str(tmp_path), report=named)) == tmp_path
    assert reference_run(config(init=str(tmp_path / "best.pt"))) == tmp_path
    assert reference_run(config(init={"path": str(tmp_path), "head": "reset"})) is None  # of other classes
