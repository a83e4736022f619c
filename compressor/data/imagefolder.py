"""Any folder of images in torchvision's ImageFolder layout, small or of ImageNet's size."""

from pathlib import Path

from compressor.config import DataConfig
from compressor.data.folders import Listing, class_names, from_folders, held_out, scan
from compressor.data.images import DataSet
from compressor.data.registry import dataset
from compressor.errors import UserError, listed

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The values that published weights expect; other photographs differ little from them. A config may set others."""

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"}
"""The usual names of the folders of splits, in lower case: a folder that holds one is no folder of classes."""


@dataset("imagefolder", "your own: <root>/train/<class>/* and <root>/test/<class>/* (or val), or <root>/<class>/*")
def imagefolder(config: DataConfig, root: Path, seed: int) -> DataSet:
    """Return image folders; a `test` without class folders in it (ImageNet's) is replaced by `val`."""
    train, test = splits(root)
    return from_folders("imagefolder", train, test, config, seed, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def splits(root: Path) -> tuple[Listing, Listing]:
    """Return the training and the test images. Raises `UserError` where there are none.

    Where there is only `train`, or only class folders, one image in five is held out for the test.
    """
    tests = [root / name for name in ("test", "val") if class_names(root / name)]
    if tests and class_names(root / "train"):
        return scan(root / "train"), scan(tests[0])
    names = class_names(root)
    if names == ["train"] and class_names(root / "train"):
        return held_out(scan(root / "train"))
    place = root.absolute()
    of_a_set = place.name.lower() in _SPLITS and len(_split_names(class_names(place.parent))) > 1
    inner = [name for folder in names for name in class_names(root / folder)]
    if len(names) > 1 and not of_a_set and not _split_names([*names, *inner]):
        return held_out(scan(root))
    if not root.is_dir():
        found = "which is not a folder"
    else:
        found = f"which holds {', '.join(sorted(path.name for path in root.iterdir())[:8]) or 'nothing'}"
    other = [name for name in _split_names(names) if name not in ("train", "test", "val")]
    name = "It is a part of the set. Name" if of_a_set else f"Rename {listed(other)}, or name" if other else "Name"
    raise UserError(
        f"imagefolder: expected train/<class>/* and test/<class>/* (or val/<class>/*), or folders of two classes or"
        f" more, in {place}, {found}. {name} the folder that has them with --data or COMPRESS_DATA"
    )


def _split_names(names: list[str]) -> list[str]:
    return [name for name in names if name.lower() in _SPLITS]
