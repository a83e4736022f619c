"""The observers of a run: a progress bar or log lines, and files of JSON lines. They change nothing in it."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from compressor.errors import CompressError
from compressor.files import append_text, replace_text
from compressor.strict_json import dumps

_MINUTE = 60.0


class Observer:
    """Receives every step, every epoch and every message of a run."""

    def on_step(self, epoch: int, step: int, loss: Tensor) -> None:
        """Receive an optimizer step."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Receive an epoch; `record` is its line of metrics.jsonl."""

    def on_layers(self, record: dict[str, Any]) -> None:
        """Receive the weights of an epoch, after `on_epoch`; `record` is its line of layers.jsonl."""

    def say(self, text: str) -> None:
        """Receive a message."""


def _line(record: dict[str, Any], epochs: int, width: int | None = None) -> str:
    """Return an epoch in one line; without its rate, then its time, then the training figures where it is wider."""
    train, val = record["train"], record["val"]
    shown = f"val loss {val['loss']:.4f} top-1 {val['top1']:6.2f} %" if val else "no validation"
    # Where more is zero than convolutions and linear layers show: in attention, in recurrent layers.
    more = record["sparsity_all"] - record["sparsity"] > 5e-5
    every = f" (of all parameters {100 * record['sparsity_all']:.2f} %)" if more else ""
    parts = {
        "epoch": f"epoch {record['epoch'] + 1:>{len(str(epochs))}}/{epochs}",
        "train": f"train loss {train['loss']:.4f} top-1 {train['top1']:6.2f} %",
        "val": shown,
        "sparsity": f"sparsity {100 * record['sparsity']:5.2f} %{every}",
        "lr": f"lr {record['lr']:.4g}",
        "seconds": f"{record['seconds']:.1f} s",
    }
    for part in ("lr", "seconds", "train"):
        if width is not None and len("  ".join(parts.values())) > width:
            del parts[part]
    return "  ".join(parts.values())


def duration(seconds: float) -> str:
    """Return a time in hours, minutes or seconds, in words."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


class Terminal(Observer):
    """Print a line for each epoch on stdout. Within an epoch show a bar where stderr is a terminal, else print a line
    every minute; both say how long the whole run still takes.
    """

    def __init__(self, epochs: int, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`steps`: of an epoch. `clock` returns seconds."""
        self._epochs, self._steps, self._clock = epochs, steps, clock
        self._bar: Any = None
        self._first: tuple[float, int] | None = None
        """When the first step of this process had ended, and how many steps of the run were done then."""
        self._shown_at = 0.0

    def on_step(self, epoch: int, step: int, loss: Tensor) -> None:
        now, done = self._clock(), epoch * self._steps + step + 1
        if self._first is None:
            self._first, self._shown_at = (now, done), now
        if sys.stderr.isatty():
            self._show(epoch, step, loss, now, done)
        elif now - self._shown_at >= _MINUTE:
            value, left = float(loss.detach()), self._left(now, done)
            self.say(f"epoch {epoch + 1}/{self._epochs}, step {step + 1:,} of {self._steps:,}: loss {value:.4f}{left}")
            self._shown_at = now

    def _show(self, epoch: int, step: int, loss: Tensor, now: float, done: int) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=self._steps,
                initial=step,
                desc=f"epoch {epoch + 1}/{self._epochs}",
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            )
        self._bar.update()
        if now - self._shown_at > 1:
            self._bar.set_postfix_str(f"loss {float(loss.detach()):.4f}{self._left(now, done)}")
            self._shown_at = now

    def _left(self, now: float, done: int) -> str:
        """Return how long the rest of the run takes at the mean pace so far, validation and all."""
        assert self._first is not None
        begun, before = self._first
        if done == before:
            return ""
        return f", about {duration((now - begun) / (done - before) * (self._epochs * self._steps - done))} left"

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.close()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        self.say(_line(record, self._epochs, width))
        self._shown_at = self._clock()

    def say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()  # the next step draws it again, below the text
        print(text, flush=True)

    def close(self) -> None:
        """Remove the bar: the terminal is as if there had been none."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LogFile(Observer):
    """Write log.txt: a line with date for each message and epoch. Where it cannot be written, say so once on stderr."""

    def __init__(self, path: Path, epochs: int) -> None:
        self._path, self._epochs = path, epochs
        self._told = False

    def on_epoch(self, record: dict[str, Any]) -> None:
        self.say(_line(record, self._epochs))

    def say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            append_text(self._path, "".join(f"{stamp} {line}\n" for line in text.splitlines()))
        except CompressError as error:
            if not self._told:
                print(f"warning: {error}; the run goes on without it", file=sys.stderr, flush=True)
            self._told = True


class LinesFile(Observer):
    """A file with a JSON object for each epoch."""

    def __init__(self, path: Path, epochs_done: int) -> None:
        """Keep the lines of `epochs_done` epochs: what a killed run wrote after its last checkpoint is computed again,
        and a torn line is left out. `lost` says which lines are not there any more.
        """
        self._path = path
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        lines = {_epoch(line): line for line in reversed(text.split("\n"))}
        epochs = range(epochs_done)
        missing = [str(epoch) for epoch in epochs if epoch not in lines]
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        self.lost = f"{path}: {len(missing)} of {epochs_done} lines torn or lost (epoch {shown})" if missing else ""
        replace_text(path, "".join(f"{lines[epoch]}\n" for epoch in epochs if epoch in lines))

    def _write(self, record: dict[str, Any]) -> None:
        append_text(self._path, dumps(record) + "\n")


class MetricsFile(LinesFile):
    """Write metrics.jsonl: the figures of the network."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        self._write(record)


class LayersFile(LinesFile):
    """Write layers.jsonl: those of its weights, and the changes of masks."""

    def on_layers(self, record: dict[str, Any]) -> None:
        self._write(record)


def _epoch(line: str) -> int | None:
    """Return the epoch of a line; None where it is torn."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return epoch if type(epoch) is int else None
