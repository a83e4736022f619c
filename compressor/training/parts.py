"""The parts of a batch that go through the network one after the other (`optimizer.accumulate`)."""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.config import Config


def part_sizes(images: int, accumulate: int, least: int = 1) -> list[int]:
    """Return the numbers of images of at most `accumulate` parts of a batch: equal ones, and what is left.

    A part has at least `least` images, if the batch has them: a smaller rest joins the part before it.
    """
    size = max(-(-images // accumulate), least)
    whole, rest = divmod(images, size)
    sizes = [size] * whole + [rest] * (rest > 0)
    if len(sizes) > 1 and rest and rest < least:
        sizes[-2:] = [size + rest]
    return sizes


def least_images(network: nn.Module, config: Config) -> int:
    """Return the smallest number of images that may be in one part of a batch.

    A batch norm may need two, and gets them unless `batch` and `accumulate` ask for one in every part.
    """
    asked = -(-config.data.batch // config.optimizer.accumulate)
    return 2 if asked > 1 and any(isinstance(module, _BatchNorm) for module in network.modules()) else 1


def fewest_at_once(network: nn.Module, config: Config, images: int | None) -> int:
    """Return the smallest number of images that go through the network at once in training.

    `images`: the number of training images; None where it is not known.
    """
    least = least_images(network, config)
    return min(
        min(part_sizes(batch, config.optimizer.accumulate, least)) for batch in _batches(config.data.batch, images)
    )


def _batches(batch: int, images: int | None) -> Iterator[int]:
    """Yield the sizes of the batches of an epoch: a rest of one image is left out, unless it is all there is."""
    if images is None or images >= batch:
        yield batch
    rest = 0 if images is None else images % batch
    if rest > 1 or rest == images:
        yield rest
