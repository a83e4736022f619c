"""From a config to a checked data set."""

import os
from dataclasses import replace
from pathlib import Path

from compressor.config import DataConfig
from compressor.data.checks import check, check_normalization
from compressor.data.custom import from_factory
from compressor.data.images import DataSet
from compressor.data.registry import builders
from compressor.errors import UserError, did_you_mean


def load(config: DataConfig, root: Path | None, seed: int) -> DataSet:
    """Return the data set that `config` names, resized and checked.

    Files are searched in `root` (--data), else in COMPRESS_DATA, else in ./data. `seed` is passed to the processes that
    decode and to a user's factory; the shipped sets draw nothing. Raises UserError for anything wrong with the data.
    """
    where = Path(root or os.environ.get("COMPRESS_DATA") or "data")
    if ":" in config.name:
        data = from_factory(config, where, seed)
    else:
        known = builders()
        if config.name not in known:
            raise UserError(
                f"data.name: there is no data set {config.name!r}: {did_you_mean(config.name, known)} "
                "Your own is named package.module:factory"
            )
        data = known[config.name].build(config, where, seed)
    check(data)
    return normalized(data, config)


def normalized(data: DataSet, config: DataConfig) -> DataSet:
    """Return the set with the configuration's mean and std. Raises UserError where they do not fit it."""
    data = replace(
        data,
        mean=override("mean", config.mean, data.mean, data.shape[0]),
        std=override("std", config.std, data.std, data.shape[0]),
    )
    check_normalization(data)
    return data


def override(field: str, given: list[float] | None, default: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one value per channel: the config's (one value is used for all channels) or the data set's own."""
    if given is None:
        return default
    if len(given) not in (1, channels):
        wanted = "1 value" if channels == 1 else f"{channels} values (one per channel) or 1"
        raise UserError(f"data.{field}: expected {wanted}, got {len(given)}: {given}")
    return tuple(given) * (channels // len(given))
