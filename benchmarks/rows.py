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
    also_paired: tuple[str, ...] = ()
    """Others of `beside` with which it is compared in the same way."""
    seen: bool = False
    """Whether its test figure was seen while it was tuned."""
    role: str = "result"
    """What the result is called where it stands beside the others."""

    def called(self, role: str) -> str:
        """`result` or one of `beside`, in words."""
        return self.role if role == "result" else role


BASE_300 = Stage("papers/dense", "papers/lenet300")


def _cosine(epochs: int) -> tuple[str, ...]:
    return (f"schedule.lr_schedulers.cosine.T_max={epochs}",)


BASES = {
    "base-300": BASE_300,
    "base-5": Stage("papers/dense", "papers/lenet5", _cosine(14)),
    "base-mlp500": Stage("papers/dense", "papers/mlp500"),
}


def _scratch(epochs: int) -> Stage:
    """The shape that channel pruning leaves, trained from initial weights, channels last to be faster."""
    return Stage("papers/random_lenet5", "papers/lenet5", (*_cosine(epochs), f"epochs={epochs}", "channels_last=true"))


def _pruned(title: str, name: str, schedule: str, config: str, epochs: int, base: str, **more: object) -> Row:
    """A row that prunes a dense network, and its control: the dense one under the same configuration."""
    stages = {
        base: BASES[base],
        f"control-{name}": Stage("papers/dense", config, _cosine(epochs), base),
        name: Stage(schedule, config, (), base),
    }
    beside = {"reference": base, "control": f"control-{name}"}
    return Row(title, name, beside, stages, **more)  # type: ignore[arg-type]


def _l0(
    title: str,
    name: str,
    schedule: str,
    config: str,
    paper: tuple[float, float],
    *,
    sets: tuple[str, ...] = (),
    cosine: int | None = None,
    control: bool = True,
    met: bool = False,
    seen: bool = False,
) -> Row:
    """A row that is trained from scratch, and the dense network trained in the same way, unless that is too long.

    `cosine`: over how many epochs the rate falls to 0; None: it is constant.
    """
    plain = Stage(None, config, sets) if cosine is None else Stage("papers/dense", config, (*_cosine(cosine), *sets))
    dense = {f"dense-{name}": plain} if control else {}
    beside = dict.fromkeys(("control",) if control else (), f"dense-{name}")
    stages = {**dense, name: Stage(schedule, config, sets)}
    return Row(title, name, beside, stages, paper, "architecture", met, seen=seen)


def _phases(title: str, method: str) -> Row:
    """A row of phases on the dense LeNet-300-100, and the same phases and rates with nothing pruned."""
    config, own = "papers/lenet300_phases", f"{method}-300"
    stages = {
        "base-300": BASE_300,
        f"control-{own}": Stage(f"papers/{method}_control_lenet300", config, (), "base-300"),
        own: Stage(f"papers/{method}_lenet300", config, (), "base-300"),
    }
    return Row(title, own, {"reference": "base-300", "control": f"control-{own}"}, stages, paired="control")


def _hashed(times: int, hidden: int, more: str | None = None, rival: str | None = None) -> Row:
    """A row of one hashed hidden layer of 1000, and the dense net of as many stored numbers.

    `more` and `rival` are the dropout that validation chose for the hashed and the small dense net.
    """
    config, own, small = "papers/mlp1000_hashed", f"hashed-{times}", f"dense-{times}"
    stages = {
        own: Stage(f"papers/hashed{times}_mlp1000", config, (more,) if more else ()),
        small: Stage("papers/dense", config, (*_cosine(30), f"model.hidden=[{hidden}]", *((rival,) if rival else ()))),
    }
    title = f"HashedNets (Chen et al. 2015), 784-1000-10, 1/{times}"
    beside = {"dense net of equal storage": small}
    return Row(title, own, beside, stages, kept="stored numbers", met=True, paired="dense net of equal storage")


