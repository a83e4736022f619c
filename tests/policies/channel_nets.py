"""Small networks under channel pruning, looked at right after its event; and least squares by numpy."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from loop import Loop
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

OWNER = "0.channel_pruning"
STEPS, BATCH = 3, 16


def images(channels: int = 1, size: int = 10, batches: int = STEPS, seed: int = 3) -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(seed)
    pictures = torch.randn(batches, BATCH, channels, size, size, generator=draws)
    return list(zip(pictures, torch.randint(0, 3, (batches, BATCH), generator=draws), strict=True))


def schedule(weights: str = "[b.weight]", window: str = ", epochs: [0]", more: str = "", **settings: Any) -> str:
    given = {"sparsity": 0.5, "batches": STEPS, "points": 100, **settings}
    fields = ", ".join(f"{key}: {str(value).lower()}" for key, value in given.items())
    return f"version: 2\n{more}policies:\n  - {{channel_pruning: {{weights: {weights}, {fields}}}{window}}}\n"


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)
        for module in self.modules():
            if isinstance(module, BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def seeded() -> None:
    torch.manual_seed(0)


def plain(**of_b: Any) -> Net:
    """a, bn, relu, b, relu, c, relu, flattened, fc."""
    seeded()
    return Net(
        lambda s, x: s.fc(torch.flatten(F.relu(s.c(F.relu(s.b(F.relu(s.bn(s.a(x))))))), 1)),
        a=Conv2d(1, 6, 3), bn=BatchNorm2d(6), b=Conv2d(6, 4, 3, **of_b), c=Conv2d(4, 4, 3), fc=Linear(64, 3),
    )  # fmt: skip


ADDITIONS = ["plus", "in place", "into the shortcut", "function"]
"""How a residual block may add."""


def residual(norm: bool = False, how: str = "plus") -> Net:
    """Two blocks on a stream; the second one's shortcut has the first one's error."""

    def add(branch: Tensor, stream: Tensor) -> Tensor:
        if how == "in place":
            branch += stream
            return branch
        if how == "into the shortcut":
            return stream.clone().add_(branch)
        return torch.add(stream, branch) if how == "function" else branch + stream

    def forward(s: Any, x: Tensor) -> Tensor:
        x = F.relu(s.stem(x))
        for one, two, bn in ((s.one1, s.one2, s.bn1), (s.two1, s.two2, s.bn2)):
            x = F.relu(add(bn(two(F.relu(one(x)))), x))
        return s.fc(x.mean((2, 3)))

    seeded()
    return Net(
        forward, stem=Conv2d(1, 4, 3), one1=Conv2d(4, 6, 3, padding=1), one2=Conv2d(6, 4, 3, padding=1),
        two1=Conv2d(4, 6, 3, padding=1), two2=Conv2d(6, 4, 3, padding=1),
        bn1=BatchNorm2d(4) if norm else nn.Identity(), bn2=BatchNorm2d(4) if norm else nn.Identity(), fc=Linear(4, 3),
    )  # fmt: skip


class Ran:
    """A schedule that was run for an epoch, and the network as it was right after the event, before any step."""

    def __init__(self, net: nn.Module, text: str, data: list[tuple[Tensor, Tensor]] | None = None, **of: Any) -> None:
        data = data or images()
        self.before, self.images = copy.deepcopy(net).eval(), torch.cat([pictures for pictures, _ in data])
        self.said: list[str] = []
        self.loop = Loop(net, data, text, **of)
        self.loop.session.say = self.said.append
        self.loop.run()
        self.after = copy.deepcopy(self.before)
        with torch.no_grad():
            for name, parameter in self.after.named_parameters():
                parameter.copy_(self.loop.forwards[0][name])

    def kept(self, name: str = "b.weight", dim: int = 1) -> list[int]:
        weight = self.loop.forwards[0][name]
        return weight.transpose(0, dim).flatten(1).any(1).nonzero().flatten().tolist()

    @torch.no_grad()
    def logits(self, net: nn.Module | None = None) -> Tensor:
        return (net or self.after)(self.images)

    @torch.no_grad()
    def seen(self, net: nn.Module, path: str) -> tuple[Tensor, Tensor]:
        """What a layer is given, and gives."""
        found: list[tuple[Tensor, Tensor]] = []
        handle = net.get_submodule(path).register_forward_hook(
            lambda m, given, out: found.append((given[0].clone(), out.clone()))
        )
        net(self.images)
        handle.remove()
        return found[0]


def columns(x: Tensor, layer: Conv2d) -> np.ndarray:
    """[images * positions, inputs, places of the kernel], by torch's own unfolding."""
    found = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return found.transpose(1, 2).reshape(-1, x.shape[1], int(np.prod(layer.kernel_size))).double().numpy()


def rows(y: Tensor) -> np.ndarray:
    return y.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()


def fitted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numpy's least squares with a column of ones."""
    design = np.hstack([x.reshape(len(x), -1), np.ones((len(x), 1))])
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    return solution[:-1].T, solution[-1]


def check_fit(run: Ran, path: str, y: np.ndarray) -> None:
    """The layer's new weight and bias are those of least squares from what it is given now."""
    layer, kept = run.after.get_submodule(path), run.kept(f"{path}.weight")
    assert isinstance(layer, Conv2d)
    given, _ = run.seen(run.after, path)
    weight, bias = fitted(columns(given, layer)[:, kept], y)
    np.testing.assert_allclose(layer.weight.detach()[:, kept].flatten(1), weight, atol=2e-4)
    np.testing.assert_allclose(layer.bias.detach(), bias, atol=2e-4)
