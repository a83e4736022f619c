"""The number of positions of an image at which each layer works."""

import math

from torch import nn

from compressor.tracing.trace import Trace

__all__ = ["positions"]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def positions(trace: Trace) -> dict[str, list[int]]:
    """Return by the weight of each convolution and linear layer its number of positions in one image, for each call."""
    found: dict[str, list[int]] = {}
    for call in trace.modules:
        if call.weight is not None and isinstance(call.module, _LAYERS):
            found.setdefault(call.weight, []).append(math.prod(call.shapes[0][1:]) // len(call.module.weight))
    return found
