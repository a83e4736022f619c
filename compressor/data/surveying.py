"""A first look at a data set: its classes, the numbers and the size of its images, without decoding them."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from compressor.data.decoding import GREY
from compressor.data.folders import check_same_classes
from compressor.data.imagefolder import splits
from compressor.data.registry import builders
from compressor.errors import UserError, did_you_mean

SAMPLE = 200
"""The largest number of image files whose headers are read."""

_STORED = {
    "MNIST/raw": "mnist",
    "FashionMNIST/raw": "fashion_mnist",
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
}
"""The folders in which torchvision stores its data sets, and their names here."""


@dataclass(frozen=True)
class Survey:
    """What is known of a data set. `name` is the one that a configuration gives it."""

    name: str
    classes: tuple[str, ...]
    """The names of the classes; numbers where they are not known."""
    train: int
    test: int | None
    channels: int
    side: int
    """The length of an image's shorter side in pixels: the median."""
    sides: tuple[int, int]
    """The smallest and the largest of these lengths."""
    folder: Path | None = None
    """The folder that `--data` names; None for a data set by name."""
    held_out: bool = False
    """Whether the test images are a part of the folder's, which has none of its own."""


def survey(given: str) -> Survey:
    """Return what a folder holds (image folders, or a set as torchvision stores it), or what is known of a set by name.

    Raises `UserError` where there is neither, and where image folders cannot be read.
    """
    known = builders()
    if given in known and given != "imagefolder":
        return _named(given, None)
    folder = Path(given)
    if not folder.is_dir():
        hint = did_you_mean(given, set(known) - {"imagefolder"})
        raise UserError(f"--data {given}: neither a folder nor a data set by name: {hint}")
    stored = next((name for place, name in _STORED.items() if (folder / place).is_dir()), None)
    return _image_folders(folder) if stored is None else _named(stored, folder)


def _named(name: str, folder: Path | None) -> Survey:
    builder = builders()[name]
    assert builder.shape is not None
    channels, height, width = builder.shape
    side, classes = min(height, width), tuple(map(str, range(builder.classes or 0)))
    return Survey(name, classes, builder.images or 0, None, channels, side, (side, side), folder)


def _image_folders(folder: Path) -> Survey:
    train, test = splits(folder)
    check_same_classes(train, test)
    step = -(-len(train.files) // SAMPLE)
    sides, modes = [], set()
    for file in train.files[::step]:
        try:
            with Image.open(train.folder / file) as image:
                sides.append(min(image.size))
                modes.add(image.mode)
        except Exception as error:  # Pillow's readers raise almost anything on a broken file
            path = train.folder / file
            raise UserError(f"{path}: cannot be read as an image: {type(error).__name__}: {error}") from error
    channels = 1 if modes <= set(GREY) else 3
    counts = len(train.files), len(test.files)
    side, ends = int(median(sides)), (min(sides), max(sides))
    held = train.folder == test.folder
    return Survey("imagefolder", train.classes, *counts, channels, side, ends, folder, held)
