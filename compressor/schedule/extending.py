"""`extends: FILE`: a schedule or configuration that is merged over another one."""

from pathlib import Path

from compressor import lookup
from compressor.errors import UserError
from compressor.schedule import claim, variables
from compressor.schedule.document import Document, describe, parse, read
from compressor.schedule.faults import Faults

KEY = "extends"


def extended(document: Document, kind: str, faults: Faults) -> Document:
    """Return a document merged over the file that its `extends` names, and that one over its own; itself without one.

    `kind` is `schedules` or `configs`. The file is sought in the folder of the file that names it, then as any other.
    The claim of a schedule is of that file alone: it is not passed on. What is wrong becomes a fault.
    """
    chain = [document]
    while isinstance(chain[-1].data, dict) and chain[-1].data.get(KEY) is not None:
        base = _base(chain, kind, faults)
        if base is None:
            document.data = None  # without its base nothing can be said of it
            return document
        chain.append(base)
    merged = chain.pop()
    while chain:
        if isinstance(merged.data, dict):
            merged.data.pop(claim.KEY, None)
        merged = chain.pop().over(merged)
    return merged


def _base(chain: list[Document], kind: str, faults: Faults) -> Document | None:
    """Return the file that the last document of the chain extends; None, and a fault, where it cannot be merged.

    The key is removed from the document. In a configuration its value may have `${NAME}`, as every other value.
    """
    document = chain[-1]
    place, name = document.place((KEY,)), document.data.pop(KEY)
    version = document.data.get("version", 1)
    if kind == "schedules" and version == 1:
        faults.add(document.place((KEY,), key=True), f"{KEY!r} needs `version: 2`")
        return None
    if not isinstance(name, str):
        more = "; several are merged by a chain: each extends the next" if isinstance(name, list) else ""
        faults.add(place, f"{KEY!r} should be one path or name, got {describe(name)}{more}")
        return None
    if kind == "configs":
        name = variables.fill(name, document, (KEY,), faults)
        if name is None:
            return None
    try:
        path = lookup.find(name, kind, *_beside(Path(document.source)))
        files = [Path(each.source).resolve() for each in chain]
        if path.resolve() in files:
            circle = [each.source for each in chain[files.index(path.resolve()) :]]
            faults.add(place, f"{KEY!r} goes in a circle: {' -> '.join([*circle, circle[0]])}")
            return None
        base = parse(str(path), read(path), faults, repeats=kind == "schedules")
    except UserError as error:
        faults.add(place, f"{KEY}: {error}")
        return None
    if base.data is None:  # a fault already
        return None
    if not isinstance(base.data, dict):
        what = kind.removesuffix("s").replace("config", "configuration")
        faults.add(base.place(()), f"a {what} should be a mapping, got {describe(base.data)}")
        return None
    theirs = base.data.get("version", 1)
    if kind == "schedules" and theirs != version:
        said = f"{path} has version {describe(theirs)}, this file {describe(version)}: both need `version: 2`"
        faults.add(place, f"{KEY}: {said}")
        return None
    return base


def _beside(file: Path) -> list[Path]:
    """Return the folder of a file; where the file is a symbolic link also that of the file it leads to."""
    real = file.resolve().parent
    return [file.parent] if real == file.parent.resolve() else [file.parent, real]
