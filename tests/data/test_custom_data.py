"""A user's own factory: what it may return, and every way it can be wrong."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from compressor.config import DataConfig
from compressor.data import DataSet, load, memory
from compressor.data.streamed import Streamed
from compressor.errors import UserError

CPU = torch.device("cpu")


class Pairs:
    """A map-style dataset of given items."""

    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module `mine` to put factories into."""
    module = SimpleNamespace(__name__="mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    return module


def _load(**config: Any) -> DataSet:
    return load(DataConfig(name="mine:make", **config), Path("somewhere"), 7)


def _grey(value: float) -> torch.Tensor:
    return torch.full((1, 4, 4), float(value))


def _fails(message: str, **config: Any) -> None:
    with pytest.raises(UserError, match=message):
        _load(**config)


ITEMS = [(_grey(0.0), 0), (_grey(1.0), 1), (_grey(0.2), torch.tensor(1))]


def test_pairs_of_tensors(mine: SimpleNamespace) -> None:
    mine.make = lambda: (Pairs(ITEMS), Pairs(ITEMS[:2]))
    data = _load(channels=3, size=8)
    assert data.classes == ("0", "1")
    assert data.shape == (3, 8, 8)
    _, images, labels = next(data.train.batches(torch.tensor([2, 1]), 2, CPU))
    assert images[:, 0, 0, 0].tolist() == [51, 255]
    assert labels.tolist() == [1, 1]
    assert data.mean == pytest.approx([0.4] * 3)


def test_pil_images_and_names_of_classes(mine: SimpleNamespace) -> None:
    pictures = [(Image.new("RGB", (6, 4), (9, 8, 7)), 0), (Image.new("RGB", (6, 4), (0, 0, 0)), 1)]
    mine.make = lambda: (Pairs(pictures, classes=["cat", "dog"]), Pairs(pictures))
    data = _load()
    assert data.classes == ("cat", "dog")
    assert data.shape == (3, 4, 6)
    assert _load(size=4).shape == (3, 4, 4)


def test_the_factory_gets_what_it_takes(mine: SimpleNamespace) -> None:
    seen: list[Any] = []

    def some(root: Path, size: int, depth: int = 3) -> Any:
        seen.append((root, size, depth))
        return Pairs(ITEMS), Pairs(ITEMS)

    mine.make = some
    _load(size=5)
    mine.make = lambda **everything: (seen.append(everything), (Pairs(ITEMS), Pairs(ITEMS)))[1]
    _load(size=5)
    assert seen == [
        (Path("somewhere"), 5, 3),
        {"root": Path("somewhere"), "size": 5, "channels": None, "seed": 7},
    ]

    def demanding(depth: int) -> None: ...

    mine.make = demanding
    _fails(r"mine:make: it requires 'depth', which is not offered; it may take root, size, channels, seed")


def test_a_ready_data_set(mine: SimpleNamespace) -> None:
    ready = load(DataConfig(name="digits"), None, 0)
    mine.make = lambda: ready
    data = _load(mean=[0.5])
    assert (data.train, data.mean) == (ready.train, (0.5,))
    _fails(r"ask for shape \(1, 9, 9\), its DataSet has \(1, 28, 28\)", size=9)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_too_large_for_memory(mine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    train = Pairs(ITEMS, targets=[0, 1, 1])
    mine.make = lambda: (train, Pairs(ITEMS[:2], labels=torch.tensor([0, 1])))
    order = torch.tensor([2, 0, 1])
    held = list(_load(size=8).train.batches(order, 2, CPU))
    monkeypatch.setattr(memory, "LIMIT", 0)
    for workers in (0, 1):
        data = _load(size=8, workers=workers)
        assert isinstance(data.train, Streamed)
        for one, other in zip(data.train.batches(order, 2, CPU), held, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    train.targets = [0, 0, 1]  # type: ignore[attr-defined]
    _fails(r"mine:make, train: targets\[1\] is 0, the label of item 1 is 1")
    del train.targets  # type: ignore[attr-defined]
    _fails(r"3 images are too many for memory, so it needs an attribute `targets`")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "train: there are no images"),
        ([(_grey(0), 0), (_grey(1), 2)], "class '1' without training images .* without gaps"),
        ([(_grey(0), 0), (_grey(1), -1)], "labels must be 0..0 .*, image 1 has -1"),
        ([(_grey(0), 1.0)], "label of item 0 must be an int, got float 1.0"),
        ([(_grey(0), True)], "label of item 0 must be an int, got bool"),
        ([(_grey(0), "cat")], "label of item 0 must be an int, got str 'cat'"),
        ([_grey(0)], r"item 0 must be \(image, label\), got Tensor"),
        ([("cat.png", 0)], "image of item 0 must be a tensor or a PIL image, got str"),
        ([(torch.zeros(4, 4, 3), 0)], r"must be \[H, W\] or \[1 or 3, H, W\], got \[4, 4, 3\]"),
        ([(_grey(0).long(), 0)], r"must be uint8 or float in \[0, 1\], got torch.int64"),
        ([(_grey(0), 0), (_grey(-2), 0)], r"pixels of item 1 must be in \[0, 1\], got -2..-2; data.mean"),
        ([(_grey(float("nan")), 0)], r"pixels of item 0 must be in \[0, 1\], got nan"),
        ([(_grey(0), 0), (torch.zeros(4, 5), 0)], r"item 0 is \[1, 4, 4\], item 1 is \[1, 4, 5\] .*data.size"),
        ([(_grey(0.5), 0), (_grey(0.5), 1)], r"data.std: expected values above 0, got \[0.0\] .*equal pixels"),
        ([(Image.new("I", (4, 4)), 0)], r"item 0 cannot be read as an image: .*more than 8 bits"),
    ],
)
def test_wrong_items(mine: SimpleNamespace, items: list[Any], message: str) -> None:
    mine.make = lambda: (Pairs(items), Pairs(ITEMS))
    _fails(message)


