"""Any folder of images in torchvision's ImageFolder layout, small or of ImageNet's size."""

from pathlib import Path

from compressor.config import DataConfig
from compressor.data.folders import class_names, from_folders
from compressor.data.images import DataSet
from compressor.data.registry import dataset
from compressor.errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The values that published weights expect; other photographs differ little from them. A config may set others."""


@dataset("imagefolder", "your own: <root>/train/<class>/* and <root>/test/<class>/* (or val), read as RGB")
def imagefolder(config: DataConfig, root: Path, seed: int) -> DataSet:
    """Return image folders; a `test` without class folders in it (ImageNet's) is replaced by `val`."""
    train, test = splits(root)
    return from_folders("imagefolder", train, test, config, seed, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def splits(root: Path) -> tuple[Path, Path]:
    """Return the folders of the training and the test images. Raises `UserError` where one is missing."""
    tests = [root / name for name in ("test", "val") if class_names(root / name)]
    if not tests or not class_names(root / "train"):
        if not root.is_dir():
            found = "which is not a folder"
        else:
            found = f"which holds {', '.join(sorted(path.name for path in root.iterdir())[:8]) or 'nothing'}"
        raise UserError(
            f"imagefolder: expected train/<class>/* and test/<class>/* (or val/<class>/*) in {root.absolute()}, "
            f"{found}. Name the folder that has them with --data or COMPRESS_DATA"
        )
    return root / "train", tests[0]
