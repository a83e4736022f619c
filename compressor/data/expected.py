"""What is known of a named data set before its files are read: the steps of an epoch, and settings that do not fit."""

from collections.abc import Callable
from functools import partial

from compressor.config import DataConfig
from compressor.data.feed import epoch_steps
from compressor.data.loading import override
from compressor.data.registry import image_shape, training_images
from compressor.data.splitting import sizes
from compressor.data.transforms import step
from compressor.errors import UserError


def expected_images(config: DataConfig) -> int | None:
    """Return the number of images that are trained on; None where it is only known from the files."""
    count = training_images(config.name)
    if count is None or "images" in misfits(config) or "validation" in misfits(config):
        return None
    return sizes(count, config.validation, config.images)[0]


def expected_steps(config: DataConfig) -> int | None:
    """Return the number of optimizer steps of an epoch; None where it is only known from the files."""
    images = expected_images(config)
    return None if images is None else epoch_steps(images, config.batch)


def steps_of(config: DataConfig, images: int) -> int:
    """Return the number of optimizer steps of an epoch on a data set of so many training images."""
    return epoch_steps(sizes(images, config.validation, config.images)[0], config.batch)


def misfits(config: DataConfig) -> dict[str, str]:
    """Return in words which settings the data set refuses, by key; empty where that is only known from the files."""
    shape, count = image_shape(config), training_images(config.name)
    tries: dict[str, Callable[[], object]] = {}
    if shape is not None:
        zeros = (0.0,) * shape[0]
        tries |= {
            "mean": lambda: override("mean", config.mean, zeros, shape[0]),
            "std": lambda: override("std", config.std, zeros, shape[0]),
        }
    if count is not None:
        tries |= {"images": lambda: sizes(count, 0.0, config.images)}
        tries |= {"validation": lambda: sizes(min(count, config.images or count), config.validation)}
    return {key: said for key, attempt in tries.items() if (said := _refusal(attempt))}


def augment_misfits(config: DataConfig, shape: tuple[int, int, int] | None) -> dict[int, str]:
    """Return in words which items of `augment` are refused, by their numbers; with a `shape` of images they are
    tried.
    """
    tries: dict[int, Callable[[], object]] = {n: partial(step, item, shape) for n, item in enumerate(config.augment)}
    return {number: said for number, attempt in tries.items() if (said := _refusal(attempt))}


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except UserError as error:
        return str(error)
    return ""
