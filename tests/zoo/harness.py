"""What is done with each network of the zoo: prune half, thin afterwards and in mid-training, train on, resume, export.

`examine` gives what it found: the sizes, the reasons, and every problem in words.
"""

import json
import math
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from helpers import copied, difference, reread
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from compressor import copying
from compressor.context import Data
from compressor.models import as_built, with_output
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import read
from compressor.session import Session
from compressor.sparsity import outputs_first, prunable, turned_layers
from compressor.thinning import describe, resize, thin
from compressor.timing import Clock
from compressor.training.weights import restore_live
from zoo.entry import Entry, Widths

EXACT, ROUNDED = 1e-9, 1e-4
"""The largest change of a logit, as a fraction of the logits' spread between images: in float64, in float32; the latter
also of a logit and of a loss after two more steps of training."""

STEPS = 2
_IMAGES = 8
_WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "num_parameters", "normalized_shape")
"""The attributes with the number of a layer's outputs; the first dim of `normalized_shape` is that of the channels."""


@dataclass
class Found:
    """What became of a network; `problems` are the lines that should not be there."""

    widths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The size after thinning of every layer, parameter or buffer that changed, by path."""
    dense: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The sizes of all of them before."""
    stays: dict[str, str] = field(default_factory=dict)
    """The reasons why zero filters stay, by path of the layer; several are joined."""
    problems: list[str] = field(default_factory=list)


def examine(entry: Entry) -> Found:
    """Do everything with one network."""
    found = Found()
    with _told(found, "pruning"):
        run = Run(entry, thins_in="[]").epoch()
        found.dense = sizes(run.network)
        with run.session.as_shipped():
            masked = copying.copied(run.network)
        with _told(found, "thinning afterwards"):
            _afterwards(entry, masked, found)
        with _told(found, "thinning in mid-training"):
            _in_training(entry, run, found)
    return found


