"""Layers that are skipped (depth of Wen et al., NIPS 2016): they have no inputs left, their output is a constant."""

from typing import Any

from torch import Tensor, nn

from compressor.thinning.layers import CONVOLUTIONS, widths


class Skipped(nn.Module):
    """Replaces a convolution or linear layer without inputs: returns its bias, or zeros, in the shape of its outputs.

    A residual block whose convolutions are skipped is its shortcut.
    """

    bias: nn.Parameter | None

    def __init__(self, layer: Any, sizes: dict[str, int]) -> None:
        """Replace `layer`; `sizes` are its attributes that count channels, with 0 inputs."""
        super().__init__()
        self.sizes = sizes
        self.bias = layer.bias
        self._outputs = sizes.get("out_channels", sizes.get("out_features", 0))
        self._geometry: list[tuple[int, int, int]] = []
        """For each spatial dim: the padding on both sides, the extent of the kernel less 1, the stride."""
        for dim in range(len(layer.kernel_size)) if isinstance(layer, CONVOLUTIONS) else ():
            reach = layer.dilation[dim] * (layer.kernel_size[dim] - 1)
            named = {"same": reach, "valid": 0}
            padding = named[layer.padding] if isinstance(layer.padding, str) else 2 * layer.padding[dim]
            self._geometry.append((padding, reach, layer.stride[dim]))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, the layer's sides ...) for (N, inputs, sides ...), whatever the values; linear: (...,
        outputs).
        """
        dims = len(self._geometry)
        sides = zip(x.shape[x.dim() - dims :], self._geometry, strict=True)
        size = [(side + padding - reach - 1) // stride + 1 for side, (padding, reach, stride) in sides]
        out = x.new_zeros((*x.shape[: x.dim() - dims - 1], self._outputs, *size))
        return out if self.bias is None else out + self.bias.reshape(-1, *[1] * dims)


def widths_or_skipped(module: nn.Module) -> dict[str, int]:
    """Return the numbers of channels of a layer, skipped or not."""
    return dict(module.sizes) if isinstance(module, Skipped) else widths(module)


def skip(network: nn.Module, path: str, sizes: dict[str, int]) -> None:
    """Replace a layer by a `Skipped`; its bias stays the same object."""
    layer = network.get_submodule(path)
    if isinstance(layer, Skipped):
        return
    network.set_submodule(path, Skipped(layer, sizes).train(layer.training))
