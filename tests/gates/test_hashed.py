"""HashedNets: the hashes, and what they make of a layer, against loops, autograd and the formulas of the papers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, metrics, saved, succeed, work  # noqa: F401
from torch import Tensor, nn
from torch.func import functional_call

from compressor.gates import hashed
from compressor.gates.gate import Site
from compressor.gates.hashed import Hashed, HashedWeights, buckets, expand, pull_back


class Hashing:
    """A model with hashed layers and their optimizer, without a policy: `step` is what the loop does."""

    def __init__(
        self,
        model: nn.Module,
        weights: list[str],
        masks: Mapping[str, Tensor] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
        **of: Any,
    ) -> None:
        self.model, self.masks = model, dict(masks or {})
        arguments = {key: of.pop(key) for key in ("compression", "seed") if key in of}
        self.optimizer = optimizer(model.parameters(), **{"lr": 0.1, **of})
        site = Site(
            owner="gate.hashed",
            model=model,
            parameters=dict(model.named_parameters()),
            targets={"weights": weights},
            images=1,
            sample=lambda: torch.empty(0),
            behind=lambda name: [],
            regroup=self._regroup,
            average=lambda name, tensor: None,
            clock=lambda: 0,
            keep=lambda name: self.masks.get(name),
            forget=self._forget,
        )
        self.gate: Hashed = HashedWeights(weights=weights, **{"compression": 0.25, **arguments}).install(site)

    def _regroup(self, parameters: Sequence[nn.Parameter], **changed: Any) -> None:
        self.optimizer.add_param_group({"params": list(parameters), **changed})

    def _forget(self, parameters: Sequence[nn.Parameter]) -> None:
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)

    @property
    def numbers(self) -> dict[str, Tensor]:
        """The stored numbers, by the weight."""
        found: dict[str, Tensor] = self.gate.state()["hashed"]
        return found

    def gradients(self) -> list[Tensor]:
        """Those of the stored numbers."""
        return [p.grad for p in self.optimizer.param_groups[-1]["params"] if p.grad is not None]

    def backward(self, images: Tensor) -> None:
        """The two passes."""
        self.gate.before_forward()
        self.optimizer.zero_grad(set_to_none=True)
        loss(self.model(images)).backward()
        self.gate.after_backward()

    def step(self, images: Tensor) -> None:
        """One mini-batch."""
        self.backward(images)
        self.gate.collect_gradients()
        self.optimizer.step()
        for name, keep in self.masks.items():
            self.model.get_parameter(name).detach().masked_fill_(~keep, 0)
        self.gate.after_step()


def loss(logits: Tensor) -> Tensor:
    """Something with curvature."""
    return logits.square().mean() + logits[:, 0].mean()


def network() -> nn.Sequential:
    """6-5-3: 35 and 18 weights with biases."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


IMAGES = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))

BOTH = ["0.weight", "2.weight"]


# The hashes.


def test_buckets_and_signs_are_those_of_integers_without_bounds() -> None:
    key = int.from_bytes(hashlib.sha256(b"3 fc1.weight").digest()[:8], "little")
    found = buckets(3, "fc1.weight", 4, 7, 9)
    assert found.shape == (4, 7)
    for row in range(4):
        for column in range(7):
            z = (key + (row * 7 + column + 1) * 0x9E3779B97F4A7C15) % 2**64
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
            z ^= z >> 31
            assert found[row, column] == z % 2**63 % 9 + (9 if z >= 2**63 else 0)


def test_another_seed_and_another_layer_have_other_hashes() -> None:
    first = buckets(0, "a.weight", 20, 30, 75)
    for other in (buckets(1, "a.weight", 20, 30, 75), buckets(0, "b.weight", 20, 30, 75)):
        # Two hashes agree by chance at one place of 150: at 4 of 600, with a deviation of 2.
        assert int((first == other).sum()) < 4 + 4 * 2


def test_all_signed_buckets_are_equally_likely() -> None:
    # Chi square of 2,000 cells of 50: 1,999 with a deviation of sqrt(2 * 1,999).
    counts = torch.bincount(buckets(0, "fc", 100, 1000, 1000).flatten(), minlength=2000).double()
    assert abs(float(((counts - 50) ** 2 / 50).sum()) - 1999) < 4 * (2 * 1999) ** 0.5


