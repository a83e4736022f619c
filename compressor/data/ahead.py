"""Batches on their device before they are needed."""

from collections.abc import Iterator

import torch
from torch import Tensor

from compressor.data.images import Batch


def copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches that lie on the CPU with their images and labels on `device`.

    On CUDA each is copied, on a stream of its own, while the one before it is used.
    """
    if device.type != "cuda":
        for indices, images, labels in batches:
            yield indices, images.to(device), labels.to(device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: tuple[Tensor, tuple[Tensor, Tensor], torch.cuda.Event] | None = None
    for indices, *both in batches:
        with torch.cuda.stream(stream):
            # From pageable memory the copy would wait for the device.
            images, labels = (tensor.pin_memory().to(device, non_blocking=True) for tensor in both)
        if waiting is not None:
            yield _taken(*waiting)
        waiting = indices, (images, labels), stream.record_event()
    if waiting is not None:
        yield _taken(*waiting)


def _taken(indices: Tensor, both: tuple[Tensor, Tensor], copied: torch.cuda.Event) -> Batch:
    """Return a batch for the stream that computes: it waits for the copy, and the memory is not used again before."""
    current = torch.cuda.current_stream(both[0].device)
    current.wait_event(copied)
    for tensor in both:
        tensor.record_stream(current)
    return indices, *both
