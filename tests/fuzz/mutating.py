"""Files changed at random: as text, or as data, which always gets past the YAML parser."""

import copy
import random
import string
from collections.abc import Sequence
from typing import Any

import yaml

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


def as_text(text: str, rng: random.Random) -> str:
    """Return the text with one to four lines, characters or snippets removed, added or moved."""
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


def as_data(text: str, rng: random.Random, scalars: Sequence[Any] = SCALARS) -> str:
    """Return the text with one to three values or keys replaced, removed, renamed, added or copied."""
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
                parent[last] = copy.deepcopy(rng.choice(scalars))
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
                    rng.choice(scalars)
                )
            case _:
                source = data
                for key in rng.choice(paths):
                    source = source[key] if isinstance(source, (dict, list)) else source
                parent[last] = copy.deepcopy(source)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