def products(x: Tensor, y: Tensor, size: int, *, signed: bool, seeds: int = 8000) -> Tensor:
    """The inner product of two vectors' hashed images, for many hashes."""
    found = []
    for seed in range(seeds):
        index = buckets(seed, "", 1, len(x), size).flatten()
        if not signed:
            index = index % size
        found.append(pull_back(x, index, size) @ pull_back(y, index, size))
    return torch.stack(found)


def test_inner_products_are_unbiased_with_the_variance_of_the_paper() -> None:
    # Weinberger et al., ICML 2009, lemma 2: the variance is sum over i != j of x_i^2 y_j^2 + x_i y_i x_j y_j, over K.
    x, y = torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0, 1.5]), torch.tensor([2.0, 1.0, 1.0, 4.0, 1.0, -2.0])
    found = products(x, y, 4, signed=True)
    apart = 1 - torch.eye(6)
    variance = float(((torch.outer(x**2, y**2) + torch.outer(x * y, x * y)) * apart).sum()) / 4
    assert abs(float(found.mean()) - float(x @ y)) < 4 * (variance / len(found)) ** 0.5
    assert abs(float(found.var()) / variance - 1) < 0.1


def test_control_without_the_sign_they_are_biased() -> None:
    x, y = torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0, 1.5]), torch.tensor([2.0, 1.0, 1.0, 4.0, 1.0, -2.0])
    collisions = (float(x.sum() * y.sum()) - float(x @ y)) / 4
    found = products(x, y, 4, signed=False)
    assert abs(float(found.mean()) - float(x @ y) - collisions) < 0.1 * collisions


# What they make of a layer.


def test_expansion_and_gradient_by_hand() -> None:
    # K = 2: V = (w1, -w2, w2, -w1, w1); dL/dw = (g1 - g4 + g5, g3 - g2).
    index = torch.tensor([0, 3, 1, 2, 0])
    assert expand(torch.tensor([2.0, -3.0]), index).tolist() == [2.0, 3.0, -3.0, -2.0, 2.0]
    assert pull_back(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]), index, 2).tolist() == [9001.0, 90.0]


def virtual(weight: str, hashing: Hashing) -> tuple[Tensor, Tensor, int]:
    """h and xi of every entry of a layer's virtual matrix, whose last column is the bias; and K."""
    rows, columns = hashing.model.get_parameter(weight).shape
    size = len(hashing.numbers[weight])
    index = buckets(0, weight, rows, columns + 1, size)
    return index % size, torch.where(index < size, 1.0, -1.0), size


def gathered(numbers: Mapping[str, Tensor], hashing: Hashing) -> dict[str, Tensor]:
    """Weights and biases gathered from the numbers, so that autograd follows."""
    found = {}
    for weight, w in numbers.items():
        h, xi, _ = virtual(weight, hashing)
        v = xi * w[h]
        found[weight], found[weight.replace("weight", "bias")] = v[:, :-1], v[:, -1]
    return found


def test_the_gradient_is_autograds_through_a_gather_and_the_papers_sum() -> None:
    run = Hashing(network(), BOTH)
    run.backward(IMAGES)
    by_entry = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
    run.gate.collect_gradients()
    assert all(parameter.grad is None for parameter in run.model.parameters())
    leaves = {name: numbers.clone().requires_grad_() for name, numbers in run.numbers.items()}
    loss(functional_call(run.model, gathered(leaves, run), (IMAGES,))).backward()
    for (name, leaf), gradient in zip(leaves.items(), run.gradients(), strict=True):
        torch.testing.assert_close(gradient, leaf.grad)
        h, xi, size = virtual(name, run)
        delta = torch.cat([by_entry[name], by_entry[name.replace("weight", "bias")][:, None]], dim=1)
        summed = torch.zeros(size).scatter_add_(0, h.flatten(), (xi * delta).flatten())
        torch.testing.assert_close(gradient, summed)
        slow = [0.0] * size
        for i in range(h.shape[0]):
            for j in range(h.shape[1]):
                slow[int(h[i, j])] += float(xi[i, j] * delta[i, j])
        torch.testing.assert_close(gradient, torch.tensor(slow))


def test_the_forward_pass_is_the_same_without_the_matrix() -> None:
    # The paper's second reading: z_i = w . phi_i(a), phi_i(a)_k = sum of xi(i, j) a_j over h(i, j) = k, a_m+1 = 1.
    run = Hashing(network(), ["0.weight"])
    run.step(IMAGES)
    h, xi, size = virtual("0.weight", run)
    a = torch.cat([IMAGES, torch.ones(len(IMAGES), 1)], dim=1)
    z = [
        torch.zeros(len(a), size).index_add_(1, h[unit], xi[unit] * a) @ run.numbers["0.weight"]
        for unit in range(len(h))
    ]
    torch.testing.assert_close(run.model[0](IMAGES), torch.stack(z, dim=1))  # type: ignore[index]


