"""What is gained by leaving the zero rows and columns of a layer out of its product, layer by layer.

    python -m benchmarks.compaction [--blocks 7] [--batches 1 32]

Of each layer's im2col matrix every `stride`-th tap of a map stays (Anwar et al. 2017; offsets are random), and a share
of the filters and channels. `compact` gathers the taps that are left, or, where these are whole channels, convolves
with what is left; `by unfold` takes the same product of columns that are selected from a whole im2col matrix. Ratios
are dense time / compact time: above 1 is faster. One thread; the variants take turns within a block, in an order that
rotates. Time is the process's CPU time, ratios are taken within a block, and the median over the blocks is printed.
`again` is the dense layer a second time: its distance from 1 is the noise. `report` says which form `compress report`
would take (`compact(..., if_it_pays=True)`). Outputs are compared with the dense layer's.
"""

import argparse
import copy
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.thin_inference import measure
from compressor.sparsity.structures import Taps
from compressor.thinning.compaction import CompactConv2d, compact, compact_layers

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """A layer, the side of its maps, and what stays of it."""

    layer: str
    filters: int
    channels: int
    kernel: int
    side: int
    padding: int = 0
    stride: int = 1
    filters_left: float = 1.0
    channels_left: float = 1.0

    def build(self) -> nn.Module:
        """The layer with random weights, masked."""
        torch.manual_seed(0)
        linear = self.kernel == 0
        layer: nn.Conv2d | nn.Linear = nn.Linear(self.channels, self.filters)
        if not linear:
            layer = nn.Conv2d(self.channels, self.filters, self.kernel, padding=self.padding)
        with torch.no_grad():
            if self.stride > 1:
                offsets = torch.randint(0, self.stride, (self.channels,))
                cut = Taps(stride=self.stride)
                layer.weight.mul_(cut.expand(functional.one_hot(offsets, self.stride).bool(), layer.weight.shape))
            layer.weight[round(self.filters * self.filters_left) :] = 0
            layer.weight[:, round(self.channels * self.channels_left) :] = 0
        return layer.eval()

    def images(self, batch: int) -> Tensor:
        """Random maps."""
        return torch.randn(batch, self.channels, *[self.side] * (2 if self.kernel else 0))


LENET = Case("LeNet-5 conv2 50x20x5x5 at 12x12", 50, 20, 5, 12)
RESNET = Case("ResNet 64x64x3x3 at 32x32", 64, 64, 3, 32, 1)
DEEP = Case("ResNet 256x256x3x3 at 14x14", 256, 256, 3, 14, 1)
CASES = (
    Case("LeNet-5 conv1 20x1x5x5 at 28x28", 20, 1, 5, 28, stride=2),
    *(Case(LENET.layer, 50, 20, 5, 12, 0, *left) for left in ((2,), (4,), (2, 0.5), (4, 0.5), (1, 0.5, 0.5))),
    *(Case(RESNET.layer, 64, 64, 3, 32, 1, *left) for left in ((2,), (4,), (2, 0.5), (4, 0.5), (1, 0.5, 0.5))),
    *(Case(DEEP.layer, 256, 256, 3, 14, 1, *left) for left in ((2,), (4,), (4, 0.5), (1, 0.75), (1, 0.5, 0.5))),
    Case("linear 784-500", 500, 784, 0, 1, filters_left=0.6, channels_left=0.5),
    Case("linear 4096-1000", 1000, 4096, 0, 1, filters_left=0.5, channels_left=0.5),
)


class ByUnfold(nn.Module):
    """The columns that are left, selected from the whole im2col matrix."""

    def __init__(self, layer: nn.Conv2d, form: CompactConv2d) -> None:
        super().__init__()
        self._kernel, self._padding = layer.kernel_size, layer.padding
        self._columns = form.live.any(0).flatten().nonzero().flatten()
        self._form = form

    def forward(self, x: Tensor) -> Tensor:
        columns = functional.unfold(x, self._kernel, padding=self._padding)[:, self._columns]
        out = torch.baddbmm(self._form._live_bias[:, None], self._form.matrix.expand(len(x), -1, -1), columns)
        side = x.shape[-1] + 2 * self._padding[0] - self._kernel[0] + 1
        return self._form._all_outputs(out.reshape(*out.shape[:2], side, side), -3)


@torch.no_grad()
def line(case: Case, batch: int, blocks: int) -> str:
    """One case in one line."""
    layer, images = case.build(), case.images(batch)
    form = compact(layer)
    variants = {"dense": layer, "again": copy.deepcopy(layer), "compact": form}
    if isinstance(form, CompactConv2d) and form.gathers:
        variants["unfold"] = ByUnfold(layer, form)
    for variant in variants.values():
        if float((variant(images) - layer(images)).abs().max()) > TOLERANCE:
            raise SystemExit(f"{case}: an output differs by more than {TOLERANCE}")
    taken = measure(variants, images, blocks)
    ratio = {name: _ratio(taken["dense"], times) for name, times in taken.items()}
    whole = layer.weight[0].numel()
    matrix = form.matrix.shape
    paying = compact(layer, if_it_pays=True)
    report = "dense" if not compact_layers(paying) else "compact" if paying.matrix.shape == matrix else "its channels"
    unfold = f"{ratio['unfold']:9.2f}" if "unfold" in ratio else f"{'':9}"
    dense_ms, compact_ms = (1000 * statistics.median(taken[name]) for name in ("dense", "compact"))
    size = f"{case.layer:34} {batch:5} {matrix[0]:4}/{case.filters:<4} {matrix[1]:5}/{whole:<5}"
    return f"{size} {dense_ms:8.3f} {compact_ms:8.3f} {ratio['compact']:7.2f} {unfold} {ratio['again']:6.2f}  {report}"


def _ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--batches", type=int, nargs="*", default=[1, 32])
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'layer':34} {'batch':>5} {'rows':>9} {'columns':>11} {'dense ms':>8} {'compact':>8} {'faster':>7}"
        f" {'by unfold':>9} {'again':>6}  report"
    )
    for case in CASES:
        for batch in given.batches:
            print(line(case, batch, given.blocks), flush=True)


if __name__ == "__main__":
    main()
