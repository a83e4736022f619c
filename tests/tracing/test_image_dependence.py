"""What depends on the image, against brute force: change the image and see whether anything changes."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import Conv2d, Linear

from compressor.tracing import CannotProbe, LayerInputs
from compressor.tracing.image_dependence import inputs_of


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


@settings(max_examples=25, derandomize=True, database=None)
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


MORE: dict[str, Callable[[Tensor], Tensor]] = {
    "ranks": lambda x: x.argsort(1).to(x.dtype),
    "sorted by channel": lambda x: x.gather(1, x.argsort(1)),
    "the largest stay": lambda x: torch.where(x >= x.topk(2, 1).values[:, -1:], x, 0),
    "one of the channels": lambda x: x * torch.zeros_like(x).scatter_(1, x.argmax(1, keepdim=True), 1),
    "any": lambda x: x * (x > 0).any(1, keepdim=True),
    "a count": lambda x: x * (x > 0).sum((2, 3), keepdim=True),
    "a mask of values": lambda x: put(x, x < 0.2, 0.1 * x[x < 0.2]),
    "moved masks": lambda x: x * torch.cat([x[:, 2:] > 0, (x[:, :2] < 0).flip(1)], 1),
    "written masks": lambda x: x * put(put(x > 0, (slice(None), 0), 1), (slice(None), 1), 0),
    "exclusive": lambda x: x * ((x > 0) ^ (x > 1)),
    "remainder": lambda x: (3 * x).long().remainder(2).to(x.dtype) - x,
    "not": lambda x: torch.logical_not(x).to(x.dtype),
    "order 0": lambda x: x + torch.linalg.vector_norm(x, 0, 1, keepdim=True),
    "sampled": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, 1, return_indices=True), 2, 1, output_size=x.shape[2:]),
    "a looked-up table": lambda x: x + F.embedding((x > 0).long(), torch.full((2, 1), 0.5, dtype=x.dtype))[..., 0],
    "normalized": lambda x: F.normalize(F.layer_norm(x, x.shape[1:]), dim=1),
    "gated in place": lambda x: x.clone().mul_(x.mean((2, 3), keepdim=True).sigmoid()),
    "halves": lambda x: F.glu(torch.cat([x, x.flip(1)], 1), 1),
}
EVERY = OTHERS | MORE


@settings(max_examples=60, derandomize=True, database=None)
@given(
    first=st.sampled_from(sorted(EVERY)),
    second=st.sampled_from(sorted(EVERY)),
    seed=st.integers(0, 10_000),
    values=st.lists(st.sampled_from([0.0, 0.0, 0.7, -0.7, None]), min_size=4, max_size=4),
)
def test_never_more_is_said_than_random_images_show(
    first: str, second: str, seed: int, values: list[float | None]
) -> None:
    torch.manual_seed(seed)
    net = Net(
        lambda s, x: s.c(EVERY[second](s.b(EVERY[first](s.a(x))))),
        a=Conv2d(2, 4, 3), b=Conv2d(4, 4, 1, groups=2), c=Conv2d(4, 1, 1),
    ).double()  # fmt: skip
    with torch.no_grad():
        for at, value in enumerate(values):
            for layer in (net.a, net.b) if value is not None else ():
                layer.weight[at], layer.bias[at] = 0, value
    given_: dict[str, list[Tensor]] = {"b": [], "c": []}
    for name, every in given_.items():
        net.get_submodule(name).register_forward_pre_hook(lambda _, args, every=every: every.append(args[0].clone()))
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for image in 3 * torch.randn(64, 1, 2, 5, 5, generator=draws, dtype=torch.float64):
            net.eval()(image)
    shown = {name: torch.cat(every).movedim(1, 0).flatten(1) for name, every in given_.items()}
    for path, flat in shown.items():
        seen = inputs_of(net, (2, 5, 5))[path]
        said = seen.constant.isfinite()
        assert (seen.zero <= (flat == 0).all(1)).all(), (path, first, second)
        assert torch.allclose(seen.constant[said, None].expand_as(flat[said]), flat[said], rtol=1e-12), (first, second)


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


def with_branch(forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> Net:
    """A layer of which channel 1 is 0, and what is done with it."""
    net = Net(forward, a=Conv2d(1, 3, 1, bias=False), **layers)
    nn.init.zeros_(net.a.weight[1])
    return net


def test_a_branch_that_runs_in_training_alone_is_seen_with_training() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.a(x)
        if not net.training:
            return net.b(x)
        return net.b(x + 1) + net.aux(x)

    net = with_branch(forward, b=Conv2d(3, 2, 1), aux=Conv2d(3, 2, 1))
    assert inputs_of(net, (1, 4, 4)).keys() == {"a", "b"}
    assert inputs_of(net, (1, 4, 4))["b"].zero.tolist() == [False, True, False]
    seen = inputs_of(net, (1, 4, 4), training=True)
    assert seen["aux"].zero.tolist() == [False, True, False]
    # 0 in one mode and 1 in the other is neither.
    assert seen["b"].zero.tolist() == [False, False, False]
    assert seen["b"].constant.isnan().all()


class Halved(nn.BatchNorm2d):
    """A batch norm that keeps count and draws in training."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * torch.rand(())


