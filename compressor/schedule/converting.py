"""A version 1 schedule as version 2: the same text with its comments, edited where version 2 means something else."""

from typing import Any

from compressor.errors import UserError
from compressor.schedule import claim, grammar
from compressor.schedule.document import KeyPath, parse
from compressor.schedule.faults import Faults
from compressor.schedule.marks import CannotEdit, Marks
from compressor.schedule.meaning import differences
from compressor.schedule.schedule import Meant, Schedule

_REPEATED = "removed (given twice)"
_MEANINGLESS = "removed (no meaning here)"
_ADDED = {
    "origin": "version 1 counts epochs of a learning rate from the run's beginning; version 2 from its window's",
    "sparsity_of": "version 1 refers to the weights that a removal of channels left; version 2 to the dense ones",
}
"""What a comment says of the arguments that version 2 needs to mean the same, by key."""
_CONVERTED = "converted from version 1"
_OF_PRUNERS = (
    f"{_CONVERTED}: version 2 ends a run whose logits no longer depend on the image;\nversion 1 went on with a warning,"
    " as version 2 does with `allow_empty_layers: true` in the args of a pruner's policy"
)


def converted(schedule: Schedule) -> str:
    """Return the text of a version 1 schedule as version 2, which means the same.

    Every changed meaning has a comment. A claim in the file beside it becomes its `expect:`. Raises `UserError` with
    the line of what version 2 cannot have, and where an anchor stands for two meanings.
    """
    document = schedule.document
    if schedule.version != 1:
        raise UserError(f"{document.place(('version',))}: it has version {schedule.version} already")
    faults = Faults()
    for entry in schedule.entries:
        if (said := entry.policy.refused_by_version_2) is not None:
            faults.add(document.place(entry.path), f"version 2 cannot have this: {said}")
    faults.raise_any()
    marks = Marks(document)
    try:
        for one in schedule.meant:
            _edit(marks, schedule, one)
        if document.repeats:
            marks.remove_repeats(_REPEATED)
        _version(marks, schedule)
        text = marks.text()
    except CannotEdit as error:
        raise UserError(f"{document.source}: its text cannot be edited: {error}: write this part out") from None
    _check(schedule, text)
    return text


def _version(marks: Marks, schedule: Schedule) -> None:
    """Write the version and the claim."""
    said = _OF_PRUNERS if any(entry.policy.prunes for entry in schedule.entries) else _CONVERTED
    text, written = schedule.claim_text, "version" in schedule.document.data
    if written:
        marks.replace(("version",), 2, said)
    if marks.in_braces:
        claimed = {} if text is None else {claim.KEY: parse("", text, Faults()).data}
        added = {} if written else {"version": 2}
        if claimed or added:
            marks.add((), {**added, **claimed}, said)
        return
    expect = "" if text is None else f"{claim.KEY}:\n{_indented(text)}"
    if not written:
        marks.begin("".join([*(f"# {line}\n" for line in said.splitlines()), "version: 2\n", expect]))
    elif expect:
        marks.after("version", expect)


def _indented(text: str) -> str:
    lines = [line for line in text.splitlines() if line not in ("---", "...")]
    return "".join(f"  {line}".rstrip() + "\n" for line in lines)


def _edit(marks: Marks, schedule: Schedule, one: Meant) -> None:
    """Edit the arguments of one component or policy."""
    removed = [key for key in one.given if key not in one.meant]
    added = {key: value for key, value in one.meant.items() if key not in one.given}
    added = {key: value for key, value in added.items() if _needed(schedule, one.path, key, value)}
    remark = (one.remark or "").removeprefix("warning: ").replace(", it is ignored", "")
    renamed = [key for key in removed if key not in one.ignored][: len(added)] if len(removed) else []
    for old, new in zip(renamed, list(added), strict=False):
        value = added.pop(new)
        if one.given[old] != value:
            marks.replace((*one.path, old), value, remark or _said(old))
        marks.rename((*one.path, old), new, remark or f"version 2 calls `{old}` `{new}`")
    for key in removed:
        if key not in renamed:
            why = f"removed ({remark})" if remark and key not in one.ignored else _MEANINGLESS
            marks.remove((*one.path, key), why)
    for key, value in one.meant.items():
        if key in one.given and one.given[key] != value:
            marks.replace((*one.path, key), value, remark or _said(key))
    if added:
        marks.add(one.path, added, "; ".join(_ADDED.get(key, _said(key)) for key in added))


def _said(key: str) -> str:
    return f"version 1 means this by `{key}`"


def _needed(schedule: Schedule, path: KeyPath, key: str, value: Any) -> bool:
    """Return whether an argument must be written for version 2 to mean the same."""
    entry = next((entry for entry in schedule.entries if entry.path == path[:2]), None)
    if path[0] != "policies" or entry is None or key not in _ADDED:
        return True
    return bool(getattr(entry.policy.normal(schedule.removals), key) == value)


def _check(schedule: Schedule, text: str) -> None:
    """Raise `UserError` where the converted text is not valid, or means something else: an anchor or alias can have two
    meanings.
    """
    source, faults = schedule.document.source, Faults()
    document = parse(source, text, faults)
    new = grammar.read(document, faults)
    how = "an anchor stands for two things: write it out once for each"
    if faults:
        raise UserError(f"{source}: its text cannot be edited, as where {how} ({faults.lines[0].text})")
    found = differences(schedule, new)
    if found:
        first = found[0]
        raise UserError(f"{first.a.place}: {first.what} would become {first.b.value}, as where {how}")
