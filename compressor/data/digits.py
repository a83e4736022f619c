"""The digits that come with scikit-learn, for the demo and the tests, without a download."""

from pathlib import Path

import numpy as np
import torch

from compressor.config import DataConfig
from compressor.data.images import DataSet
from compressor.data.memory import in_memory
from compressor.data.registry import dataset
from compressor.importing import late

BRIGHTEST = 16  # the images count set pixels in 4x4 blocks


@dataset(
    "digits",
    "handwritten digits inside scikit-learn, 1,437 + 360 grey 8x8 fed as 28x28, 10 classes; no download",
    classes=10,
    shape=(1, 28, 28),
    images=1437,
)
def digits(config: DataConfig, root: Path, seed: int) -> DataSet:
    """Return the digits; every fifth image (0, 5, 10, ...) is a test image; resized before rounding to bytes."""
    load_digits = late("sklearn.datasets").load_digits  # half a second, which `validate` need not wait for

    found = load_digits()
    images = torch.from_numpy(found.images.astype(np.float32))[:, None] * (255 / BRIGHTEST)
    labels = torch.from_numpy(found.target.astype(np.int64))
    test = torch.arange(len(labels)) % 5 == 0
    return in_memory(
        "digits",
        (images[~test], labels[~test]),
        (images[test], labels[test]),
        tuple("0123456789"),
        config,
        size=28,
    )
