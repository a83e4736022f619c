"""A schedule as it was read, and bound to a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from compressor.component import at_pace
from compressor.policies.policy import BoundPolicy, Finding, Policy, View
from compressor.schedule.claim import Claim
from compressor.schedule.document import Document, KeyPath
from compressor.schedule.faults import Faults, Message, Place
from compressor.schedule.selectors import WeightNames, bind, left_out
from compressor.schedule.widths import widths
from compressor.sparsity import shape_outputs_first, turned_layers
from compressor.timing import Clock, Window


@dataclass(frozen=True)
class Entry:
    """One policy of the file: the object, its key in the run's state, its place and that of its component."""

    key: str
    policy: Policy
    path: KeyPath
    component_path: KeyPath


@dataclass(frozen=True)
class Meant:
    """What a version 1 file means by the arguments at `path`, as version 2 writes it, and a remark on it."""

    path: KeyPath
    given: Mapping[str, Any]
    meant: Mapping[str, Any]
    remark: str | None = None
    ignored: frozenset[str] = frozenset()
    """The keys that have no meaning here."""


@dataclass
class Schedule:
    """A schedule that was read without a fault, not yet bound to a model."""

    document: Document
    version: int = 1
    config: str | None = None
    entries: list[Entry] = field(default_factory=list)
    notes: list[Message] = field(default_factory=list)
    meant: list[Meant] = field(default_factory=list)
    """Of a version 1 file: the arguments that version 2 writes otherwise."""
    claim: Claim | None = None
    claim_text: str | None = None
    """The text of NAME.expect.yaml, beside a version 1 schedule."""

    @property
    def removals(self) -> list[Window]:
        """Return when its policies remove channels."""
        return [entry.policy.window for entry in self.entries if entry.policy.removes_channels != "none"]

    def bind(self, model: nn.Module, epochs: int, faults: Faults) -> "BoundSchedule":
        """Set the ends of the windows and resolve the selectors; names that are not in `model` become faults."""
        names = WeightNames(model)
        bound = []
        left: dict[str, list[Place]] = {}
        for entry in self.entries:
            policy = entry.policy.model_copy(update={"window": entry.policy.window.bind(epochs)})
            targets = bind(policy.applied, self.document, entry.component_path, names, faults)
            for line, places in left_out(policy.applied, self.document, entry.component_path, names, targets).items():
                left[line] = list(dict.fromkeys([*left.get(line, []), *places]))
            named = entry.component_path[0] != "policies"
            instance = ".".join(map(str, entry.component_path)) if named else ""
            bound.append(BoundPolicy(entry.key, policy, targets, instance))
        notes = (*self.notes, *(_placed(line, places) for line, places in left.items()))
        return BoundSchedule(tuple(bound), tuple(self.entries), self.document, self.version, notes)


def _placed(line: str, places: Sequence[Place]) -> Message:
    """Return a line with its first place before it, and the others behind it."""
    others = ", ".join(map(str, places[1:]))
    return Message(places[0], line + (f" (also {others})" if others else ""), "note")


