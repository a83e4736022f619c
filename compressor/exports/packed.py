"""Packed files: each tensor in its shortest form, the thinned architecture as data, a checksum (docs/packed.md)."""

from pathlib import Path

import torch
from torch import Tensor

from compressor.errors import CompressError
from compressor.exports.format import Model, Say
from compressor.exports.tensors import Weights
from compressor.storage import pack, unpack


class Packed(Weights):
    """Write a packed file, which `compressor.load_packed` reads."""

    name = "packed"
    suffix = ".packed.safetensors"

    def write(self, model: Model, path: Path, say: Say) -> int | None:
        state, about = self.contents(model)
        path.write_bytes(pack(state, about))
        read = unpack(path.read_bytes())
        found = read.state_dict()
        for name, tensor in state.items():
            if not _same(found[name], tensor):
                raise CompressError(f"not exported: read back, {name} has other bits than in the network")
        signed = [name for name, stored in read.tensors.items() if stored.signs]
        if signed:
            what = "1 tensor has" if len(signed) == 1 else f"{len(signed)} tensors have"
            say(f"{what} many zeros that are -0.0, as a multiplied mask makes them: the sign of each zero takes a bit")
        return None

    def load(self, path: Path) -> dict[str, Tensor]:
        return unpack(path.read_bytes()).state_dict()


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same type, shape and bits."""
    bits = [tensor.detach().cpu().contiguous().view(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
