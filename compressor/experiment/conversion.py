"""`compress convert`: a version 1 schedule as version 2, written once it is known to mean the same."""

from dataclasses import dataclass, replace
from pathlib import Path

from compressor import lookup
from compressor.errors import CompressError, UserError
from compressor.experiment import inspection
from compressor.experiment.specification import Specification, open_files
from compressor.files import replace_text
from compressor.schedule import Faults, converted, open_schedule, parse, schedule_in

UNCHECKED = "weight names are not checked: with --config, what version 2 refuses of the network is an error, too"


@dataclass(frozen=True)
class Converted:
    """The text of a converted schedule, the file that it was written to, and what was not checked."""

    text: str
    path: Path | None
    notes: list[str]


def convert(name: str, config: str | None, out: Path | None) -> Converted:
    """Return a version 1 schedule as version 2, with its comments; the result is valid and means the same.

    `config`: the configuration of its run: then its plan is compared, too, and what version 2 refuses of the network is
    an error. `out`: the file to write. Raises `UserError` with the lines of what cannot be kept.
    """
    if out is not None:
        _refuse_used(out)
    faults = Faults()
    if config is None:
        schedule = open_schedule(name, (), faults)
        faults.raise_any()
        text = converted(schedule)
    else:
        spec = open_files(name, config, (), faults)
        faults.raise_any()
        assert spec is not None
        assert spec.schedule is not None
        text = converted(spec.schedule)
        _check(spec, text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, text)
    return Converted(text, out, [] if config is not None else [UNCHECKED])


def _refuse_used(out: Path) -> None:
    """Raise `UserError` where a file would be overwritten, or a claim stands beside it: version 2 has it inside."""
    for path in (out, out.with_name(out.stem + lookup.CLAIM)):
        if path.exists():
            raise UserError(f"--out {out}: {path} exists: remove it, or give another name")


def _check(spec: Specification, text: str) -> None:
    """Raise `UserError` where version 2 refuses the schedule for this network, `CompressError` where its plan
    changes.
    """
    assert spec.schedule is not None
    before, _ = inspection.plan(spec, None)
    faults = Faults()
    inspection.validate(replace(spec, schedule=replace(spec.schedule, version=2)), faults)
    if faults:
        said = "version 2 refuses this, where version 1 warns; without --config it is converted as it is:"
        raise UserError("\n".join([said, *faults.lines]))
    document = parse(spec.schedule.document.source, text, faults)
    after, _ = inspection.plan(replace(spec, schedule=schedule_in(document, faults)), None)
    faults.raise_any()
    if after != before:
        raise CompressError(
            f"{spec.schedule.document.source}: the converted schedule has another plan: nothing written"
        )
