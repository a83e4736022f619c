"""docs/own_loop.md: its examples are the files of examples/, and they run."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_loop.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples"


def test_its_examples_are_the_files() -> None:
    shown = dict(re.findall(r"<!-- examples/(\S+) -->\n```\w+\n(.*?)```\n<!-- end -->", PAGE, re.DOTALL))
    assert shown == {path.name: path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.*"))}


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLES / "schedule.yaml", folder)
    monkeypatch.chdir(folder)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_the_bare_loop_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("own_loop.py", tmp_path, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.fullmatch(r"epoch \d: \d+\.\d % of the test images", line)]) == 6
    assert re.fullmatch(r"\d+\.\d % of the weights are zero", lines[-1])
    weights = torch.load(tmp_path / "pruned.pt")
    assert int((weights["2.weight"] == 0).sum()) == 3276  # 0.8 of 4,096
    code = (EXAMPLES / "own_loop.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in code if line.strip() and not line.startswith(('"""', "import", "from"))]) <= 30
