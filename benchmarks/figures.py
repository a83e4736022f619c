"""The figures of docs/methods/, drawn from the package's own functions: `python -m benchmarks.figures`.

Each is an SVG in docs/figures/ whose text and lines follow the colour scheme of the page around it.
"""

import io
import json
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from compressor.gates.hard_concrete import HardConcrete
from compressor.gates.hashed import buckets
from compressor.learning_rates.schedulers import rates_at
from compressor.policies.phases import DSDPolicy, IHTPolicy
from compressor.rates.agp import agp
from compressor.rates.baidu import baidu
from compressor.reconstruction.least_squares import reconstruct
from compressor.schedule import components
from compressor.sparsity import expected_relu
from compressor.sparsity.structures import Structure, plain_structures
from compressor.timing import Window

ROOT = Path(__file__).parents[1] / "docs"
INK = "#010203"
"""Replaced by the colour of the page's text."""
BLUE, ORANGE, GREEN, PINK = "#2288c2", "#d55e00", "#009e73", "#cc79a7"
STYLE = "svg{color:#222}@media (prefers-color-scheme:dark){svg{color:#ddd}}"
FIGURES: dict[str, tuple[Callable[[Any], None], tuple[int, int], str]] = {}


def figure(
    name: str, said: str, columns: int = 1, wide: int = 1
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a function that draws on `columns` axes; `said` describes the picture for those who do not see it."""

    def register(draw: Callable[[Any], None]) -> Callable[[Any], None]:
        FIGURES[name] = (draw, (columns, wide), said)
        return draw

    return register


@figure(
    "gradual", "Sparsity by epoch under AGP with an event in each epoch and in every third, and Baidu's threshold.", 2
)
def gradual(axes: list[Axes]) -> None:
    for step, colour, line in ((1, BLUE, "-"), (3, ORANGE, "--")):
        window = Window(starting_epoch=2, ending_epoch=18, frequency=step)
        known = [0.0, *(agp(0.1, 0.9, window, window.last_firing(e) or 2) for e in range(2, 20))]
        axes[0].step(
            [0, *range(2, 20)], [100 * s for s in known], line, where="post", color=colour, label=f"frequency {step}"
        )
    label(axes[0], "epoch", "sparsity in %", "AGP: 10 % to 90 %, epochs 2 to 17")
    window = Window(starting_epoch=0, ending_epoch=20)
    for slope, colour, line in ((1.0, BLUE, "-"), (2.0, ORANGE, "--")):
        axes[1].plot(
            [baidu(0.05, 8, slope, window, e) for e in range(20)],
            line,
            color=colour,
            label=f"ramp_slope_mult {slope:g}",
        )
    label(axes[1], "epoch", "threshold of |w|", "Baidu: q 0.05, ramp after 8 epochs")


@figure(
    "structures",
    "A weight of 4 filters, 4 channels and 3x3 kernels as a matrix, with one structure of each kind marked.",
    4,
    2,
)
def structures(axes: list[Axes]) -> None:
    shape, known = (4, 4, 3, 3), {**plain_structures()}
    made: list[tuple[str, Structure]] = [(name, known[name]) for name in ("Elements", "Kernels", "Filters", "Channels")]
    made += [("Shapes", known["Shapes"]), ("Layer", known["Layer"])]
    kinds = components("structures")
    made += [("Blocks: 2 x 2", kinds["Blocks"](filters=2, depth=2)), ("Taps: 2", kinds["Taps"](stride=2))]  # type: ignore[list-item, call-arg]
    for axis, (name, structure) in zip(axes, made, strict=True):
        chosen = torch.zeros(structure.index_shape(shape), dtype=torch.bool)
        chosen.view(-1)[chosen.numel() // 3] = True
        marked = structure.expand(chosen, shape).expand(shape).reshape(4, 36).numpy()
        colours = np.zeros((4, 36, 4))
        colours[marked] = matplotlib.colors.to_rgba(ORANGE)
        axis.imshow(colours, extent=(0, 36, 0, 4), aspect="auto", interpolation="nearest")
        for line in range(1, 4):
            axis.axhline(line, color=INK, linewidth=0.3)
        for tap in range(1, 36):
            axis.axvline(tap, color=INK, linewidth=0.15)
        for channel in range(5):
            axis.axvline(9 * channel, color=INK, linewidth=0.8)
        axis.set(xlim=(0, 36), ylim=(0, 4), xticks=[], yticks=[])
        label(axis, "4 channels of 9 taps", "4 filters", name)


@figure(
    "l0", "Density of a hard concrete gate for three values of log alpha, and its shipped value beside P(z > 0).", 2
)
def l0(axes: list[Axes]) -> None:
    gate, generator = HardConcrete(), torch.Generator().manual_seed(0)
    for value, colour in ((-2.0, BLUE), (0.0, GREEN), (2.0, ORANGE)):
        torch.manual_seed(int(torch.randint(100, (), generator=generator)))
        z = gate.sample(torch.full((400_000,), value)).numpy()
        counts, ends = np.histogram(z, bins=40, range=(0, 1))
        axes[0].stairs(100 * counts / len(z), ends, color=colour, label=f"log alpha {value:g}")
    axes[0].set_yscale("log")
    label(axes[0], "gate z", "draws in %", "a draw in training")
    alpha = torch.linspace(-5, 5, 201)
    axes[1].plot(alpha, gate.active(alpha), color=BLUE, label="P(z > 0), the penalty")
    axes[1].plot(alpha, gate.final(alpha), "--", color=ORANGE, label="z as shipped")
    label(axes[1], "log alpha", "", "expected and final gate")


@figure("surgery", "The mask of a weight whose magnitude falls and rises: it closes at 0.9 t and opens at 1.1 t.", 1)
def surgery(axes: list[Axes]) -> None:
    time = np.linspace(0, 2 * np.pi, 300)
    size, kept, mask = 1 + 0.35 * np.cos(time) + 0.05 * np.sin(9 * time), True, []
    for value in size:
        kept = False if value <= 0.9 else True if value > 1.1 else kept
        mask.append(kept)
    axes[0].plot(size, color=BLUE, label="|w| / t")
    axes[0].fill_between(
        range(300), 0.6, 1.5, where=~np.array(mask), color=ORANGE, alpha=0.3, step="mid", label="pruned"
    )
    for level in (0.9, 1.1):
        axes[0].axhline(level, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set_ylim(0.6, 1.5)
    label(axes[0], "step", "", "pruned at 0.9 t, restored at 1.1 t")


@figure(
    "penalties",
    "One weight under L1 with the subgradient and with the proximal step; the group lasso's proximal step.",
    2,
)
def penalties(axes: list[Axes]) -> None:
    rate, strength, target = 0.1, 0.5, 0.3
    plain, proximal, paths = 1.0, 1.0, [(1.0, 1.0)]
    for _ in range(40):
        plain -= rate * (plain - target + strength * np.sign(plain))
        moved = proximal - rate * (proximal - target)
        proximal = np.sign(moved) * max(abs(moved) - rate * strength, 0.0)
        paths.append((plain, proximal))
    axes[0].plot([p for p, _ in paths], color=BLUE, label="subgradient")
    axes[0].plot([p for _, p in paths], "--", color=ORANGE, label="proximal: exactly 0")
    axes[0].axhline(0, color=INK, linewidth=0.6)
    label(axes[0], "step", "w", "loss (w - 0.3)^2 / 2 + 0.5 |w|")
    norm = np.linspace(0, 2, 200)
    axes[1].plot(norm, norm, ":", color=INK, label="no penalty")
    axes[1].plot(norm, norm * np.maximum(0, 1 - 0.5 / np.maximum(norm, 1e-9)), color=GREEN, label="t lambda = 0.5")
    label(axes[1], "norm of a group before", "after", "proximal step of group lasso")


@figure("phases", "Sparse phases of DSD and of iterative hard thresholding over epochs.", 2)
def phases(axes: list[Axes]) -> None:
    dsd = DSDPolicy.model_validate(
        {"weights": "*", "sparsity": 0.5, "dense_epochs": 4, "sparse_epochs": 4, "redense_epochs": 4}
    )
    iht = IHTPolicy.model_validate(
        {"weights": "*", "sparsity": 0.75, "sparse_epochs": 2, "dense_epochs": 2, "cycles": 2}
    )
    for axis, policy, title in (
        (axes[0], dsd, "dsd: 4 + 4 + 4 epochs"),
        (axes[1], iht, "iht: 2 cycles of 2 + 2, end: sparse"),
    ):
        found = [policy.phase(epoch) for epoch in range(policy.length)]
        times = np.arange(policy.length + 1)
        zeros = [100 * policy.sparsity if one and one.kind == "sparse" else 0 for one in found]
        axis.stairs(zeros, times, color=BLUE, fill=True, alpha=0.35, label="zeros in %")
        axis.stairs([100 * one.scale if one else 0 for one in found], times, color=ORANGE, label="learning rate in %")
        axis.set_ylim(0, 150)
        label(axis, "epoch", "", title)


@figure(
    "channel_pruning", "Error of a layer's outputs against the channels that stay, for four ways to choose them.", 1
)
def channel_pruning(axes: list[Axes]) -> None:
    draws = np.random.default_rng(0)
    mixed = draws.normal(size=(400, 8)) @ draws.normal(size=(8, 16))
    x = np.maximum(mixed, 0)[:, :, None] + 0.1 * draws.normal(size=(400, 16, 1))
    weight = draws.normal(size=(6, 16, 1))
    y = x.reshape(400, 16) @ weight.reshape(6, 16).T
    counts = list(range(2, 17, 2))
    ways = (("first", PINK, ":"), ("l1", GREEN, "-."), ("lasso", ORANGE, "--"), ("backward", BLUE, "-"))
    for way, colour, line in ways:
        error = [reconstruct(x, weight, y, count, selection=way).after for count in counts]  # type: ignore[arg-type]
        axes[0].plot(
            counts, [100 * e for e in error], line, marker="o", markersize=3, color=colour, label=f"selection: {way}"
        )
    label(axes[0], "channels that stay, of 16", "relative error in %", "made-up inputs of rank 8, after least squares")


@figure(
    "dropconnect",
    "Outputs of a unit under 20,000 masks beside the normal distribution; mean, closed form, and plain weights.",
    2,
)
def dropconnect(axes: list[Axes]) -> None:
    draws = np.random.default_rng(3)
    weight, inputs = draws.normal(size=40) * 0.4, np.abs(draws.normal(size=40))
    outputs = (draws.random((20_000, 40)) < 0.5) @ (weight * inputs)
    mean, deviation = 0.5 * weight @ inputs, np.sqrt(0.25 * (weight**2) @ (inputs**2))
    axes[0].hist(outputs, bins=50, density=True, color=BLUE, alpha=0.4, label="masks, drawn")
    grid = np.linspace(outputs.min(), outputs.max(), 200)
    normal = np.exp(-((grid - mean) ** 2) / (2 * deviation**2)) / (deviation * np.sqrt(2 * np.pi))
    axes[0].plot(grid, normal, color=ORANGE, label="normal, same moments")
    axes[0].set_ylim(0, 0.4)
    label(axes[0], "output u of a unit, p = 0.5", "density", "sampling: local")
    means = np.linspace(-3, 3, 61)
    exact = expected_relu(torch.tensor(means), torch.ones(61, dtype=torch.float64))
    axes[1].plot(means, exact, color=BLUE, label="E relu(u), deviation 1")
    axes[1].plot(means, np.maximum(means, 0), "--", color=ORANGE, label="relu of the mean")
    label(axes[1], "mean of u", "", "inference: analytic and mean")


@figure("hashed", "A weight of 12 x 16 entries that shares 8 trained numbers; the sign is the hash's, too.", 1)
def hashed(axes: list[Axes]) -> None:
    found = buckets(0, "fc.weight", 12, 16, 8).numpy()
    values = np.linspace(0.15, 1.0, 8)[found % 8] * np.where(found >= 8, -1, 1)
    axes[0].imshow(values, cmap="PuOr", vmin=-1.1, vmax=1.1, aspect="equal")
    axes[0].set(xticks=[], yticks=[])
    label(axes[0], "inputs", "outputs", "192 weights, 8 numbers, two signs")


@figure("strided", "The taps that stay in the 5x5 kernels of one input map, for strides 2 and 4 and two offsets.", 4)
def strided(axes: list[Axes]) -> None:
    for axis, (stride, offset) in zip(axes, ((2, 0), (2, 1), (4, 0), (4, 3)), strict=True):
        for tap in range(25):
            colour = BLUE if tap % stride == offset else "none"
            axis.add_patch(plt.Rectangle((tap % 5, 4 - tap // 5), 1, 1, facecolor=colour, edgecolor=INK, linewidth=0.6))
        axis.set(xlim=(0, 5), ylim=(0, 5), xticks=[], yticks=[], aspect="equal")
        label(axis, "", "", f"stride {stride}, offset {offset}")


@figure("stability", "Stability of pruning against test error, for three orders and seeds, from the recorded runs.", 1)
def stability(axes: list[Axes]) -> None:
    marks = {"result": ("o", BLUE, "Prune_S"), "Prune_L": ("s", ORANGE, "Prune_L"), "Prune_R": ("^", GREEN, "Prune_R")}
    runs = [json.loads(path.read_text()) for path in sorted((ROOT / "results").glob("gst-seed*.json"))]
    for key, (mark, colour, name) in marks.items():
        points = [(run[key]["stability"], run[key]["error"]) for run in runs]
        axes[0].plot(*zip(*points, strict=True), mark, color=colour, label=name)
    label(axes[0], "stability in %", "test error in %", "bn_cnn, 8,000 images of Fashion-MNIST")


@figure("learning_rates", "Learning rate by epoch under five schedules.", 1)
def learning_rates(axes: list[Axes]) -> None:
    shown = {
        "StepLR": {"step_size": 8, "gamma": 0.3},
        "CosineAnnealingLR": {"T_max": 30},
        "LinearLR": {"start_factor": 0.1, "total_iters": 8},
        "PolynomialLR": {"T_max": 30, "power": 2.0},
        "OneCycleLR": {"max_lr": 0.13, "total_steps": 30},
    }
    lines = zip((BLUE, ORANGE, GREEN, PINK, INK), ("-", "--", "-.", ":", (0, (5, 1, 1, 1))), strict=True)
    for (name, given), (colour, line) in zip(shown.items(), lines, strict=True):
        built: Any = components("lr_schedulers")[name].model_validate(given)
        rates = [rates_at(built, [{"lr": 0.1, "momentum": 0.9}], time)[0]["lr"] for time in range(30)]
        axes[0].plot(rates, linestyle=line, color=colour, label=name)
    axes[0].set_ylim(0, 0.24)
    label(axes[0], "epoch", "learning rate", "the configuration's lr is 0.1")


def label(axis: Axes, x: str, y: str, title: str) -> None:
    """Name the axes of one picture, and add a legend where lines have names."""
    axis.set(xlabel=x, ylabel=y)
    axis.set_title(title, fontsize=9)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False)


def svg(name: str) -> str:
    """Return a figure of `FIGURES` as SVG."""
    draw, (columns, rows), said = FIGURES[name]
    return drawn(name, draw, columns, rows, said)


def drawn(name: str, draw: Callable[[Any], None], columns: int, rows: int, said: str) -> str:
    """Return a figure as SVG: text stays text, its colours follow the page, and it has a title and a description."""
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif", "font.size": 9}
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    with plt.rc_context({**settings, **dict.fromkeys(inks, INK), "axes.facecolor": "none"}):
        height = 1.9 if columns == 4 else 2.9
        made, axes = plt.subplots(
            rows, columns, figsize=(4.2 if columns == 1 else 7.6, height * (0.8 * rows + 0.2)), squeeze=False
        )
        draw(list(axes.flat))
        made.tight_layout()
        file = io.StringIO()
        made.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        plt.close(made)
    text = file.getvalue().replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<\?xml.*?\?>\n<!DOCTYPE[^>]*>\n", "", text, flags=re.DOTALL)
    text = text.replace("font-family: sans-serif", "font-family: sans-serif; fill: currentColor").replace(
        "'sans-serif'", "sans-serif"
    )
    text = text.replace("<svg ", '<svg role="img" ', 1)
    begin = text.index(">", text.index("<svg ")) + 1
    return f"{text[:begin]}<title>{escape(said)}</title><style>{STYLE}</style>{text[begin:]}"


if __name__ == "__main__":
    (ROOT / "figures").mkdir(exist_ok=True)
    for each in FIGURES:
        (ROOT / "figures" / f"{each}.svg").write_text(svg(each), encoding="utf-8")
