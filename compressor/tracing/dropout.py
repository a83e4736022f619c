"""The weight before each dropout module."""

from torch import nn

from compressor.tracing.trace import Trace

__all__ = ["before_dropout"]

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def before_dropout(trace: Trace) -> dict[str, str]:
    """Return for each dropout module the weight of the layer that is called last before it.

    Dropout before the first layer is left out; of a module that is called twice the last call counts.
    """
    found: dict[str, str] = {}
    last: str | None = None
    for call in trace.modules:
        if call.weight is not None:
            last = call.weight
        elif last is not None and isinstance(call.module, _DROPOUTS):
            found[call.path] = last
    return found
