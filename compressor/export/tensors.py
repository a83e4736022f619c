"""Files of weights alone, which load strictly into the network: safetensors, and torch's own."""

import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from compressor.errors import CompressError
from compressor.export.format import Format, Model, Say, logits
from compressor.strict_json import dumps

METADATA = "archive/extra/metadata.json"
"""The record of torch's zip file that holds what is said of the network."""


class _Weights(Format):
    """Write the tensors of `state_dict()`, each contiguous and with a storage of its own."""

    def write(self, model: Model, path: Path, say: Say) -> int | None:
        about = {key: dumps(value) for key, value in model.about.items()}
        if model.architecture is not None:
            about["architecture"] = dumps(dict(model.architecture))
        state = model.network.state_dict()
        wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
        if wrong:
            raise CompressError(f"the model {model.name} keeps more than tensors in its state dict: {wrong[0]}")
        owned = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()
        }
        self.save(owned, about, path)
        return None

    def outputs(self, model: Model, path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
        network = model.fresh()
        try:
            network.load_state_dict(self.load(path), strict=True)
        except (RuntimeError, OSError, SafetensorError) as error:
            first = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise CompressError(f"the file does not load strictly into a new {model.name}: {first}") from error
        return logits(network, batches)

    @property
    def reader(self) -> str:
        return "strict loading into a new network"

    @abstractmethod
    def save(self, tensors: dict[str, Tensor], about: dict[str, str], path: Path) -> None:
        """Write tensors and metadata."""

    @abstractmethod
    def load(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors."""


class Safetensors(_Weights):
    """Write safetensors, with the metadata in its header."""

    name = "safetensors"
    suffix = ".safetensors"

    def save(self, tensors: dict[str, Tensor], about: dict[str, str], path: Path) -> None:
        path.write_bytes(save(tensors, {"format": "pt", **about}))

    def load(self, path: Path) -> dict[str, Tensor]:
        return load_file(path)


class StateDict(_Weights):
    """Write torch's file of a state dict, which `torch.load(weights_only=True)` reads; the metadata are a record of its
    zip file.
    """

    name = "state-dict"
    suffix = ".pth"

    def save(self, tensors: dict[str, Tensor], about: dict[str, str], path: Path) -> None:
        with open(path, "wb") as file:
            torch.save(tensors, file)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA, "{" + ", ".join(f"{dumps(key)}: {value}" for key, value in about.items()) + "}")

    def load(self, path: Path) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.load(path, weights_only=True)
        return found
