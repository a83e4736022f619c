"""Branches, outputs and norms that are there in training alone."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


class Supervised(Classifier):
    """The stem, a convolution, and `more` outputs in training."""

    def layers(self) -> None:
        self.a = cbr(16, 16)
        self.aux = nn.Linear(16, 10)

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        logits = self.head(self.a(x).mean((2, 3)))
        return self.outputs(logits, x) if self.training else logits


AUX = ("head", "aux")


@expect(widths={"stem": 8, "a": 8}, heads=AUX)
class AuxiliaryClassifier(Supervised):
    """A second classifier on an early map: (logits, more logits)."""

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        return logits, self.aux(x.mean((2, 3)))


@expect(widths={"stem": 8, "a": 8, "before_aux": 6}, heads=AUX)
class AuxiliaryConvolution(Supervised):
    """GoogLeNet's second classifier has layers of its own, which are pruned, too."""

    def layers(self) -> None:
        super().layers()
        self.before_aux, self.aux = cbr(16, 12, 1), nn.Linear(12, 10)

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        return logits, self.aux(self.before_aux(x).mean((2, 3)))


@expect(widths={"stem": 8, "a": 8}, heads=AUX)
class DeepSupervision(Supervised):
    """A list of logits from two depths."""

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        return [logits, self.aux(x.mean((2, 3)))]


@expect(widths={"stem": 8, "a": 8}, heads=AUX)
class DictInTraining(Supervised):
    """A dict with the logits and others."""

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        return {"aux": self.aux(x.mean((2, 3))), "logits": logits}


@expect(widths={"stem": 8, "a": 8}, heads=AUX, output="main")
class NamedInTraining(Supervised):
    """A dict whose logits `model.output` names."""

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        return {"other": self.aux(x.mean((2, 3))), "main": logits}


@expect(widths={"stem": 8, "a": 8}, heads=AUX)
class FeaturesInTraining(Supervised):
    """Logits with the features that a loss of metric learning or a teacher would read; here only logits are used."""

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        return logits, x


@expect(widths={"stem": 8, "a": 8}, heads=AUX)
class TwoViews(Supervised):
    """In training the mirrored map goes through the same layer, to a second classifier."""

    def outputs(self, logits: Tensor, x: Tensor) -> Any:
        return logits, self.aux(self.a(x.flip(3)).mean((2, 3)))


@expect(widths={"stem": 8, "c": 12, "norm": 12, "second": 12, "o": 8})
class SecondNorm(Classifier):
    """AdvProp's second batch norm, for images of another kind, behind the same convolution: in training alone."""

    def layers(self) -> None:
        self.c, self.norm, self.second = nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.BatchNorm2d(24)
        self.o = cbr(24, 16)

    def forward(self, x: Tensor) -> Any:
        x = self.c(self.stem(x))
        logits = self.head(self.o(F.relu(self.norm(x))).mean((2, 3)))
        if not self.training:
            return logits
        return logits, self.head(self.o(F.relu(self.second(x))).mean((2, 3)))


class Residual(Classifier):
    """A residual block."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cb(24, 16)


@expect(widths={"stem": 8, "a": 12, "b": 8})
class LayerDrop(Residual):
    """Stochastic depth (Huang et al. 2016): in training a block is left out now and then."""

    def body(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(1).item() < 0.5:
            return x
        return F.relu(x + self.b(self.a(x)))


@expect(widths={"stem": 8, "a": 12, "extra": 12, "b": 8})
class ExtraNowAndThen(Classifier):
    """A branch that runs in some steps of training."""

    def layers(self) -> None:
        self.a, self.extra, self.b = cb(16, 24), cb(16, 24, 1), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.training and bool(torch.rand(()) < 0.5):
            y = y + self.extra(x)
        return self.b(F.relu(y))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class DropPath(Residual):
    """Stochastic depth by image, as timm has it."""

    def body(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        if self.training:
            y = y * y.new_empty((len(y), 1, 1, 1)).bernoulli_(0.7) / 0.7
        return F.relu(x + y)


@expect(widths={"stem": 8, "a": 12, "extra": 12, "b": 8})
class ExtraBranch(Classifier):
    """A convolution that is added in training alone (as what is merged into its neighbour for inference)."""

    def layers(self) -> None:
        self.a, self.extra, self.b = cb(16, 24), cb(16, 24, 1), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.training:
            y = y + self.extra(x)
        return self.b(F.relu(y))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class ManifoldMixup(Residual):
    """In training maps of other images are mixed in."""

    def body(self, x: Tensor) -> Tensor:
        if self.training:
            x = 0.7 * x + 0.3 * x[torch.randperm(len(x))]
        return F.relu(x + self.b(self.a(x)))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class LogarithmsInEval(Residual):
    """Logits in training, logarithms of probabilities else."""

    def body(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(self.a(x)))

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if self.training else logits.log_softmax(1)


@expect(widths={"stem": 8, "a": 12, "b": 8})
class MirroredInEval(Residual):
    """For inference the mean of the image and its mirror image."""

    def body(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(self.a(x)))

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if self.training else (logits + super().forward(x.flip(3))) / 2
