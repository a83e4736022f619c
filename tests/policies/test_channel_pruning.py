"""Channel pruning in the real loop: what is fitted to what, who goes with a channel, and that nothing else changes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from channel_nets import (
    OWNER,
    STEPS,
    Net,
    Ran,
    check_fit,
    columns,
    fitted,
    images,
    plain,
    residual,
    rows,
    schedule,
    seeded,
)
from helpers import compress, difference
from loop import Loop, is_plus_zero
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.errors import UserError
from compressor.reconstruction.least_squares import search
from compressor.thinning.equivalence import thin

GEOMETRY: dict[str, dict[str, Any]] = {
    "plain": {},
    "padding": {"padding": 1},
    "stride": {"stride": 2, "padding": (1, 2)},
    "dilation": {"dilation": 2, "padding": 2},
    "one row": {"padding": (0, 1)},
}


@pytest.mark.parametrize("of_b", GEOMETRY.values(), ids=GEOMETRY)
def test_a_layer_is_fitted_to_what_it_gave_from_the_channels_that_a_lasso_leaves(of_b: dict[str, Any]) -> None:
    seeded()
    net = Net(
        lambda s, x: s.fc(F.relu(s.b(F.relu(s.bn(s.a(x))))).mean((2, 3))),
        a=Conv2d(1, 6, 3), bn=BatchNorm2d(6), b=Conv2d(6, 4, (3, 2), **of_b), fc=Linear(4, 3),
    )  # fmt: skip
    run = Ran(net, schedule())
    given, gave = run.seen(run.before, "b")
    layer = run.before.get_submodule("b")
    assert isinstance(layer, Conv2d)
    x, weight = columns(given, layer), layer.weight.detach().flatten(2).double().numpy()
    np.testing.assert_allclose(run.seen(run.after, "b")[0][:, run.kept()], given[:, run.kept()])
    check_fit(run, "b", rows(gave))
    z = np.einsum("sck,nck->snc", x, weight).reshape(-1, 6)
    y = (rows(gave) - layer.bias.detach().double().numpy()).ravel()
    beta = search(z, y, 3)
    assert run.kept() == np.sort(np.argsort(-np.abs(beta), kind="stable")[:3]).tolist()


def test_layers_are_fitted_one_after_the_other_to_the_network_as_it_was() -> None:
    run = Ran(plain(), schedule("[c.weight, b.weight]"))  # in the network's order, whatever the list's
    assert (len(run.kept("b.weight")), len(run.kept("c.weight"))) == (3, 2)
    # Of b's outputs two are not read any more; the others are fitted from what `a` gives.
    given, gave = run.seen(run.before, "b")
    layer = run.before.get_submodule("b")
    assert isinstance(layer, Conv2d)
    weight, _ = fitted(columns(given, layer)[:, run.kept("b.weight")], rows(gave))
    alive = run.kept("c.weight")
    ours = run.loop.forwards[0]["b.weight"][alive][:, run.kept("b.weight")].flatten(1)
    np.testing.assert_allclose(ours, weight[alive], atol=2e-4)
    check_fit(run, "c", rows(run.seen(run.before, "c")[1]))
    assert difference(run.seen(run.before, "c")[0], run.seen(run.after, "c")[0]) is not None


PLANTED = {
    "convolution": "b", "padded": "b", "same": "b", "reflected": "b", "without a bias": "b", "before a norm": "b",
    "behind a pool": "b", "flattened": "fc", "linear": "fc2",
}  # fmt: skip


def with_planted(kind: str) -> Net:
    """`a` (or fc) makes 6 channels, of which 1 repeats 4 half as loud, and 3 is zero."""
    seeded()
    of_b: dict[str, Any] = {
        "padded": {"padding": 1, "stride": 2}, "same": {"padding": "same", "dilation": 2},
        "reflected": {"padding": 2, "padding_mode": "reflect"}, "without a bias": {"bias": False},
        "before a norm": {"bias": False},
    }.get(kind, {})  # fmt: skip
    layers: dict[str, nn.Module] = {"a": Conv2d(1, 6, 3), "pool": nn.Identity()}
    if kind == "flattened":
        layers |= {"pool": nn.MaxPool2d(2), "fc": Linear(6 * 16, 3)}
        net = Net(lambda s, x: s.fc(torch.flatten(F.relu(s.pool(s.a(x))), 1)), **layers)
    elif kind == "linear":
        layers = {"a": Linear(100, 6), "fc2": Linear(6, 3)}
        net = Net(lambda s, x: s.fc2(F.relu(s.a(torch.flatten(x, 1)))), **layers)
    else:
        norm = BatchNorm2d(4) if kind == "before a norm" else nn.Identity()
        layers |= {"pool": nn.AvgPool2d(2) if kind == "behind a pool" else nn.Identity()}
        layers |= {"b": Conv2d(6, 4, 3, **of_b), "norm": norm, "fc": Linear(4, 3)}
        net = Net(lambda s, x: s.fc(F.relu(s.norm(s.b(s.pool(F.relu(s.a(x)))))).mean((2, 3))), **layers)
    reader = net.get_submodule(PLANTED[kind]).weight.detach()
    assert isinstance(reader, Tensor)
    entries = reader.view(len(reader), 6, -1)
    for parameter in net.get_submodule("a").parameters():
        parameter.data[1] = parameter.data[4] / 2
        parameter.data[3] = 0
    entries[:, 1] = entries[:, 4] / 2
    return net


@pytest.mark.parametrize("kind", PLANTED)
def test_channels_that_say_nothing_of_their_own_go_and_the_function_stays(kind: str) -> None:
    name = f"{PLANTED[kind]}.weight"
    run = Ran(with_planted(kind), schedule(f"[{name}]", sparsity=0.34, points=20))
    weight = run.loop.forwards[0][name]
    channels = weight.reshape(len(weight), 6, -1).transpose(0, 1).flatten(1).any(1)
    assert channels.tolist() == [True, False, True, False, True, True]
    assert not run.after.get_submodule("a").weight[[1, 3]].any()
    torch.testing.assert_close(run.logits(), run.logits(run.before), rtol=1e-4, atol=1e-4)
    assert run.loop.session.records.figures[OWNER]["error"] < 1e-9
    assert run.loop.session.records.figures[OWNER]["error_masked"] > 1e-5


THINNED = {
    "[b.weight]": [(3, 1), (4, 3), (4, 4), (3, 64)],
    "[c.weight, b.weight]": [(3, 1), (2, 3), (4, 2), (3, 64)],
    "[fc.weight]": [(6, 1), (4, 6), (2, 4), (3, 32)],
    "'*'": [(3, 1), (2, 3), (2, 2), (3, 32)],
}
"""Outputs and inputs of a, b, c and fc: of 6, 4 and 4 channels; a flattened one has 16 inputs of fc."""


@pytest.mark.parametrize(("weights", "wanted"), THINNED.items(), ids=THINNED)
def test_the_masked_network_is_the_thinned_one_and_its_zeros_stay(weights: str, wanted: list[tuple[int, int]]) -> None:
    run = Ran(plain(), schedule(weights), epochs=2)
    for name, weight in run.loop.after[-1].items():
        assert torch.equal(weight == 0, run.loop.forwards[0][name] == 0)
    net, logits = copy.deepcopy(run.after), run.logits()
    thin(net, run.images).cut.model(net)
    assert [tuple(weight.shape[:2]) for weight in net.parameters() if weight.dim() > 1] == wanted
    torch.testing.assert_close(run.logits(net), logits, rtol=1e-5, atol=1e-5)


def test_the_filters_that_make_a_channel_go_with_all_that_speaks_for_them() -> None:
    run = Ran(plain(), schedule(), epochs=2, optimizer={"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05})
    gone = sorted(set(range(6)) - set(run.kept()))
    assert len(gone) == 3
    for weights in (run.loop.forwards[0], *run.loop.after):
        assert is_plus_zero(weights["b.weight"][:, gone])
        for name in ("a.weight", "a.bias", "bn.weight", "bn.bias"):
            assert is_plus_zero(weights[name][gone])
            assert int((weights[name].reshape(6, -1) != 0).any(1).sum()) == 3
    assert run.said[0].startswith(f"{OWNER}: b.weight: 3 of 6 input channels stay (lasso); relative error ")
    assert run.said[0].endswith("; pruned with them: filters of a.weight")


def test_channels_that_others_read_are_left_out_for_one_layer_alone_and_that_is_said() -> None:
    run = Ran(residual(), schedule("[two1.weight]"))
    assert len(run.kept("two1.weight")) == 2
    for name, weight in run.loop.forwards[0].items():
        if name not in ("two1.weight", "two1.bias"):
            assert torch.equal(weight, dict(run.before.named_parameters())[name])
    assert run.said[0] == (
        f"warning: {OWNER}: two1.weight: 2 channels that it no longer reads are read by one1.weight, fc.weight:"
        f" they are pruned for this layer only, and the filters that make them stay"
    )
    check_fit(run, "two1", rows(run.seen(run.before, "two1")[1]))


READ_BY: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "an operation that mixes channels": (
        lambda s, y: s.fc(F.relu(s.b(F.relu(s.mix(y)))).mean((2, 3))),
        "an operation (mix (LayerNorm) ",
    ),
    "whoever is given the logits": (lambda s, y: torch.cat([y, s.b(y)], 1).mean((2, 3)), "the output of "),
}


@pytest.mark.parametrize(("forward", "who"), READ_BY.values(), ids=READ_BY)
def test_channels_that_no_layer_reads_and_somebody_else_does_stay(
    forward: Callable[[Any, Tensor], Tensor], who: str
) -> None:
    seeded()
    layers = {"a": Conv2d(1, 6, 3), "mix": nn.LayerNorm([6, 8, 8]), "b": Conv2d(6, 4, 1), "fc": Linear(4, 3)}
    net = Net(lambda s, x: forward(s, s.a(x)), **layers)
    run = Ran(net, schedule())
    assert f"3 channels that it no longer reads are read by {who}" in run.said[0]
    assert run.kept("a.weight", dim=0) == list(range(6))


def test_channels_that_two_layers_leave_out_go_when_the_second_one_does_not_read_them() -> None:
    seeded()
    a, b = Conv2d(1, 4, 3), Conv2d(4, 3, 3)
    net = Net(
        lambda s, x: (lambda y: s.fc(torch.cat([s.b(y), s.c(y)], 1).mean((2, 3))))(F.relu(s.a(x))),
        a=a, b=b, c=Conv2d(4, 3, 3), fc=Linear(6, 3),
    )  # fmt: skip
    a.weight.data[[0, 2]] = 0
    a.bias.data[[0, 2]] = 0
    run = Ran(net, schedule("[b.weight, c.weight]"))
    assert "are read by c.weight" in run.said[0]
    assert run.said[2].endswith("; pruned with them: filters of a.weight")
    assert run.kept("a.weight", dim=0) == [1, 3]


@pytest.mark.parametrize("selection", ["first", "l1", "max_response"])
def test_other_selections_choose_other_channels_and_are_fitted_as_well(selection: str) -> None:
    run = Ran(plain(), schedule(selection=selection))
    x, weight = run.seen(run.before, "b")[0], run.before.get_parameter("b.weight").detach()
    score = {"first": -torch.arange(6), "l1": weight.abs().sum((0, 2, 3)), "max_response": x.mean((0, 2, 3))}
    assert run.kept() == sorted(score[selection].topk(3).indices.tolist())
    check_fit(run, "b", rows(run.seen(run.before, "b")[1]))


def test_the_errors_are_in_the_record_of_the_epoch_and_in_the_report() -> None:
    run = Ran(plain(), schedule(), epochs=2)
    figures = run.loop.lines[0]["figures"][OWNER]
    assert list(figures) == ["error_masked", "error", "b.weight error_masked", "b.weight error"]
    x, gave = run.seen(run.before, "b")
    weight, bias = run.before.get_parameter("b.weight").detach(), run.before.get_parameter("b.bias").detach()
    old = F.conv2d(x[:, run.kept()], weight[:, run.kept()], bias)
    for key, given in (("error_masked", old), ("error", run.seen(run.after, "b")[1])):
        assert figures[key] == pytest.approx(float((gave - given).square().sum() / gave.square().sum()), rel=1e-3)
        assert figures[key] == figures[f"b.weight {key}"]
    assert figures["error"] < figures["error_masked"]
    assert "figures" not in run.loop.lines[1]
    assert run.loop.session.records.figures[OWNER] == figures


EVENTS = [(0, 4), (0, 4), (1, 4), (0, 64), (0, 100)]


def test_with_few_points_the_positions_are_random_and_the_same_again() -> None:
    texts = [schedule("[one2.weight]", f", epochs: [{epoch}]", points=points) for epoch, points in EVENTS]
    runs = [Ran(residual(), text, epochs=2, optimizer={"lr": 1e-30}).loop.forwards[-1] for text in texts]
    assert difference(runs[0], runs[1]) is None
    assert difference(runs[0], runs[2]) is not None  # another epoch, other positions
    assert difference(runs[0], runs[3]) is not None
    assert difference(runs[3], runs[4]) is None  # all of them


def test_no_other_random_number_depends_on_it() -> None:
    drawn = []
    for text in (schedule(sparsity=0.5), schedule(sparsity=0)):
        np.random.seed(0)
        Ran(plain(), text)
        drawn.append((torch.rand(3), np.random.rand(3)))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert (drawn[0][1] == drawn[1][1]).all()


def test_too_few_samples_are_said_aloud() -> None:
    run = Ran(plain(), schedule(points=1, batches=1))
    assert run.said[0] == f"warning: {OWNER}: b.weight: 16 samples are too few for 27 weights of an output"
    assert "too few" not in "".join(Ran(plain(), schedule(points=1, batches=2)).said)


def test_a_layer_that_has_lost_its_share_is_left_alone_afterwards() -> None:
    once, thrice = (Ran(plain(), schedule(window=window), epochs=3) for window in (", epochs: [0]", ""))
    assert difference(once.loop.after, thrice.loop.after) is None
    assert len(thrice.said) == 1


def test_the_share_is_of_the_dense_network_and_one_channel_is_spared() -> None:
    counts = [len(Ran(plain(), schedule(sparsity=share)).kept()) for share in (0.1, 0.17, 0.5, 0.84, 1.0)]
    assert counts == [6, 5, 3, 1, 1]


def test_fitted_weights_have_no_momentum_of_the_old_ones() -> None:
    run = Ran(plain(), schedule(window=", epochs: [1]"), epochs=2, optimizer={"lr": 0.1, "momentum": 0.9})
    before, after = run.loop.forwards[STEPS], run.loop.after[STEPS]
    loop = Loop(plain(), images(), epochs=1, optimizer={"lr": 0.1})
    loop.model.load_state_dict(run.loop.at((1, 0))["model"])
    loop.model.load_state_dict(before, strict=False)
    loop.model.train()
    F.cross_entropy(loop.model(images()[0][0]), images()[0][1]).backward()
    for name in ("b.weight", "b.bias"):
        gradient = loop.model.get_parameter(name).grad
        assert gradient is not None
        kept = before[name] != 0
        torch.testing.assert_close(after[name][kept], (before[name] - 0.1 * gradient)[kept], rtol=1e-4, atol=1e-6)


def test_averages_begin_anew_with_the_fitted_weights() -> None:
    run = Ran(plain(), schedule(window=", epochs: [1]"), epochs=2, optimizer={"lr": 1e-30}, ema={"decay": 0.5})
    with run.loop.session.as_shipped():
        torch.testing.assert_close(run.loop.model.get_parameter("b.weight"), run.loop.after[-1]["b.weight"])


def test_what_another_policy_masks_stays_masked_and_the_error_is_that_of_what_is_left() -> None:
    level = "  - {pruner: {class: SparsityLevelParameterPruner, levels: {b.weight: 0.5}}, epochs: [0]}\n"
    run = Ran(plain(), schedule().replace("policies:\n", f"policies:\n{level}"), epochs=2)
    (masked,) = (run.loop.masks.owned(key)["b.weight"] for key in run.loop.session.events.memory if key[0] == "0")
    assert int((~masked).sum()) == 4 * 27
    for weights in (run.loop.forwards[0], *run.loop.after):
        assert is_plus_zero(weights["b.weight"][~masked])
    pruned = copy.deepcopy(run.before)
    with torch.no_grad():
        pruned.get_parameter("b.weight").mul_(masked)
    gave, now = run.seen(pruned, "b")[1], run.seen(run.after, "b")[1]
    wanted = float((gave - now).square().sum() / gave.square().sum())
    assert run.loop.session.records.figures["1.channel_pruning"]["error"] == pytest.approx(wanted, rel=1e-3)


def test_outputs_that_a_batch_norm_multiplies_by_zero_stay_as_they_are() -> None:
    net = with_planted("before a norm")
    net.get_parameter("norm.weight").data[1] = 0
    run = Ran(net, schedule())
    heard, old, new = [0, 2, 3], run.before.get_parameter("b.weight"), run.after.get_parameter("b.weight")
    assert torch.equal(old[1, run.kept()], new[1, run.kept()])
    given, gave = run.seen(run.after, "b")[0], run.seen(run.before, "b")[1]
    layer = run.after.get_submodule("b")
    assert isinstance(layer, Conv2d)
    x = columns(given, layer)[:, run.kept()].reshape(-1, 27)
    wanted = np.linalg.lstsq(x, rows(gave)[:, heard], rcond=None)[0].T
    np.testing.assert_allclose(new.detach()[heard][:, run.kept()].flatten(1), wanted, atol=2e-4)


def test_a_layer_that_a_batch_norm_silences_is_fitted_to_what_it_gave() -> None:
    net = with_planted("before a norm")
    net.get_parameter("norm.weight").data.zero_()
    run = Ran(net, schedule(sparsity=0.34))
    assert run.kept() == [0, 2, 4, 5]
    torch.testing.assert_close(run.seen(run.after, "b")[1], run.seen(run.before, "b")[1], rtol=1e-4, atol=1e-4)


def test_weights_that_live_on_behind_a_mask_are_looked_at_with_it() -> None:
    masked = "{class: SparsityLevelParameterPruner, levels: {a.weight: 0.5}, args: {mask_on_forward_only: true}}"
    text = schedule().replace("policies:\n", f"policies:\n  - {{pruner: {masked}, epochs: [0]}}\n")
    run = Ran(plain(), text)
    before = copy.deepcopy(run.before)
    (keep,) = (run.loop.masks.owned(key)["a.weight"] for key in run.loop.session.events.memory if key[0] == "0")
    before.get_parameter("a.weight").data.mul_(keep)
    assert int((~keep).sum()) == 27
    check_fit(run, "b", rows(run.seen(before, "b")[1]))


def test_gates_are_looked_at_as_they_are_folded() -> None:
    gates = "gates:\n  l0: {class: HardConcreteL0, weights: [a.weight], structure: Filters, lambda: 0.1, lr: 1e-30}\n"
    text = schedule(window=", epochs: [1]", more=gates) + "  - {gate: {instance_name: l0}}\n"
    run = Ran(plain(), text, epochs=2, optimizer={"lr": 1e-30})
    folded = copy.deepcopy(run.before)
    folded.load_state_dict(run.loop.at((1, 0))["model"])
    assert not torch.equal(folded.get_parameter("bn.weight"), run.before.get_parameter("bn.weight"))
    (x, gave), weight = run.seen(folded, "b"), run.loop.forwards[STEPS]["b.weight"]
    kept, layer = weight.transpose(0, 1).flatten(1).any(1).nonzero().flatten().tolist(), folded.get_submodule("b")
    assert len(kept) == 3
    assert isinstance(layer, Conv2d)
    wanted, _ = fitted(columns(x, layer)[:, kept], rows(gave))
    np.testing.assert_allclose(weight[:, kept].flatten(1), wanted, atol=2e-4)


def test_a_layer_behind_a_gate_is_left_alone_and_that_is_said() -> None:
    gates = "gates:\n  l0: {class: HardConcreteL0, weights: [b.weight], structure: Filters, lambda: 0.1}\n"
    text = schedule(window=", epochs: [1]", more=gates) + "  - {gate: {instance_name: l0}}\n"
    run = Ran(plain(), text, epochs=2)
    assert run.said == [f"warning: {OWNER}: b.weight has a gate: its channels are not pruned"]
    assert run.loop.session.events.shortfalls() == [
        f"target missed by {OWNER}: b.weight should have 3 input channels, has 6"
        f" (the policy acts last in epoch 1, the run has 2)"
    ]


def test_a_layer_of_hashed_weights_is_left_alone_too_and_that_is_said() -> None:
    gates = "gates:\n  hashed: {class: HashedWeights, weights: [fc2.weight], compression: 0.5}\n"
    text = schedule("[fc2.weight]", window=", epochs: [1]", more=gates) + "  - {gate: {instance_name: hashed}}\n"
    run = Ran(with_planted("linear"), text, epochs=2)
    assert run.said == [f"warning: {OWNER}: fc2.weight has a gate: its channels are not pruned"]
    assert bool((run.loop.forwards[-1]["fc2.weight"] != 0).all())


def test_a_run_that_ends_before_the_window_misses_the_target() -> None:
    missed = Ran(plain(), schedule(window=", epochs: [5]"))
    assert "b.weight should have 3 input channels, has 6" in missed.loop.session.events.shortfalls()[0]
    assert Ran(plain(), schedule()).loop.session.events.shortfalls() == []


def test_what_cannot_be_fitted_is_refused_before_the_run() -> None:
    seeded()
    layers = {"a": Conv2d(1, 4, 3), "b": Conv2d(4, 4, 3, groups=2), "bn": BatchNorm2d(4), "fc": Linear(4, 3)}
    net = Net(lambda s, x: s.fc(s.bn(s.b(s.a(x))).mean((2, 3))), **layers)
    with pytest.raises(UserError, match=r"b\.weight is of a grouped convolution"):
        Loop(net, images(), schedule())
    for weights in ("[bn.weight]", "[a.bias]"):
        with pytest.raises(UserError, match="is not the weight of a 2-d convolution or linear layer"):
            Loop(net, images(), schedule(weights))
    with pytest.raises(UserError, match="its window counts epochs"):
        Loop(net, images(), schedule("[a.weight]", ", starting_step: 0, ending_step: 2"))


def test_validate_names_the_line_of_what_cannot_be_fitted(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(schedule("[conv2.weight, conv1.bias]"))
    result = compress("validate", tmp_path / "s.yaml", "-c", "lenet5_digits")
    assert result.code == 2
    assert "s.yaml:3:" in result.err
    assert "conv1.bias is not the weight of a 2-d convolution or linear layer" in result.err


def test_a_layer_that_is_applied_twice_is_refused() -> None:
    seeded()
    net = Net(lambda s, x: s.fc(s.b(s.b(s.a(x))).mean((2, 3))), a=Conv2d(1, 4, 3), b=Conv2d(4, 4, 3), fc=Linear(4, 3))
    with pytest.raises(UserError, match=r"b\.weight is applied 2 times"):
        Ran(net, schedule())


@pytest.mark.parametrize("moment", [(0, 2), (1, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("network", [plain, residual])
def test_a_resumed_run_ends_in_the_same_bits(network: Callable[[], Net], moment: tuple[int, int]) -> None:
    text = schedule("'*'", ", epochs: [1]", points=5)
    whole = Ran(network(), text, epochs=3).loop
    again = Loop(network(), images(), text, epochs=3, seed=5)
    assert difference(again.resume(whole.at(moment)).at((3, 0)), whole.at((3, 0))) is None
    assert again.lines == whole.lines[moment[0] :]