def test_weights_and_biases_are_the_expansion_after_every_step() -> None:
    run = Hashing(network(), BOTH, momentum=0.9, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    for _ in range(4):
        run.step(IMAGES)
        for name, value in gathered(run.numbers, run).items():
            assert torch.equal(run.model.get_parameter(name), value)
    assert all(not torch.equal(before[name], p) for name, p in run.model.named_parameters())
    # K of the first layer: a quarter of 7 * 5 entries.
    entries = torch.cat([run.model.get_parameter(name).flatten() for name in ("0.weight", "0.bias")])
    assert len(entries.abs().unique()) <= 9
    assert run.gate.fold() == {}


def test_nothing_moves_before_the_first_step() -> None:
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    Hashing(model, BOTH)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_with_a_number_for_every_weight_it_is_the_dense_network(
    optimizer: Callable[..., torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bijective(seed: int, name: str, rows: int, columns: int, size: int) -> Tensor:
        assert size == rows * columns
        order = torch.randperm(size, generator=torch.Generator().manual_seed(4))
        return (order + size * (order % 2)).reshape(rows, columns)  # half of them with a minus

    monkeypatch.setattr(hashed, "buckets", bijective)
    more = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    run = Hashing(network(), BOTH, optimizer=optimizer, compression=1.0, weight_decay=0.1, **more)
    dense = network()
    theirs = optimizer(dense.parameters(), lr=0.1, weight_decay=0.1, **more)
    for _ in range(6):
        run.step(IMAGES)
        theirs.zero_grad()
        loss(dense(IMAGES)).backward()
        theirs.step()
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(run.model.get_parameter(name), parameter)


def test_the_layer_keeps_the_variance_that_it_was_initialized_to() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 300))
    nn.init.normal_(model[0].weight, std=0.07)  # type: ignore[arg-type]
    nn.init.zeros_(model[0].bias)  # type: ignore[arg-type]
    run = Hashing(model, ["0.weight"], compression=0.125)
    run.gate.before_forward()
    # 15,038 numbers: a standard deviation is estimated to 1 / sqrt(2 * 15,038) = 0.6 %, the sizes of buckets vary, too.
    assert float(model.get_parameter("0.weight").detach().std()) == pytest.approx(0.07, rel=0.03)
    assert float(model.get_parameter("0.bias").detach().std()) == pytest.approx(0.07, rel=0.2)


def test_a_layer_without_a_bias_has_a_matrix_without_that_column() -> None:
    run = Hashing(nn.Sequential(nn.Linear(8, 5, bias=False)), ["0.weight"], compression=0.25)
    assert len(run.numbers["0.weight"]) == 10
    run.step(torch.randn(4, 8))
    assert len(run.model.get_parameter("0.weight").abs().unique()) <= 10


@pytest.mark.parametrize(("optimizer", "tensors"), [(torch.optim.SGD, 1), (torch.optim.Adam, 2)])
def test_the_optimizer_remembers_the_stored_numbers_alone(
    optimizer: Callable[..., torch.optim.Optimizer], tensors: int
) -> None:
    more = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    model = network()
    run = Hashing(model, BOTH, optimizer=optimizer, **more)
    # Ordinary steps before the window: what the optimizer remembers of them is of other weights.
    loss(model(IMAGES)).backward()
    run.optimizer.step()
    run.step(IMAGES)
    # A quarter of 35 and of 18: round(8.75) and round(4.5), the even one.
    states = [value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    assert sum(value.numel() for value in states if value.dim()) == tensors * (9 + 4)


def test_figures_count_the_stored_numbers_and_bits() -> None:
    run = Hashing(network(), BOTH, compression=0.2)
    # 0.2 * 35 = 7, round(0.2 * 18) = 4; 32 bits each.
    assert run.gate.figures() == {"stored_numbers": 11, "stored_bits": 352, "virtual_weights": 53}


def test_there_is_at_least_one_number() -> None:
    assert len(Hashing(network(), ["2.weight"], compression=0.01).numbers["2.weight"]) == 1


def test_masked_entries_stay_zero_and_say_nothing_to_the_number_they_share() -> None:
    keep = torch.rand(5, 6, generator=torch.Generator().manual_seed(2)) < 0.5
    run = Hashing(network(), ["0.weight"], masks={"0.weight": keep}, weight_decay=0.1)
    weight = run.model.get_parameter("0.weight")
    weight.detach().masked_fill_(~keep, 0)
    for _ in range(3):
        run.step(IMAGES)
        assert not weight[~keep].any()
        assert not torch.signbit(weight[~keep]).any()
        assert weight[keep].all()
    run.backward(IMAGES)
    run.gate.collect_gradients()
    leaf = run.numbers["0.weight"].clone().requires_grad_()
    values = gathered({"0.weight": leaf}, run)
    values["0.weight"] = values["0.weight"] * keep
    loss(functional_call(run.model, values, (IMAGES,))).backward()
    torch.testing.assert_close(run.gradients()[0], leaf.grad)


def test_masked_entries_do_not_shrink_what_a_number_begins_as() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 300, bias=False))
    keep = torch.rand(300, 400) < 0.1
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(0.07 * torch.randn(300, 400) * keep)
    Hashing(model, ["0.weight"], masks={"0.weight": keep}, compression=0.125).gate.before_forward()
    assert float(model.get_parameter("0.weight").detach()[keep].std()) == pytest.approx(0.07, rel=0.03)


