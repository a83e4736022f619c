"""The weights of a checkpoint, put into a network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.thinning import resize
from compressor.training.checkpoint import Checkpoint


def load_weights(network: nn.Module, saved: Checkpoint, source: str) -> None:
    """Load a checkpoint's plain weights strictly; the network gets the widths of the one that was saved.

    Raises `UserError` naming what does not fit.
    """
    unknown = [name for name in saved["model"] if name not in network.state_dict()]
    why = getattr(network, "why_unknown", lambda names: None)(unknown)
    if why is not None:
        raise UserError(f"{source}: {why}")
    resize(network, saved.get("architecture", {}), source)
    own = network.state_dict()
    theirs = saved["model"]
    wrong = [
        f"{name} is {tuple(theirs[name].shape)} there, {tuple(own[name].shape)} here"
        for name in own
        if name in theirs and theirs[name].shape != own[name].shape
    ]
    wrong += [f"{name} is no dense tensor of real numbers" for name, tensor in theirs.items() if not _plain(tensor)]
    names = [f"{name} is missing there" for name in own if name not in theirs]
    names += [f"{name} is unknown here" for name in theirs if name not in own]
    if wrong or names:
        raise UserError(f"{source}: the weights do not fit this model: {'; '.join((wrong + names)[:3])}")
    network.load_state_dict(theirs)


def _plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_complex() or tensor.is_quantized or tensor.is_meta)


@torch.no_grad()
def restore_live(network: nn.Module, live: Mapping[str, Tensor]) -> None:
    """Restore the values with which training continues, where the checkpoint's weights are masked or averaged ones."""
    for name, tensor in network.state_dict().items():
        if name in live:
            tensor.copy_(live[name])
