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
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import Figure, milliseconds, ratio
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


@dataclass(frozen=True)
class Compared:
    """One case and batch: dense time / its time of each variant, milliseconds, and which form a report would take."""

    case: Case
    batch: int
    left: tuple[int, int]
    whole: int
    ratios: dict[str, float]
    ms: dict[str, float]
    report: str

    @property
    def size(self) -> str:
        """The rows and columns that are left."""
        return f"{self.left[0]}/{self.case.filters} rows, {self.left[1]}/{self.whole} columns"


@torch.no_grad()
def compare(case: Case, batch: int, blocks: int) -> Compared:
    """Measure one case."""
    layer, images = case.build(), case.images(batch)
    form = compact(layer)
    variants = {"dense": layer, "again": copy.deepcopy(layer), "compact": form}
    if isinstance(form, CompactConv2d) and form.gathers:
        variants["unfold"] = ByUnfold(layer, form)
    for variant in variants.values():
        if float((variant(images) - layer(images)).abs().max()) > TOLERANCE:
            raise SystemExit(f"{case}: an output differs by more than {TOLERANCE}")
    taken = measure(variants, images, blocks)
    matrix = form.matrix.shape
    paying = compact(layer, if_it_pays=True)
    report = "dense" if not compact_layers(paying) else "compact" if paying.matrix.shape == matrix else "its channels"
    return Compared(
        case,
        batch,
        (int(matrix[0]), int(matrix[1])),
        layer.weight[0].numel(),
        {name: ratio(taken["dense"], times) for name, times in taken.items()},
        {name: milliseconds(times) for name, times in taken.items()},
        report,
    )


def figure(found: Compared) -> Figure:
    """What is said of one case."""
    images = "one image" if found.batch == 1 else f"{found.batch} images"
    note = f"{found.size}; a report takes: {found.report}"
    return Figure(f"{found.case.layer}, {images}", found.ratios["compact"], again=found.ratios["again"], note=note)


def line(found: Compared) -> str:
    """One case in one line."""
    rows, columns = found.left
    unfold = f"{found.ratios['unfold']:9.2f}" if "unfold" in found.ratios else f"{'':9}"
    size = f"{found.case.layer:34} {found.batch:5} {rows:4}/{found.case.filters:<4} {columns:5}/{found.whole:<5}"
    times = f"{found.ms['dense']:8.3f} {found.ms['compact']:8.3f} {found.ratios['compact']:7.2f}"
    return f"{size} {times} {unfold} {found.ratios['again']:6.2f}  {found.report}"


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
            print(line(compare(case, batch, given.blocks)), flush=True)


if __name__ == "__main__":
    main()
