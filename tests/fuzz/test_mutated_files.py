"""Mutated schedules and configurations: every one ends in exit code 0 or 2, with no traceback, soon.

`make fuzz` runs 10,000 of them; the suite runs a sample. Each file is mutated either as text or as data: the latter
always gets past the YAML parser, so that the grammar sees most of them.
"""

import copy
import os
import random
import resource
import string
import sys
import time
from pathlib import Path

import pytest
import yaml

from compressor.cli import main
from compressor.schedule.lookup import shipped_files

ROOT = Path(__file__).parents[2]
COUNT = int(os.environ.get("FUZZ", "150"))
SLOWEST_SECONDS = 20.0
MEMORY_MB = 3000

SCALARS = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    10**6,
    10**30,
    0.5,
    -0.5,
    1.5,
    1e-30,
    1e300,
    float("inf"),
    float("nan"),
    "",
    "x",
    "*",
    "re:(",
    "re:.",
    "type:Conv2d",
    "type:Nope",
    "fc*.weight",
    "[",
    "conv1.weight",
    "a" * 5000,
    "\u0000",
    "\u202e",
    "1e-4",
    "!!python/object/apply:os.system",
    [],
    {},
    [[]],
    [None],
    {"a": {"b": {}}},
    ["*", "*"],
    list(range(200)),
    "sgd",
    "adam",
    "lenet_5",
    "mlp",
    "resnet18",
    "digits",
    "mnist",
    "cifar10",
    "StepLR",
    "L1Regularizer",
    "AutomatedGradualPruner",
]
SNIPPETS = [
    "\n",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!!binary ",
    "!foo ",
    "|\n",
    ">\n",
    "#",
    "\t",
    "'",
    '"',
    "<<: *a\n",
    "? ",
    "---\n",
    "...\n",
    "%YAML 3.0\n",
    "\x07",
    "\ufeff",
    "é",
    "𝔘",
    "1e999",
    "0x1F",
    "0o17",
    "12:30:45",
    "2020-01-01",
    "~",
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n"
    "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\n"
    "f: [*e, *e, *e, *e, *e, *e, *e, *e]\n",
    "[" * 3000,
    "{a: " * 500,
    "- " * 500,
]


def _as_text(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        lines = text.splitlines(keepends=True) or [""]
        at = rng.randrange(len(lines))
        place = rng.randrange(len(text) + 1)
        match rng.randrange(8):
            case 0:
                del lines[at]
                text = "".join(lines)
            case 1:
                lines.insert(rng.randrange(len(lines)), lines[at])
                text = "".join(lines)
            case 2:
                lines[at] = " " * rng.randint(1, 4) + lines[at]
                text = "".join(lines)
            case 3:
                lines[at] = lines[at].lstrip(" ")
                text = "".join(lines)
            case 4:
                text = text[:place] + rng.choice(SNIPPETS) + text[place:]
            case 5:
                text = text[:place] + rng.choice(string.printable) + text[place + 1 :]
            case 6:
                text = text[:place]
            case 7:
                text = text[:place] + text[place + rng.randint(1, 10) :]
    return text


def _paths(data: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(p for key, item in below for p in _paths(item, (*path, key)))]


def _as_data(text: str, rng: random.Random) -> str:
    data = yaml.safe_load(text)
    for _ in range(rng.randint(1, 3)):
        paths = [path for path in _paths(data) if path]
        if not paths:
            break
        *above, last = rng.choice(paths)
        parent = data
        for key in above:
            parent = parent[key]
        match rng.randrange(5):
            case 0:
                parent[last] = copy.deepcopy(rng.choice(SCALARS))
            case 1:
                del parent[last]
            case 2 if isinstance(parent, dict):
                name = str(last)
                cut = rng.randrange(len(name) + 1)
                parent[name[:cut] + rng.choice(string.ascii_letters + "_ .*") + name[cut + rng.randint(0, 1) :]] = (
                    parent.pop(last)
                )
            case 3 if isinstance(parent, dict):
                parent[rng.choice(["class", "weights", "levels", "epochs", "name", "extra", "args"])] = copy.deepcopy(
                    rng.choice(SCALARS)
                )
            case _:
                source = data
                for key in rng.choice(paths):
                    source = source[key] if isinstance(source, (dict, list)) else source
                parent[last] = copy.deepcopy(source)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


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
        mutated = _as_data(text, rng) if rng.random() < 0.55 else _as_text(text, rng)
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
