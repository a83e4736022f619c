"""Numbers as a page shows them, with their units; a dash where there is none."""

import math
from datetime import UTC, datetime

NONE = "–"


def percent(value: float | None, digits: int = 2) -> str:
    """Return a number of percent."""
    return NONE if value is None else f"{value:.{digits}f} %"


def fraction(value: float | None, digits: int = 2) -> str:
    """Return a fraction in percent."""
    return percent(None if value is None else 100 * value, digits)


def signed(value: float, digits: int = 2) -> str:
    """Return a difference with its sign, a minus as long as a plus; one that rounds to zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def size(count: float | None) -> str:
    """Return a number of bytes in B, kB, MB or GB (of 1,000)."""
    if count is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{three(count / factor)} {unit}"
    return f"{count:.0f} B"


def amount(count: float | None) -> str:
    """Return a count in thousands (k), millions (M) or billions (G)."""
    if count is None:
        return NONE
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= factor:
            return f"{three(count / factor)} {unit}"
    return f"{count:.0f}"


def three(value: float) -> str:
    """Return a number with three digits, and all digits before its point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-12))
    return f"{value:,.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Return a time in ms."""
    return NONE if value is None else f"{three(value)} ms"


def duration(seconds: float) -> str:
    """Return a time in hours, minutes or seconds."""
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.0f} s"


def date(text: object) -> str:
    """Return a time of environment.json in UTC; what is none, as it is."""
    try:
        found = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return str(text)
    return found.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def counted(count: int, name: str) -> str:
    """Return a number of things in words; `name` is that of one."""
    return f"{count:,} {name}" + ("" if count == 1 else "s")
