"""A file with fewer channels than the network: it gets the file's widths where a forward pass works with them."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import UserError
from compressor.thinning import describe
from compressor.training import fit

IMAGE = (2, 4, 4)


class Chain(nn.Module):
    """Convolutions of each kind, one after the other, with a residual sum around the third one."""

    def __init__(self, a: int, b: int, c: int, groups: int = 2, classes: int = 3) -> None:
        """`a`: in front of the depthwise convolution and behind it; `b`: into the grouped one; `c`: out of it."""
        super().__init__()
        self.conv = nn.Conv2d(2, a, 3, padding=1)
        self.bn = nn.BatchNorm2d(a)
        self.depthwise = nn.Conv2d(a, a, 3, padding=1, groups=a)
        self.residual = nn.Conv2d(a, a, 1)
        self.point = nn.Conv2d(a, b, 1)
        self.grouped = nn.Conv2d(b, c, 1, groups=groups)
        self.up = nn.ConvTranspose2d(c, a, 2, stride=2)
        self.act = nn.PReLU(a)
        self.fc1 = nn.Linear(a * 64, 5)
        self.fc2 = nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(torch.relu(self.bn(self.conv(x))))
        x = self.act(self.up(self.grouped(self.point(x + self.residual(x)))))
        logits: Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return logits


DENSE = (8, 8, 8)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("thin", "said"),
    [
        ((8, 6, 8), "1 layer is narrower than the model's: point 8 -> 6"),
        ((8, 8, 4), "1 layer is narrower than the model's: grouped 8 -> 4"),
        ((5, 8, 8), "4 layers are narrower than the model's: conv 8 -> 5, depthwise 8 -> 5, residual 8 -> 5,"
         " up 8 -> 5"),
        ((3, 4, 2), "6 layers are narrower than the model's: conv 8 -> 3, depthwise 8 -> 3, residual 8 -> 3,"
         " point 8 -> 4, grouped 8 -> 2, up 8 -> 3"),
        ((8, 4, 4, 1), "2 layers are narrower than the model's: point 8 -> 4, grouped 8 -> 4"),
    ],
)  # fmt: skip
def test_the_network_gets_the_widths_of_the_file(thin: tuple[int, ...], said: str) -> None:
    """The last one lost one of the two groups: its weight has the shape of two groups with half of the outputs each."""
    torch.manual_seed(0)
    saved, network = Chain(*thin).eval(), Chain(*DENSE).eval()
    assert fit(network, state(saved), "f.pt", image=IMAGE) == [f"f.pt: {said}"]
    assert describe(network) == describe(saved)
    images = torch.randn(2, *IMAGE)
    assert torch.equal(network(images), saved(images))


@pytest.mark.parametrize(
    ("thin", "why"),
    [
        ((9, 8, 8), r"conv\.weight is \(9, 2, 3, 3\) there, \(8, 2, 3, 3\) here"),
        ((4, 12, 8), r"conv\.weight is \(4, 2, 3, 3\) there, \(8, 2, 3, 3\) here"),
    ],
)
def test_a_file_that_is_wider_anywhere_is_refused_whole(thin: tuple[int, ...], why: str) -> None:
    network = Chain(*DENSE)
    before = describe(network)
    with pytest.raises(UserError, match=why):
        fit(network, state(Chain(*thin)), "f.pt", image=IMAGE)
    assert describe(network) == before


def test_widths_with_which_no_forward_pass_works_are_refused_and_left_out_without_strict() -> None:
    """The residual sum needs equal widths on both sides."""
    network, saved = Chain(*DENSE), Chain(*DENSE)
    saved.residual = nn.Conv2d(8, 6, 1)
    before = copy.deepcopy(network)
    with pytest.raises(UserError, match=r"residual\.weight is \(6.*does not work with the widths of this file: .*size"):
        fit(network, state(saved), "f.pt", image=IMAGE)
    assert describe(network) == describe(before)
    said = fit(network, state(saved), "f.pt", image=IMAGE, strict=False)
    assert len(said) == 1
    assert "residual.weight is (6, 8, 1, 1) there" in said[0]
    assert torch.equal(network.residual.weight, before.residual.weight)
    assert torch.equal(network.conv.weight, saved.conv.weight)


def test_the_number_of_classes_is_no_width() -> None:
    saved = state(Chain(8, 6, 8, classes=2))
    with pytest.raises(
        UserError, match=r"2 tensors do not fit: fc2\.weight is \(2, 5\) there, \(3, 5\) here.*head: reset"
    ):
        fit(Chain(*DENSE), saved, "f.pt", image=IMAGE)
    network = Chain(*DENSE)
    drawn = network.fc2.weight.detach().clone()
    said = fit(network, saved, "f.pt", image=IMAGE, head="reset")
    assert "narrower than the model's: point 8 -> 6" in said[1]
    assert torch.equal(network.fc2.weight, drawn)
    assert network(torch.zeros(2, *IMAGE)).shape == (2, 3)


def test_the_number_of_classes_is_no_width_where_the_head_is_not_known_either() -> None:
    """A forward pass that reads values cannot be traced without storage; then the last layer is taken for the head."""

    class Untraced(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(4, classes), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.body(x.flatten(1))) * (1 + x.sum().item())
            return logits

    with pytest.raises(UserError, match=r"head\.weight is \(2, 4\) there.*it would have 2 outputs, not 3"):
        fit(Untraced(3), state(Untraced(2)), "f.pt", image=IMAGE)


def test_without_an_image_no_width_is_changed() -> None:
    with pytest.raises(UserError, match=r"point\.weight is \(6"):
        fit(Chain(*DENSE), state(Chain(8, 6, 8)), "f.pt")


def test_what_has_channels_beside_convolutions_linear_layers_and_batch_norms_is_not_narrowed() -> None:
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, width, 3), nn.GroupNorm(1, width), nn.Flatten(), nn.Linear(4 * width, 3))

    with pytest.raises(UserError, match=r"0\.weight is \(4, 2, 3, 3\) there, \(8, 2, 3, 3\) here"):
        fit(net(8), state(net(4)), "f.pt", image=IMAGE)


def test_a_network_that_cannot_be_copied_gets_the_widths_too() -> None:
    class Uncopied(Chain):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise RuntimeError("not copied")

    network = Uncopied(*DENSE)
    fit(network, state(Chain(8, 6, 8)), "f.pt", image=IMAGE)
    assert network.point.out_channels == 6
    bad = Chain(*DENSE)
    bad.residual = nn.Conv2d(8, 6, 1)
    with pytest.raises(UserError, match="does not work with the widths of this file"):
        fit(Uncopied(*DENSE), state(bad), "f.pt", image=IMAGE)


def test_the_widths_of_a_checkpoint_with_other_classes_are_kept_but_for_the_head() -> None:
    saved, network = Chain(8, 6, 8, classes=7), Chain(*DENSE)
    fit(network, state(saved), "f.pt", image=IMAGE, head="reset", architecture=describe(saved))
    assert network.point.out_channels == 6
    assert network.fc2.out_features == 3
    with pytest.raises(UserError, match=r"fc2\.weight is \(7, 5\) there, \(3, 5\) here.*head: reset"):
        fit(Chain(*DENSE), state(saved), "f.pt", image=IMAGE, architecture=describe(saved))
