"""`compress verify`: the runs that a schedule's claim is about, and whether what it claims holds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from compressor.errors import CompressError, Interrupted, UserError
from compressor.experiment import claims, folder, inspection, records, run
from compressor.experiment.claims import Judged, Reached
from compressor.experiment.records import Smoke
from compressor.experiment.specification import Specification, as_text, open_files, specification
from compressor.lookup import CLAIM, find
from compressor.reports import Report
from compressor.schedule import Claim, Faults, open_schedule
from compressor.training import checkpoint

SCHEMA = 1
"""The number of the layout of the JSON output."""

Say = Callable[[str], None]


class Run(BaseModel):
    """A finished run that a claim is judged by; `top1` in percent, `sparsity` a fraction."""

    model_config = ConfigDict(frozen=True)

    folder: str
    seed: int
    trained: bool
    """Whether it was trained, or continued, now; else it was there."""
    top1: float
    sparsity: float
    macs: int
    seconds: float
    """The time of its epochs."""


class Verified(BaseModel):
    """What was found of one schedule."""

    model_config = ConfigDict(frozen=True)

    schedule: str
    seeds: int
    """The number of seeds that were asked for."""
    claimed_seeds: int
    """The number of seeds of which the claimed top-1 is the mean."""
    smoke: Smoke | None = None
    runs: list[Run] = []
    figures: list[Judged] = []
    differences: list[str] = []
    """Where something does not hold: how environment and data differ from those of the record."""
    error: str | None = None
    """Why it could not be judged."""
    exit_code: int = 0
    """0 where everything holds, 1 where something does not or a run failed, 2 where the user must correct something."""


class Verification(BaseModel):
    """What was found of all schedules."""

    model_config = ConfigDict(frozen=True)

    holds: bool
    schedules: list[Verified]

    @property
    def exit_code(self) -> int:
        """Return 0 where all claims hold, 1 where one does not, else 2: the user must correct something."""
        codes = {one.exit_code for one in self.schedules}
        return 1 if 1 in codes else max(codes)


@dataclass(frozen=True)
class _Claimed:
    """A schedule with a claim, and its own specification, without what the claim sets."""

    name: str
    path: Path
    claim: Claim
    config: str
    own: Specification


def verify(
    schedules: Sequence[str],
    *,
    seeds: int | None = None,
    out: Path = folder.RUNS,
    data: Path | None = None,
    device: str = "auto",
    record: bool = False,
    say: Say,
) -> Verification:
    """Judge the claims of schedules (paths or bare names) by runs of seeds 0 to `seeds` - 1.

    Args:
        schedules: Paths or bare names. A file NAME.expect.yaml stands for NAME.yaml.
        seeds: The number of seeds; None: as many as each claim is the mean of.
        out: The folder of the runs: those that are there are taken or continued, others are trained.
        data: The folder of the data sets.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        record: Write the environment, data and smoke digest of each schedule that holds into records.json beside it.
        say: Receives what is done.

    Raises:
        UserError: A file has faults, or a schedule has no claim; nothing is trained then.
        Interrupted: A signal came; a second call goes on.
    """
    if (out / folder.CONFIG).is_file():
        raise UserError(f"{out} is the folder of one run: give the folder that holds the runs, {out.parent}")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give the folder that holds the runs")
    found = [_verify(one, seeds, out, data, device, record, say) for one in _opened(schedules)]
    return Verification(holds=not any(one.exit_code for one in found), schedules=found)


def _opened(schedules: Sequence[str]) -> list[_Claimed]:
    """Return the schedules, each once. Raises `UserError` with everything that is wrong in any of them."""
    opened: dict[Path, _Claimed] = {}
    wrong: list[str] = []
    for name in schedules:
        try:
            one = _open(name.removesuffix(CLAIM) + ".yaml" if name.endswith(CLAIM) else name)
            opened.setdefault(one.path.resolve(), one)
        except UserError as error:
            wrong += [line for line in str(error).splitlines() if line not in wrong]
    if wrong:
        raise UserError("\n".join(wrong))
    return list(opened.values())


def _open(name: str) -> _Claimed:
    path, faults = find(name, "schedules"), Faults()
    schedule = open_schedule(name, (), faults)
    faults.raise_any()
    claim = schedule.claim
    if claim is None:
        raise UserError(
            f"{path}: it claims nothing that could be verified: write `expect: {{top1: {{min: PERCENT}}}}` in it"
            f" (version 1: {{top1: ...}} in {path.stem}{CLAIM} beside it)"
        )
    config = claim.config or schedule.config
    assert config is not None  # a claim without one is a fault
    own = specification(name, schedule.config or config)
    starts = [] if claim.init is None else [_start(claim, 0)]
    for spec in (*starts, _claimed_run(name, config, claim, 0, None)):
        inspection.validate(spec, faults)
    faults.raise_any()
    return _Claimed(name, path, claim, config, own)


def _claimed_run(name: str, config: str, claim: Claim, seed: int, init: Path | None) -> Specification:
    faults = Faults()
    flags = {**claim.set, "seed": seed, **({} if init is None else {"init": str(init)})}
    spec = open_files(name, config, (), faults, flags=flags)
    faults.raise_any()
    assert spec is not None
    return spec


def _start(claim: Claim, seed: int) -> Specification:
    assert claim.init is not None
    sets = [(key, as_text(value)) for key, value in claim.init.set.items()]
    return specification(claim.init.schedule, claim.init.config, sets, seed=seed)


def _verify(
    one: _Claimed, seeds: int | None, out: Path, data: Path | None, device: str, record: bool, say: Say
) -> Verified:
    wanted = one.claim.top1.seeds if one.claim.top1 is not None else 1
    plain = Verified(schedule=one.name, seeds=seeds or wanted, claimed_seeds=wanted)
    smoke, runs = None, []
    try:
        recorded = records.read(one.path)
        smoke = None if record else records.compare_smoke(one.own, recorded)
        if smoke is not None:
            say(f"{one.name}: smoke digest: {smoke.result}")
        for seed in range(plain.seeds):
            init = None
            if one.claim.init is not None:
                init = _finished(_start(one.claim, seed), out, data, device, say)[0] / folder.CHECKPOINT
            spec = _claimed_run(one.name, one.config, one.claim, seed, None if init is None else init.absolute())
            runs.append(_figures(*_finished(spec, out, data, device, say), seed))
        figures = claims.judge(one.claim, [Reached(each.top1, each.sparsity, each.macs) for each in runs])
        failed = not all(figure.holds for figure in figures) or (smoke is not None and smoke.result == "differs")
        made_with, prints = _provenance(Path(runs[0].folder))
        if record and not failed:
            say(f"written: {records.write(one.path, records.record(one.own, made_with, prints))}")
        differing = records.differences(recorded, made_with, prints) if failed else []
    except Interrupted:
        raise
    except CompressError as error:
        return plain.model_copy(
            update={"smoke": smoke, "runs": runs, "error": str(error), "exit_code": error.exit_code}
        )
    return plain.model_copy(
        update={
            "smoke": smoke,
            "runs": runs,
            "figures": figures,
            "differences": differing,
            "exit_code": int(failed),
        }
    )


def _finished(spec: Specification, out: Path, data: Path | None, device: str, say: Say) -> tuple[Path, bool]:
    """Return the folder of the finished run in `out`, and whether it was trained now."""
    path = _place(spec, out)
    outcome = run.train(spec, path, data, device, resume=True)
    if outcome.report is None:
        say(f"{path}: finished already")
    for shortfall in outcome.shortfalls:
        say(f"warning: {path}: {shortfall}")
    return path, outcome.report is not None


def _place(spec: Specification, out: Path) -> Path:
    """Return the finished run of this schedule and configuration in `out`, else an unfinished one, else a new folder.

    Runs are known by what they hold, not by their names.
    """
    fitting = [path for path in sorted(out.glob("*")) if _fits(spec, path)]
    done = [path for path in fitting if checkpoint.finished(path / folder.CHECKPOINT)]
    if found := [*done, *fitting]:
        return found[0]
    number = 1
    while (path := out / f"{spec.name}-{number}").exists() and any(path.iterdir()):
        number += 1
    return path


def _fits(spec: Specification, path: Path) -> bool:
    """Return whether a folder holds a run of this schedule and configuration, planned for as many epochs."""
    if not (path / folder.CONFIG).is_file() or (path / folder.SMOKE).is_file():
        return False
    try:
        return folder.other_content(spec, path) is None and folder.planned_epochs(path) == spec.config.epochs
    except (OSError, UnicodeDecodeError, UserError):  # whatever it is, it is no run of these files
        return False


def _figures(path: Path, trained: bool, seed: int) -> Run:
    metrics = checkpoint.load(path / folder.CHECKPOINT)["metrics"]
    try:
        report = Report.model_validate_json((path / folder.REPORT).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        raise UserError(
            f"{path / folder.REPORT}: cannot be read: remove the folder, so that it is trained again"
        ) from None
    tested = metrics.get("test_by_own_inference") or metrics.get("test")
    if not tested:
        raise UserError(f"{path} was not tested (test: false): a claim is of test images; remove it from `expect.set`")
    top1 = float(tested["top1"])
    got = claims.reached(report, top1)
    return Run(
        folder=str(path),
        seed=seed,
        trained=trained,
        top1=got.top1,
        sparsity=got.sparsity,
        macs=got.macs,
        seconds=sum(folder.seconds(path)),
    )


def _provenance(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the newest record of a run's environment.json, and the fingerprint of its data."""
    saved = checkpoint.load(path / folder.CHECKPOINT)
    fingerprint = {"classes": list(saved["classes"]), **saved.get("data", {"counts": {}, "content": {}})}
    try:
        made_with = json.loads((path / folder.ENVIRONMENT).read_text(encoding="utf-8"))["starts"][-1]
    except (OSError, ValueError, KeyError, IndexError, TypeError):  # a run never fails for it
        made_with = {}
    return made_with, fingerprint
