"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017), as torchvision stores them: <root>/<set>/raw/*."""

import shlex
from pathlib import Path

import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data.idx import read_idx
from compressor.data.images import DataSet
from compressor.data.memory import in_memory
from compressor.data.registry import dataset
from compressor.errors import UserError

CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataset(
    "mnist", "handwritten digits, 60,000 + 10,000 grey 28x28, 10 classes", classes=10, shape=(1, 28, 28), images=60_000
)
def mnist(config: DataConfig, root: Path, seed: int) -> DataSet:
    """MNIST."""
    return _read("mnist", "MNIST", tuple("0123456789"), config, root, mean=0.1307, std=0.3081)


@dataset(
    "fashion_mnist",
    "articles of clothing, 60,000 + 10,000 grey 28x28, 10 classes",
    classes=10,
    shape=(1, 28, 28),
    images=60_000,
)
def fashion_mnist(config: DataConfig, root: Path, seed: int) -> DataSet:
    """Fashion-MNIST."""
    return _read("fashion_mnist", "FashionMNIST", CLOTHES, config, root, mean=0.2860, std=0.3530)


def _read(
    name: str, kind: str, classes: tuple[str, ...], config: DataConfig, root: Path, *, mean: float, std: float
) -> DataSet:
    folder = root / kind / "raw"
    pairs = [
        (folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte") for prefix in ("train", "t10k")
    ]
    if missing := [path.name for pair in pairs for path in pair if not path.is_file()]:
        get = f"from torchvision.datasets import {kind}; {kind}({str(root)!r}, download=True)"
        raise UserError(
            f"{name}: {', '.join(missing)} not found in {folder.absolute()}. Name the folder that has {kind}/raw in it "
            f"with --data or COMPRESS_DATA, or get it with: python -c {shlex.quote(get)}"
        )
    train, test = (_pair(*pair, len(classes)) for pair in pairs)
    return in_memory(name, train, test, classes, config, mean=(mean,), std=(std,))


def _pair(images_path: Path, labels_path: Path, classes: int) -> tuple[Tensor, Tensor]:
    images, labels = read_idx(images_path, 3)[:, None], read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise UserError(f"{images_path} has {len(images)} images, {labels_path} has {len(labels)} labels")
    if not images.numel():
        raise UserError(f"{images_path}: there are no images in it")
    if int(labels.max()) >= classes:
        raise UserError(f"{labels_path}: damaged: labels must be 0..{classes - 1}, one is {int(labels.max())}")
    return images, labels.to(torch.int64)
