"""Random changes of single training images: torchvision's transforms by name, and a user's own."""

import inspect
import random
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from compressor.config import KINDS, Augmentation, DataConfig, named
from compressor.data.draws import TRANSFORM, draw
from compressor.data.pipeline import drawn
from compressor.errors import CompressError, UserError, did_you_mean
from compressor.importing import global_state_kept, import_callable, isolated, late

Shape = tuple[int, int, int]

_TRIES = 8
"""The number of images on which a transform is tried before training."""

_BOXES = "changes bounding boxes or key points, and there are none"
_TENSORS = "is not needed: images are tensors of bytes, or floats in [0, 1] for a transform that takes no bytes"
_SEVERAL = "makes several images of one"
REFUSED = {
    "CutMix": "mixes images and their labels: set data.cutmix_alpha",
    "MixUp": "mixes images and their labels: set data.mixup_alpha",
    **dict.fromkeys(("ClampBoundingBoxes", "ClampKeyPoints", "ConvertBoundingBoxFormat", "RandomIoUCrop"), _BOXES),
    **dict.fromkeys(("SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode"), _BOXES),
    **dict.fromkeys(("ConvertImageDtype", "PILToTensor", "ToDtype", "ToImage", "ToPILImage"), _TENSORS),
    **dict.fromkeys(("ToPureTensor", "ToTensor"), _TENSORS),
    **dict.fromkeys(("FiveCrop", "TenCrop"), _SEVERAL),
    **dict.fromkeys(
        ("RandomResize", "RandomShortestSize", "RandomZoomOut", "ScaleJitter"), "changes the size of images"
    ),
    "Lambda": "takes a function: name a factory of your own, package.module:factory",
    "Normalize": "is not needed: set data.mean and data.std",
    "UniformTemporalSubsample": "is for videos",
}
"""Transforms that cannot stand in `data.augment`, with the reason."""

CROPS = "RandomResizedCrop"
"""The transform that cuts its part out of the stored image, where it is the first of the list."""

Call = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Step:
    """A transform and its name; `floats`: it takes floats in [0, 1], no bytes."""

    name: str
    call: Call
    floats: bool = False


class Transforms:
    """A list of random changes of one image.

    An image is uint8 [C, H, W] before and after. What is drawn depends on (seed, epoch, index) alone: the global
    generators are seeded from them for each image. It can be pickled for worker processes, if the steps can.
    """

    def __init__(self, items: Sequence[Augmentation], shape: Shape | None, mean: Sequence[float], seed: int) -> None:
        """Build the transforms, and try them on images of `shape` (C, H, W) where that is given.

        Raises `UserError` as `step`.
        """
        built = [step(item, shape) for item in items]
        names = [one.name for one in built]
        # A crop or a flip is one draw for each image: a second one would do the same again.
        self._steps = [one for n, one in enumerate(built) if one.name not in KINDS or one.name not in names[:n]]
        self._seed, self._mean, self._shape = seed, tuple(mean), shape

    @property
    def whole(self) -> bool:
        """Return whether the first one takes images of any size, so that it may have them as they are stored."""
        return self._steps[0].name == CROPS

    def __call__(self, image: Tensor, index: int, epoch: int) -> Tensor:
        """Return the changed image. Raises `UserError` with the transform that fails. Global state is changed."""
        (bits,) = draw(torch.tensor([index]), TRANSFORM, self._seed, epoch).tolist()
        _seed_all(bits)
        shape = self._shape or tuple(image.shape)
        for one in self._steps:
            if one.name in KINDS:
                cpu = torch.device("cpu")
                top, left, mirrored = drawn(torch.tensor([index]), self._seed, epoch, shape, cpu)[:, 0].tolist()
                if one.name == "crop":
                    image = _shifted(image, top, left, self._mean)
                elif mirrored:
                    image = image.flip(-1)
            else:
                image = _checked(one, image, shape, f"training image {index}")
        return _as_bytes(image)


def crops_stored(config: DataConfig) -> bool:
    """Return whether parts of the images are cut out before they are resized: then they cannot be resized once."""
    return config.size is not None and bool(config.augment) and named(config.augment[0])[0] == CROPS


@contextmanager
def transforming() -> Iterator[None]:
    """Keep the global state of the process, and let sums have one order, whatever the number of threads, inside the
    block.
    """
    with global_state_kept():
        torch.set_num_threads(1)
        yield


def step(item: Augmentation, shape: Shape | None) -> Step:
    """Return one transform. With a `shape` of images it is tried on some.

    Raises `UserError` for an unknown name, wrong arguments, and results that are no images of the same shape.
    """
    name, given = named(item)
    if name in KINDS:
        return Step(name, _same)  # it depends on the image's index
    return _tried(Step(name, _made(name, given)), shape)


