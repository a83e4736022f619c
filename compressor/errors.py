"""The two kinds of errors of a command, and hints for misspelt names."""

import difflib
import os.path
from collections.abc import Callable, Iterable, Sequence


class CompressError(Exception):
    """Raised where a run failed (non-finite loss, target missed, disk full): exit code 1."""

    exit_code = 1


class UserError(CompressError):
    """Raised where the user must correct something (flag, YAML, data, checkpoint): exit code 2."""

    exit_code = 2


_LONGEST, _WORK = 100, 300_000
"""The number of characters up to which a name is compared, and the sum of the products of the lengths."""


def did_you_mean(name: str, known: Iterable[str], *, show: int = 12, cutoff: float = 0.6) -> str:
    """Return the names nearest to `name`, or all that exist: the end of every "there is no ..." message."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, _comparable(name, known), n=3, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        return "there are none"
    more = f", ... ({len(known)} in all)" if len(known) > show else ""
    return f"there are: {', '.join(known[:show])}{more}"


def _comparable(name: str, known: list[str]) -> list[str]:
    """Return those of the known names that `name` is compared with: the comparison of two names takes time in
    proportion to the product of their lengths, which may come from a file.
    """
    if len(name) > _LONGEST:
        return []
    found, left = [], _WORK
    if sum(map(len, known)) * len(name) > _WORK:
        known = sorted(known, key=lambda each: -len(os.path.commonprefix([name, each])))  # noqa: RUF071 (no paths)
    for each in known:
        left -= len(name) * len(each)
        if left < 0:
            break
        found.append(each)
    return found


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return at most so many names with commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Interrupted(CompressError):
    """Raised after a signal, when the step is finished and the checkpoint written, or before the first step."""

    def __init__(self, number: int, *, begun: bool = True) -> None:
        done = "; the checkpoint is written, --resume continues" if begun else " before the first step"
        super().__init__(f"interrupted{done}")
        self.exit_code = 128 + number
        self._given = number, begun

    def __reduce__(self) -> tuple[Callable[..., "Interrupted"], tuple[int, bool]]:
        """Return how another process makes the same error."""
        return _interrupted, self._given


def _interrupted(number: int, begun: bool) -> Interrupted:
    return Interrupted(number, begun=begun)
