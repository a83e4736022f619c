"""The two kinds of errors of a command, and hints for misspelt names."""

import difflib
from collections.abc import Iterable


class CompressError(Exception):
    """Raised where a run failed (non-finite loss, target missed, disk full): exit code 1."""

    exit_code = 1


class UserError(CompressError):
    """Raised where the user must correct something (flag, YAML, data, checkpoint): exit code 2."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str], *, show: int = 12, cutoff: float = 0.6) -> str:
    """Return the names nearest to `name`, or all that exist: the end of every "there is no ..." message."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=3, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        return "there are none"
    more = f", ... ({len(known)} in all)" if len(known) > show else ""
    return f"there are: {', '.join(known[:show])}{more}"


class Interrupted(CompressError):
    """Raised after a signal, when the step is finished and the checkpoint written."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; the checkpoint is written, --resume continues")
        self.exit_code = 128 + number
