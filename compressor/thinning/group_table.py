"""Channel groups as a table."""

import re
import textwrap
from collections import defaultdict
from collections.abc import Sequence

from compressor.tables import Column, table, wrapped
from compressor.thinning.groups import Group, Member

_COLUMNS = [Column("group"), Column("channels"), Column("", left=True), Column("", left=True)]
_SHORT = [*_COLUMNS[:2], Column("made by", left=True, shortened="end"), Column("removable", left=True, shortened="end")]
_BESIDE, _NARROWEST = len("group  channels  removable  "), 8
"""The columns of a terminal beside the text, and the fewest that the text has."""


def groups_as_table(groups: Sequence[Group], width: int | None = None) -> list[str]:
    """Return lines of at most `width` columns of a terminal (None: of any length): for each group its number, its
    channels, and a line each for what makes, reads, joins and keeps them.
    """
    room = None if width is None else max(width - _BESIDE, _NARROWEST)
    wrapper = textwrap.TextWrapper(room or 1, break_on_hyphens=False)
    rows: list[list[str]] = []
    for group in groups:
        said = [(role, text) for role, text in described(group) if text]
        head = [str(group.number), str(group.channels)]
        for role, text in said:
            for line in [text] if room is None else wrapper.wrap(text):
                rows.append([*head, role, line])
                head, role = ["", ""], ""
    made = table(_COLUMNS, rows, width)
    return [made.head, *made.rows] if rows else []


def groups_in_short(groups: Sequence[Group], width: int | None = None) -> list[str]:
    """Return one line for each group, and below them the reasons that are cut there."""
    rows = [[str(g.number), str(g.channels), _members(g, g.makers, "filters"), g.verdict] for g in groups]
    made = table(_SHORT, rows, width)
    verdicts = dict.fromkeys(group.verdict for group in groups)
    cut = [said for said in verdicts if not any(line.endswith(said) for line in made.rows)]
    return [made.head, *made.rows, *(wrapped(said, width) for said in cut)]


def described(group: Group) -> list[tuple[str, str]]:
    """Return what is said of a group, by role; empty where there is nothing."""
    return [
        ("made by", _members(group, group.makers, "filters")),
        ("read by", _members(group, group.readers, "inputs")),
        ("with", _members(group, group.companions, "entries")),
        ("joined by", ", ".join(f"{one.operation}{_times(one.times)}" for one in group.joins)),
        ("removable", group.verdict),
    ]


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _members(group: Group, members: Sequence[Member], what: str) -> str:
    """Return the names of layers, with the number of their entries for each channel where it is more than one."""
    by_entries: dict[int, list[str]] = defaultdict(list)
    for member in members:
        by_entries[member.entries].append(member.name)
    said = []
    for entries, names in by_entries.items():
        each = f" ({entries // group.channels} {what} for each channel)" if entries != group.channels else ""
        said += [f"{name}{each}" for name in in_braces(names)]
    return ", ".join(said)


def in_braces(names: Sequence[str]) -> list[str]:
    """Return names of which those that differ in one number are one, in the words of a shell: `layer1.{0..2}.conv1`."""
    parts = [tuple(re.split(r"(\d+)", name)) for name in dict.fromkeys(names)]
    for place in range(max((len(one) for one in parts), default=1) - 2, 0, -2):
        alike: dict[tuple[tuple[str, ...], ...] | tuple[str, ...], list[str]] = {}
        for one in parts:
            numbered = place < len(one) and one[place].isdecimal()
            key = (one[:place], one[place + 1 :]) if numbered else one
            alike.setdefault(key, []).append(one[place] if numbered else "")
        parts = []
        for key, numbers in alike.items():
            if numbers[0]:
                before, after = key
                parts.append((*before, _braced(numbers), *after))
            else:
                parts.append(key)
    return ["".join(one) for one in parts]


def _braced(numbers: Sequence[str]) -> str:
    """Return numbers as a shell has them: 4, {0,2,5}, {0..7}."""
    if len(numbers) == 1:
        return numbers[0]
    values = sorted(map(int, numbers))
    plain = all(str(int(number)) == number for number in numbers)
    if plain and len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{{{values[0]}..{values[-1]}}}"
    return "{" + ",".join(sorted(numbers, key=int)) + "}"
