"""The rows of the evidence table: which runs a row is made of, and what its paper says."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """One `compress train`: its schedule and configuration, what it overrides, and the stage it starts from."""

    schedule: str | None
    config: str
    sets: tuple[str, ...] = ()
    init: str | None = None


@dataclass(frozen=True)
class Row:
    """`result` is the stage that is reported, `beside` other ones by what they are to it.

    Usually `reference` is the dense network it began with, and `control` a dense one that was trained for as long.
    `paper` is what the paper reports: test error in percent, and times fewer weights and biases (None: no figure to
    compare with). `met`: whether ours has to be as good over all its seeds. `kept` says how times are counted.
    """

    title: str
    result: str
    beside: dict[str, str]
    stages: dict[str, Stage] = field(default_factory=dict)
    paper: tuple[float, float] | None = None
    kept: str = "non-zero"
    met: bool = False
    paired: str | None = None
    """The one of `beside` that the result is compared with seed by seed."""
    role: str = "result"
    """What the result is called where it stands beside the others."""

    def called(self, role: str) -> str:
        """`result` or one of `beside`, in words."""
        return self.role if role == "result" else role


BASE_300 = Stage("papers/dense", "papers/lenet300")
BASE_5 = Stage("papers/dense", "papers/lenet5")


def _cosine(epochs: int) -> tuple[str, ...]:
    return (f"schedule.lr_schedulers.cosine.T_max={epochs}",)


def _pruned(title: str, name: str, schedule: str, config: str, epochs: int, base: str, **more: object) -> Row:
    """A row that prunes a dense network, and its control: the dense one under the same configuration."""
    stages = {
        base: {"base-300": BASE_300, "base-5": BASE_5}[base],
        f"control-{name}": Stage("papers/dense", config, _cosine(epochs), base),
        name: Stage(schedule, config, (), base),
    }
    beside = {"reference": base, "control": f"control-{name}"}
    return Row(title, name, beside, stages, **more)  # type: ignore[arg-type]


def _l0(title: str, name: str, schedule: str, config: str, paper: tuple[float, float]) -> Row:
    """A row that is trained from scratch, and the dense network trained in the same way."""
    dense = f"dense-{config.rpartition('_')[0].rpartition('/')[2]}-l0"
    stages = {dense: Stage(None, config), name: Stage(schedule, config)}
    return Row(title, name, {"control": dense}, stages, paper, kept="architecture")


ROWS = {
    "han-300-100": _pruned(
        "Han et al. 2015, LeNet-300-100",
        "han-300",
        "papers/han_lenet300",
        "papers/lenet300_retrain",
        49,
        "base-300",
        paper=(1.59, 12.0),
        met=True,
    ),
    "dns-300-100": _pruned(
        "Network surgery (Guo et al. 2016), LeNet-300-100",
        "dns-300",
        "papers/dns_lenet300",
        "papers/lenet300_surgery",
        30,
        "base-300",
        paper=(1.99, 53.4),
        met=True,
    ),
    "l0-300-100": _l0(
        "L0 (Louizos et al. 2018), LeNet-300-100, lambda 0.1/N",
        "l0-300",
        "papers/l0_lenet300",
        "papers/lenet300_l0",
        (1.4, 3.8),
    ),
    "l0-sep-300-100": _l0(
        "L0 (Louizos et al. 2018), LeNet-300-100, lambda sep",
        "l0sep-300",
        "papers/l0sep_lenet300",
        "papers/lenet300_l0",
        (1.8, 10.0),
    ),
    "l0-sep-lenet5": _l0(
        "L0 (Louizos et al. 2018), LeNet-5, lambda sep",
        "l0sep-5",
        "papers/l0sep_lenet5",
        "papers/lenet5_l0",
        (1.0, 70.0),
    ),
}
