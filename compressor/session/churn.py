"""The changes of the masks in force, by the event that made them: a policy in one step of the current epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.sparsity import Masks
from compressor.timing import Clock

INIT = "init"
"""The owner of the masks that hold the zeros of the checkpoint with which training begins."""


class Churn:
    """The events of the current epoch that pruned or revived entries of weights, and their sums by weight.

    Events that follow the last step have the number of steps of the epoch as their step.
    """

    def __init__(self, masks: Masks, clock: Clock) -> None:
        self._masks, self._clock = masks, clock
        self._epoch = clock.epoch
        self._events: dict[tuple[int, str], list[int]] = {}
        self._weights: dict[str, list[int]] = {}

    def note(self, policy: str) -> None:
        """Count what has changed since the last call, as an event of `policy`."""
        changes = self._masks.take_changes()
        if not changes:
            return
        if self._clock.epoch != self._epoch:
            self._clear()
        event = self._events.setdefault((self._clock.step, policy), [0, 0])
        for name, change in changes.items():
            weight = self._weights.setdefault(name, [0, 0])
            for place, count in enumerate(change):
                event[place] += count
                weight[place] += count

    def take(self) -> tuple[list[dict[str, Any]], dict[str, tuple[int, int]]]:
        """Return the events of the epoch (`step`, `policy`, `pruned`, `revived`), and by weight how many entries were
        pruned and revived in all of them; and set all counts to zero.
        """
        events = [
            {"step": step, "policy": policy, "pruned": pruned, "revived": revived}
            for (step, policy), (pruned, revived) in self._events.items()
        ]
        weights = {name: (pruned, revived) for name, (pruned, revived) in self._weights.items()}
        self._clear()
        return events, weights

    def _clear(self) -> None:
        self._epoch = self._clock.epoch
        self._events, self._weights = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Return what is counted in the current epoch."""
        events = [[step, policy, *counts] for (step, policy), counts in self._events.items()]
        return {"epoch": self._epoch, "events": events, "weights": {name: list(c) for name, c in self._weights.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved counts; with none where an older version wrote the state."""
        self._masks.take_changes()
        self._clear()
        self._epoch = int(state.get("epoch", self._epoch))
        events: Sequence[Sequence[Any]] = state.get("events", ())
        self._events = {(int(step), str(policy)): list(map(int, counts)) for step, policy, *counts in events}
        self._weights = {str(name): list(map(int, counts)) for name, counts in state.get("weights", {}).items()}
