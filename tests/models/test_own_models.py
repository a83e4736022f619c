"""Every network of our own: its size, work, shapes and names, against the papers, Distiller and a pencil."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.models import arguments, build, catalogue
from compressor.models.preact_resnet_cifar import PreactResNetCifar


class Expected(NamedTuple):
    """Image (channels, side), all parameters, weights of 2 and 4 dimensions, multiply-accumulates of one image."""

    image: tuple[int, int]
    parameters: int
    weights: int
    macs: int


GREY, COLOUR = (1, 28), (3, 32)

# A ResNet's stage gains, for two more blocks, 2 * 2 * 9 * (16^2 + 32^2 + 64^2) = 193,536 weights over the three stages,
# 2 * 2 * 2 * (16 + 32 + 64) = 896 values of BN, and 6 * 2 * 9 * 16^2 * 32^2 = 28,311,552 MACs; a pre-activation block
# has the same convolutions, and none in its shortcuts (2 * 16 * 32 * 5 = 2,560 weights, 2 * 2^17 MACs less). ResNet-20
# has BN on 784 channels, the plain net on 688, the pre-activation net on 688.
# VGG's convolutions: the six (channels in, out, side) of VGG-11 by hand, then VGG-13, -16, -19 add their own.
EXPECTED = {
    "lenet_5": Expected(GREY, 431_080, 430_500, 2_293_000),
    "mlp": Expected(GREY, 266_610, 266_200, 266_200),
    "simplenet_mnist": Expected(GREY, 431_080, 430_500, 2_293_000),
    # 20 * 25 + 50 * 500 + 500 weights; 24^2 and 8^2 places, and one.
    "simplenet_v2_mnist": Expected(GREY, 26_000 + 80, 26_000, 1_888_500),
    "simplenet_cifar": Expected(COLOUR, 61_770 + 6 + 16 + 120 + 84 + 10, 61_770, 651_720),
    "resnet20_cifar": Expected(COLOUR, 270_896 + 2 * 784 + 10, 270_896, 40_813_184),
    "resnet32_cifar": Expected(COLOUR, 466_906, 464_432, 69_124_736),
    "resnet44_cifar": Expected(COLOUR, 661_338, 657_968, 97_436_288),
    "resnet56_cifar": Expected(COLOUR, 855_770, 851_504, 125_747_840),
    "plain20_cifar": Expected(COLOUR, 268_336 + 2 * 688 + 10, 268_336, 40_551_040),
    "plain20_cifar_nobn": Expected(COLOUR, 268_336 + 10, 268_336, 40_551_040),
    "preact_resnet20_cifar": Expected(COLOUR, 269_722, 268_336, 40_551_040),
    "preact_resnet32_cifar": Expected(COLOUR, 269_722 + 194_432, 461_872, 68_862_592),
    "preact_resnet44_cifar": Expected(COLOUR, 269_722 + 2 * 194_432, 655_408, 97_174_144),
    "preact_resnet56_cifar": Expected(COLOUR, 269_722 + 3 * 194_432, 848_944, 125_485_696),
    # 15 more blocks a stage than ResNet-20: 7.5 times the step above.
    "preact_resnet110_cifar": Expected(COLOUR, 269_722 + 1_458_240, 1_719_856, 252_887_680),
    "vgg11_cifar": Expected(COLOUR, 9_222_848 + 2_752 + 10, 9_222_848, 152_769_536),
    "vgg13_cifar": Expected(COLOUR, 9_407_168 + 2_944 + 10, 9_407_168, 228_267_008),
    "vgg16_cifar": Expected(COLOUR, 14_715_584 + 4_224 + 10, 14_715_584, 313_201_664),
    "vgg19_cifar": Expected(COLOUR, 20_024_000 + 5_504 + 10, 20_024_000, 398_136_320),
    "vgg11_bn_cifar": Expected(COLOUR, 9_222_848 + 3 * 2_752 + 10, 9_222_848, 152_769_536),
    "vgg13_bn_cifar": Expected(COLOUR, 9_407_168 + 3 * 2_944 + 10, 9_407_168, 228_267_008),
    "vgg16_bn_cifar": Expected(COLOUR, 14_715_584 + 3 * 4_224 + 10, 14_715_584, 313_201_664),
    "vgg19_bn_cifar": Expected(COLOUR, 20_024_000 + 3 * 5_504 + 10, 20_024_000, 398_136_320),
    # Stages of 1,638,400, 6,963,200 and 27,852,800 weights at 32^2, 16^2 and 8^2; BN on 8,976 channels.
    "wrn_28_10_cifar": Expected(COLOUR, 36_479_194, 36_461_232, 5_243_328_768),
    "bn_cnn": Expected(GREY, 65_440 + 2 * 192 + 10, 65_440, 4_742_272),
}

IMAGENET = (3, 224)

# MobileNet v1: of table 1 a stem of 864 weights and 10,838,016 MACs, and for each of 13 blocks 9 c + c d weights at
# 112^2, 56^2, 28^2, 14^2 or 7^2 places; BN on 10,944 channels. AlexNet-BN: maps of 54^2, 54^2, 27^2, 14^2 and 14^2.
# The pre-activation ResNets have the convolutions of torchvision's; MACs of those are known (4.09 G of ResNet-50). BN
# of ResNet-18: 64 of the stem, 2 * 128, 192 + 256, 384 + 512, 768 + 1024 of the blocks, 512 at the end.
LARGE = {
    "mobilenet": Expected(IMAGENET, 4_209_088 + 2 * 10_944 + 1000, 4_209_088, 568_740_352),
    "mobilenet_025": Expected(IMAGENET, 470_072, 463_600, 41_030_272),
    "mobilenet_050": Expected(IMAGENET, 1_331_592, 1_319_648, 149_497_088),
    "mobilenet_075": Expected(IMAGENET, 2_585_560, 2_568_144, 325_400_448),
    "alexnet_bn": Expected(IMAGENET, 60_961_280 + 2 * 9_472 + 96 + 1000, 60_961_280, 1_937_082_368),
    "preact_resnet18": Expected(IMAGENET, 11_678_912 + 2 * 3_968 + 1000, 11_678_912, 1_814_073_344),
    "preact_resnet34": Expected(IMAGENET, 21_779_648 + 2 * 7_680 + 1000, 21_779_648, 3_663_761_408),
    "preact_resnet50": Expected(IMAGENET, 25_502_912 + 2 * 22_784 + 1000, 25_502_912, 4_089_184_256),
    "preact_resnet101": Expected(IMAGENET, 44_442_816 + 2 * 48_896 + 1000, 44_442_816, 7_801_405_440),
}

# Weights of 2 and 4 dimensions, and MACs where they are recorded, with the image's side: Distiller's lab records.
RECORDS = {
    "alexnet": (61_090_496, None, 224, "alexnet.schedule_sensitivity.yaml, table of parameters"),
    "resnet18": (11_678_912, None, 224, "resnet18.schedule_agp.yaml, table of parameters"),
    "resnet50": (25_502_912, 4_089_184_256, 224, "resnet50.schedule_agp.1x1x8-blocks.yaml; MACs of its summary"),
    "resnet20_cifar": (270_896, 40_813_184, 32, "resnet20_filters.schedule_agp.yaml, header"),
    "resnet56_cifar": (851_504, 125_747_840, 32, "resnet56_cifar_filter_rank.yaml, header"),
    "plain20_cifar": (268_336, 40_551_040, 32, "summary of its model"),
    "preact_resnet20_cifar": (268_336, None, 32, "summary of its model"),
    "simplenet_cifar": (61_770, 651_720, 32, "summary of its model"),
    "simplenet_mnist": (430_500, 2_293_000, 28, "summary of its model"),
    "mobilenet": (4_209_088, None, 224, "mobilenet.imagenet.schedule_agp.yaml, table of parameters"),
    "vgg16_cifar": (14_715_584, 313_201_664, 32, "summary of its model"),
}

NAMES = {
    "lenet_5": "conv1 conv2 fc1 fc2",
    "mlp": "fc1 fc2 fc3",
    "simplenet_mnist": "conv1 relu1 pool1 conv2 relu2 pool2 fc1 relu3 fc2",
    "simplenet_cifar": "conv1 pool1 conv2 pool2 fc1 fc2 fc3",
    "resnet20_cifar": "conv1 bn1 layer1.0.conv1 layer2.0.downsample.0 layer3.0.downsample.1 fc",
    "plain20_cifar": "conv1 bn1 layer1.0.conv1 layer3.2.bn2 fc",
    "preact_resnet20_cifar": "conv1 layer1.0.pre_bn layer1.0.bn layer3.2.conv2 layer2.0.downsample.1 final_bn fc",
    "vgg16_cifar": "features.0 features.28 classifier",
    "vgg11_bn_cifar": "features.0 features.1 classifier",
    "wrn_28_10_cifar": "conv1 layer1.0.conv1 layer1.0.downsample.0 layer3.3.conv2 final_bn fc",
    "bn_cnn": "conv1 bn1 conv4 bn4 fc",
    "mobilenet": "model.0.0 model.0.1 model.1.0 model.1.3 model.13.0 model.13.3 model.13.4 fc",
    "alexnet_bn": "features.0 features.2 features.13 classifier.0 classifier.3 classifier.6",
    "preact_resnet18": "conv1 layer1.0.pre_bn layer2.0.downsample.0 layer4.1.conv2 final_bn fc",
    "preact_resnet50": "conv1 layer1.0.pre_bn layer1.0.conv3 layer1.0.downsample.0 layer4.2.bn3 final_bn fc",
}


def macs(net: nn.Module, image: Tensor) -> int:
    """Convolution: volume(output) * C_in/groups * kh * kw; linear: in * out; for one image."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kh, kw = module.kernel_size
            total += output[0].numel() * (module.in_channels // module.groups) * kh * kw
        elif isinstance(module, nn.Linear):
            total += module.in_features * module.out_features

    hooks = [m.register_forward_hook(count) for m in net.modules()]
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    return total


def test_every_own_model_is_expected() -> None:
    assert {name for name, what in catalogue().items() if what != "torchvision"} == EXPECTED.keys() | LARGE.keys()


@pytest.mark.parametrize("name", LARGE)
def test_sizes_of_networks_for_imagenet(name: str) -> None:
    expected = LARGE[name]
    channels, side = expected.image
    with torch.device("meta"):
        net = build(name).eval()
        assert macs(net, torch.zeros(1, channels, side, side)) == expected.macs
    assert sum(p.numel() for p in net.parameters() if p.dim() in (2, 4)) == expected.weights
    assert sum(p.numel() for p in net.parameters()) == expected.parameters
    assert set(NAMES.get(name, "").split()) <= {path for path, _ in net.named_modules()}
    relus = [path for path, module in net.named_modules() if isinstance(module, nn.ReLU)]
    calls = [node.target for node in torch.fx.symbolic_trace(net).graph.nodes if node.op == "call_module"]
    assert [calls.count(path) for path in relus] == [1] * len(relus)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_preactivation_resnets_have_the_convolutions_of_torchvision_under_the_same_names(depth: int) -> None:
    def shapes(name: str) -> dict[str, torch.Size]:
        with torch.device("meta"):
            return {key: p.shape for key, p in build(name).named_parameters() if p.dim() > 1}

    assert shapes(f"preact_resnet{depth}") == shapes(f"resnet{depth}")


def test_a_plain_net_without_batch_norms() -> None:
    net = build("plain20_cifar_nobn")
    assert not [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert torch.equal(net.get_submodule("layer1.0.bn1")(torch.ones(1, 16, 2, 2)), torch.ones(1, 16, 2, 2))


def test_a_shortcut_of_a_preactivation_block_for_imagenet() -> None:
    net = build("preact_resnet18", num_classes=10)
    x = torch.randn(1, 64, 4, 4)
    assert torch.equal(silent(net, "layer1.0")(x), x)  # the input itself
    convolution = net.get_submodule("layer2.0.downsample.0")
    assert torch.equal(silent(net, "layer2.0")(x), convolution(x.clamp(min=0)))  # the pre-activation


@pytest.mark.parametrize("name", ["resnet20_cifar_earlyexit", "resnet50_earlyexit"])
def test_a_network_with_early_exits_is_known_and_refused(name: str) -> None:
    body = name.removesuffix("_earlyexit")
    with pytest.raises(UserError, match=f"known from Distiller, and not built yet: it has early exits.*'{body}'"):
        build(name)
    with pytest.raises(UserError, match="there is no model 'resnet21_cifar_earlyexit'"):
        build("resnet21_cifar_earlyexit")


@pytest.mark.parametrize("name", EXPECTED)
def test_sizes(name: str) -> None:
    expected = EXPECTED[name]
    net = build(name).eval()
    channels, side = expected.image
    assert sum(p.numel() for p in net.parameters()) == expected.parameters
    assert sum(p.numel() for p in net.parameters() if p.dim() in (2, 4)) == expected.weights
    assert macs(net, torch.zeros(1, channels, side, side)) == expected.macs
    assert set(NAMES.get(name, "").split()) <= {path for path, _ in net.named_modules()}


@pytest.mark.parametrize("name", RECORDS)
def test_the_models_that_carry_distiller_s_names_have_its_counts(name: str) -> None:
    weights, work, side, _ = RECORDS[name]
    with torch.device("meta"):
        net = build(name).eval()
        image = torch.zeros(1, 1 if name == "simplenet_mnist" else 3, side, side)
    assert sum(p.numel() for p in net.parameters() if p.dim() in (2, 4)) == weights
    assert work is None or macs(net, image) == work


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "wrn_28_10_cifar"])
def test_trains_and_traces(name: str) -> None:
    net = build(name, num_classes=7)
    channels, side = EXPECTED[name].image
    logits = net(torch.randn(2, channels, side, side))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    torch.fx.symbolic_trace(net)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "wrn_28_10_cifar"])
