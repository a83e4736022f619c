"""The rows of the evidence table: which runs a row is made of, and what its paper says."""

from dataclasses import dataclass, field




@dataclass(frozen=True)
class Stage:
    """One `compress train`: its schedule and configuration, what it overrides, and the stage it starts from."""

    schedule: str
    config: str
    sets: tuple[str, ...] = ()
    init: str | None = None


@dataclass(frozen=True)
class Row:
    """`result` is the stage that is reported, `reference` the dense network it began with, `control` a dense one that
    was trained on for as long. `paper_error` in percent of the test images, `paper_times` of weights and biases."""

    title: str
    result: str
    reference: str
    control: str | None
    paper_error: float | None
    paper_times: float | None
    stages: dict[str, Stage] = field(default_factory=dict)


def _han_300() -> Row:
    retrain = ("papers/lenet300_retrain", (), "base-300")
    return Row(
        "Han 2015, LeNet-300-100",
        "han-300",
        "base-300",
        "control-300",
        1.59,
        12.0,
        {
            "base-300": Stage("papers/dense", "papers/lenet300"),
            "control-300": Stage("papers/dense", *retrain),
            "han-300": Stage("papers/han_lenet300", *retrain),
        },
    )


def _dns_300() -> Row:
    retrain = ("papers/lenet300_retrain", ("optimizer.lr=0.02",), "base-300")
    return Row(
        "DNS 2016, LeNet-300-100",
        "dns-300",
        "base-300",
        "control-300-dns",
        1.99,
        53.4,
        {
            "base-300": Stage("papers/dense", "papers/lenet300"),
            "control-300-dns": Stage("papers/dense", *retrain),
            "dns-300": Stage("papers/dns_lenet300", *retrain),
        },
    )


ROWS = {"han-300-100": _han_300(), "dns-300-100": _dns_300()}
