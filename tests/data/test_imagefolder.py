"""Image folders: both ways of feeding them give the same bits; every way they can be wrong has its message."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from compressor.config import DataConfig
from compressor.data import DataSet, load, memory
from compressor.data.memory import InMemory
from compressor.data.streamed import Streamed
from compressor.errors import UserError

MakeFolders = Callable[..., Path]

CPU = torch.device("cpu")
TWO = {"cat": 5, "dog": 4}


def _load(root: Path, **config: object) -> DataSet:
    return load(DataConfig(name="imagefolder", **config), root, 0)  # type: ignore[arg-type]


def _pixels(data: DataSet, order: torch.Tensor, batch: int = 2) -> torch.Tensor:
    return torch.cat([images for _, images, _ in data.train.batches(order, batch, CPU)])


def test_the_images_of_torchvisions_imagefolder(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    data = _load(root)
    assert isinstance(data.train, InMemory)
    assert data.shape == (3, 8, 8)
    assert data.mean == (0.485, 0.456, 0.406)
    reference = [(image, label) for image, label in ImageFolder(root / "test")]
    assert data.test.labels.tolist() == [label for _, label in reference]
    images = next(data.test.batches(torch.arange(9), 9, CPU))[1]
    for ours, (theirs, _) in zip(images, reference, strict=True):
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), np.array(theirs))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("config", [{"size": 8}, {"size": 6, "workers": 2}, {"size": 12, "channels": 1}])
def test_from_disk_the_same_bits_as_from_memory(
    folders: MakeFolders, monkeypatch: pytest.MonkeyPatch, config: dict[str, int]
) -> None:
    root = folders(size=(10, 8), train=TWO, test=TWO)
    held = _load(root, **config)
    monkeypatch.setattr(memory, "LIMIT", 0)
    read = _load(root, **config)
    assert isinstance(held.train, InMemory)
    assert isinstance(read.train, Streamed)
    assert (held.shape, held.classes, held.mean, held.std) == (read.shape, read.classes, read.mean, read.std)
    order = torch.tensor([8, 0, 3, 3, 7, 1, 2])
    before = torch.get_rng_state()
    assert torch.equal(_pixels(held, order), _pixels(read, order))
    assert torch.equal(_pixels(held, order)[4:], _pixels(read, order[4:], batch=3))
    assert torch.equal(before, torch.get_rng_state())
    for indices, images, labels in read.train.batches(order, 4, CPU):
        assert torch.equal(labels, held.train.labels[indices])
        assert images.dtype == torch.uint8


def test_val_stands_in_for_a_test_without_classes(folders: MakeFolders) -> None:
    root = folders(train=TWO, val={"cat": 1, "dog": 2})
    assert len(_load(root).test) == 3
    (root / "test").mkdir()
    (root / "test" / "000.png").write_bytes(b"unlabelled")
    assert len(_load(root).test) == 3


def test_the_centred_square_at_the_size(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    stripes = np.repeat(np.array([[10, 20, 30, 40, 50, 60]], np.uint8), 4, axis=0)
    Image.fromarray(stripes).save(root / "train/cat/000.png")
    picture = _pixels(_load(root, size=4, channels=1), torch.tensor([0]))
    assert picture[0, 0].tolist() == [[20, 30, 40, 50]] * 4


def test_different_sizes_without_data_size(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    Image.new("RGB", (9, 7)).save(root / "train/dog/001.png")
    with pytest.raises(UserError, match=r"cat/000.png is 8x8, .*dog/001.png is 9x7 .*data.size"):
        _load(root)
    assert _load(root, size=8).shape == (3, 8, 8)


def test_a_large_set_needs_data_size(folders: MakeFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 0)
    with pytest.raises(UserError, match=r"data.size is required: 18 images"):
        _load(folders(train=TWO, test=TWO))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_unreadable_image_is_named(folders: MakeFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(train=TWO, test=TWO)
    broken = root / "train/dog/002.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match=r"dog/002.png: cannot be read as an image"):
        _load(root)
    monkeypatch.setattr(memory, "LIMIT", 0)
    for workers in (0, 1):
        data = _load(root, size=8, workers=workers)
        assert len(_pixels(data, torch.arange(7))) == 7
        with pytest.raises(UserError, match=r"dog/002.png: cannot be read as an image") as error:
            _pixels(data, torch.arange(9))
        assert "Traceback" not in str(error.value)


def test_more_than_8_bits_are_refused(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(root / "test/cat/000.png")
    with pytest.raises(UserError, match=r"test/cat/000.png: .* more than 8 bits .*I;16"):
        _load(root)


def test_classes_that_differ_or_are_empty(folders: MakeFolders) -> None:
    root = folders(train={"cat": 1, "dog": 1, "eel": 1}, test={"cat": 1, "dog": 1})
    with pytest.raises(UserError, match=r"must have the same classes: only .*train has class 'eel'"):
        _load(root)
    (root / "test" / "eel").mkdir()
    with pytest.raises(UserError, match=r"test: no images in the folder of class 'eel' \(looked for .jpg"):
        _load(root)
    (root / "train" / "eel").rename(root / "train" / "emu")
    Image.new("RGB", (8, 8)).save(root / "test/eel/0.png")
    with pytest.raises(UserError, match=r"only .*train has class 'emu'"):
        _load(root)


def test_missing_folders(folders: MakeFolders, tmp_path: Path) -> None:
    root = folders(train=TWO)
    with pytest.raises(UserError, match=r"expected train/<class>/\* and test/<class>/\* .*set, which holds train\."):
        _load(root)
    with pytest.raises(UserError, match=r"nowhere, which is not a folder. .*--data"):
        _load(tmp_path / "nowhere")


def test_file_names_of_any_bytes(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    os.rename(root / "train/cat/000.png", os.fsencode(root) + b"/train/cat/\xff \xc3\xa9.png")
    assert len(_load(root).train) == 9


def test_links_are_followed(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    (root / "train/cat/more").symlink_to(root / "test/cat")
    (root / "test/dog").rename(root / "elsewhere")
    (root / "test/dog").symlink_to(root / "elsewhere")
    data = _load(root)
    assert (len(data.train), len(data.test)) == (14, 9)
