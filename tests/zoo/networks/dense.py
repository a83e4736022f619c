"""Networks that concatenate: a layer that reads several others loses the inputs that each of them loses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cbr
from zoo.entry import expect
from zoo.networks.residual import Basic


class DenseLayer(nn.Module):
    """Norm, 1x1, norm, 3x3: eight channels more."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 16, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=1, bias=False)

    def forward(self, earlier: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(earlier, 1))))
        out: Tensor = self.conv2(F.relu(self.norm2(x)))
        return out


LAYER = {"norm1": 8, "conv1": 8, "norm2": 8, "conv2": 4}


@expect(
    widths={
        "stem": 8,
        **{f"one.{name}": width for name, width in LAYER.items()},
        **{f"two.{name}": width for name, width in {**LAYER, "norm1": 12}.items()},
        "transition.0": 16,
        "transition.2": 8,
        **{f"three.{name}": width for name, width in LAYER.items()},
        "last": 12,
    }
)  # in make test
class DenseNet(Classifier):
    """Two dense layers, a transition, a third layer."""

    features = 24

    def layers(self) -> None:
        self.one, self.two, self.three = DenseLayer(16), DenseLayer(24), DenseLayer(16)
        self.transition = nn.Sequential(
            *(nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1, bias=False), nn.AvgPool2d(2))
        )
        self.last = nn.BatchNorm2d(24)

    def body(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in (self.one, self.two):
            maps.append(layer(maps))
        x = self.transition(torch.cat(maps, 1))
        return F.relu(self.last(torch.cat([x, self.three([x])], 1)))


class Fire(nn.Module):
    """SqueezeNet's module: squeeze, then 1x1 and 3x3 side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, expanded, 1), nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


@expect(widths={"stem": 8, "first": 8, "first.squeeze": 4, "second": 6, "second.squeeze": 4}, heads=("classifier",))
class SqueezeNet(nn.Module):
    """Two fire modules; the logits are means of a convolution's maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.first, self.second = Fire(16, 8, 16), Fire(32, 8, 12)
        self.classifier = nn.Conv2d(24, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, ceil_mode=True)
        return F.adaptive_avg_pool2d(F.relu(self.classifier(self.second(self.first(x)))), 1).flatten(1)


@expect(
    widths={
        "stem": 8,
        "one": 4,
        "three.0": 4,
        "three.1": 6,
        "five.0": 2,
        "five.1": 4,
        "pool": 2,
        "last": 8,
    }
)
class Inception(Classifier):
    """GoogLeNet's module of four branches."""

    def layers(self) -> None:
        self.one, self.pool, self.last = cbr(16, 8, 1), cbr(16, 4, 1), cbr(32, 16)
        self.three, self.five = nn.Sequential(cbr(16, 8, 1), cbr(8, 12)), nn.Sequential(cbr(16, 4, 1), cbr(4, 8, 5))

    def body(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 3, 1, 1)
        out: Tensor = self.last(torch.cat([self.one(x), self.three(x), self.five(x), self.pool(pooled)], 1))
        return out


@expect(widths={"stem": 8, "down": 12, "up": 8, "last": 8})
class UNetByInterpolation(Classifier):
    """A skip connection that concatenates."""

    def layers(self) -> None:
        self.down, self.up, self.last = cbr(16, 24, 3, 2), cbr(24, 16), cbr(32, 16)

    def body(self, x: Tensor) -> Tensor:
        up = F.interpolate(self.up(self.down(x)), x.shape[2:], mode="bilinear", align_corners=False)
        out: Tensor = self.last(torch.cat([x, up], 1))
        return out


@expect(widths={"stem": 8, "down": 12, "up": 8, "last": 8})
class UNetTransposed(Classifier):
    """The same with a transposed convolution, as Ronneberger et al. 2015 have it."""

    def layers(self) -> None:
        self.down, self.up, self.last = cbr(16, 24, 3, 2), nn.ConvTranspose2d(24, 16, 2, 2), cbr(32, 16)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.cat([self.up(self.down(x)), x], 1))
        return out


@expect(widths={"stem": 8, "left": 8, "right": 8, "root": 12})
class DLA(Classifier):
    """Deep layer aggregation (Yu et al. 2018): a root reads both blocks and what they began with."""

    features = 24

    def layers(self) -> None:
        self.left, self.right, self.root = Basic(16, 16), Basic(16, 16), cbr(48, 24, 1)

    def body(self, x: Tensor) -> Tensor:
        left = self.left(x)
        out: Tensor = self.root(torch.cat([self.right(left), left, x], 1))
        return out


@expect(widths={"stem": 8, "one": 4, "two": 4, "three": 4, "last": 8})
class VoVNet(Classifier):
    """One-shot aggregation (Lee et al. 2019): all layers in a row are read once, at their end, and a shortcut."""

    def layers(self) -> None:
        self.one, self.two, self.three, self.last = cbr(16, 8), cbr(8, 8), cbr(8, 8), cbr(40, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(one)
        return x + self.last(torch.cat([x, one, two, self.three(two)], 1))


@expect(widths={"stem": 8, "one": 4, "three": 4, "image": 4, "last": 8})
class ASPP(Classifier):
    """Atrous spatial pyramid pooling (DeepLab): dilated convolutions, and the image's mean at every position."""

    def layers(self) -> None:
        self.one, self.image, self.last = cbr(16, 8, 1), nn.Conv2d(16, 8, 1), cbr(24, 16, 1)
        self.three = nn.Sequential(nn.Conv2d(16, 8, 3, padding=3, dilation=3), nn.BatchNorm2d(8), nn.ReLU())

    def body(self, x: Tensor) -> Tensor:
        image = F.relu(self.image(F.adaptive_avg_pool2d(x, 1))).expand(-1, -1, *x.shape[2:])
        out: Tensor = self.last(torch.cat([self.one(x), self.three(x), image], 1))
        return out
