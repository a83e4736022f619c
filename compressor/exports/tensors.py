"""Files of weights alone, which load strictly into the network: safetensors, and torch's own."""

import zipfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from compressor.errors import CompressError
from compressor.exports.format import Format, Model, Say, logits
from compressor.strict_json import dumps

METADATA = "archive/extra/metadata.json"
"""The record of torch's zip file that holds what is said of the network."""


class Weights(Format):
    """A format of the tensors of `state_dict()`."""

    @staticmethod
    def contents(model: Model) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the tensors, on the CPU, and what is said of the network, each value as JSON.

        Raises `CompressError` where a state dict has more than tensors.
        """
        about = {key: dumps(value) for key, value in model.about.items()}
        if model.architecture is not None:
            about["architecture"] = dumps(dict(model.architecture))
        state = model.network.state_dict()
        other = [name for name, value in state.items() if not isinstance(value, Tensor)]
        if other:
            raise CompressError(f"the model {model.name} keeps more than tensors in its state dict: {other[0]}")
        return {name: value.detach().cpu() for name, value in state.items()}, about

    @property
    def reader(self) -> str:
        return "strict loading into a new network"

    def outputs(self, model: Model, path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
        network = model.fresh()
        try:
            network.load_state_dict(self.load(path), strict=True)
        except (RuntimeError, OSError, SafetensorError) as error:
            first = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise CompressError(f"the file does not load strictly into a new {model.name}: {first}") from error
        return logits(network, batches)

    @abstractmethod
    def load(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors."""


class Safetensors(Weights):
    """Write safetensors, with the metadata in its header."""

    name = "safetensors"
    suffix = ".safetensors"

    def write(self, model: Model, path: Path, say: Say) -> int | None:
        tensors, about = self.contents(model)
        path.write_bytes(save(_owned(tensors), {"format": "pt", **about}))
        return None

    def load(self, path: Path) -> dict[str, Tensor]:
        return load_file(path)


class StateDict(Weights):
    """Write torch's file of a state dict, which `torch.load(weights_only=True)` reads; the metadata are a record of its
    zip file.
    """

    name = "state-dict"
    suffix = ".pth"

    def write(self, model: Model, path: Path, say: Say) -> int | None:
        tensors, about = self.contents(model)
        with open(path, "wb") as file:
            torch.save(_owned(tensors), file)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA, "{" + ", ".join(f"{dumps(key)}: {value}" for key, value in about.items()) + "}")
        return None

    def load(self, path: Path) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.load(path, weights_only=True)
        return found


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies, each contiguous and with a storage of its own."""
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
