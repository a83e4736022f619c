"""What depends on the image, against brute force: change the image and see whether anything changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import Conv2d, Linear

from compressor.tracing.image_dependence import LayerInputs, inputs_of


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def brute(net: nn.Module, shape: tuple[int, ...], images: int = 400) -> dict[str, LayerInputs]:
    """What each layer is given on random images: the constants that it always is, by channel."""
    given_: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(lambda m, a, path=path: given_.setdefault(path, []).append(a[0]))
        for path, module in net.named_modules()
        if isinstance(module, (Conv2d, nn.ConvTranspose2d, Linear))
    ]
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        net.eval()(3 * torch.randn(images, *shape, generator=draws, dtype=next(net.parameters()).dtype))
    for handle in handles:
        handle.remove()
    found = {}
    for path, every in given_.items():
        dim = every[0].dim() - 1 if isinstance(net.get_submodule(path), Linear) else 1
        flat = torch.cat([values.movedim(dim, 0).flatten(1) for values in every], 1)
        # The same but for rounding, which may differ from place to place in a tensor.
        same = flat.isclose(flat[:, :1], rtol=4 * torch.finfo(flat.dtype).eps, atol=0).all(1)
        found[path] = LayerInputs((flat == 0).all(1), torch.where(same, flat[:, 0], torch.nan).double())
    return found


def agree(ours: dict[str, LayerInputs], theirs: dict[str, LayerInputs]) -> None:
    assert ours.keys() == theirs.keys()
    for path, seen in ours.items():
        assert seen.zero.tolist() == theirs[path].zero.tolist(), path
        assert torch.allclose(seen.constant, theirs[path].constant, rtol=1e-6, atol=1e-7, equal_nan=True), path


def put(x: Tensor, where: Tensor, value: float | Tensor) -> Tensor:
    x[where] = value
    return x


ACTIVATIONS = (
    "ELU Hardshrink Hardsigmoid Hardtanh Hardswish LeakyReLU LogSigmoid ReLU ReLU6 SELU CELU GELU Sigmoid SiLU"
)
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "threshold": nn.Threshold(0.1, 0.3),
    "1 - x": lambda x: 1 - x,
    "a branch": lambda x: torch.where(x > 0, x, 0.1 * x),
    "in place": lambda x: x.mul_(torch.sigmoid(x)),
    "dropout": nn.Dropout(0.5),
    "max": lambda x: torch.maximum(x, 0.1 * x),
    "a quotient": lambda x: x / (1 + x.abs()),
    "square": lambda x: x**2,
    "max pooling": nn.MaxPool2d(2, padding=1),
    "mean": nn.AdaptiveAvgPool2d(1),
    "a filled mask": lambda x: x.masked_fill(x < 0, 0.1),
    "a mask in place": lambda x: put(x, x < 0, 0.1),
    "two comparisons": lambda x: torch.where((x > 0) & ~(x > 1), x, 0.5),
    "a comparison as a number": lambda x: x * (x > 0).to(x.dtype) + (x < 0).float(),
    "equal alternatives": lambda x: torch.where(x > 0.1, 0.7, 0.7) + x,
    "steps": lambda x: (x > 0).int() + (x > 1).long() + 0.5,
    "sort": lambda x: x.sort(-1).values,
    "largest": lambda x: x.topk(2, -1).values,
    "swapped by its maximum": lambda x: x + x.argmax(-1, keepdim=True),
    "in place, clamped": lambda x: x.clamp_(-0.5, 0.5).sign_(),
    # These say nothing else than whether x > 0: NaN looks like a number behind them.
    "a gate of comparisons": lambda x: x * (x > 0),
    "sign": torch.sign,
    "heaviside": lambda x: torch.heaviside(x, torch.zeros(())),
    "nan_to_num": lambda x: x.nan_to_num(),
    "quantize": lambda x: torch.fake_quantize_per_tensor_affine(x, 1 / 64, 0, -1024, 1023),
    **{name: getattr(nn, name)() for name in (ACTIVATIONS + " Softplus Softshrink Softsign Tanh Mish").split()},
}


@pytest.mark.parametrize("name", OTHERS)
def test_behind_an_activation_silent_filters_are_constants_and_others_are_not(name: str) -> None:
    torch.manual_seed(0)
    net = Net(lambda s, x: s.b(OTHERS[name](s.a(x))), a=Conv2d(1, 5, 3), b=Conv2d(5, 2, 1))
    with torch.no_grad():
        net.a.weight[1:4] = 0
        net.a.bias[1:4] = torch.tensor([0.7, 0.0, -0.7])
    agree(inputs_of(net.eval(), (1, 5, 5)), brute(net, (1, 5, 5)))


class Random(nn.Module):
    """A little of everything; zeros where a seed put them."""

    def __init__(self, seed: int, zeros: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b, self.c = Conv2d(2, 6, 3, padding=1), Conv2d(6, 6, 3, padding=1), Conv2d(2, 6, 1)
        self.bn, self.d, self.g = nn.BatchNorm2d(6), Conv2d(6, 6, 3, groups=6), Conv2d(12, 8, 1, groups=2)
        self.t = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2, bias=False)
        self.down, self.up, self.fc = Linear(4, 4), Linear(4, 4), Linear(4, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter)
            gone = torch.rand(parameter.shape[:1]) < zeros
            parameter.data[gone] = 0
            parameter.data[torch.rand(parameter.shape) < zeros / 2] = 0
        nn.init.uniform_(self.bn.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.bn(self.b(F.leaky_relu(self.a(x)))) + self.c(x))
        y = torch.cat([self.d(y), y[:, :, 1:-1, 1:-1]], 1)
        y = F.avg_pool2d(self.t(torch.tanh(self.g(y))), 2)
        z = y.mean((2, 3))
        gate = torch.sigmoid(self.up(torch.tanh(self.down(z))))
        out: Tensor = self.fc((y * gate[:, :, None, None]).amax((2, 3)))
        return out


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10_000), zeros=st.sampled_from([0.2, 0.4, 0.6, 0.8]))
def test_what_a_random_network_says_of_the_image(seed: int, zeros: float) -> None:
    net = Random(seed, zeros).double()
    ours, theirs = inputs_of(net.eval(), (2, 6, 6)), brute(net, (2, 6, 6), images=100)
    for path, seen in ours.items():
        # What is said to be constant is; what is constant is found, unless arithmetic made it so (max of constants).
        said = torch.isfinite(seen.constant)
        assert torch.allclose(seen.constant[said], theirs[path].constant[said]), path
        assert (seen.zero <= theirs[path].zero).all(), path
        assert torch.equal(said, torch.isfinite(theirs[path].constant)), path


def behind_a_norm(gamma: float, beta: float) -> Net:
    net = Net(lambda s, x: s.b(s.bn(s.a(x))), a=Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2), b=Conv2d(2, 2, 1))
    nn.init.constant_(net.bn.weight, gamma)
    nn.init.constant_(net.bn.bias, beta)
    nn.init.zeros_(net.a.weight[0])
    nn.init.zeros_(net.a.bias)
    return net


def test_a_batch_norm_of_gamma_0_says_its_beta_also_in_training() -> None:
    for training in (False, True):
        seen = inputs_of(behind_a_norm(0.0, 0.5), (1, 5, 5), training=training)["b"]
        assert seen.constant.tolist() == [0.5, 0.5]
        assert inputs_of(behind_a_norm(0.0, 0.0), (1, 5, 5), training=training)["b"].zero.all()


def test_in_training_a_batch_norm_normalizes_by_the_batch() -> None:
    assert inputs_of(behind_a_norm(2.0, 0.5), (1, 5, 5))["b"].constant[0] == 0.5
    assert inputs_of(behind_a_norm(2.0, 0.5), (1, 5, 5), training=True)["b"].constant.isnan().all()


def test_the_border_of_a_padded_convolution_is_not_what_its_middle_is() -> None:
    net = Net(lambda s, x: s.c(s.b(s.a(x))), a=Conv2d(1, 1, 3), b=Conv2d(1, 1, 3, padding=1), c=Conv2d(1, 1, 1))
    nn.init.zeros_(net.a.weight)
    nn.init.ones_(net.a.bias)
    seen = inputs_of(net, (1, 6, 6))
    assert seen["b"].constant.tolist() == [1.0]
    assert seen["c"].constant.isnan().all()


def test_a_layer_that_is_called_twice_is_given_what_both_calls_give_it() -> None:
    net = Net(lambda s, x: s.b(s.b(s.a(x))), a=Conv2d(1, 3, 3), b=Conv2d(3, 3, 1))
    nn.init.zeros_(net.a.weight)
    net.a.bias.data = torch.tensor([0.0, 1.0, 2.0])
    net.b.weight.data = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])[:, :, None, None]
    nn.init.zeros_(net.b.bias)
    seen = inputs_of(net, (1, 5, 5))["b"]  # (0, 1, 2), then (0, 1, 3)
    assert seen.zero.tolist() == [True, False, False]
    assert seen.constant[:2].tolist() == [0.0, 1.0]
    assert seen.constant[2].isnan()


def test_attention_without_values_is_silent() -> None:
    net = Net(
        lambda s, x: s.o((s.q(x) @ s.k(x).transpose(1, 2)).softmax(-1) @ s.v(x)),
        q=Linear(4, 4), k=Linear(4, 4), v=Linear(4, 4), o=Linear(4, 2),
    )  # fmt: skip
    nn.init.zeros_(net.v.weight[1])
    nn.init.zeros_(net.v.bias)
    assert inputs_of(net, (5, 4))["o"].zero.tolist() == [False, True, False, False]


def test_nothing_is_left_behind_in_the_network() -> None:
    net = behind_a_norm(1.0, 0.5).train()
    net.bn.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    inputs_of(net, (1, 5, 5), training=True)
    assert (net.training, net.a.training, net.bn.training) == (True, True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_layer_may_be_called_by_keyword() -> None:
    net = Net(lambda s, x: s.b(input=s.a(x)), a=Conv2d(1, 2, 3), b=Conv2d(2, 2, 1))
    nn.init.zeros_(net.a.weight[0])
    nn.init.zeros_(net.a.bias)
    assert inputs_of(net, (1, 5, 5))["b"].zero.tolist() == [True, False]
