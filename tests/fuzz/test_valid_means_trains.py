"""`validate` and `train` agree: what one accepts the other trains, and what one refuses the other cannot train.

The schedules are composed from the registry, or shipped ones for the tiny networks of the same layers, some of them
mutated; `train` is `--smoke` in this process, on random images. As training costs more than validation, FUZZ_TRAINED
of them are tried, by default a fifth of FUZZ. FUZZ_CASE=SEED/NUMBER, as a failure prints it, runs one again.
"""

import contextlib
import io
import os
import random
import re
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import composing
import pytest
from mutating import SCALARS, as_data

from compressor.errors import CompressError
from compressor.experiment import inspection, run
from compressor.experiment.specification import open_files, specification
from compressor.models.registry import builders
from compressor.schedule import Faults
from compressor.schedule.schedule import BoundSchedule
from compressor.session.events import Events

pytestmark = pytest.mark.counted
COUNT = int(os.environ.get("FUZZ_TRAINED", int(os.environ.get("FUZZ", "100")) // 5))
SEED = os.environ.get("FUZZ_SEED", "0")
CASES = [os.environ["FUZZ_CASE"]] if "FUZZ_CASE" in os.environ else [f"{SEED}/{number}" for number in range(COUNT)]

SMALL = [value for value in SCALARS if not (isinstance(value, int | float) and abs(value) > 10)]
"""What a mutation puts in: no number that would let the training take minutes."""

DIVERGED = re.compile("the loss is not finite|the scores of .* are not finite")
"""Failures at work, which depend on the values of weights and images."""

AFTER_A_REMOVAL = re.compile("nothing was removed|removed nothing|stopped pruning after a thinning")
"""Shortfalls that depend on which channels were removed, and so on values; `--smoke` does not judge them."""

MISS = re.compile(
    r"target missed by \S+: (\S+) .* acts last in (epoch|step) (\d+), the run has (\d+)( epochs of (\d+) )?"
)

DELIBERATE = {
    "a structure of other layers' weights": "are structures of weights of",
    "a sum of channels that is pruned in part (version 2)": "(is|are) pruned by .*, but",
    "a criterion on a layer that is not used": "criterion .*: the forward pass does not use",
    "whole classes pruned (version 2)": "makes the logits: .* prunes whole classes",
    "a network without a path from the image": "the logits no longer depend on the image",
    "a splicing that could restore no weight (version 2)": "SplicingPruner needs `use_double_copies: true`",
    "a proximal step without a closed form": "no proximal step: Adam",
}
"""Findings that refuse a schedule though its training might go on: the reason, and a pattern of the message."""


@pytest.fixture(autouse=True)
def _networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, builder in composing.NETWORKS.items():
        monkeypatch.setitem(builders(), name, builder)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)


@dataclass
class Answers:
    """What `validate` says of the files in the working directory, and how training ends where it is tried."""

    faults: list[str]
    """Without the findings of the policies."""
    findings: list[str]
    """Errors that policies found."""
    ended: str = ""
    """The error with which training ended, with its traceback; empty: it ended well."""
    shortfalls: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    """The weights whose zeros are not known to `plan`."""

    def expected(self, shortfall: str) -> bool:
        """Return whether a target could be missed: its time is after the run, or `plan` does not know the zeros."""
        found = MISS.search(shortfall)
        if found is None:
            return AFTER_A_REMOVAL.search(shortfall) is not None
        name, unit, last, epochs, _, steps = found.groups()
        end = int(epochs) * (int(steps) if unit == "step" else 1)
        return int(last) >= end or name in self.unknown


def ask(monkeypatch: pytest.MonkeyPatch, out: Path) -> Answers:
    """Validate `s.yaml` for `c.yaml`, and train it, also where only a policy refuses it."""
    faults, findings, shortfalls = Faults(), Faults(), []
    check, missed = BoundSchedule.check, Events.shortfalls

    def checked(self: BoundSchedule, view: object, _: Faults) -> BoundSchedule:
        return check(self, view, findings)  # type: ignore[arg-type]

    def judged(self: Events) -> list[str]:
        shortfalls.extend(missed(self))
        return []

    with monkeypatch.context() as patched:
        patched.setattr(BoundSchedule, "check", checked)
        patched.setattr(Events, "shortfalls", judged)
        try:
            spec = open_files("s.yaml", "c.yaml", [], faults)
            if spec is not None:
                inspection.validate(spec, faults)
        except CompressError as error:
            return Answers([str(error)], [])
        answers = Answers(faults.lines, findings.lines)
        if not answers.faults:
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    run.train(specification("s.yaml", "c.yaml"), out, out / "nothing", "cpu", False, smoke=True)
            except Exception:
                answers.ended = traceback.format_exc()
        answers.shortfalls = shortfalls
    if shortfalls and not answers.findings:
        predicted = inspection.plan(specification("s.yaml", "c.yaml"), None)[0].predicted
        answers.unknown = {row.name for row in predicted if row.reason is not None}
    return answers


def files(case: str) -> tuple[str, str]:
    """Return the texts of a schedule and its configuration."""
    rng = random.Random(case)
    schedule, config = composing.shipped(rng) if rng.random() < 0.25 else composing.compose(rng)
    return as_data(schedule, rng, SMALL) if rng.random() < 0.35 else schedule, config


def test_validate_refuses_what_train_refuses_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    for case in CASES:
        schedule, config = files(case)
        Path("s.yaml").write_text(schedule, encoding="utf-8", errors="surrogatepass")
        Path("c.yaml").write_text(config)
        answers = ask(monkeypatch, Path(f"run-{case.replace('/', '-')}"))
        said = f"FUZZ_CASE={case}: {answers}\n{answers.ended}\n--- s.yaml\n{schedule}\n--- c.yaml\n{config}"
        if answers.faults:
            counts["refused"] += 1
        elif answers.findings:
            counts["refused by a policy"] += 1
            deliberate = [any(re.search(known, line) for known in DELIBERATE.values()) for line in answers.findings]
            assert any(deliberate) or answers.ended or answers.shortfalls, f"refused, but trains: {said}"
        else:
            counts["valid"] += 1
            assert not answers.ended or DIVERGED.search(answers.ended), f"valid, but fails: {said}"
            assert all(map(answers.expected, answers.shortfalls)), f"valid, but misses: {said}"
    print(f"\n{len(CASES)} schedules: {dict(counts)}")
    assert len(CASES) < 20 or (counts["valid"] > 0.2 * len(CASES) and counts["refused by a policy"] > 0)
