"""The two ways a command ends badly, and the words for a misspelt name."""

import difflib
from collections.abc import Iterable


class CompressError(Exception):
    """Running failed (non-finite loss, target missed, disk full): exit code 1."""

    exit_code = 1


class UserError(CompressError):
    """The user must correct something (flag, YAML, data, checkpoint): exit code 2."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str], *, show: int = 12, cutoff: float = 0.6) -> str:
    """What exists, and the names nearest to `name`: the tail of every "no such thing" message."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=3, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if not known:
        return "there are none"
    more = f", ... ({len(known)} in all)" if len(known) > show else ""
    return f"there are: {', '.join(known[:show])}{more}"


class Interrupted(CompressError):
    """A signal arrived; the step was finished and the checkpoint written."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; the checkpoint is written, --resume continues")
        self.exit_code = 128 + number