class DropPath(nn.Module):
    """Stochastic depth that looks in Python whether it draws."""

    def forward(self, x: Tensor) -> Tensor:
        return x if not self.training or torch.rand(1).item() < 0.5 else 0 * x


def test_the_training_form_runs_on_a_copy() -> None:
    net = with_branch(
        lambda s, x: s.b(s.path(s.drop(F.dropout(s.bn(s.a(x)), 0.5, s.training)).mean((2, 3), keepdim=True))),
        bn=Halved(3), drop=nn.Dropout(0.5), path=DropPath(), b=nn.Sequential(Conv2d(3, 2, 1), nn.BatchNorm2d(2)),
    )  # fmt: skip
    nn.init.zeros_(net.bn.weight[1])
    net.train()
    net.bn.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    assert inputs_of(net, (1, 4, 4), training=True)["b.0"].zero.tolist() == [False, True, False]
    assert torch.equal(state, torch.get_rng_state())
    assert (net.training, net.a.training, net.bn.training) == (True, True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_training_form_that_does_not_run_is_named() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        if net.training:
            raise TypeError("targets should not be None")
        return net.b(net.a(x))

    net = with_branch(forward, b=Conv2d(3, 2, 1))
    assert inputs_of(net, (1, 4, 4))["b"].zero.tolist() == [False, True, False]
    with pytest.raises(CannotProbe, match=r"in training mode .* TypeError: targets should not be None") as caught:
        inputs_of(net, (1, 4, 4), training=True)
    assert caught.value.training
    with pytest.raises(CannotProbe, match="does not run on") as caught:
        inputs_of(net, (2, 4, 4))
    assert not caught.value.training


def test_two_images_are_enough_for_a_norm_over_the_batch() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.a(x)
        return net.b(F.batch_norm(x, None, None, training=True) if net.training else x)

    net = with_branch(forward, b=Conv2d(3, 2, 1))
    # Over a batch of one value (0 - 0) / sqrt(0 + eps) is 0.
    assert inputs_of(net, (1, 1, 1), training=True)["b"].zero.tolist() == [False, True, False]


@pytest.mark.parametrize("draw", [lambda: torch.rand(1).item(), random.random])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_layer_that_training_leaves_out_now_and_then_is_seen_with_and_without(
    draw: Callable[[], float], seed: int
) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    # Channel 1 is 0 with and without c; channel 0 of b's input is 0 where c runs, else it is what a gives.
    net = with_branch(
        lambda s, x: (lambda y: s.b(s.c(y) if s.training and draw() < 0.5 else y))(s.a(x)),
        c=Conv2d(3, 3, 1, bias=False), b=Conv2d(3, 2, 1),
    )  # fmt: skip
    nn.init.zeros_(net.c.weight[:2])
    seen = inputs_of(net, (1, 4, 4), training=True)
    assert seen["b"].zero.tolist() == [False, True, False]
    assert seen["c"].zero.tolist() == [False, True, False]


def test_what_is_drawn_is_no_constant() -> None:
    net = with_branch(lambda s, x: s.b(s.a(x) * (1 + torch.rand(3, 1, 1)) + torch.rand(())), b=Conv2d(3, 2, 1))
    seen = inputs_of(net, (1, 1, 1))["b"]
    assert not seen.zero.any()
    assert seen.constant.isnan().all()
    net = with_branch(lambda s, x: s.b(s.a(x) * torch.rand(3, 1, 1)), b=Conv2d(3, 2, 1))
    assert inputs_of(net, (1, 1, 1))["b"].zero.tolist() == [False, True, False]