def test_each_relu_is_used_once(name: str) -> None:
    # Activation statistics hook a ReLU by its name: one that stood in two places would mix them up.
    net = build(name)
    calls = [node.target for node in torch.fx.symbolic_trace(net).graph.nodes if node.op == "call_module"]
    relus = [path for path, module in net.named_modules() if isinstance(module, nn.ReLU)]
    assert [calls.count(path) for path in relus] == [1] * len(relus)


def test_caffes_lenet_has_one_relu() -> None:
    def relus(net: nn.Module) -> int:
        return sum(isinstance(m, nn.ReLU) for m in net.modules())

    assert relus(build("lenet_5")) == 1
    assert relus(build("lenet_5", conv_relu=True)) == 3


def test_lenet_takes_colour() -> None:
    assert build("lenet_5", in_channels=3)(torch.zeros(1, 3, 28, 28)).shape == (1, 10)


def test_mlp_by_its_arguments() -> None:
    net = build("mlp", hidden=[500, 300], dropout=[0.5, 0.25], inputs=64, num_classes=3)
    assert [name for name, _ in net.named_children()] == "flatten fc1 relu1 drop1 fc2 relu2 drop2 fc3".split()
    assert [net.get_submodule(f"drop{i}").p for i in (1, 2)] == [0.5, 0.25]
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_wide_resnets_dropout() -> None:
    net = build("wrn_28_10_cifar", dropout=0.3)
    drops = {path: m.p for path, m in net.named_modules() if isinstance(m, nn.Dropout)}
    assert len(drops) == 12
    assert set(drops.values()) == {0.3}


