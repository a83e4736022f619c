"""Weights & Biases: a run of the project `compressor` (or WANDB_PROJECT); offline where there is no key."""

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compressor.importing import late
from compressor.training.trackers import Status, Values


class WandB:
    """Write values by epoch and the configuration. Files of an offline run are in the folder `wandb` of the run."""

    def begin(self, folder: Path, name: str, params: Mapping[str, str], identifier: str | None, done: int) -> str:
        """Begin a run, or go on in that of the identifier."""
        wandb = late("wandb")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "compressor",
            name=name,
            id=identifier,
            resume=None if identifier is None else "allow",
            dir=str(folder),
            config=dict(params),
            mode=os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline"),
            settings=wandb.Settings(silent=True, console="off"),
        )
        return str(self._run.id)

    def log(self, epoch: int, values: Values) -> None:
        """Write values; those of a resumed run that are there already are dropped."""
        self._run.log(dict(values), step=epoch)

    def end(self, status: Status) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if status == "finished" else 1)


def _has_key() -> bool:
    """Return whether there is a key: in the environment, or as `wandb login` keeps it."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return bool(os.environ.get("WANDB_API_KEY")) or netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


ADAPTER = WandB
