"""A user's own data: `name: package.module:factory`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from compressor.config import DataConfig
from compressor.data.imagefolder import IMAGENET_MEAN, IMAGENET_STD
from compressor.data.images import DataSet
from compressor.data.items import Items, given_labels, read_all
from compressor.data.memory import fits, in_memory
from compressor.data.pixels import per_channel
from compressor.data.streamed import Streamed
from compressor.errors import UserError
from compressor.importing import global_state_kept, import_callable, isolated


def from_factory(config: DataConfig, root: Path, seed: int) -> DataSet:
    """Return the data of the factory `config.name`: a DataSet, or (train, test) of torch map-style datasets.

    It is called with those of root, size, channels and seed that it accepts, and must return the same images each time:
    a run that is resumed and `eval` call it again and compare (`fingerprinting`). Raises UserError for a factory that
    cannot be imported or that fails, and for images and labels that are not as `Items` describes.
    """
    factory = import_callable(config.name, config.name)
    with global_state_kept():  # of the items that are read, too
        return _made(config, factory, root, seed)


def _made(config: DataConfig, factory: Callable[..., Any], root: Path, seed: int) -> DataSet:
    offered = {"root": root, "size": config.size, "channels": config.channels, "seed": seed}
    made = _call(config.name, factory, offered)
    if isinstance(made, DataSet):
        return _checked(made, config)
    if isinstance(made, (tuple, list)) and len(made) == 2 and all(_map_style(part) for part in made):
        return _wrapped(config, made[0], made[1], seed)
    raise UserError(
        f"{config.name}: expected a DataSet or (train, test) of map-style datasets (with __len__ and __getitem__), "
        f"got {_described(made)}"
    )


def _call(name: str, factory: Callable[..., Any], offered: dict[str, Any]) -> Any:
    parameters = inspect.signature(factory).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if not optional and (key not in offered or parameter.kind is parameter.POSITIONAL_ONLY):
            raise UserError(
                f"{name}: it requires {key!r}, which is not offered; it may take {', '.join(offered)} by name"
            )
    with isolated(f"{name}: it failed"):
        return factory(**{key: value for key, value in offered.items() if takes_all or key in parameters})


def _checked(made: DataSet, config: DataConfig) -> DataSet:
    wanted = (config.channels or made.shape[0], *((config.size, config.size) if config.size else made.shape[1:]))
    if tuple(made.shape) != wanted:
        raise UserError(
            f"{config.name}: data.size and data.channels ask for shape {wanted}, its DataSet has {tuple(made.shape)}; "
            "the factory may take `size` and `channels`"
        )
    return made


def _wrapped(config: DataConfig, train: Any, test: Any, seed: int) -> DataSet:
    splits = [
        Items(f"{config.name}, {what}", part, config.size, config.channels)
        for what, part in (("train", train), ("test", test))
    ]
    if splits[0].shape != splits[1].shape:
        raise UserError(
            f"{config.name}: images of train are {splits[0].shape}, of test {splits[1].shape} (C, H, W); set data.size"
        )
    shape = splits[0].shape
    small = fits(len(train) + len(test), shape)
    if small:
        pairs = [read_all(items) for items in splits]
        labels = [pair[1] for pair in pairs]
    else:
        labels = [given_labels(items) for items in splits]
    classes = _classes(train, labels[0])
    if small:
        return in_memory(config.name, pairs[0], pairs[1], classes, config)
    streams = [Streamed(items, own, config.workers, seed) for items, own in zip(splits, labels, strict=True)]
    mean, std = per_channel(IMAGENET_MEAN, shape[0]), per_channel(IMAGENET_STD, shape[0])
    return DataSet(config.name, streams[0], streams[1], classes, shape, mean, std)


def _classes(train: Any, labels: Tensor) -> tuple[str, ...]:
    """Return the data set's own class names (torchvision's convention), else the numbers."""
    named = getattr(train, "classes", None)
    if isinstance(named, (list, tuple)) and len(named) > int(labels.max()):
        return tuple(str(name) for name in named)
    return tuple(str(k) for k in range(int(labels.max()) + 1))


def _map_style(part: Any) -> bool:
    return hasattr(part, "__getitem__") and hasattr(part, "__len__") and not isinstance(part, (str, Tensor, dict))


def _described(made: Any) -> str:
    if isinstance(made, (tuple, list)):
        return f"a {type(made).__name__} of {len(made)}: ({', '.join(type(part).__name__ for part in made[:4])})"
    return type(made).__name__