def test_a_penalty_on_the_weight_above_the_gate_reaches_the_stored_numbers() -> None:
    run = Hashing(network(), ["0.weight"])
    run.backward(IMAGES)
    weight = run.model.get_parameter("0.weight")
    weight.grad = 0.5 * weight.detach().sign()
    run.model.get_parameter("0.bias").grad = None
    run.gate.collect_gradients()
    # xi sign(xi w_k) = sign(w_k), once for each entry of the weight that is w_k: half their number.
    h, _, size = virtual("0.weight", run)
    share = torch.bincount(h[:, :-1].flatten(), minlength=size)
    torch.testing.assert_close(run.gradients()[0], 0.5 * share * run.numbers["0.weight"].sign())


def test_a_saved_state_is_taken_over() -> None:
    run = Hashing(network(), BOTH)
    run.step(IMAGES)
    other = Hashing(network(), BOTH)
    other.gate.load({"hashed": {name: w.clone() for name, w in run.numbers.items()}, "begun": True})
    other.gate.before_forward()
    assert all(torch.equal(other.numbers[name], w) for name, w in run.numbers.items())


def test_weights_of_other_layers_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    [line] = HashedWeights(weights="0.weight", compression=0.5).misfits({"weights": ["0.weight", "2.weight"]}, model)
    assert line == "HashedWeights needs weights of linear layers, 0.weight is not one: did you mean '2.weight'?"


SCHEDULE = """\
version: 2
config: tiny
gates:
  hashed: {class: HashedWeights, weights: '*', compression: 0.125}
policies:
  - {gate: {instance_name: hashed}, starting_epoch: 0, ending_epoch: 3}
"""


@pytest.mark.parametrize("share", ["0.0", "1.5", "-1.0"])
def test_shares_that_are_none_are_refused(faults_of: Callable[[str], list[str]], share: str) -> None:
    (fault,) = faults_of(SCHEDULE.replace("0.125", share))
    assert "compression" in fault


def test_a_run_stores_an_eighth_until_its_window_ends() -> None:
    Path("s.yaml").write_text(SCHEDULE)
    succeed("train", "--schedule", "s.yaml", "--out", "run")
    lines = metrics(Path("run"))
    # The digits' 64-16-10: (65 * 16 + 17 * 10) / 8 = 130 + round(21.25).
    expected = {"stored_numbers": 151, "stored_bits": 4832, "virtual_weights": 1210}
    assert [list(line.get("figures", {}).values()) for line in lines] == [[expected]] * 3 + [[]]
    assert lines[2]["val"]["top1"] > 50
    Path("whole.yaml").write_text(SCHEDULE.replace("ending_epoch: 3", "ending_epoch: 4"))
    assert compress("train", "--schedule", "whole.yaml", "--out", "whole").code == 0
    distinct = {
        run: len(saved(Path(run) / "checkpoint.pt")["model"]["fc1.weight"].abs().unique()) for run in ("run", "whole")
    }
    assert distinct["whole"] <= 130
    assert distinct["run"] > 500