@dataclass(frozen=True)
class BoundSchedule:
    """The policies of a schedule over one model, with the notes on them; empty without a schedule."""

    policies: tuple[BoundPolicy, ...] = ()
    entries: tuple[Entry, ...] = ()
    document: Document = field(default_factory=lambda: Document("the schedule", ""))
    version: int = 2
    notes: tuple[Message, ...] = ()

    @property
    def allows_empty_layers(self) -> bool:
        """Return whether a run goes on where its logits no longer depend on the image."""
        return self.version == 1 or any(bound.policy.allows_empty_layers for bound in self.policies)

    def at_pace(self, pace: float) -> "BoundSchedule":
        """Return the schedule for a run in which one step stands for `pace` steps: times in steps are scaled."""
        if pace == 1:
            return self
        return replace(self, policies=tuple(replace(one, policy=at_pace(one.policy, pace)) for one in self.policies))

    def check(self, view: View, faults: Faults) -> "BoundSchedule":
        """Return the schedule with the findings of every policy: errors become faults, all others notes.

        Where the channels are known, targets are completed with all weights that share them.
        """
        notes = list(self.notes)
        policies = []
        gated = {name: one.policy.window for one in self.policies for name in one.policy.gated(one.targets)}
        computed = {name: one.policy.window for one in self.policies for name in one.policy.computed(one.targets)}
        removals = [one.policy.window for one in self.policies if one.policy.removes_channels != "none"]
        view = replace(view, version=self.version, gated=gated, computed=computed, removals=removals)
        for bound, entry in zip(self.policies, self.entries, strict=True):
            own = bound.view(view)
            for finding in [*_of_window(bound, view), *bound.policy.check(own)]:
                place = self._place(entry, finding)
                if finding.severity == "error":
                    faults.add(place, finding.text)
                else:
                    notes.append(Message(place, finding.text, finding.severity))
            graph = own.graph if bound.policy.shares_channels else None
            known = graph if not isinstance(graph, Exception) else None
            targets = bound.policy.complete(bound.targets, known)
            policies.append(replace(bound, targets=targets, open=bound.policy.shares_channels and graph is None))
        if not faults and view.once("widths", lambda: widths(policies, view)).removes:
            notes += self._removals(policies, view)
        return replace(self, policies=tuple(policies), notes=tuple(dict.fromkeys(notes)))

    def _removals(self, policies: Sequence[BoundPolicy], view: View) -> list[Message]:
        notes = []
        for bound, entry in zip(policies, self.entries, strict=True):
            for text in [*_of_removals(bound, view), *_idle(bound, view)]:
                notes.append(Message(self.document.place(entry.path), text, "note"))
        return notes

    def _place(self, entry: Entry, finding: Finding) -> Place:
        path = entry.path if finding.of_policy else entry.component_path
        return self.document.place((*path, finding.field) if finding.field else path)


def _of_window(bound: BoundPolicy, view: View) -> list[Finding]:
    """Return the findings on a policy's window, and on images that it needs and that do not exist."""
    found = []
    window = bound.policy.window
    if window.unit == "epoch" and window.last >= view.epochs:
        said = f"{bound.key} acts last in epoch {window.last}, but the run ends after epoch {view.epochs - 1}"
        found.append(Finding("warning", said, of_policy=True))
    if bound.policy.needs_validation and not view.validates:
        said = f"{bound.key} needs validation images, the configuration has none: set data.validation"
        found.append(Finding("error", said, of_policy=True))
    if bound.policy.needs_test and not view.tests:
        said = f"{bound.key} uses the test images, the configuration has test: false: choose `part: validation`"
        found.append(Finding("error", said, of_policy=True))
    return found


def _of_removals(bound: BoundPolicy, view: View) -> list[str]:
    """Return the sparsity at the last event in both meanings, where channels that were removed make them differ."""
    last = bound.policy.window.last_firing(view.epochs - 1)
    if bound.policy.window.unit == "step" or last is None:
        return []
    found = bound.policy.predict(bound.view(view), Clock(view.epochs, 1), last)
    if not found.otherwise or found.asked is None:
        return []
    return [f"{bound.key}: in epoch {last}, after the removal of channels: {found.asked:.4g} {found.otherwise}"]


def _idle(bound: BoundPolicy, view: View) -> list[str]:
    """Return a line where a removal finds nothing pruned at any of its events."""
    idle = view.widths.idle.get(bound.key, ())
    if not idle or list(idle) != [epoch for epoch in range(view.epochs) if bound.policy.window.fires(epoch)]:
        return []
    when = f"epoch {idle[0]}" if len(idle) == 1 else f"epochs {idle[0]} to {idle[-1]}"
    return [f"{bound.key}: nothing is pruned before it acts ({when}): it removes what is zero from the start"]


def view_of(model: nn.Module, **known: object) -> View:
    """Return the view of a model; `known` are fields of the view."""
    turned = turned_layers(model)
    shapes = {name: shape_outputs_first(p.shape, turned.get(name)) for name, p in model.named_parameters()}
    return View(modules=dict(model.named_modules()), shapes=shapes, **known)  # type: ignore[arg-type]