def test_bn_cnn_on_colour() -> None:
    net = build("bn_cnn", in_channels=3, width=8, num_classes=5)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert net.get_submodule("conv4").weight.shape == (16, 16, 3, 3)


def test_residual_block_by_hand() -> None:
    # conv2's kernel is zero, so the block is ReLU(x + 0): the identity on what is positive.
    net = build("resnet20_cifar").eval()
    block = net.get_submodule("layer1.0")
    nn.init.zeros_(block.get_submodule("conv2").weight)
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(block(x), x.clamp(min=0))


def silent(net: nn.Module, path: str) -> nn.Module:
    """A pre-activation block that gives what its shortcut gives."""
    block = net.get_submodule(path)
    nn.init.zeros_(block.get_submodule("conv2").weight)
    block.get_submodule("pre_bn").eps = 0.0
    return block.eval()


def test_preactivation_is_shared_by_a_stages_first_block_only_where_shortcuts_are_convolutions() -> None:
    net = PreactResNetCifar(2, 10, convolves=True)
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(silent(net, "layer1.0")(x), x.clamp(min=0))
    assert torch.equal(silent(net, "layer1.1")(x), x)
    convolution = net.get_submodule("layer2.0.downsample.0")
    assert torch.equal(silent(net, "layer2.0")(x), convolution(x.clamp(min=0)))


