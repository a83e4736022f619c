"""A run that is thinned goes on as the masked one would have: weights, optimizers, averages, masks, memories."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("contract", "training")]

from loop import Batch, Loop, read
from rig import EPOCHS, Rig, difference, resumed

from compressor.errors import UserError
from compressor.schedule.faults import Faults
from compressor.schedule.plan import Plan, make_plan
from compressor.schedule.plan_table import as_table
from compressor.schedule.schedule import view_of
from compressor.thinning.cutting import Cut
from compressor.thinning.equivalence import thin
from compressor.timing.clock import Clock

STEPS = 3


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def plain() -> Net:
    return Net(
        lambda s, x: s.fc2(F.relu(s.fc1(torch.flatten(F.relu(s.b(F.relu(s.bn(s.a(x))))), 1)))),
        a=Conv2d(1, 6, 3), bn=BatchNorm2d(6), b=Conv2d(6, 6, 3), fc1=Linear(24, 8), fc2=Linear(8, 3),
    )  # fmt: skip


def residual() -> Net:
    return Net(
        lambda s, x: (lambda y: s.fc(F.relu(s.bn2(s.b(F.relu(s.bn1(s.m(y))))) + y).mean((2, 3))))(F.relu(s.a(x))),
        a=Conv2d(1, 6, 3), m=Conv2d(6, 5, 3, padding=1, bias=False), bn1=BatchNorm2d(5), b=Conv2d(5, 6, 1, bias=False),
        bn2=BatchNorm2d(6), fc=Linear(6, 3),
    )  # fmt: skip


def dense() -> Net:
    return Net(
        lambda s, x: (lambda y: s.fc(s.c(F.relu(s.bn2(torch.cat([y, s.b(F.relu(s.bn1(y)))], 1)))).mean((2, 3))))(
            s.a(x)
        ),
        a=Conv2d(1, 6, 3), bn1=BatchNorm2d(6), b=Conv2d(6, 4, 3, padding=1), bn2=BatchNorm2d(10), c=Conv2d(10, 6, 1),
        fc=Linear(6, 3),
    )  # fmt: skip


def depthwise() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.b(F.relu6(s.bn2(s.d(F.relu6(s.bn1(s.a(x)))))))).mean((2, 3))),
        a=Conv2d(1, 6, 3, bias=False), bn1=BatchNorm2d(6), d=Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        bn2=BatchNorm2d(6), b=Conv2d(6, 5, 1), fc=Linear(5, 3),
    )  # fmt: skip


def grouped() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.bn(s.b(F.relu(s.a(x))))).mean((2, 3))),
        a=Conv2d(1, 8, 3), b=Conv2d(8, 6, 3, groups=2), bn=BatchNorm2d(6), fc=Linear(6, 3),
    )  # fmt: skip


NETS = {build.__name__: build for build in (plain, residual, dense, depthwise, grouped)}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "adam": {"name": "adam", "lr": 0.01, "weight_decay": 0.01},
    "amsgrad": {"name": "adam", "lr": 0.01},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
}
MODES = {"double copies": "use_double_copies", "forward only": "mask_on_forward_only", "gradients": "mask_gradients"}


def schedule(thin_in: str | None = "[1]", mode: str = "", when: str = "[1]", **of: Any) -> str:
    """Filters are pruned, and thinned away in some epochs; all in epoch 1 unless said otherwise."""
    pruner = {"criterion": "l2", "structure": "Filters", "scope": "coupled", "weights": "'type:Conv2d'", **of}
    pruner["args"] = f"{{{MODES[mode]}: true}}" if mode else "{}"
    fields = ", ".join(f"{key}: {value}" for key, value in pruner.items())
    text = f"version: 2\npolicies:\n  - pruner: {{class: Pruner, {fields}}}\n    epochs: {when}\n"
    return text if thin_in is None else text + f"  - extension: {{class: StructureRemover}}\n    epochs: {thin_in}\n"


def batches(epoch: int, channels: int = 1, side: int = 6) -> list[Batch]:
    draws = torch.Generator().manual_seed(epoch)
    images = torch.randn(STEPS, 8, channels, side, side, generator=draws, dtype=torch.float64)
    return list(zip(images, torch.randint(0, 3, (STEPS, 8), generator=draws), strict=True))


def loop(build: Callable[[], nn.Module], text: str, optimizer: str = "sgd", seed: int = 0, **config: Any) -> Loop:
    """A run in double precision, not begun; biases in a group of their own."""
    torch.manual_seed(seed)
    network = build().double()
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    how = {**OPTIMIZERS[optimizer], "bias_lr_scale": 2.0}
    run = Loop(network, batches, text, optimizer=how, **{"epochs": 2, "ema": {"decay": 0.8}, **config})
    if optimizer == "amsgrad":
        groups = [{**group, "params": list(group["params"])} for group in run.session.optimizer.groups]
        run.session.optimizer.optimizer = torch.optim.Adam(groups, amsgrad=True)
    return run


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-7, atol=1e-9)


def same_run(masked: Loop, thinned: Loop) -> int:
    """Compare what goes on after a thinning in epoch 1; gives how many parameters went."""
    with masked.masks.applied():
        cut = thin(masked.model, batches(0)[0][0], ways=frozenset({"zero", "unread"}), training=True).cut
    live = dict(thinned.model.named_parameters())
    for name, parameter in masked.model.named_parameters():
        assert close(live[name], cut.tensor(name, parameter)), name
        assert close(live[name].grad, cut.tensor(name, parameter.grad)), f"the gradient of {name}"
    for name, buffer in masked.model.named_buffers():
        assert close(thinned.model.get_buffer(name), cut.tensor(name, buffer)), name
    for step in range(STEPS, 2 * STEPS):
        ours, theirs = thinned.after[step], masked.after[step]
        assert all(close(ours[name], cut.tensor(name, theirs[name])) for name in ours), step
    assert thinned.lines[1]["losses"]["data"] == pytest.approx(masked.lines[1]["losses"]["data"], rel=1e-6)
    assert thinned.lines[1]["val"] == pytest.approx(masked.lines[1]["val"], rel=1e-5)
    assert thinned.lines[1]["sparsity"] >= masked.lines[1]["sparsity"]  # columns that read what went are gone, too
    # Two groups of the same parameter objects; what the optimizer remembers of them.
    ours, theirs = thinned.session.optimizer.optimizer, masked.session.optimizer.optimizer
    names = {id(parameter): name for name, parameter in masked.model.named_parameters()}
    objects = {id(parameter): name for name, parameter in live.items()}
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [objects[id(p)] for p in group["params"]] == [names[id(p)] for p in other["params"]]
        for mine, its in zip(group["params"], other["params"], strict=True):
            assert ours.state[mine].keys() == theirs.state[its].keys()
            assert ours.state[mine]
            for key, value in theirs.state[its].items():
                expected = cut.tensor(names[id(its)], value)
                assert close(ours.state[mine][key], expected), f"{key} of {names[id(its)]}"
    # Averages and masks, as they are saved.
    ours_saved, theirs_saved = (run.at((2, 0))["state"] for run in (thinned, masked))
    for name, average in theirs_saved["averages"]["average"].items():
        assert close(ours_saved["averages"]["average"][name], cut.tensor(name, average)), f"the average of {name}"
    for owner, masks in theirs_saved["masks"]["owned"].items():
        for name, bits in masks.items():
            assert torch.equal(ours_saved["masks"]["owned"][owner][name], cut.tensor(name, bits)), name
            assert bits.shape == masked.model.get_parameter(name).shape
    return sum(p.numel() for p in masked.model.parameters()) - sum(p.numel() for p in live.values())


@settings(max_examples=20, phases=[Phase.generate], derandomize=True, database=None)
@given(
    build=st.sampled_from(list(NETS)),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    seed=st.integers(0, 1000),
    sparsity=st.sampled_from([0.3, 0.5, 0.7]),
    structure=st.sampled_from(["Filters", "Channels"]),
    mode=st.sampled_from(["", *MODES]),
)
def test_a_thinned_run_goes_on_as_the_masked_one(
    build: str, optimizer: str, seed: int, sparsity: float, structure: str, mode: str
) -> None:
    of = {"structure": structure, "rate": f"{{sparsity: {sparsity}}}"}
    runs = []
    for thin_in in (None, "[1]"):
        run = loop(NETS[build], schedule(thin_in, mode, **of), optimizer, seed)
        before = list(run.model.parameters())
        runs.append(run.run())
        assert all(one is other for one, other in zip(before, run.model.parameters(), strict=True))
    removed = same_run(*runs)
    assert removed > 0 or structure == "Channels"


@pytest.mark.parametrize("mode", ["", *MODES])
@pytest.mark.parametrize("build", NETS)
def test_every_net_and_mode_loses_something(build: str, mode: str) -> None:
    runs = [loop(NETS[build], schedule(t, mode, rate="{sparsity: 0.5}")).run() for t in (None, "[1]")]
    assert same_run(*runs) > 20


def test_control_momentum_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cut, "optimizer", lambda self, optimizer, parameters: optimizer.state.clear())
    runs = [loop(plain, schedule(t, rate="{sparsity: 0.5}")).run() for t in (None, "[1]")]
    with pytest.raises(AssertionError):
        same_run(*runs)


def filters(run: Loop, name: str) -> int:
    return len(run.model.get_parameter(name))


def test_agp_goes_on_over_the_dense_filters_while_they_are_thinned_away() -> None:
    # s(e) = .9 - .9 (1 - e/3)^3 at e = 0 .. 3: 0, .633, .867, .9; of 12 filters floor: 0, 7, 10, 10.
    def net() -> Net:
        return Net(lambda s, x: s.fc(F.relu(s.a(x)).mean((2, 3))), a=Conv2d(1, 12, 3), fc=Linear(12, 3))

    runs = []
    for thin_in in ("[0, 1, 2, 3]", "[1, 3]", None):
        text = schedule(thin_in, when="[0, 1, 2, 3]", rate="{agp: {final_sparsity: 0.9}}")
        runs.append(loop(net, text, epochs=4).run())
        assert not runs[-1].session.events.shortfalls()
    assert [filters(run, "a.weight") for run in runs] == [2, 2, 12]
    kept = {tuple(run.model.a.weight[run.model.a.weight.flatten(1).any(1)].flatten().tolist()) for run in runs}
    assert len({len(k) for k in kept}) == 1
    assert all(k == pytest.approx(next(iter(kept))) for k in kept)


def test_single_weights_are_pruned_to_their_dense_share_after_filters_went() -> None:
    # b has 6 x 6 x 9 = 324 weights, 0.8 of them are 259; half of a's filters take 3 x 6 x 9 = 162 of them away.
    text = schedule("[1]", weights="a.weight", rate="{sparsity: 0.5}", scope="layer") + (
        "  - pruner: {class: Pruner, weights: b.weight, rate: {sparsity: 0.8}}\n    epochs: [2]\n"
    )
    run = loop(plain, text, epochs=3).run()
    weight = run.model.get_parameter("b.weight")
    assert weight.shape == (6, 3, 3, 3)
    assert int(weight.count_nonzero()) == 324 - 259
    assert not run.session.events.shortfalls()


def wide() -> Net:
    return Net(lambda s, x: s.fc(F.relu(s.a(x)).mean((2, 3))), a=Conv2d(1, 12, 3), fc=Linear(12, 3))


@pytest.mark.parametrize(("thin_in", "left"), [("[0, 1, 2, 3]", 1), ("[1, 3]", 1), (None, 2)])
def test_of_the_current_weights_agp_prunes_what_a_removal_left(thin_in: str | None, left: int) -> None:
    # s(e): 0, .633, .867, .9. Of 12 filters 7 are pruned and removed; of the 5 left 4; of 1 none, for one stays.
    text = schedule(thin_in, when="[0, 1, 2, 3]", rate="{agp: {final_sparsity: 0.9}}")
    runs = [loop(wide, text.replace("args: {}", "args: {sparsity_of: current}"), epochs=4).run()]
    runs.append(loop(wide, text.replace("version: 2", "version: 1"), epochs=4).run())  # as in Distiller
    for run in runs:
        assert int(run.model.a.weight.flatten(1).any(1).sum()) == left
        assert not run.session.events.shortfalls()


BOTH = """
version: {version}
policies:
  - pruner: {{class: Pruner, structure: Filters, weights: a.weight, rate: {{sparsity: 0.5}}}}
    epochs: [0, 2]
  - extension: {{class: FilterRemover}}
    epochs: {thin_in}
  - pruner: {{class: Pruner, weights: b.weight, rate: {{sparsity: 0.8}}}}
    epochs: [2]
