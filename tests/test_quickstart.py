"""docs/quickstart.md does what it says, from top to bottom."""

import re
import shlex
from pathlib import Path

import pytest
from helpers import compress

PAGE = (Path(__file__).parents[1] / "docs" / "quickstart.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = ""
    for kind, text in BLOCKS:
        if kind == "yaml":
            (tmp_path / text.split()[1]).write_text(text, encoding="utf-8")
        elif kind == "bash":
            for line in text.splitlines():
                result = compress(*shlex.split(line)[1:])
                assert result.code == 0, f"{line}: {result.err}"
                printed += result.out
        elif kind == "python":
            exec(text, names)
        elif kind == "text":
            assert text in printed
    assert {kind for kind, _ in BLOCKS} >= {"yaml", "bash", "python", "text"}
    assert "431,080 parameters become 109,295; the largest difference of a logit" in printed
