"""One file: written under a temporary name, run on real images beside the network, and moved into place."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from compressor.errors import CompressError
from compressor.exports.format import Format, Model, Say, logits
from compressor.files import replaced
from compressor.reports import Latency, in_turns
from compressor.thinning import TOLERANCE, difference

IMAGES = 32
"""The largest number of images on which a file is verified."""

_SIZES = (1, 2, 3, 5)
"""The sizes of the first batches; the rest is one batch."""


class Exported(BaseModel):
    """A file that was written and verified."""

    model_config = ConfigDict(frozen=True)

    path: Path
    format: str
    bytes: int
    batch: int | None
    """The only number of images that the file takes at once; None for any."""
    verified_by: str
    images: int
    """The number of real images on which the logits were compared, and the sizes of their batches."""
    batches: list[int]
    largest_difference: float
    """Of a logit of the file to that of the network in torch."""
    relative_difference: float
    """The same as a fraction of the logits' spread: their standard deviation around the mean of each image."""
    latency: Latency | None
    """Of a forward pass of the file and of torch, on as many threads; for ONNX alone."""


def write(
    model: Model, format: Format, path: Path, images: Tensor, *, measures: bool = True, say: Say = lambda text: None
) -> Exported:
    """Write a network to `path` and verify the file on `images` ([N, C, H, W], on the CPU, normalized).

    `measures`: also measure its latency beside torch's. `say` receives messages. Raises `CompressError` where the
    network cannot be written, or the logits differ by more than 1e-4 of their spread; a file that was there before is
    unchanged then.
    """
    with replaced(path) as temporary:
        batch = format.write(model, temporary, say)
        batches = _parts(images, batch)
        expected = logits(model.network, batches)
        found = format.outputs(model, temporary, batches)
        largest, relative = _compared(model, format, expected, found, batches)
        forward = format.forward(temporary) if measures else None
        latency = None
        if forward is not None:
            network = model.network.eval()
            sizes = (batch,) if batch else (1, 16)
            latency = in_turns({"torch": network, format.reader: forward}, model.shape, sizes)
    return Exported(
        path=path,
        format=format.name,
        bytes=path.stat().st_size,
        batch=batch,
        verified_by=format.reader,
        images=len(images),
        batches=[len(part) for part in batches],
        largest_difference=largest,
        relative_difference=relative,
        latency=latency,
    )


def _parts(images: Tensor, batch: int | None) -> list[Tensor]:
    """Return the images in batches of several sizes; of `batch` where the file takes no other."""
    if batch is not None:
        return list(torch.split(images[: len(images) // batch * batch], batch))
    sizes, left = list[int](), len(images)
    for size in _SIZES:
        if left > size:
            sizes.append(size)
            left -= size
    return list(torch.split(images, [*sizes, left]))


def _compared(
    model: Model, format: Format, expected: Sequence[Tensor], found: Sequence[Tensor], batches: Sequence[Tensor]
) -> tuple[float, float]:
    """Return the largest difference of a logit, and as a fraction of the spread. Raises `CompressError` where it is
    more than rounding.
    """
    shapes = [[list(each.shape) for each in some] for some in (expected, found)]
    if shapes[0] != shapes[1]:
        raise CompressError(
            f"not exported: {format.reader} gives logits of shape {shapes[1][-1]}, torch {shapes[0][-1]}"
        )
    before, after = torch.cat(list(expected)), torch.cat(list(found))
    if not before.isfinite().all():
        raise CompressError("not exported: the network's own logits are not finite, so nothing can be compared")
    one = difference(before, after)
    if not one.within(TOLERANCE):
        again = difference(before, torch.cat(logits(model.network, batches)))
        drawn = "" if again.within(TOLERANCE) else "; the network itself gives other logits each time"
        raise CompressError(
            f"not exported: by {format.reader} a logit differs by {one.largest:.3g} on {len(before)} real images,"
            f" more than {TOLERANCE:g} of the logits' spread ({one.spread:.3g}){drawn}"
        )
    return one.largest, one.largest / one.spread if one.spread else 0.0
