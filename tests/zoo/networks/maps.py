"""Pooling, resizing, flattening: every map by itself."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cbr
from zoo.entry import expect


class Resized(Classifier):
    """A convolution, an operation on its maps, another convolution."""

    read = 24

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cbr(self.read, 16)

    def between(self, x: Tensor) -> Tensor:
        return x

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.between(self.a(x)))
        return out


THINS = {"stem": 8, "a": 12, "b": 8}


@expect(widths=THINS)
class CeilPooling(Resized):
    """Maximum and mean pooling in ceil mode, where the last window is cut off."""

    def between(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.max_pool2d(x, 3, 2, ceil_mode=True), 3, 2, 1, ceil_mode=True, count_include_pad=False)


@expect(widths=THINS)
class Upsampled(Resized):
    """nn.Upsample, bilinear."""

    def layers(self) -> None:
        super().layers()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def between(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(x)
        return out


@expect(widths=THINS)
class ResizedToASize(Resized):
    """F.interpolate to a size, nearest and bicubic."""

    def between(self, x: Tensor) -> Tensor:
        return F.interpolate(F.interpolate(x, (5, 5)), (8, 8), mode="bicubic")


@expect(widths=THINS)
class DropoutOfMaps(Resized):
    """Dropout of whole maps.

    So rarely that none is dropped: what is drawn depends on the number of maps, and the losses are compared.
    """

    def between(self, x: Tensor) -> Tensor:
        return F.dropout2d(x, 1e-9, self.training)


@expect(widths={"stem": 8, "a": 8, "b": 8})
class Unpooled(Classifier):
    """SegNet: the places of the maxima of one layer's maps are used for those of another one."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 16), cbr(16, 16)

    def body(self, x: Tensor) -> Tensor:
        small, places = F.max_pool2d(x, 2, return_indices=True)
        out: Tensor = self.b(F.max_unpool2d(self.a(small), places, 2))
        return out


@expect(widths={"stem": 8, "hidden": 16})  # in make test
class AdaptivePoolingAndFlatten(Classifier):
    """The classifiers of AlexNet and VGG: a channel is four columns."""

    features = 32

    def layers(self) -> None:
        self.pool, self.hidden = nn.AdaptiveAvgPool2d(2), nn.Linear(64, 32)

    def flat(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.hidden(self.flat(self.pool(x))))[..., None]


@expect(widths={"stem": 8, "hidden": 16})
class FlattenChannelsLast(AdaptivePoolingAndFlatten):
    """Networks that were ported from TensorFlow: the columns of a channel are not neighbours."""

    def flat(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


@expect(widths={"stem": 8, "a": 12})
class ConvolutionByUnfold(Classifier):
    """A convolution as F.unfold and a product: a channel is nine rows."""

    features = 24

    def layers(self) -> None:
        self.a = nn.Linear(16 * 9, 24)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.a(F.unfold(x, 3, padding=1).transpose(1, 2))).transpose(1, 2)


@expect(widths={"stem": 8, "look": 8}, stays={"place": "grid"})
class SpatialTransformer(Classifier):
    """Six outputs of a linear layer say where the maps are read."""

    def layers(self) -> None:
        self.look, self.place = cbr(16, 16, 3, 2), nn.Linear(16, 6)

    def body(self, x: Tensor) -> Tensor:
        theta = self.place(self.look(x).mean((2, 3))).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


@expect(widths={"stem": 8, "filter": (8, 8, 5, 2)})
class GlobalFilter(Classifier):
    """GFNet: every map times weights of its own in the frequency domain."""

    def layers(self) -> None:
        self.filter = nn.Parameter(torch.randn(16, 8, 5, 2) * 0.02)

    def body(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(self.filter), s=x.shape[2:])
