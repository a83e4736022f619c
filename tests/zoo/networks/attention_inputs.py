"""The layer in front of attention: its channels go where the attention can read fewer; heads stay.

A product of queries and keys sums over their channels: a sum does not notice that a query and a key which are 0 are
gone, unless it is divided by a number of channels. The channels of the values pass.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


def tokens(x: Tensor) -> Tensor:
    """(N, positions, channels) of maps."""
    return x.flatten(2).transpose(1, 2)


@expect(widths={"stem": 8, "attention.out_proj": 8}, stays={"a": "attention"})
class TorchAttention(Classifier):
    """nn.MultiheadAttention asks for as many channels as it has itself; those that it gives may be fewer."""

    def layers(self) -> None:
        self.a, self.attention = cbr(16, 16), nn.MultiheadAttention(16, 2, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        x = tokens(self.a(x))
        return self.attention(x, x, x, need_weights=False)[0].transpose(1, 2)


@expect(
    widths={
        "stem": 8,
        "keys": 12,
        "attention.k_proj_weight": (16, 12),
        "attention.v_proj_weight": (16, 12),
        "attention.out_proj": 8,
    },
    stays={"queries": "attention"},
)
class CrossAttention(Classifier):
    """Keys and values of another width than the queries (decoders, Perceiver)."""

    def layers(self) -> None:
        self.queries, self.keys = cbr(16, 16, 3, 2), cbr(16, 24)
        self.attention = nn.MultiheadAttention(16, 2, kdim=24, vdim=24, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        queries, keys = tokens(self.queries(x)), tokens(self.keys(x))
        return self.attention(queries, keys, keys, need_weights=False)[0].transpose(1, 2)


class Heads(Classifier):
    """Attention as timm has it, two heads of 8 channels: one linear layer for queries, keys and values."""

    def layers(self) -> None:
        self.a, self.qkv, self.proj = cbr(16, 16), nn.Linear(16, 48), nn.Linear(16, 16)

    def attend(self, x: Tensor) -> Tensor:
        images, count, _ = x.shape
        q, k, v = self.qkv(x).reshape(images, count, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        return self.mixed(q, k, v).transpose(1, 2)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ((q * 8**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(self.attend(tokens(self.a(x))).flatten(2))
        return out.transpose(1, 2)


@expect(widths={"stem": 8, "a": 8, "proj": 8}, stays={"qkv": "view|reshape|product"})
class AttentionByProducts(Heads):
    """The channels in front go with columns of `qkv`; the size of the heads is a constant."""


@expect(widths={"stem": 8, "a": 8, "proj": 8}, stays={"qkv": "view|reshape|product"})
class AttentionByTorchsFunction(Heads):
    """The same by scaled_dot_product_attention."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


@expect(widths={"stem": 8, "proj": 8}, stays={"a": "view|reshape", "qkv": "view|reshape|product"})
class AttentionOfItsInputsWidth(Heads):
    """timm reshapes what the heads give to the width of the input, which therefore stays."""

    def body(self, x: Tensor) -> Tensor:
        x = tokens(self.a(x))
        out: Tensor = self.proj(self.attend(x).reshape(x.shape))
        return out.transpose(1, 2)


@expect(widths={"stem": 8, "a": 8, "q": 6, "k": 6, "v": 12})  # in make test
class OneHead(Classifier):
    """Separate queries, keys and values without heads: a channel of the queries goes with that of the keys."""

    features = 24

    def layers(self) -> None:
        self.a, self.q, self.k, self.v = cbr(16, 16), nn.Linear(16, 12), nn.Linear(16, 12), nn.Linear(16, 24)

    def scale(self, q: Tensor) -> float:
        return 0.3

    def body(self, x: Tensor) -> Tensor:
        x = tokens(self.a(x))
        q, k, v = self.q(x), self.k(x), self.v(x)
        return (torch.softmax(q @ k.transpose(1, 2) * self.scale(q), -1) @ v).transpose(1, 2)


@expect(widths={"stem": 8, "a": 8, "v": 12}, stays={"q": "bmm|mul|scale|size", "k": "bmm|mul|scale|size"})
class OneHeadScaledByItsWidth(OneHead):
    """The products are divided by the root of the number of channels that they have now: it must not change."""

    def scale(self, q: Tensor) -> float:
        return float(q.shape[-1] ** -0.5)


class NonLocal(Classifier):
    """A non-local block (Wang et al. 2018)."""

    def layers(self) -> None:
        self.theta, self.phi = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.g, self.out = nn.Conv2d(16, 8, 1), cb(8, 16, 1)

    def weights(self, x: Tensor) -> Tensor:
        return torch.softmax(self.theta(x).flatten(2).transpose(1, 2) @ self.phi(x).flatten(2), -1)

    def body(self, x: Tensor) -> Tensor:
        y = (self.weights(x) @ self.g(x).flatten(2).transpose(1, 2)).transpose(1, 2)
        return x + self.out(y.reshape(len(x), -1, *x.shape[2:]))


@expect(widths={"stem": 8, "theta": 4, "phi": 4, "g": 4, "out": 8})  # in make test
class NonLocalEmbedded(NonLocal):
    """Embedded Gaussian."""


@expect(widths={"stem": 8, "theta": 4, "phi": 4, "g": 4, "out": 8})
class NonLocalProduct(NonLocal):
    """Dot product, divided by the number of positions."""

    def weights(self, x: Tensor) -> Tensor:
        pairs = self.theta(x).flatten(2).transpose(1, 2) @ self.phi(x).flatten(2)
        return pairs / pairs.shape[-1]


@expect(widths={"stem": 8, "g": 4, "out": 8})
class NonLocalGaussian(Classifier):
    """Gaussian: the products are of the block's input itself."""

    def layers(self) -> None:
        self.g, self.out = nn.Conv2d(16, 8, 1), cb(8, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        y = torch.softmax(flat.transpose(1, 2) @ flat / 16, -1) @ self.g(x).flatten(2).transpose(1, 2)
        return x + self.out(y.transpose(1, 2).reshape(len(x), -1, *x.shape[2:]))


@expect(widths={"stem": 8, "expand": 8}, stays={"squeeze": "norm"})
class GlobalContext(Classifier):
    """The block of GCNet (Cao et al. 2019): one map weighs the positions; a LayerNorm over what is squeezed."""

    def layers(self) -> None:
        self.weigh, self.squeeze, self.expand = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.norm = nn.LayerNorm([8, 1, 1])

    def body(self, x: Tensor) -> Tensor:
        context = x.flatten(2) @ torch.softmax(self.weigh(x).flatten(2), 2).transpose(1, 2)
        return x + self.expand(F.relu(self.norm(self.squeeze(context[..., None]))))


@expect(widths={"stem": 8, "a": 12})
class AttentionPooling(Classifier):
    """A learned query weighs the positions (class attention, attention pooling)."""

    features = 24

    def layers(self) -> None:
        self.a, self.weigh = cbr(16, 24), nn.Linear(24, 1)

    def body(self, x: Tensor) -> Tensor:
        x = tokens(self.a(x))
        return x.transpose(1, 2) @ torch.softmax(self.weigh(x), 1)
