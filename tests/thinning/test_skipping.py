"""Depth: a residual block with a dead convolution becomes its shortcut, and computes the same."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear
from torchvision import models

from compressor.errors import UserError
from compressor.models.resnet_cifar import ResNetCifar, resnet20_cifar
from compressor.sparsity.weights import prunable
from compressor.thinning.architecture import describe, resize
from compressor.thinning.equivalence import Thinned, thin
from compressor.thinning.reading import channel_graph
from compressor.thinning.skipping import Skipped

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (Conv2d(3, 4, 3), (2, 3, 7, 8)),
    "strided": (Conv2d(3, 4, 3, stride=2, padding=1, bias=False), (2, 3, 7, 8)),
    "of two shapes": (Conv2d(3, 4, (3, 2), stride=(1, 3), padding=(0, 2), dilation=(2, 1)), (2, 3, 9, 8)),
    "same": (Conv2d(3, 4, 3, padding="same", dilation=2), (2, 3, 7, 8)),
    "valid": (Conv2d(3, 4, 3, padding="valid"), (2, 3, 7, 8)),
    "reflected": (Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 7, 8)),
    "depthwise": (Conv2d(3, 3, 3, groups=3), (2, 3, 7, 8)),
    "one image": (Conv2d(3, 4, 3), (3, 7, 8)),
    "1-d": (nn.Conv1d(3, 4, 5, stride=2, padding=3), (2, 3, 9)),
    "3-d": (nn.Conv3d(3, 4, 2, padding=1), (2, 3, 4, 5, 6)),
    "linear": (Linear(3, 4), (2, 3)),
    "linear on rows": (Linear(3, 4, bias=False), (2, 5, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_skipped_layer_gives_what_the_layer_gives_without_weights(kind: str) -> None:
    layer, shape = copy.deepcopy(LAYERS[kind][0]), LAYERS[kind][1]
    nn.init.zeros_(layer.weight)
    named = ("out_channels", "in_channels") if isinstance(layer, nn.modules.conv._ConvNd) else ("out_features", "x")
    skipped = Skipped(layer, {named[0]: len(layer.weight), named[1]: 0})
    x = torch.randn(shape)
    assert torch.equal(skipped(x), layer(x))
    assert skipped(x).is_contiguous()
    assert [name for name, _ in skipped.named_parameters()] == (["bias"] if layer.bias is not None else [])


def network(seed: int = 0) -> ResNetCifar:
    """A ResNet-20 whose batch norms say something."""
    torch.manual_seed(seed)
    net = resnet20_cifar().eval()
    for module in net.modules():
        if isinstance(module, BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


def kill(net: nn.Module, *names: str) -> nn.Module:
    for name in names:
        nn.init.zeros_(net.get_parameter(name))
    return net


def thinned(net: nn.Module, shape: tuple[int, ...] = (3, 16, 16), **how: Any) -> tuple[Thinned, nn.Module]:
    """The cut, and the network it was made of, with equal logits on images that the check has not seen."""
    thin_net = copy.deepcopy(net)
    with torch.no_grad():
        found = thin(thin_net, torch.randn(4, *shape), **how)
        found.cut.model(thin_net)
        fresh = torch.randn(8, *shape)
        torch.testing.assert_close(thin_net(fresh), net(fresh), rtol=1e-4, atol=1e-4)
    return found, thin_net


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def silent(block: str, which: int) -> list[str]:
    """A convolution of a block with all that speaks for it."""
    return [f"{block}.conv{which}.weight", f"{block}.bn{which}.weight", f"{block}.bn{which}.bias"]


# What a block loses: both weights, and of bn1 all but one channel's gamma and beta.
CASES: dict[str, tuple[list[str], list[str], int]] = {
    "the second, behind which the norm says a constant": (
        ["layer1.0.conv2.weight"], ["layer1.0.conv1", "layer1.0.conv2"], 2 * 16 * 16 * 9 + 2 * 15,
    ),
    "the second and its norm": (
        silent("layer3.1", 2), ["layer3.1.conv1", "layer3.1.conv2"], 2 * 64 * 64 * 9 + 2 * 63,
    ),
    "the first and its norm: the second follows": (
        silent("layer2.1", 1), ["layer2.1.conv1", "layer2.1.conv2"], 2 * 32 * 32 * 9 + 2 * 31,
    ),
    "beside a shortcut with a convolution": (
        silent("layer2.0", 2), ["layer2.0.conv1", "layer2.0.conv2"], 32 * 16 * 9 + 32 * 32 * 9 + 2 * 31,
    ),
    "the shortcut's": (["layer2.0.downsample.0.weight"], ["layer2.0.downsample.0"], 32 * 16),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_dead_convolution_is_skipped_with_the_one_beside_it(case: str) -> None:
    dead, skipped, fewer = CASES[case]
    net = kill(network(), *dead)
    found, thin_net = thinned(net)
    assert sorted(found.skipped) == skipped
    assert count(net) - count(thin_net) == fewer
    assert not set(prunable(thin_net)) & {f"{path}.weight" for path in skipped}
    assert [str(stay) for stay in found.stays if stay.weight.rpartition(".")[0] in skipped] == []


def test_the_second_does_not_follow_where_the_norm_before_it_says_more_than_0() -> None:
    # Constants that a padded convolution cannot take over.
    net = kill(network(), "layer1.1.conv1.weight")
    nn.init.constant_(net.get_parameter("layer1.1.bn1.bias"), 9.0)
    found, thin_net = thinned(net)
    assert found.skipped == ("layer1.1.conv1",)
    assert count(net) - count(thin_net) == 16 * 16 * 9


def test_blocks_are_skipped_whichever_and_however_many_they_are() -> None:
    net = network()
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    for block in blocks:
        kill(net, *silent(block, 2))
    found, thin_net = thinned(net)
    assert len(found.skipped) == 18
    # What is left: stem 3x16, two shortcuts 16x32 and 32x64, and the classifier.
    assert {name: w.numel() for name, w in prunable(thin_net).items()} == {
        "conv1.weight": 432, "layer2.0.downsample.0.weight": 512, "layer3.0.downsample.0.weight": 2048,
        "fc.weight": 640,
    }  # fmt: skip
    again, _ = thinned(thin_net)
    assert (bool(again.cut), again.skipped) == (False, ())


def mobilenet() -> nn.Module:
    torch.manual_seed(0)
    return models.mobilenet_v2(num_classes=3).eval()


def squeeze() -> nn.Module:
    torch.manual_seed(0)
    return models.mobilenet_v3_small(num_classes=3).eval()


OTHERS: dict[str, tuple[Callable[[], nn.Module], str, list[str]]] = {
    "expanding, depthwise, projecting": (
        mobilenet, "features.3.conv.2.weight",
        ["features.3.conv.0.0", "features.3.conv.1.0", "features.3.conv.2"],
    ),
    "with squeeze and excitation": (
        squeeze, "features.5.block.3.0.weight",
        ["features.5.block.0.0", "features.5.block.1.0", "features.5.block.2.fc1", "features.5.block.2.fc2",
         "features.5.block.3.0"],
    ),
    "a bottleneck, whose addition is in place": (
        lambda: models.resnet50(num_classes=3).eval(), "layer1.1.conv3.weight",
        ["layer1.1.conv1", "layer1.1.conv2", "layer1.1.conv3"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_every_layer_that_only_a_skipped_one_reads_is_skipped(kind: str) -> None:
    make, dead, skipped = OTHERS[kind]
    found, _ = thinned(kill(make(), dead), (3, 32, 32))
    assert sorted(found.skipped) == skipped


class Two(nn.Module):
    """`a` is read by the dead `b` and, if `also`, by the living `c`; both are added to the stem."""

    def __init__(self, also: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.also = also
        self.stem, self.a = Conv2d(3, 4, 3, padding=1), Conv2d(4, 5, 3, padding=1)
        self.b, self.c = Conv2d(5, 4, 3, padding=1), Conv2d(5, 4, 1)
        self.fc = Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.a(x))
        out = x + self.b(y)
        if self.also:
            out = out + self.c(y)
        logits: Tensor = self.fc(F.relu(out).mean((2, 3)))
        return logits


def test_what_another_layer_reads_is_not_skipped_and_a_bias_goes_on_speaking() -> None:
    for also, skipped in ((True, ("b",)), (False, ("a", "b"))):
        net = kill(Two(also), "b.weight")
        found, thin_net = thinned(net)
        assert found.skipped == skipped
        assert torch.equal(thin_net.get_parameter("b.bias"), net.get_parameter("b.bias"))
        assert thin_net.get_parameter("b.bias").abs().min() > 0


def test_in_a_network_without_shortcuts_one_channel_is_spared_instead() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Conv2d(3, 4, 3), nn.ReLU(), Conv2d(4, 5, 3), nn.ReLU(), Conv2d(5, 3, 3), nn.Flatten()).eval()
    kill(net, "2.weight", "2.bias")
    found, thin_net = thinned(net, (3, 7, 7))
    assert found.skipped == ()
    assert [str(stay) for stay in found.stays] == ["2.weight: 1 zero filter stays: at least one channel must stay"]
    assert thin_net.get_parameter("2.weight").shape[:2] == (1, 1)


def test_in_training_nothing_is_skipped_for_it_could_come_back() -> None:
    found, thin_net = thinned(kill(network(), *silent("layer1.0", 2)), training=True)
    assert found.skipped == ()
    assert thin_net.get_parameter("layer1.0.conv2.weight").shape == (16, 1, 3, 3)


def test_a_network_with_skipped_layers_is_described_loaded_followed_and_trained() -> None:
    _, thin_net = thinned(kill(network(), *silent("layer1.0", 2)))
    sizes = json.loads(json.dumps(describe(thin_net)))
    assert sizes["layer1.0.conv2"] == {"in_channels": 0, "out_channels": 16, "groups": 1}
    assert sizes["layer1.0.conv1"] == {"in_channels": 0, "out_channels": 1, "groups": 1}
    fresh = resnet20_cifar()
    resize(fresh, sizes, "thin.pt")
    fresh.load_state_dict(thin_net.state_dict())
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(fresh.eval()(x), thin_net(x))
    assert torch.equal(copy.deepcopy(fresh)(x), thin_net(x))
    assert "layer1.1.conv1" in channel_graph(fresh, (3, 16, 16)).by_path
    fresh.train()
    F.cross_entropy(fresh(x), torch.zeros(4, dtype=torch.long)).backward()
    assert fresh.get_parameter("layer1.1.conv1.weight").grad is not None
    half = fresh.eval().to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("path", "sizes"),
    [
        ("bn1", {"num_features": 0}),
        ("conv1", {"in_channels": 0, "out_channels": 0, "groups": 1}),
        ("conv1", {"in_channels": 3, "out_channels": 16, "groups": 0}),
        ("fc", {"in_features": 64, "out_features": 0}),
        ("fc", {"in_features": -1, "out_features": 10}),
    ],
)
def test_nothing_else_may_be_0(path: str, sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=rf"its architecture gives '{path}'"):
        resize(resnet20_cifar(), {path: sizes}, "thin.pt")
