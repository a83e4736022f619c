"""The names of tensors in a file, translated to those of a network."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from compressor.errors import UserError, listed

_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""The names that torch's wrappers (DataParallel, compile, FSDP, checkpointing) give to the network inside them."""

_USUAL = _WRAPPERS | {"model", "net", "network"}
"""The names under which training code keeps the network that it trains; others may be a teacher or an average."""

_PARTS = 16
"""The largest number of parts of a prefix that a file's names carry."""

_DEPTH = 4
"""The largest number of parts of a prefix that the network's own names carry and a file's lack."""


@dataclass(frozen=True)
class Translation:
    """The network's name of each tensor in a file, as far as the file's names could be translated."""

    names: dict[str, str]
    """By the file's name, the name in the network's notation; a name that the network has or a name that is unknown."""
    outside: list[str]
    """The file's names that do not carry the prefix of the others: they belong to something else."""
    said: list[str]
    """What the user should know, in words."""


def translate(names: Collection[str], own: Collection[str], source: str) -> Translation:
    """Return the translation under which most of the network's names `own` are found among a file's `names`.

    A prefix is dropped from the file's names, or added to them, or both; wrappers inside a name are left out. Raises
    `UserError` where two prefixes fit equally well and none of them is a usual one.
    """
    plain = {name: name for name in names}
    inner = _unwrapped(names)
    found = {name for name in names if name in own}
    best, forms = (len(found), "", ""), plain
    if len(found) < len(own):
        for form in [plain] if inner == plain else [plain, inner]:
            ranked = [one for one in _prefixes(list(form.values()), own) if one[0] > best[0] and 2 * one[0] >= len(own)]
            if ranked:
                best, forms = _choose(ranked, source), form
    _, dropped, added = best
    kept = {name: added + form[len(dropped) :] for name, form in forms.items() if form.startswith(dropped)}
    # A wrapper may hold the head beside its backbone, here or there: a name that is the network's own stays.
    taken = set(kept.values())
    for name in names:
        if name in own and name not in taken and kept.get(name) not in own:
            kept[name] = name
    outside = [name for name in names if name not in kept]
    return Translation(kept, outside, list(_words(source, kept, forms, dropped, added, outside)))


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Return the names without the wrappers inside them; unchanged where two would become the same."""
    short = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names}
    again = Counter(short.values())
    return {name: name if again[form] > 1 else form for name, form in short.items()}


def _prefixes(names: Sequence[str], own: Collection[str]) -> list[tuple[int, str, str]]:
    """Return how many of the network's names are found if a prefix is dropped from the file's names, and another one is
    added to them; by dropped and added prefix.
    """
    found = []
    for added in _common_prefixes(own):
        inside = {name[len(added) :] for name in own if name.startswith(added)}
        counts = Counter(name[:cut] for name in names for cut in _cuts(name) if name[cut:] in inside)
        found += [(count, dropped, added) for dropped, count in counts.items() if not _same_end(dropped, added)]
    return found


def _choose(ranked: Sequence[tuple[int, str, str]], source: str) -> tuple[int, str, str]:
    """Return the candidate with most names; of several the one under a usual prefix, and then the shortest one."""
    most = max(count for count, *_ in ranked)
    equal = [one for one in ranked if one[0] == most]
    usual = [one for one in equal if set(one[1].split(".")) <= _USUAL | {""}] or equal
    rivals = sorted({dropped for _, dropped, _ in usual})
    if len(rivals) > 1 and "" not in rivals:
        raise UserError(
            f"{source}: it has the weights of {len(rivals)} networks that fit this model, under"
            f" {listed([repr(prefix) for prefix in rivals])}: choose with"
            f" `init: {{path: ..., weights: {rivals[0][:-1]}}}`"
        )
    return min(usual, key=lambda one: (one[1] + one[2]).count("."))


def _cuts(name: str) -> list[int]:
    """Return the places behind the first dots of a name, and its beginning."""
    ends = itertools.accumulate(len(part) + 1 for part in name.split(".", _PARTS)[:-1])
    return [0, *ends]


def _same_end(dropped: str, added: str) -> bool:
    """Return whether dropping one prefix and adding the other ends in the same part: then shorter ones do the same."""
    return bool(dropped and added) and dropped.split(".")[-2] == added.split(".")[-2]


def _common_prefixes(own: Collection[str]) -> list[str]:
    """Return the prefixes that most of the network's names carry, the empty one first."""
    counts = Counter(name[:cut] for name in own for cut in _cuts(name)[1 : _DEPTH + 1])
    return ["", *(prefix for prefix, count in counts.items() if 2 * count > len(own))]


def _words(
    source: str, kept: dict[str, str], forms: dict[str, str], dropped: str, added: str, outside: list[str]
) -> Iterable[str]:
    if dropped:
        yield f"{source}: the prefix {dropped!r} of its names is left out"
    inner = sorted({part for name, form in forms.items() if form != name for part in set(name.split(".")) & _WRAPPERS})
    if inner:
        yield f"{source}: {listed([f'{part + chr(46)!r}' for part in inner])} inside of its names is left out"
    if added:
        yield f"{source}: its names lack the model's prefix {added!r}, which is added"
    if outside:
        count = "1 tensor outside is" if len(outside) == 1 else f"{len(outside)} tensors outside are"
        yield f"{source}: {count} not of this model: {listed(outside)}"
