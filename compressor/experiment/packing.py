"""`compressor.load_packed`: a packed file as a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from compressor import models, strict_json
from compressor.config import ModelConfig
from compressor.errors import CompressError, UserError
from compressor.experiment import building
from compressor.importing import random_state_kept, refusal
from compressor.storage import Packed, most_bytes, shown, unpack
from compressor.thinning import resize
from compressor.training import load_weights


class _About(BaseModel):
    """What the metadata say of the network; other keys are for whoever uses it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: ModelConfig
    class_names: list[str] = Field(min_length=1)
    channels: int = Field(ge=1)
    image_size: list[Annotated[int, Field(ge=1)]] = Field(min_length=2, max_length=2)
    architecture: dict[str, Any] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return C, H, W of the network's input."""
        height, width = self.image_size
        return self.channels, height, width


def load_packed(path: Path) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return the network of a packed file, in eval mode, and C, H, W of its images; every tensor has the bits that were
    packed.

    Raises `UserError` where there is no such file, it is damaged, or its network is another one than its tensors'.
    """
    try:
        file = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: no such packed file ({error.strerror or error})") from None
    try:
        packed = unpack(file)
        about = _about(packed.metadata)
        network = _network(about, packed, len(file), str(path))
        state = packed.state_dict()
        for name, tensor in network.state_dict(keep_vars=True).items():
            if tensor.dtype != state[name].dtype:  # the network was converted to another precision
                tensor.data = tensor.data.to(state[name].dtype)
        load_weights(network, {"model": state, "architecture": {}}, str(path))
    except CompressError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise UserError(f"{path}: {said}") from None
    return models.as_built(network.eval()), about.shape


def _about(metadata: Mapping[str, str]) -> _About:
    """Return what the metadata say of the network. Raises `CompressError` where they say too little, or nonsense."""
    found = {}
    for key in _About.model_fields.keys() & metadata.keys():
        try:
            found[key] = strict_json.loads(metadata[key])
        except ValueError as error:
            raise CompressError(f"its {key} cannot be read: {error}") from None
    try:
        return _About.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(shown(part) for part in first["loc"])
        said = first["msg"].partition(" or instance of")[0].lower()
        raise CompressError(f"its {where} cannot be used: {said}") from None


def _network(about: _About, packed: Packed, size: int, source: str) -> nn.Module:
    """Return the network with other weights. Raises `CompressError` where its tensors are not those of the file.

    Ours and torchvision's are compared before memory is taken for them; code of the user's own is trusted.
    """
    model, outputs = about.model, len(about.class_names)
    if ":" in model.name:
        if refused := refusal(model.name):
            raise CompressError(f"its model: {refused}")
    else:
        skeleton = building.skeleton(model, outputs)
        taken = sum(tensor.nbytes for tensor in skeleton.state_dict().values())
        if taken > most_bytes(size):
            raise CompressError(f"its model {model.name} has {taken:,} bytes: at most {most_bytes(size):,} are read")
        resize(skeleton, about.architecture, source)
        _compare(skeleton, packed)
    with random_state_kept():
        network = building.model(model, outputs, trained_elsewhere=True, image=about.shape)
    resize(network, about.architecture, source)
    _compare(network, packed)
    return network


def _compare(network: nn.Module, packed: Packed) -> None:
    """Raise `CompressError` where the network's tensors have other names, shapes or kinds than the file's."""
    there = {**packed.tensors, **{name: packed.tensors[other] for name, other in packed.tied.items()}}
    own = network.state_dict()
    for name in (*own, *there):
        if name not in there or name not in own:
            raise CompressError(
                f"{shown(name)}: {'not in the file' if name in own else 'the model has no such tensor'}"
            )
        here, stored = own[name], there[name]
        same = here.dtype == stored.dtype or (here.is_floating_point() and stored.dtype.is_floating_point)
        if tuple(here.shape) != stored.shape or not same:
            words = [f"{str(one.dtype).removeprefix('torch.')} of shape {tuple(one.shape)}" for one in (stored, here)]
            raise CompressError(f"{shown(name)}: it is {words[0]}, in the model {words[1]}")
