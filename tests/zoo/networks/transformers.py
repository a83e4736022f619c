"""Transformers: LayerNorm keeps the channels that run through the network, heads stay, hidden units go."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect
from zoo.networks.inverted_residual import Excitation, Inverted


class Attention(nn.Module):
    """Two heads, as timm has them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads, self.size = 2, channels // 2
        self.qkv, self.proj = nn.Linear(channels, channels * 3), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        images, count, _ = x.shape
        qkv = self.qkv(x).reshape(images, count, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        out: Tensor = self.proj(x)
        return out


class Block(nn.Module):
    """Attention and two linear layers, each with a norm before and a shortcut."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(channels), nn.LayerNorm(channels), Attention(channels)
        self.fc1, self.fc2 = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


def stays(block: str) -> dict[str, str]:
    """The reasons why the layers of a block stay."""
    return {
        f"{block}.attention.qkv": "view|reshape|product",
        f"{block}.attention.proj": "norm",
        f"{block}.fc2": "norm",
    }


@expect(widths={"stem": 8, "block.fc1": 16}, stays={"patches": "norm", **stays("block")})  # in make test
class ViT(Classifier):
    """A class token and a table of positions."""

    def layers(self) -> None:
        self.patches, self.block, self.norm = nn.Conv2d(16, 16, 2, 2), Block(), nn.LayerNorm(16)
        self.token, self.table = (nn.Parameter(torch.zeros(1, count, 16)) for count in (1, 17))

    def body(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.table
        return self.norm(self.block(x))[:, :1].transpose(1, 2)


@expect(
    widths={"stem": 8, "fc1": 16},
    stays={"patches": "norm|attention", "attention.out_proj": "norm|attention", "fc2": "norm"},
)
class ViTOfTorchvision(Classifier):
    """The same with nn.MultiheadAttention."""

    def layers(self) -> None:
        self.patches, self.attention = nn.Conv2d(16, 16, 2, 2), nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(16) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)

    def body(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.norm3(x + self.fc2(F.gelu(self.fc1(self.norm2(x))))).transpose(1, 2)


@expect(
    widths={"stem": 8, "encoder.linear1": 16},
    stays={
        "patches": "norm|attention",
        "encoder.self_attn.out_proj": "norm|attention",
        "encoder.linear2": "norm|attention",
    },
)
class CompactTransformer(Classifier):
    """CCT (Hassani et al. 2021) with nn.TransformerEncoderLayer, which is one operation in evaluation mode."""

    def layers(self) -> None:
        self.patches = nn.Conv2d(16, 16, 2, 2)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(self.patches(x).flatten(2).transpose(1, 2))
        return out.transpose(1, 2)


class WindowAttention(nn.Module):
    """Attention within windows of 2x2 positions, moved by one position, with a table of relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.zeros(9, 2))
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = places[:, :, None] - places[:, None] + 1
        self.register_buffer("index", apart[0] * 3 + apart[1])

    def forward(self, x: Tensor) -> Tensor:
        images, height, width, channels = x.shape
        x = torch.roll(x, (-1, -1), (1, 2)).view(images, height // 2, 2, width // 2, 2, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
        q, k, v = self.qkv(x).reshape(len(x), 4, 3, 2, 8).permute(2, 0, 3, 1, 4)
        products = q @ k.transpose(-2, -1) * 8**-0.5 + self.table[self.index].permute(2, 0, 1)
        x = self.proj((products.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x.view(images, height // 2, width // 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return torch.roll(x.reshape(images, height, width, -1), (1, 1), (1, 2))


@expect(
    widths={"stem": 8, "fc1": 16},
    stays={
        "patches": "norm",
        "attention.qkv": "view|reshape|product",
        "attention.proj": "norm",
        "fc2": "norm",
        "reduction": "norm",
    },
)
class Swin(Classifier):
    """A block of shifted windows, channels last, and the merging of 2x2 patches."""

    features = 24

    def layers(self) -> None:
        self.patches, self.attention = nn.Conv2d(16, 16, 1), WindowAttention()
        self.norm1, self.norm2, self.norm3, self.last = *(nn.LayerNorm(16) for _ in range(2)), *self.merging()
        self.fc1, self.fc2, self.reduction = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(64, 24, bias=False)

    def merging(self) -> tuple[nn.Module, nn.Module]:
        return nn.LayerNorm(64), nn.LayerNorm(24)

    def body(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        x = x + self.attention(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        x = torch.cat([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1)
        out: Tensor = self.last(self.reduction(self.norm3(x)))
        return out.permute(0, 3, 1, 2)


@expect(
    widths={
        "stem": 8,
        "inverted": 16,
        "inverted.between.squeeze": 4,
        "inverted.project": 8,
        "block.fc1": 24,
    },
    stays={"patches": "norm", **stays("block")},
)
class CoAtNet(Classifier):
    """Inverted residuals, then a block of attention (Dai et al. 2021): the convolutions thin wholly."""

    features = 24

    def layers(self) -> None:
        self.inverted = Inverted(16, 32, 16, act=nn.GELU)
        self.inverted.between = Excitation(32)
        self.patches, self.block = nn.Conv2d(16, 24, 2, 2), Block(24)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(self.patches(self.inverted(x)).flatten(2).transpose(1, 2))
        return out.transpose(1, 2)


@expect(widths={"stem": 8, "reduce": 8, "v": 8, "expand": 8}, stays={"q": "product", "k": "product"})
class BoTNet(Classifier):
    """Attention in place of a bottleneck's 3x3 convolution; queries and keys of several heads are not removed."""

    def layers(self) -> None:
        self.reduce, self.expand = cbr(16, 16, 1), cb(16, 16, 1)
        self.q, self.k, self.v = (nn.Conv2d(16, 16, 1, bias=False) for _ in range(3))

    def body(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        q, k, v = (layer(y).flatten(2).unflatten(1, (2, -1)) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(q.transpose(-2, -1) @ k * 0.3, -1)
        y = (v @ weights.transpose(-2, -1)).flatten(1, 2).unflatten(2, x.shape[2:])
        return F.relu(x + self.expand(y))


@expect(widths={"stem": 8, "fc1": 16}, stays={"patches": "norm", "fc2": "norm"})
class PoolFormer(Classifier):
    """Pooling in place of attention (Yu et al. 2022); GroupNorm over all channels."""

    def layers(self) -> None:
        self.patches, self.norm1, self.norm2 = nn.Conv2d(16, 16, 2, 2), nn.GroupNorm(1, 16), nn.GroupNorm(1, 16)
        self.fc1, self.fc2 = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        y = self.norm1(x)
        x = x + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
