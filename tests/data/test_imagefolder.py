"""Image folders: both ways of feeding them give the same bits; every way they can be wrong has its message."""

import hashlib
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from compressor.config import DataConfig
from compressor.data import DataSet, load, memory
from compressor.data.decoding import from_pil
from compressor.data.folders import scan
from compressor.data.imagefolder import splits
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


def test_without_test_images_one_in_five_of_each_class_is_held_out(folders: MakeFolders, tmp_path: Path) -> None:
    root = folders(train={"cat": 14, "big dog": 3})
    names = {label: [f"{name}/{k:03d}.png" for k in range(n)] for label, name, n in ((0, "big dog", 3), (1, "cat", 14))}
    lowest = {
        label: sorted(of, key=lambda name: hashlib.sha256(name.encode()).hexdigest()) for label, of in names.items()
    }
    held = {*lowest[0][:1], *lowest[1][:3]}  # a fifth of 3 is 0.6, and of 14 it is 2.8
    for part in (root, root / "train"):  # only `train`, or only the classes, as torchvision's ImageFolder has them
        train, test = splits(part)
        assert set(test.files) == held
        assert sorted([*train.files, *test.files]) == sorted(names[0] + names[1])
        read = _load(part)
        assert (read.train.labels.tolist(), read.test.labels.tolist()) == ([0] * 2 + [1] * 11, [0, 1, 1, 1])
        assert read.notes == (
            f"{root / 'train'} has no test images: 4 of its 17 are held out for the test, one in five of each class,"
            " chosen by their names",
        )
    (root / "train/cat/001.png").rename(root / "train/big dog/004.png")
    for path in sorted((root / "train/cat").iterdir())[1:]:
        path.unlink()
    with pytest.raises(
        UserError, match=r"only one image of class 'cat': it has no test folder beside it.* at least two"
    ):
        _load(root)


def test_missing_folders(folders: MakeFolders, tmp_path: Path) -> None:
    root = folders(train=TWO, Testing=TWO)
    with pytest.raises(
        UserError, match=r"expected train/<class>.*set, which holds Testing, train\. Rename Testing, or"
    ):
        _load(root)
    with pytest.raises(UserError, match=r"set/train, which holds cat, dog\. It is a part of the set\. Name the folder"):
        _load(root / "train")
    for name, split in (("a", "train"), ("b", "Testing")):
        (root / name).mkdir()
        (root / split).rename(root / name / split)
    with pytest.raises(UserError, match=r"expected train/<class>/\* and test/<class>/\*"):  # sets, and no classes
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


# --- links, and what is no file ------------------------------------------------------------------------------------


def test_a_file_counts_once_under_however_many_names(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    plain = _load(root)
    cat = root / "train" / "cat"
    (cat / "all").symlink_to(".")  # a loop
    (cat / "again").symlink_to(cat)
    (cat / "deep").mkdir()
    (cat / "deep" / "up").symlink_to("..")
    (cat / "zzz.png").symlink_to("000.png")
    os.link(cat / "001.png", cat / "zzzz.png")
    (root / "train" / "dog" / "loop.png").symlink_to("000.png")
    data = _load(root)
    assert torch.equal(data.train.labels, plain.train.labels)
    every = torch.arange(9)
    assert torch.equal(_pixels(data, every), _pixels(plain, every))
    assert data.notes == (
        f"warning: {root}/train: left out, other names of what is counted already: 'cat/zzz.png', 'cat/zzzz.png', "
        "'cat/again', 'cat/all', 'cat/deep/up', 'dog/loop.png'",
    )
    assert plain.notes == ()


def test_of_several_names_the_one_nearest_to_the_class_counts(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    store = root / "train" / "cat" / "a"
    store.mkdir()
    (root / "train" / "cat" / "000.png").rename(store / "real.png")
    (root / "train" / "cat" / "000.png").symlink_to("a/real.png")
    assert scan(root / "train").files[0] == "cat/000.png"
    outside = root / "store"
    (root / "train" / "dog").rename(outside)
    (root / "train" / "dog").symlink_to(outside)  # a class may lie elsewhere
    assert len(scan(root / "train").files) == 9


def test_one_file_in_two_classes_is_refused(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    (root / "train" / "cat" / "all").symlink_to("..")
    with pytest.raises(UserError, match=r"train/dog/000.png is the same file as .*cat/all/dog/000.png: .* one class"):
        _load(root)


def test_training_images_among_the_test_images_are_told(folders: MakeFolders) -> None:
    root = folders(train=TWO)
    (root / "test").symlink_to("train")
    [note] = _load(root).notes
    assert note.startswith("warning: 9 of the test images are training images, too, as ")


def test_pipes_sockets_and_devices_are_left_out_and_never_opened(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    os.mkfifo(root / "train" / "cat" / "pipe.png")  # opening it would wait for ever
    (root / "train" / "dog" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(root / "test" / "dog" / "x.png"))
        data = _load(root)
    assert (len(data.train), len(data.test)) == (9, 9)
    assert data.notes == (
        f"warning: {root}/train: left out, neither files nor folders: 'cat/pipe.png', 'dog/zero.png'",
        f"warning: {root}/test: left out, neither files nor folders: 'dog/x.png'",
    )


def test_a_link_to_nothing_is_named(folders: MakeFolders) -> None:
    root = folders(train=TWO, test=TWO)
    (root / "train" / "cat" / "notes").symlink_to("notes")  # no image's name: it does not matter
    (root / "train" / "tmp").symlink_to("tmp")
    link = root / "train" / "cat" / "gone.png"
    for target in ("nowhere.png", "gone.png"):
        link.symlink_to(target)
        with pytest.raises(UserError, match=r"train/cat/gone.png: a link to nothing"):
            _load(root)
        link.unlink()
    assert len(_load(root).train) == 9


def test_a_folder_that_cannot_be_read_is_named(folders: MakeFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(train=TWO, test=TWO)
    (root / "train" / "cat" / "more").mkdir()
    plain = os.scandir

    def forbidden(path: str) -> Any:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(UserError, match=r"train/cat/more: the folder cannot be read: Permission denied"):
        _load(root)


# --- images that are too large ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (8001, 8000, "8001 x 8000 = 64,008,000 pixels, at most 64,000,000"),
        (12000, 12000, "144,000,000 pixels"),  # Pillow warns
        (20000, 20000, "more than 64,000,000 pixels"),  # Pillow refuses
    ],
)
@pytest.mark.parametrize("limit", [None, 0], ids=["in memory", "from disk"])
def test_an_image_of_too_many_pixels_is_refused_undecoded(
    folders: MakeFolders, monkeypatch: pytest.MonkeyPatch, width: int, height: int, words: str, limit: int | None
) -> None:
    root = folders(train=TWO, test=TWO)
    (root / "train" / "dog" / "002.png").write_bytes(_png_header(width, height))
    if limit is not None:
        monkeypatch.setattr(memory, "LIMIT", limit)
    with pytest.raises(UserError, match=rf"dog/002.png: .*{words}.*: make it smaller"):
        _pixels(_load(root, size=8), torch.arange(9))


def test_64_megapixels_are_read() -> None:
    image = Image.new("1", (8000, 8000))
    assert from_pil(image, 8, 1).shape == (1, 8, 8)
    with pytest.raises(ValueError, match="8000 x 8001 = 64,008,000 pixels, at most 64,000,000 are read"):
        from_pil(Image.new("1", (8000, 8001)), 8, 1)


def _png_header(width: int, height: int) -> bytes:
    """A PNG of which only the header is there: decoding it fails in another way."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"IDAT" + zlib.compress(b"\0")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, start))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