"""


@pytest.mark.parametrize(
    ("version", "a", "b", "said"),
    [
        # a: 6 filters of 9 weights: 3 are removed, 1 of the other 3 is pruned. b: 6 x 3 x 9 = 162 weights are left of
        # 324, .8 of them is 129.
        (1, 18, 33, ["that is 66.67 % of the dense weights", "that is 89.81 % of the dense weights"]),
        # a: half of the 6 filters are gone already. b: .8 of 324 is 259, 162 of them are gone.
        (2, 27, 65, ["that is 0.00 % of those left then", "that is 59.88 % of those left then"]),
    ],
)
def test_plan_and_run_agree_in_both_meanings_of_a_sparsity(version: int, a: int, b: int, said: list[str]) -> None:
    text = BOTH.format(version=version, thin_in="[0]")
    run = loop(plain, text, epochs=3).run()
    weights = (run.model.get_parameter("a.weight"), run.model.get_parameter("b.weight"))
    assert [int(weight.count_nonzero()) for weight in weights] == [a, b]
    assert not run.session.events.shortfalls()
    plan = planned(text)
    assert [row.nonzero for row in plan.predicted[:2]] == [a, b]
    assert [one.otherwise[2].partition(", ")[2] for one in (plan.policies[0], plan.policies[2])] == said
    assert said[0] in as_table(plan)


def planned(text: str) -> Plan:
    network, faults = plain(), Faults()
    bound = read(text).bind(network, 3, faults).check(view_of(network, image=(1, 6, 6), epochs=3), faults)
    faults.raise_any()
    return make_plan(bound.policies, view_of(network, image=(1, 6, 6), groups=[{"lr": 1.0}]), Clock(3, STEPS))


def test_a_later_removal_does_not_make_a_target_missed() -> None:
    run = loop(plain, BOTH.format(version=1, thin_in="[0, 2]"), epochs=3).run()
    assert run.model.get_parameter("b.weight").shape == (6, 2, 3, 3)
    assert not run.session.events.shortfalls()


def test_what_single_zeros_let_a_removal_take_is_not_known_before_the_run() -> None:
    text = BOTH.format(version=1, thin_in="[1]").replace("epochs: [2]", "epochs: [0, 2]")
    rows = {row.name: row for row in planned(text).predicted}
    for name in ("a.weight", "b.weight"):
        assert rows[name].nonzero is None
        assert "removed before" in str(rows[name].reason)
    dense = {row.name: row.nonzero for row in planned(text.replace("version: 1", "version: 2")).predicted}
    assert (dense["a.weight"], dense["b.weight"]) == (27, 65)


def test_version_1_has_no_choice() -> None:
    text = BOTH.format(version=1, thin_in="[0]").replace("0.8}}", "0.8}, args: {sparsity_of: dense}}")
    with pytest.raises(UserError, match="'sparsity_of' needs `version: 2`"):
        read(text)


def test_blocks_that_no_longer_divide_a_thinned_weight_do_not_end_the_run() -> None:
    blocks = "{class: Pruner, structure: Blocks, block_shape: [1, 2], weights: b.weight, rate: {sparsity: 0.5}}"
    text = schedule("[1]", weights="a.weight", rate="{sparsity: 0.5}", scope="layer")
    run = loop(plain, text + f"  - pruner: {blocks}\n    epochs: [0, 2]\n", epochs=3).run()
    assert filters(run, "a.weight") == 3


@pytest.mark.parametrize("mode", ["", *MODES])
@pytest.mark.parametrize("ema", [None, {"decay": 0.8}])
def test_a_thinned_run_that_is_resumed_ends_in_the_same_bits(mode: str, ema: dict[str, float] | None) -> None:
    text = schedule("[2, 3]", mode, when="[1, 2, 3, 5]", weights="'conv*.weight'", rate="{agp: {final_sparsity: 0.5}}")
    whole = Rig(text, ema=ema)
    end = whole.run()
    # s(3) = .5 (1 - (1/2)^3) = .4375: 1 of 4 and 2 of 6 filters are thinned away; 2 and 3 are zero at the end.
    assert end["architecture"]["conv1"]["out_channels"] == 3
    assert end["model"]["conv2.weight"].shape == (4, 3, 3, 3)
    assert int((~end["model"]["conv2.weight"].flatten(1).any(1)).sum()) == 1
    until = {(1, 2): (3, 1), (2, 0): (3, 1), (2, 1): (EPOCHS, 0), (3, 3): (4, 1), (4, 2): (5, 1), (5, 1): (EPOCHS, 0)}
    for moment, then in until.items():
        run = resumed(text, whole.at(moment), then, ema=ema)
        assert difference(run.snapshots[then], whole.snapshots[then]) is None, moment
        assert run.lines == whole.lines[moment[0] : then[0]]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a shape in forward": (
        lambda: Net(lambda s, x: s.fc(F.relu(s.a(x)).view(-1, 96)), a=Conv2d(1, 6, 3), fc=Linear(96, 3)),
        "view in the network (Net), thinning/test_mid_training.py:344 works only with this number of channels",
    ),
    "a mean over channels": (
        lambda: Net(
            lambda s, x: (lambda y: s.fc((y * y.mean(1, keepdim=True)).mean((2, 3))))(s.a(x)),
            a=Conv2d(1, 6, 3), fc=Linear(6, 3),
        ),
        "mean in the network (Net), thinning/test_mid_training.py:349 takes the mean over them",
    ),
    "two layers of one weight": (
        lambda: (lambda net: setattr(net.b, "weight", net.c.weight) or net)(
            Net(
                lambda s, x: s.fc(F.relu(s.c(s.b(s.a(x)))).mean((2, 3))),
                a=Conv2d(1, 6, 3), b=Conv2d(6, 6, 1), c=Conv2d(6, 6, 1), fc=Linear(6, 3),
            )
        ),
        "b, c, fc read them after relu, mean and not as 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_cannot_be_thinned_trains_on_masked_and_says_so_twice(case: str) -> None:
    build, why = REFUSED[case]
    text = schedule("[1]", weights="a.weight", rate="{sparsity: 0.5}", scope="layer")
    masked, refused = (loop(build, t, epochs=3).run() for t in (text.partition("  - extension")[0], text))
    assert difference(refused.at((3, 0))["model"], masked.at((3, 0))["model"]) is None
    assert int(refused.model.a.weight.flatten(1).any(1).sum()) == 3
    warnings = [line for line in refused.said if "epoch 1: nothing was removed" in line]  # type: ignore[attr-defined]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: ")
    assert why in warnings[0]
    assert [why in line for line in refused.session.events.shortfalls()] == [True]


def heads(extra: Callable[[Any, Tensor], Tensor]) -> Net:
    """A network with a part that is used in training mode alone."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = F.relu(net.a(x))
        logits: Tensor = net.fc(F.relu(net.b(y)).mean((2, 3)))
        return logits + extra(net, y) if net.training else logits

    net = Net(forward, a=Conv2d(1, 6, 3), b=Conv2d(6, 4, 1), fc=Linear(4, 3), aux=Linear(6, 3), drop=nn.Dropout(0.5))
    with torch.no_grad():
        net.a.weight[:3] = 0
        net.a.bias[:3] = 0
    return net.train()