def _made(name: str, given: Mapping[str, Any], inside: str = "") -> Call:
    if name in KINDS:
        raise UserError(f"data.augment: {name} stands in the list itself, not inside {inside}")
    if ":" in name:
        factory = import_callable(name, f"data.augment: {name}")
        _refuse_unknown(name, factory, given)
        with isolated(f"data.augment: {name}: the factory failed"):
            made = factory(**given)
        if not callable(made):
            raise UserError(f"data.augment: {name} should return a function of an image, got {type(made).__name__}")
        return made  # type: ignore[no-any-return]
    v2 = late("torchvision.transforms.v2")
    known = [
        key
        for key, value in vars(v2).items()
        if isinstance(value, type) and issubclass(value, v2.Transform) and value is not v2.Transform
    ]
    if name in REFUSED:
        raise UserError(f"data.augment: {name} {REFUSED[name]}")
    if name not in known:
        hint = did_you_mean(name, [*KINDS, *(key for key in known if key not in REFUSED)])
        raise UserError(f"data.augment: torchvision.transforms.v2 has no {name!r}: {hint}")
    cls = getattr(v2, name)
    _refuse_unknown(name, cls, given)
    if name == "RandomErasing" and given.get("value") == "random":
        raise UserError(
            "data.augment: RandomErasing: images are bytes here: give `value` a number from 0 to 255 or three, or"
            " set data.random_erase"
        )
    try:
        made = cls(**{key: _argument(key, value, cls) for key, value in given.items()})
    except CompressError:
        raise
    except Exception as error:  # whatever torchvision says of the values
        raise UserError(f"data.augment: {name}: {_line(error)}") from None
    return made  # type: ignore[no-any-return]


def _refuse_unknown(name: str, factory: Any, given: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in given:
        if key not in parameters:
            raise UserError(f"data.augment: {name} has no argument {key!r}: {did_you_mean(key, parameters)}")


def _argument(key: str, value: Any, cls: type) -> Any:
    """Return an argument's value: transforms are built, members of an enumeration are found by their values."""
    if key == "transforms" and isinstance(value, list):
        return [_made(*named(item), inside=cls.__name__) for item in value]
    for option in _enums(get_type_hints(cls.__init__).get(key)):  # type: ignore[misc]
        if isinstance(value, str):
            names = [member.value for member in option]
            if value not in names:
                raise UserError(f"data.augment: {cls.__name__} {key}: no {value!r}: {did_you_mean(value, names)}")
            return option(value)
    return value


def _enums(hint: Any) -> list[type[Enum]]:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [option for option in options if isinstance(option, type) and issubclass(option, Enum)]


def _tried(one: Step, shape: Shape | None) -> Step:
    """Return the step, with bytes or floats as the transform takes them."""
    if shape is None:
        return one
    with transforming():
        images = torch.randint(0, 256, (_TRIES, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        try:
            return _run(one, images)
        except _Failed as failed:
            try:
                return _run(replace(one, floats=True), images)
            except _Failed:
                raise UserError(str(failed)) from None


def _run(one: Step, images: Tensor) -> Step:
    for number, image in enumerate(images):
        _seed_all(number)
        _checked(one, image, tuple(image.shape), "an image")
    return one


class _Failed(UserError):
    """Raised where a transform raises an exception."""


def _checked(one: Step, image: Tensor, shape: tuple[int, ...], where: str) -> Tensor:
    """Return the changed image. Raises `UserError` where it is none."""
    try:
        found = one.call(_as_floats(image) if one.floats else _as_bytes(image))
    except CompressError:
        raise
    except Exception as error:  # whatever the transform raises
        raise _Failed(f"data.augment: {one.name} failed on {where} of {_size(shape)}: {_line(error)}") from None
    if not isinstance(found, Tensor):
        raise UserError(f"data.augment: {one.name} should return a tensor, got {type(found).__name__}")
    if tuple(found.shape) != tuple(shape):
        raise UserError(
            f"data.augment: {one.name} makes {_size(tuple(found.shape))} of {where} of {_size(shape)}: the shape (C, H,"
            " W) must stay"
        )
    if found.dtype != torch.uint8:
        if not found.is_floating_point():
            raise UserError(f"data.augment: {one.name} should return bytes or floats, got {found.dtype}")
        low, high = float(found.min()), float(found.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise UserError(
                f"data.augment: {one.name} returns floats from {low:.3g} to {high:.3g}; expected values in [0, 1]"
            )
    return found.as_subclass(Tensor)


_ROUNDING = 1e-3
"""The largest distance from [0, 1] that is rounding."""


def _as_bytes(image: Tensor) -> Tensor:
    return image if image.dtype == torch.uint8 else image.mul(255).round().clamp(0, 255).to(torch.uint8)


def _as_floats(image: Tensor) -> Tensor:
    return image.float().div(255) if image.dtype == torch.uint8 else image.float()


def _shifted(image: Tensor, top: int, left: int, mean: tuple[float, ...]) -> Tensor:
    """Return the image shifted as `crop` shifts it; outside it is the mean."""
    height, width = image.shape[-2:]
    outside = torch.tensor(mean)
    if image.dtype == torch.uint8:
        outside = outside.mul(255).round()
    down, right = height // 8, width // 8
    padded = outside.to(image.dtype)[:, None, None].repeat(1, height + 2 * down, width + 2 * right)
    padded[:, down : down + height, right : right + width] = image
    return padded[:, top : top + height, left : left + width]


def _same(image: Tensor) -> Tensor:
    return image


def _seed_all(bits: int) -> None:
    """Seed the global generators of the CPU, from which transforms draw."""
    torch.default_generator.manual_seed(bits)
    random.seed(bits)
    np.random.seed(bits & 0xFFFFFFFF)


def _line(error: Exception) -> str:
    said = (str(error).splitlines() or [""])[0]
    return said if isinstance(error, (TypeError, ValueError)) and said else f"{type(error).__name__}: {said}"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
