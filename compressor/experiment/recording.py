"""What a run records for its report beside the lines of its epochs: figures.json, and the targets of its layers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from compressor.config import Config
from compressor.errors import CompressError
from compressor.files import replace_text
from compressor.importing import random_state_kept
from compressor.policies.policy import BoundPolicy, View
from compressor.reports import histograms, recorded
from compressor.schedule import targets
from compressor.strict_json import dumps
from compressor.timing import Clock
from compressor.tracing import peak_activations

Shapes = Mapping[str, Sequence[int]]
Targets = Callable[[int], Mapping[str, float]]


def has_reference(config: Config) -> bool:
    """Return whether training begins with a whole network of the same classes: the weights of a checkpoint, all of
    them.
    """
    return config.checkpoint_path is not None and config.start.head == "keep" and config.start.strict


class Recording:
    """The content of figures.json: what is measured at the beginning of a run is saved with it."""

    def __init__(self, model: nn.Module, shape: tuple[int, int, int], dense: Shapes) -> None:
        """`shape`: C, H, W of the images. `dense` has the shapes of the parameters before channels were removed."""
        self._model, self._shape, self._dense = model, shape, dense
        self._before = recorded.Figures()

    def begin(self, reference: recorded.Evaluation | None) -> None:
        """Measure the network with which training begins; `reference`: its figures, where it is a trained one."""
        self._before = recorded.Figures(
            reference=reference,
            histograms={name: recorded.Histograms(before=one) for name, one in histograms(self._model).items()},
            activations=recorded.BytesOfActivations(before=self._activations()),
        )

    def finish(self, evaluation: recorded.Evaluation | None) -> recorded.Figures:
        """Return all figures, with those of the network that is shipped now."""
        before, after = self._before.histograms, histograms(self._model, self._dense)
        return self._before.model_copy(
            update={
                "evaluation": evaluation,
                "histograms": {
                    name: recorded.Histograms(before=before[name].before if name in before else None, after=one)
                    for name, one in after.items()
                },
                "activations": self._before.activations.model_copy(update={"after": self._activations()}),
            }
        )

    def _activations(self) -> int | None:
        with random_state_kept():
            return peak_activations(self._model, self._shape)

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured at the beginning, as plain values."""
        return self._before.model_dump(mode="json", by_alias=True)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what was measured at the beginning; with nothing where an older version wrote the state."""
        self._before = recorded.Figures.model_validate(dict(state))


def write(folder: Path, figures: recorded.Figures) -> None:
    """Write figures.json."""
    replace_text(folder / recorded.FIGURES, dumps(figures.model_dump(mode="python", by_alias=True)) + "\n")


def targets_of(policies: Sequence[BoundPolicy], view: View | None, clock: Clock, say: Callable[[str], None]) -> Targets:
    """Return a function that gives the sparsities that the policies ask for at the end of an epoch, by weight.

    A policy of a plugin that cannot predict stops no run: `say` tells it once, and no more targets are recorded.
    """
    stopped = False

    def find(epoch: int) -> Mapping[str, float]:
        nonlocal stopped
        if view is None or stopped:
            return {}
        try:
            return targets(policies, view, clock, epoch)
        except CompressError:
            raise
        except Exception as error:
            stopped = True
            say(f"warning: the target sparsities by layer are not recorded: {type(error).__name__}: {error}")
            return {}

    find(clock.epochs - 1)  # what policies find out about the network is kept: later it is trained, and thinner
    return find
