"""Mutated schedules and configurations: every one ends in exit code 0 or 2, with no traceback, soon.

`make fuzz` runs 10,000 of them; the suite runs a sample. Each file is mutated either as text or as data: the latter
always gets past the YAML parser, so that the grammar sees most of them.
"""

import os
import random
import resource
import sys
import time
from pathlib import Path

import pytest
import yaml
from mutating import as_data, as_text

from compressor.cli import main
from compressor.lookup import shipped_files

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.counted
COUNT = int(os.environ.get("FUZZ", "100"))
SLOWEST_SECONDS = 20.0
MEMORY_MB = 3000


def _run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["compress", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _parses(text: str) -> bool:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader) is not None
    except (yaml.YAMLError, RecursionError):
        return False


def test_a_mutated_file_is_either_valid_or_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "0"))
    rng = random.Random(seed)
    schedules = list(shipped_files("schedules").values())
    configs = sorted((ROOT / "configs").rglob("*.yaml"))
    assert schedules
    assert configs
    codes: dict[int, int] = {0: 0, 2: 0}
    parsed, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    for index in range(COUNT):
        schedule = rng.choice(schedules)
        own = yaml.safe_load(schedule.read_text(encoding="utf-8")).get("config", "resnet20_cifar10")
        config = ROOT / "configs" / f"{own}.yaml" if rng.random() < 0.9 else rng.choice(configs)
        victim = rng.choice([schedule, config])
        text = victim.read_text(encoding="utf-8")
        mutated = as_data(text, rng) if rng.random() < 0.55 else as_text(text, rng)
        parsed += _parses(mutated)
        file = tmp_path / "mutated.yaml"
        file.write_text(mutated, encoding="utf-8", errors="surrogatepass", newline="")
        pair = [str(file), "-c", str(config)] if victim is schedule else [str(schedule), "-c", str(file)]
        command = ["plan", *pair, "--json"] if index % 5 == 0 else ["validate", *pair]
        began = time.monotonic()
        code = _run(command, monkeypatch)
        slowest = max(slowest, time.monotonic() - began)
        out, err = capfd.readouterr()
        said = f"case {index} of seed {seed}, {command}:\n{err[-2000:]}\n--- file\n{mutated[:3000]}"
        assert code in codes, said
        assert "Traceback" not in err + out, said
        assert "internal error" not in err, said
        assert code == 0 or err.strip(), said
        assert time.monotonic() - began < SLOWEST_SECONDS, said
        codes[code] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - before
    with capfd.disabled():
        print(
            f"\n{COUNT} mutations: exit 0 {codes[0]}, exit 2 {codes[2]}, past YAML {parsed / COUNT:.0%},"
            f" slowest {slowest:.1f} s, memory +{grown} MB"
        )
    assert parsed >= 0.3 * COUNT
    assert codes[0] > 0
    assert codes[2] > 0
    assert grown < MEMORY_MB
