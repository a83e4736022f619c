"""Activations that compare or index: each is 0 (or x, or a part of it) where its channel is 0."""

import torch
from torch import Tensor

from zoo.blocks import Classifier, cb
from zoo.entry import expect


class Activated(Classifier):
    """Two convolutions, each with batch norm and the activation."""

    def layers(self) -> None:
        self.a, self.b = cb(16, 24), cb(24, 16)

    def act(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return self.act(self.b(self.act(self.a(x))))


ALL = {"stem": 8, "a": 12, "b": 8}


@expect(widths=ALL)
class Where(Activated):
    """A leaky ReLU by torch.where."""

    def act(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1 * x)


@expect(widths=ALL)
class TimesMask(Activated):
    """A ReLU as x times whether it is positive."""

    def act(self, x: Tensor) -> Tensor:
        return x * (x > 0)


@expect(widths=ALL)
class Clamp(Activated):
    """A ReLU6 by clamp."""

    def act(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)
