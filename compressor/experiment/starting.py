"""`compress new`: a configuration and a schedule for a model, written once they are known to be valid."""

import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compressor import data
from compressor.config import ModelConfig
from compressor.errors import UserError
from compressor.experiment import inspection
from compressor.experiment.proposal import Proposal, goal_of, propose
from compressor.experiment.proposal_text import config_text, schedule_text
from compressor.experiment.specification import specification
from compressor.files import replace_text
from compressor.schedule import Plan


@dataclass(frozen=True)
class Started:
    """The two files that were written, what the schedule will do, and the warnings."""

    config: Path
    schedule: Path
    proposal: Proposal
    plan: Plan
    warnings: list[str]

    def __str__(self) -> str:
        """Return what was written, and the commands to type next."""
        layers, goal = self.proposal.layers, self.proposal.goal
        what = "filters" if goal.kind == "filters" else "weights"
        of = f"{len(layers.chosen)} of {len(layers.every)} layers"
        zeros = self.plan.total_sparsity
        end = f", {zeros:.1%} of all weights" if goal.kind == "elements" and zeros is not None else ""
        return "\n".join(
            [
                f"{self.config}: what is trained; {self.schedule}: how it is compressed. Both are valid.",
                f"Planned: {goal.sparsity:.0%} of the {what} of {of}{end}",
                "Next:",
                *(f"  # {said}\n  {command}" for command, said in self._commands()),
            ]
        )

    def _commands(self) -> list[tuple[str, str]]:
        """Return the commands to type now, each with what it does."""
        name = self.schedule.stem if self.schedule.parent == Path() else str(self.schedule)
        images, own = self.proposal.images, " --allow-plugins" if ":" in self.proposal.model.name else ""
        schedule = shlex.quote(name) + own
        full = schedule + (f" --data {shlex.quote(str(images.folder))}" if images.folder is not None else "")
        return [
            (f"compress validate {schedule}", "after each change of the files"),
            (f"compress plan {schedule}", "what happens in which epoch"),
            (f"compress train -s {full} --smoke", "two steps an epoch; then what the full run takes"),
            (f"compress train -s {full}", f"the run; its folder is runs/{self.schedule.stem}-{self.config.stem}-1"),
        ]


def start(model: str, arguments: Mapping[str, Any], images: str, goal: str, init: str | None, out: Path) -> Started:
    """Write a configuration and a schedule into `out`. Raises `UserError` where they could not be valid, or exist."""
    wanted = goal_of(goal)
    try:
        named = ModelConfig.model_validate({"name": model, **arguments})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"--set model.{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
    found = data.survey(images)
    if init is not None and not Path(init).exists():
        raise UserError(f"--init {init}: there is no such file")
    stem = _stem(model)
    of = found.name if found.folder is None else _stem(found.folder.resolve().name) or found.name
    config, schedule = out / f"{stem}-{of}.yaml", out / f"{stem}-{wanted.kind}.yaml"
    proposal = propose(named, found, wanted, init)
    name = config.stem if out == Path() else str(config)
    texts = {config: config_text(proposal), schedule: schedule_text(proposal, name)}
    for path, text in texts.items():  # two goals have one configuration
        if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
            raise UserError(f"{path} exists and is not overwritten: remove it, or give another folder with --out")
    plan, warnings = _checked(texts, config, schedule)
    out.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        replace_text(path, text)
    return Started(config, schedule, proposal, plan, warnings)


def _checked(texts: Mapping[Path, str], config: Path, schedule: Path) -> tuple[Plan, list[str]]:
    """Return the plan of the two files and its warnings. Raises `UserError` where they are not valid."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in texts.items():
            (Path(folder) / path.name).write_text(text, encoding="utf-8")
        try:
            plan, said = inspection.plan(specification(f"{folder}/{schedule.name}", f"{folder}/{config.name}"), None)
        except UserError as error:
            faults = str(error).replace(f"{folder}/", "")
            raise UserError(f"no files are written: they would not be valid:\n{faults}") from error
    return plan, [line.replace(f"{folder}/", "") for line in said if "warning: " in line]  # `validate` shows the notes


def _stem(name: str) -> str:
    """Return the part of a file's name for a model or a folder; of `package.module:factory` the factory."""
    return re.sub(r"\W+", "_", name.rpartition(":")[2]).strip("_")