def test_parameter_free_shortcuts_read_the_raw_input_by_average_pooling_and_padding() -> None:
    # Distiller's: means of 2 x 2 pixels, and 8 channels of zeros before and behind the 16.
    net = build("preact_resnet20_cifar")
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(silent(net, "layer1.0")(x), x)
    assert torch.equal(silent(net, "layer1.1")(x), x)
    expected = torch.zeros(2, 32, 2, 2)
    for row in range(2):
        for column in range(2):
            corner = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected[:, 8:24, row, column] = corner.sum((2, 3)) / 4
    assert torch.allclose(silent(net, "layer2.0")(x), expected, atol=1e-6)
    assert net.eval()(torch.randn(1, 3, 27, 27)).shape == (1, 10)  # sides need not be even


@pytest.mark.parametrize("name", ["resnet20_cifar", "vgg11_cifar", "bn_cnn"])
def test_he_initialization(name: str) -> None:
    for module in build(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_same_seed_same_weights() -> None:
    def weights() -> Tensor:
        torch.manual_seed(3)
        return torch.cat([p.detach().flatten() for p in build("bn_cnn").parameters()])

    assert torch.equal(weights(), weights())


def test_arguments_are_the_builders() -> None:
    found = arguments("mlp")
    assert list(found) == ["num_classes", "hidden", "dropout", "inputs"]
    assert found["hidden"].default == (300, 100)