def test_splits_that_disagree(mine: SimpleNamespace) -> None:
    mine.make = lambda: (Pairs(ITEMS), Pairs([(torch.zeros(1, 5, 5), 0)]))
    _fails(r"images of train are \(1, 4, 4\), of test \(1, 5, 5\)")
    mine.make = lambda: (Pairs(ITEMS), Pairs([(_grey(0), 2)]))
    _fails(r"mine:make, test: labels must be 0..1 \(2 classes\), image 0 has 2")


def test_random_transforms_are_found(mine: SimpleNamespace) -> None:
    class Noisy(Pairs):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(1, 4, 4), 0

    mine.make = lambda: (Noisy(ITEMS), Pairs(ITEMS))
    _fails(r"train: item 0 differs each time it is read; .*data.augment")


def test_failures_of_the_users_code(mine: SimpleNamespace) -> None:
    def broken() -> None:
        raise ZeroDivisionError("oh")

    class Broken(Pairs):
        def __getitem__(self, index: int) -> Any:
            raise KeyError("k")

    mine.make = broken
    _fails(r"mine:make: it failed: ZeroDivisionError: oh \(.*test_custom_data.py:\d+\)")
    mine.make = lambda: (Broken(ITEMS), Pairs(ITEMS))
    _fails(r"reading item 0 failed: KeyError")
    mine.make = lambda: 3
    _fails(r"expected a DataSet or \(train, test\) .*, got int")
    mine.make = lambda: (Pairs(ITEMS), Pairs(ITEMS), 3)
    _fails(r"got a tuple of 3: \(Pairs, Pairs, int\)")
    mine.maker = mine.make
    del mine.make
    _fails(r"'mine' has no callable 'make': did you mean 'maker'")


def test_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    with pytest.raises(UserError, match=r"cannot import 'no_such_module' .*ModuleNotFoundError"):
        load(DataConfig(name="no_such_module:f"), None, 0)
    Path("found_in_cwd.py").write_text("import compressor.data\n\ndef make():\n    return 'nothing'\n")
    with pytest.raises(UserError, match="got str"):
        load(DataConfig(name="found_in_cwd:make"), None, 0)
    Path("broken_in_cwd.py").write_text("x = 1 / 0\n")
    with pytest.raises(UserError, match=r"ZeroDivisionError: division by zero \(.*broken_in_cwd.py:1\)"):
        load(DataConfig(name="broken_in_cwd:make"), None, 0)
