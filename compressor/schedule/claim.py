"""The claim of a schedule: the figures that a run of it should reach, for whoever runs it again."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from compressor.component import Settings
from compressor.lookup import CLAIM
from compressor.schedule import parsing
from compressor.schedule.document import Document, parse, read
from compressor.schedule.faults import Faults

KEY, FIGURES = "expect", ("top1", "sparsity", "macs")


class Top1(Settings):
    """The lowest test accuracy, percent of the test images, with the weights of the last epoch."""

    min: float = Field(ge=0, le=100, description="lowest test accuracy, percent")
    seeds: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="number of seeds, from 0 on, of which it is the mean; default 1: seed 0 alone",
    )


class Start(Settings):
    """The run whose last weights a run begins with (`--init`)."""

    schedule: str | None = Field(
        default=None, description="schedule of that run: a path or a bare name; default: none, dense training"
    )
    config: str = Field(description="configuration of that run: a path or a bare name")
    set: dict[str, Any] = Field(default={}, description="changes of both files, by the keys of `--set`; default: none")


class Claim(Settings):
    """What a run of this schedule reaches, under one configuration."""

    config: str | None = Field(
        default=None, description="the configuration that it is for; default: the schedule's own"
    )
    set: dict[str, Any] = Field(
        default={}, description="changes of the configuration, by the keys of `--set`; default: none"
    )
    init: Start | None = Field(default=None, description="the run that `--init` is given; default: none")
    top1: Top1 | None = Field(
        default=None,
        description="test accuracy that is reached, percent, with the weights of the last epoch; default: no claim",
    )
    sparsity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="at least this fraction of the dense network's prunable weights is zero or removed; default: no"
        " claim",
    )
    macs: int | None = Field(
        default=None,
        ge=0,
        description="at most this many multiply-adds of one image, by the weights that are not zero; default: no claim",
    )

    @model_validator(mode="after")
    def _claims_something(self) -> Self:
        if all(getattr(self, figure) is None for figure in FIGURES):
            raise ValueError(f"should have one of {', '.join(FIGURES)}")
        return self


def build(document: Document, path: tuple[str, ...], data: Any, faults: Faults) -> Claim | None:
    """Return the claim in `data`, at `path` of the document; what is wrong in it becomes a fault."""
    return parsing.build(Claim, data, document, path, faults, what=repr(KEY))


def beside(schedule: Path) -> Path:
    """Return the file that has the claim of a version 1 schedule: NAME.expect.yaml beside NAME.yaml."""
    return schedule.with_name(schedule.stem + CLAIM)


def document_beside(schedule: Path, version: int, faults: Faults) -> Document | None:
    """Return the file beside a version 1 schedule that has its claim; None where there is none.

    Beside a version 2 schedule it is a fault: the claim stands in the schedule itself.
    """
    path = beside(schedule)
    if not path.is_file():
        return None
    document = parse(str(path), read(path), faults)
    if version == 1:
        return document
    faults.add(document.place(()), f"{schedule.name} has version {version}: write this under `{KEY}:` in it")
    return None
