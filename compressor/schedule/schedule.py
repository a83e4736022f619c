"""A schedule that was read, and what it means for a model."""

from dataclasses import dataclass, field, replace

from torch import nn

from compressor.component import at_pace
from compressor.policies.policy import BoundPolicy, Policy
from compressor.schedule.document import Document, Path_
from compressor.schedule.faults import Faults
from compressor.schedule.selectors import WeightNames, bind


@dataclass(frozen=True)
class Entry:
    """One policy of the file: the object, its key in the run's state, where it and its component stand."""

    key: str
    policy: Policy
    path: Path_
    component_path: Path_


@dataclass
class Schedule:
    """A schedule that was read without a fault, not yet bound to a model."""

    document: Document
    version: int = 1
    config: str | None = None
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a line for the user, unless it was said before: a schedule may be bound more than once."""
        if text not in self.notes:
            self.notes.append(text)

    def at_pace(self, pace: float) -> "Schedule":
        """The same schedule for a run each of whose steps stands for `pace` steps."""
        entries = [replace(entry, policy=at_pace(entry.policy, pace)) for entry in self.entries]
        return replace(self, entries=entries, notes=[])

    def bind(self, model: nn.Module, epochs: int, faults: Faults) -> list[BoundPolicy]:
        """Close the windows and resolve the selectors; names that mean nothing in `model` become faults."""
        names = WeightNames(model)
        bound = []
        for entry in self.entries:
            policy = entry.policy.model_copy(update={"window": entry.policy.window.bind(epochs)})
            applied = entry.policy if policy.component is None else getattr(policy, policy.name)
            targets = bind(applied, self.document, entry.component_path, names, faults)
            named = entry.component_path[0] != "policies"
            instance = ".".join(map(str, entry.component_path)) if named else ""
            bound.append(BoundPolicy(entry.key, policy, targets, instance))
            if policy.window.unit == "epoch" and policy.window.last >= epochs:
                place = self.document.place(entry.path)
                self.note(
                    f"{place}: warning: {entry.key} fires last in epoch {policy.window.last},"
                    f" but the run ends after epoch {epochs - 1}"
                )
            for remark in policy.remarks(epochs):
                self.note(f"{self.document.place(entry.path)}: {entry.key}: {remark}")
        return bound