def _order(order: str) -> tuple[str, ...]:
    return tuple(f"schedule.pruners.{name}.order={order}" for name in ("early", "last"))


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
    "han-lenet5": _pruned(
        "Han et al. 2015, LeNet-5",
        "han-5",
        "papers/han_lenet5",
        "papers/lenet5_han",
        30,
        "base-5",
        paper=(0.77, 12.0),
        met=True,
        seen=True,
    ),
    "dns-lenet5": _pruned(
        "Network surgery (Guo et al. 2016), LeNet-5",
        "dns-5",
        "papers/dns_lenet5",
        "papers/lenet5_surgery",
        30,
        "base-5",
        paper=(0.91, 107.9),
        met=True,
        seen=True,
    ),
    "l0-300-100": _l0(
        "L0 (Louizos et al. 2018), LeNet-300-100, lambda 0.1/N",
        "l0-300",
        "papers/l0_lenet300",
        "papers/lenet300_l0_cosine",
        (1.4, 3.8),
        cosine=62,
        seen=True,
    ),
    "l0-sep-300-100": _l0(
        "L0 (Louizos et al. 2018), LeNet-300-100, lambda sep",
        "l0sep-300",
        "papers/l0sep_lenet300",
        "papers/lenet300_l0",
        (1.8, 10.0),
        sets=("epochs=110",),
        met=True,
    ),
    "l0-sep-lenet5": _l0(
        "L0 (Louizos et al. 2018), LeNet-5, lambda sep",
        "l0sep-5",
        "papers/l0sep_lenet5",
        "papers/lenet5_l0",
        (1.0, 70.0),
        control=False,
    ),
    "iht-300-100": _phases("IHT (Jin et al. 2016), LeNet-300-100", "iht"),
    "iht-lenet5": Row(
        "IHT (Jin et al. 2016), LeNet-5, from 3 epochs of training",
        "iht-5",
        {"reference": "early-5", "control": "control-iht-5"},
        {
            "early-5": Stage("papers/dense", "papers/lenet5", (*_cosine(14), "epochs=3")),
            "control-iht-5": Stage("papers/iht_control_lenet5", "papers/lenet5_phases", (), "early-5"),
            "iht-5": Stage("papers/iht_lenet5", "papers/lenet5_phases", (), "early-5"),
        },
        paired="control",
        seen=True,
    ),
    "best-300": _pruned(
        "One global AGP (the paper: sparse variational dropout, Molchanov et al. 2017), LeNet-300-100",
        "best-300",
        "best/lenet300_68x",
        "best/lenet300",
        100,
        "base-300",
        paper=(1.92, 68.0),
        met=True,
    ),
    "dsd-300-100": _phases("DSD (Han et al. 2017), LeNet-300-100", "dsd"),
    "dropconnect-800": Row(
        "DropConnect (Wan et al. 2013), 784-800-800-10, 30 epochs",
        "dropconnect-800",
        {"dropout": "dropout-800", "none": "none-800"},
        {
            "dropconnect-800": Stage("papers/dropconnect_mlp800", "papers/mlp800"),
            "dropout-800": Stage("papers/dense", "papers/mlp800_dropout", _cosine(30)),
            "none-800": Stage("papers/dense", "papers/mlp800", (*_cosine(30), "optimizer.lr=0.05")),
        },
        paired="dropout",
        also_paired=("none",),
    ),
    "channel-lenet5": Row(
        "Channel pruning (He et al. 2017), LeNet-5, conv2's channels from 20 to 10",
        "channel-5",
        {
            "reference": "base-5",
            "control": "control-retrain-5",
            "random filters": "random-5",
            "from scratch at equal epochs": "scratch-24",
            "from scratch at equal MACs": "scratch-34",
        },
        {
            "base-5": BASES["base-5"],
            "control-retrain-5": Stage("papers/dense", "papers/lenet5_retrain", _cosine(10), "base-5"),
            "channel-5": Stage("papers/channel_lenet5", "papers/lenet5_retrain", (), "base-5"),
            "random-5": Stage("papers/random_lenet5", "papers/lenet5_retrain", (), "base-5"),
            # 14 epochs of the base + 10 of the row; 14 x 2.293 M + 10 x 1.349 M MACs are 33.8 epochs of 1.349 M.
            "scratch-24": _scratch(24),
            "scratch-34": _scratch(34),
        },
        kept="structure",
        paired="control",
        also_paired=("random filters", "from scratch at equal epochs", "from scratch at equal MACs"),
    ),
    "ssl-mlp": _pruned(
        "SSL (Wen et al. 2016), 784-500-300-10",
        "ssl-mlp",
        "papers/ssl_mlp",
        "papers/mlp500_ssl",
        40,
        "base-mlp500",
        paper=(1.53, 6.1),
        kept="architecture",
        met=True,
        seen=True,
    ),
    "ssl-lenet5": _pruned(
        "SSL (Wen et al. 2016), LeNet-5, filters and channels",
        "ssl-5",
        "papers/ssl_lenet5",
        "papers/lenet5_ssl",
        26,
        "base-5",
        paper=(1.0, 4.2),
        kept="architecture",
        met=True,
        seen=True,
    ),
    "filters-resnet20": Row(
        "Filters by L1 norm (Li et al. 2017), half of those inside the blocks, ResNet-20, CIFAR-10 (JPEG), 5 epochs",
        "filters-20",
        {"control": "dense-20"},
        {
            "filters-20": Stage("papers/filters_resnet20", "papers/resnet20"),
            "dense-20": Stage("papers/dense", "papers/resnet20", _cosine(5)),
        },
        paired="control",
    ),
    "strided-lenet5": Row(
        "Strided pruning (Anwar et al. 2017), LeNet-5, every fourth tap",
        "strided-5",
        {"reference": "base-5", "control": "control-retrain-5"},
        {
            "base-5": BASES["base-5"],
            "control-retrain-5": Stage("papers/dense", "papers/lenet5_retrain", _cosine(10), "base-5"),
            "strided-5": Stage("papers/strided_lenet5", "papers/lenet5_retrain", (), "base-5"),
        },
        kept="structure",
        paired="control",
        seen=True,
    ),
    "hashed-8": _hashed(8, 125, "model.dropout=[0.5]", "model.dropout=[0.2]"),
    "hashed-64": _hashed(64, 16),
    "gst": Row(
        "Generalization-stability (Bartoldson et al. 2020), bn_cnn, 8,000 images of Fashion-MNIST",
        "gst-s",
        {"Prune_L": "gst-l", "Prune_R": "gst-r", "not pruned": "gst-none"},
        {
            "gst-none": Stage("papers/gst_none_bn_cnn", "papers/bn_cnn"),
            "gst-s": Stage("papers/gst_bn_cnn", "papers/bn_cnn"),
            "gst-l": Stage("papers/gst_bn_cnn", "papers/bn_cnn", _order("largest")),
            "gst-r": Stage("papers/gst_bn_cnn", "papers/bn_cnn", _order("random")),
        },
        role="Prune_S",
    ),
}