@contextmanager
def _told(found: Found, what: str) -> Iterator[None]:
    """Make a problem of an error."""
    try:
        yield
    except Exception as error:  # whatever the code under test raises
        found.problems.append(f"{what}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


# Networks


def images(seed: int, shape: tuple[int, ...]) -> Tensor:
    """The images of one batch."""
    return torch.randn(_IMAGES, *shape, generator=torch.Generator().manual_seed(seed))


def dense(entry: Entry) -> nn.Module:
    """The network with weights, affines and statistics that make its logits depend on the image, as after training."""
    torch.manual_seed(0)
    network = with_output(entry.make(), entry.output)
    with torch.no_grad():
        _randomize(network)
        _settle(network, images(1, entry.image))
    return network


def _randomize(network: nn.Module) -> None:
    """Biases and affines that are not 0 and 1, and parameters that are not 0."""
    for name, parameter in network.named_parameters():
        owner = network.get_submodule(name.rpartition(".")[0])
        if "bias" in name.rpartition(".")[2]:
            parameter.normal_(0, 0.1)
        elif _is_norm(owner):
            parameter.uniform_(0.5, 1.5)
        elif not bool(parameter.any()):
            parameter.normal_(0, 0.2)


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _settle(network: nn.Module, given: Tensor) -> None:
    """Scale the layers so that the outputs of each differ by about 1 between images; batch norms know (roughly) how."""

    def rescale(layer: Any, arguments: tuple[Any, ...], out: Tensor) -> Tensor | None:
        deviation = out.std(0).mean()
        if not isinstance(layer._parameters.get("weight"), nn.Parameter) or not float(deviation) > 0:
            return None
        layer.weight.div_(deviation)
        again: Tensor = layer.forward(*arguments)
        return again

    layers = [m for m in network.modules() if isinstance(m, (nn.modules.conv._ConvNd, nn.Linear))]
    handles = [layer.register_forward_hook(rescale) for layer in layers]
    network.eval()
    norms: list[Any] = [
        m for m in network.modules() if isinstance(getattr(m, "running_mean", None), Tensor) and hasattr(m, "momentum")
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    network(given)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.7, 1.4)).add_(1e-3)
        norm.running_mean.add_(0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
    network(given)
    for handle in handles:
        handle.remove()


def sizes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The number of outputs of every layer, by path, and the shape of every parameter and buffer of no such layer."""
    found: dict[str, tuple[int, ...]] = {}
    for path, module in network.named_modules():
        width = next((getattr(module, name) for name in _WIDTHS if hasattr(module, name)), None)
        if width is not None:
            found[path] = (width if isinstance(width, int) else width[0],)
            continue
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if tensor.dim() > 0:
                found[f"{path}.{name}" if path else name] = tuple(tensor.shape)
    return found


def _expected(of: Mapping[str, Any], path: str) -> str | None:
    """The key of the innermost block in which a layer is."""
    keys = [key for key in of if path == key or path.startswith(f"{key}.")]
    return max(keys, key=len, default=None)


def wrong_sizes(
    expected: Widths,
    before: Mapping[str, tuple[int, ...]],
    after: Mapping[str, tuple[int, ...]],
    may_keep: Container[str] = (),
) -> list[str]:
    """The layers, parameters and buffers that have another size than expected, and keys that say nothing.

    The sizes of `may_keep` may be those that the network has anyway.
    """
    lines, used = [], set[str]()
    for path, size in before.items():
        key = _expected(expected, path)
        wanted = size if key is None else expected[key]
        wanted = (wanted,) if isinstance(wanted, int) else tuple(wanted)
        used |= {key} if key is not None and (wanted != size or key in may_keep) else set()
        if after.get(path) != wanted:
            lines.append(f"{path} has {_in_words(after.get(path))} of {_in_words(size)}, expected {_in_words(wanted)}")
    return lines + [f"{key} is expected to narrow, and names nothing that could" for key in expected if key not in used]


def _in_words(size: tuple[int, ...] | None) -> str:
    return "nothing" if size is None else "x".join(map(str, size))


def wrong_reasons(expected: Mapping[str, str], stays: Mapping[str, str]) -> list[str]:
    """What stays though it should go, what should stay and goes, and reasons without the expected word."""
    lines, used = [], set[str]()
    for path, reason in stays.items():
        key = _expected(expected, path)
        if key is None:
            lines.append(f"zero filters of {path} stay: {reason}")
            continue
        used.add(key)
        if not re.search(expected[key], reason, re.IGNORECASE):
            lines.append(f"{path} stays, and the reason does not name {expected[key]!r}: {reason}")
    return lines + [
        f"{key} should stay for {word!r}, and nothing says so" for key, word in expected.items() if key not in used
    ]


# Thinning afterwards


def _afterwards(entry: Entry, masked: nn.Module, found: Found) -> None:
    exact = copying.copied(masked).double().eval()
    whole = copying.copied(exact)
    given = images(2, entry.image).double()
    before = logits(exact, given), logits(copying.copied(exact).float(), given.float())
    thinned = thin(exact, images(3, entry.image).double())
    thinned.cut.model(exact)
    for stay in thinned.stays:
        path = stay.weight.removesuffix(".weight")
        found.stays[path] = "; ".join(filter(None, (found.stays.get(path), stay.reason)))
    after = sizes(exact)
    found.widths = {path: size for path, size in after.items() if size != found.dense[path]}
    problems = wrong_sizes(entry.widths, found.dense, after) + wrong_reasons(entry.stays, found.stays)
    problems += differs("float64", before[0], logits(exact, given), EXACT)
    narrow = copying.copied(exact).float()
    problems += differs("float32", before[1], logits(narrow, given.float()), ROUNDED)
    if not entry.trained:
        for one, other in zip(_training_form(whole, given), _training_form(exact, given), strict=True):
            if one.shape == other.shape:
                problems += differs("training mode", one.flatten(1), other.flatten(1), 1e-6)
    fresh = with_output(entry.make(), entry.output).eval()
    resize(fresh, describe(narrow), "the export")
    fresh.load_state_dict(reread(dict(narrow.state_dict())), strict=True)
    if not torch.equal(logits(fresh, given.float()), logits(narrow, given.float())):
        problems.append("the exported network has other logits")
    found.problems += [f"thinned afterwards: {line}" for line in problems]


@torch.no_grad()
def logits(network: nn.Module, given: Tensor) -> Tensor:
    """The logits in evaluation mode."""
    out: Tensor = network.eval()(given)
    return out


@torch.no_grad()
def _training_form(network: nn.Module, given: Tensor) -> list[Tensor]:
    """All that a copy gives in training mode, without dropout, whose draws depend on the number of channels."""
    trial = as_built(copying.copied(network)).train()
    for module in trial.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    torch.manual_seed(0)
    return [leaf for leaf in tree_leaves(trial(given)) if isinstance(leaf, Tensor)]


def differs(what: str, before: Tensor, after: Tensor, tolerance: float) -> list[str]:
    """A line where logits change by more than a fraction of their spread between images, or have none."""
    spread = float(before.double().std(0).mean())
    if not spread > 1e-2:
        return [f"{what}: the logits hardly depend on the image: they differ by {spread:.2g}"]
    change = float((after.double() - before.double()).abs().max())
    return (
        []
        if change <= tolerance * spread
        else [f"{what}: a logit changes by {change:.2g}, their spread is {spread:.2g}"]
    )


# Thinning in mid-training


_SCHEDULE = """
version: 1
pruners:
  half:
    {{class: Pruner, criterion: l1, structure: Filters, scope: coupled, rate: {{sparsity: 0.5}}, weights: {weights}}}
extensions:
  thinner: {{class: StructureRemover}}
policies:
  - {{pruner: {{instance_name: half}}, epochs: [0]}}
"""


class Run:
    """A run of a network: half of its filters are pruned at the beginning, and removed at the epochs `thins_in`."""

    def __init__(self, entry: Entry, thins_in: str, state: Mapping[str, Any] | None = None) -> None:
        """`state`: a checkpoint of another run, with which it goes on."""
        self.entry = entry
        self.network = dense(entry)
        names = [name for name in prunable(self.network) if not name.startswith(tuple(f"{h}." for h in entry.heads))]
        text = _SCHEDULE.format(weights=json.dumps(names))
        if thins_in != "[]":
            text += f"  - {{extension: {{instance_name: thinner}}, epochs: {thins_in}}}\n"
        faults = Faults()
        bound = read(parse("zoo", text, faults), faults).bind(self.network, 3, faults)
        faults.raise_any()
        if state is not None:
            resize(self.network, state["architecture"], "the checkpoint")
            self.network.load_state_dict(state["model"], strict=True)
        self.said: list[str] = []
        self.losses: list[float] = []
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        self.session = Session(
            self.network,
            optimizer,
            bound.policies,
            Clock(3, STEPS),
            Data(batches=lambda count: [(images(3, entry.image), _labels())]),
            say=self.said.append,
            dense=None if state is None else state["session"]["dense"],
        )
        if state is not None:
            self.session.load_state_dict(state["session"])
            restore_live(self.network, state["live"])

    def epoch(self, steps: int = STEPS) -> "Run":
        """Train the next epoch."""
        clock = self.session.clock
        self.network.train()
        with self.session.epoch(clock.epoch):
            for _ in range(steps):
                self._step(images(10 + clock.global_step, self.entry.image))
        return self

    def _step(self, given: Tensor) -> None:
        with self.session.step() as step:
            out = self.network(given)
            self.losses.append(float(step.backward(F.cross_entropy(out, _labels()), images=given, logits=out)))

    def checkpoint(self) -> dict[str, Any]:
        """What a run saves, written and read."""
        with self.session.as_shipped() as shipped:
            model = copied(dict(self.network.state_dict()))
        state = {
            "session": self.session.state_dict(),
            "live": dict(shipped.live),
            "architecture": describe(self.network),
        }
        return reread(copied({**state, "model": model}))


def _labels() -> Tensor:
    return torch.arange(_IMAGES) % 10


def _in_training(entry: Entry, masked: Run, found: Found) -> None:
    run = Run(entry, thins_in="[1]").epoch()
    for one in (run, masked):
        torch.manual_seed(1)  # the same draws, of layers that are left out for instance
        one.epoch()
    problems = [line for line in run.said if "removed nothing" in line]
    problems += wrong_sizes({**entry.widths, **entry.trained}, found.dense, sizes(run.network), entry.trained)
    if not all(map(math.isfinite, run.losses)):
        problems.append(f"losses are not finite: {run.losses}")
    zeros, left = _zero_filters(masked.network), _zero_filters(run.network)
    for name, weight in prunable(run.network).items():
        gone = _outputs(masked.network, name) - _outputs(run.network, name)
        if weight.dim() > 1 and left[name] < zeros[name] - gone:
            problems.append(f"{name}: {zeros[name]} filters were pruned, {gone} removed, and {left[name]} are 0")
    for step, (ours, theirs) in enumerate(zip(run.losses, masked.losses, strict=True)):
        if abs(ours - theirs) > ROUNDED * max(abs(theirs), 1):
            problems.append(f"the loss of step {step} is {ours:.6g}, that of the masked network {theirs:.6g}")
    given = images(2, entry.image)
    with run.session.as_shipped(), masked.session.as_shipped():
        problems += differs("trained on", logits(masked.network, given), logits(run.network, given), ROUNDED)
    found.problems += [f"thinned in mid-training: {line}" for line in problems]
    with _told(found, "resuming"):
        found.problems += _resumed(entry, run)


def _outputs(network: nn.Module, weight: str) -> int:
    layer: Any = network.get_submodule(weight.rpartition(".")[0])
    return int(getattr(layer, "out_channels", 0) or len(layer.weight))


def _zero_filters(network: nn.Module) -> dict[str, int]:
    turned = turned_layers(network)
    zero = {name: outputs_first(weight == 0, turned.get(name)) for name, weight in prunable(network).items()}
    return {name: int(one.flatten(1).all(1).sum()) for name, one in zero.items()}


def _resumed(entry: Entry, run: Run) -> list[str]:
    """Go on from a checkpoint after the removal, in a new network: one step more is the same bits."""
    saved = run.checkpoint()
    other = Run(entry, "[1]", saved)
    ends: list[dict[str, Any]] = []
    for one in (run, other):
        one.session.load_state_dict(copied(saved["session"]))  # the same random numbers
        ends.append({**one.epoch(steps=1).checkpoint(), "loss": one.losses[-1]})
    where = difference(*ends)
    return [] if where is None else [f"resumed: {where}"]