@pytest.mark.parametrize(
    ("extra", "left", "said"),
    [
        (lambda net, y: net.aux(y.mean((2, 3))), 3, ""),
        # Of the zero channels 0, 1 and 2 the last one goes: the channel at place 1 stays where it is.
        (lambda net, y: y[:, 1].mean((1, 2))[:, None] * net.aux.weight[:, 0], 5, "select in the network (Net), "),
        (lambda net, y: net.aux(net.drop(y).mean((2, 3))), 3, ""),
        (lambda net, y: torch.rand(1) + net.aux(y.mean((2, 3))), 3, ""),
        (lambda net, y: y.mean() * 0, 6, "mean in the network (Net), "),
    ],
    ids=["another layer", "a channel by its number", "dropout", "random", "a mean over channels"],
)
def test_layers_that_only_training_uses(extra: Callable[[Any, Tensor], Tensor], left: int, said: str) -> None:
    torch.manual_seed(0)
    net = heads(extra)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    images = torch.rand(4, 1, 6, 6)
    state = torch.get_rng_state()
    found = thin(net, images, training=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [stay.reason.startswith(said) for stay in found.stays] == ([True] if said else [])
    found.cut.model(net)
    assert net.a.weight.shape == (left, 1, 3, 3)
    assert net.aux.weight.shape == (3, 6 if said or not found.cut else 3)
    net(images)
