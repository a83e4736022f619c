"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from torchvision's batches or from folders of image files."""

import shlex
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data.folders import class_names, from_folders, scan
from compressor.data.images import DataSet
from compressor.data.memory import in_memory
from compressor.data.registry import dataset
from compressor.errors import UserError
from compressor.importing import late


@dataset(
    "cifar10", "photographs, 50,000 + 10,000 colour 32x32, 10 classes", classes=10, shape=(3, 32, 32), images=50_000
)
def cifar10(config: DataConfig, root: Path, seed: int) -> DataSet:
    """CIFAR-10."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _read("cifar10", "CIFAR10", 10, config, root, seed, mean, std)


@dataset(
    "cifar100", "photographs, 50,000 + 10,000 colour 32x32, 100 classes", classes=100, shape=(3, 32, 32), images=50_000
)
def cifar100(config: DataConfig, root: Path, seed: int) -> DataSet:
    """CIFAR-100, with its fine labels."""
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _read("cifar100", "CIFAR100", 100, config, root, seed, mean, std)


def _read(
    name: str,
    torchvision_class: str,
    classes: int,
    config: DataConfig,
    root: Path,
    seed: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> DataSet:
    torchvision = late("torchvision")  # a second, which `validate` need not wait for

    kind = getattr(torchvision.datasets, torchvision_class)
    batches = root / kind.base_folder
    if batches.is_dir():
        _check_files(batches, kind)
        splits = [kind(root, train=train) for train in (True, False)]
        pairs = [_tensors(split) for split in splits]
        return in_memory(name, pairs[0], pairs[1], splits[0].classes, config, mean=mean, std=std)
    for folder in (root, root / name):
        if (found := class_names(folder / "train")) and class_names(folder / "test"):
            if len(found) != classes:
                raise UserError(
                    f"{name} has {classes} classes, {folder / 'train'} has {len(found)}; "
                    "images of your own are `name: imagefolder`"
                )
            return from_folders(name, scan(folder / "train"), scan(folder / "test"), config, seed, mean=mean, std=std)
    get = f"from torchvision.datasets import {kind.__name__}; {kind.__name__}({str(root)!r}, download=True)"
    raise UserError(
        f"{name}: not found; looked for {batches.absolute()} and for train/<class>/* with test/<class>/* in "
        f"{root.absolute()} and {(root / name).absolute()}. Name the folder that has it with --data or COMPRESS_DATA, "
        f"or get it with: python -c {shlex.quote(get)}"
    )


def _check_files(folder: Path, kind: Any) -> None:
    """Check the md5 of every file first: the batches are pickles, and none is opened whose checksum is wrong."""
    check_integrity = late("torchvision.datasets.utils").check_integrity

    for file, md5 in [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]:
        if not (folder / file).is_file():
            raise UserError(f"{folder / file} is missing; delete {folder} and get the set again")
        if not check_integrity(str(folder / file), md5):
            raise UserError(
                f"{folder / file} is damaged (its md5 should be {md5}); delete {folder} and get the set again"
            )


def _tensors(split: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets, dtype=torch.int64)
