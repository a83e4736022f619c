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


BASE_300 = Stage("papers/dense", "papers/lenet300")


def _on_base_300(title: str, name: str, config: str, epochs: int, paper: tuple[float, float]) -> Row:
    """A row that prunes the dense LeNet-300-100, and its control: the dense one under the same configuration."""
    cosine = f"schedule.lr_schedulers.cosine.T_max={epochs}"
    stages = {
        "base-300": BASE_300,
        f"control-{name}": Stage("papers/dense", config, (cosine,), "base-300"),
        name: Stage(f"papers/{name.replace('-', '_lenet')}", config, (), "base-300"),
    }
    return Row(title, name, "base-300", f"control-{name}", *paper, stages)


ROWS = {
    "han-300-100": _on_base_300(
        "Han et al. 2015, LeNet-300-100", "han-300", "papers/lenet300_retrain", 49, (1.59, 12.0)
    ),
    "dns-300-100": _on_base_300(
        "Network surgery (Guo et al. 2016), LeNet-300-100", "dns-300", "papers/lenet300_surgery", 30, (1.99, 53.4)
    ),
}
