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


def equal_parts(images: int, smallest: int, accumulate: int, least: int) -> list[int]:
    """Return the numbers of images of the parts of a process's share of a batch. All processes have as many parts;
    `smallest`: the smallest share of one of them.
    """
    count = len(part_sizes(smallest, accumulate, least))
    return [images // count + (number < images % count) for number in range(count)]


def least_images(network: nn.Module, config: Config, processes: int = 1) -> int:
    """Return the smallest number of images that may be in one part of a batch, of which each process has its share.

    A batch norm may need two, and gets them unless `batch` and `accumulate` ask for one in every part.
    """
    asked = -(-config.data.batch // (config.optimizer.accumulate * processes))
    return 2 if asked > 1 and any(isinstance(module, _BatchNorm) for module in network.modules()) else 1


def fewest_at_once(network: nn.Module, config: Config, images: int | None, processes: int = 1) -> int:
    """Return the smallest number of images that go through the network at once in training.

    `images`: the number of training images; None where it is not known.
    """
    least = least_images(network, config, processes)
    return min(
        min(part_sizes(share, config.optimizer.accumulate, least))
        for batch in _batches(config.data.batch, images)
        for share in _shares(batch, config.data.batch, processes)
    )


def _shares(images: int, batch: int, processes: int) -> list[int]:
    """Return the shares of the processes in a batch: those of a smaller one differ, or each has the whole of it."""
    least, more = divmod(images, processes)
    if images < batch and least < 2:
        return [images]
    return [least] + [least + 1] * (more > 0)


def _batches(batch: int, images: int | None) -> Iterator[int]:
    """Yield the sizes of the batches of an epoch: a rest of one image is left out, unless it is all there is."""
    if images is None or images >= batch:
        yield batch
    rest = 0 if images is None else images % batch
    if rest > 1 or rest == images:
        yield rest
