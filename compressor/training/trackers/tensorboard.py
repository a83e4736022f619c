"""TensorBoard: event files in the folder `tensorboard` of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.importing import late
from compressor.training.trackers import Status, Values

FOLDER = "tensorboard"


class TensorBoard:
    """Write scalars by epoch, the configuration as text. A resumed run hides what was written after its checkpoint."""

    def begin(self, folder: Path, name: str, params: Mapping[str, str], identifier: str | None, done: int) -> str:
        """Begin or go on in the run's folder."""
        path = folder / FOLDER
        self._writer: Any = late("torch.utils.tensorboard").SummaryWriter(
            str(path), purge_step=done if identifier else None
        )
        if identifier is None:
            self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in params.items()), 0)
        return FOLDER

    def log(self, epoch: int, values: Values) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self, status: Status) -> None:
        """Close the file."""
        self._writer.close()


ADAPTER = TensorBoard
