"""What a selector leaves out is said, once, with its place and the reason; what cannot be selected is a fault."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from compressor.schedule.faults import Faults
from compressor.schedule.grammar import Schedule

Parse = Callable[[str], Schedule]


class Net(nn.Module):
    """20 + 20 + 12 + 6 numbers in weights, 2 in positions, 8 + 8 + 2 in biases, of which 40 are the LSTM's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)  # 12, 3
        self.lstm = nn.LSTM(3, 2)  # 24 + 16, 8 + 8
        self.places = nn.Embedding(4, 5)  # 20
        self.head = nn.Linear(2, 3, bias=False)  # 6


def notes(schedule_of: Parse, policies: str, model: nn.Module | None = None) -> list[str]:
    faults = Faults()
    bound = schedule_of(f"version: 2\npolicies:\n{policies}").bind(model or Net(), 3, faults)
    faults.raise_any()
    return list(bound.notes)


def pruner(weights: str) -> str:
    return f"- pruner: {{class: AutomatedGradualPruner, final_sparsity: 0.5, weights: {weights}}}\n"


def test_a_star_says_what_it_leaves_out_and_how_much(schedule_of: Parse) -> None:
    [line] = notes(schedule_of, pruner("'*'"))
    assert line.startswith("s.yaml:3:")
    names = "lstm.weight_ih_l0, lstm.weight_hh_l0 (LSTM); places.weight (Embedding)"
    # (40 + 20) of 12 + 3 + 40 + 16 + 20 + 6
    assert f"it leaves out {names}: {100 * 60 / 97:.1f} % of the parameters" in line


def test_every_policy_with_a_star_is_named_in_the_one_line(schedule_of: Parse) -> None:
    policies = [
        pruner("'*'"),
        "- regularizer: {class: L2Regularizer, reg_regims: {'*': 0.1}}\n",
        "- freeze: {weights: '*'}\n",
        "- gate: {class: HardConcreteL0, structure: Elements, weights: '*', lambda: 0.1}\n",
        "- dsd: {weights: '*', sparsity: 0.3, dense_epochs: 1, sparse_epochs: 1, redense_epochs: 1}\n",
        "- strided: {weights: '*', stride: 2}\n",
    ]
    [line] = notes(schedule_of, "".join(policies))
    assert line.startswith("s.yaml:3:")
    assert all(f"s.yaml:{number}:" in line.partition("(also")[2] for number in range(4, 9))


@pytest.mark.parametrize(
    ("weights", "left"),
    [
        ("['*', lstm.weight_hh_l0, places.weight]", "lstm.weight_ih_l0 (LSTM)"),
        ("['conv*', '[lh]*']", "lstm.weight_ih_l0, lstm.weight_hh_l0 (LSTM)"),
        ("['re:^(conv|places)', head.weight]", "places.weight (Embedding)"),
        ("'*.weight'", "places.weight (Embedding)"),
    ],
)
def test_patterns_leave_out_what_they_match_and_no_item_names(schedule_of: Parse, weights: str, left: str) -> None:
    [line] = notes(schedule_of, pruner(weights))
    assert f"leaves out {left}:" in line


@pytest.mark.parametrize(
    "weights", ["conv.weight", "type:Linear", "['*', lstm.weight_ih_l0, lstm.weight_hh_l0, places.weight]"]
)
def test_nothing_is_said_where_nothing_is_left_out(schedule_of: Parse, weights: str) -> None:
    assert notes(schedule_of, pruner(weights)) == []


@pytest.mark.parametrize(
    ("exclusions", "left"),
    [
        ("'!lstm*', '!places.weight'", None),
        ("'!type:LSTM', '!re:^places'", None),
        ("'!lstm*', '!head*', '!type:Embedding'", None),
        ("'!lstm*'", "places.weight (Embedding)"),
        ("'!lstm.weight_hh_l0', '!places*'", "lstm.weight_ih_l0 (LSTM)"),
    ],
)
def test_an_exclusion_of_what_is_left_out_anyway_says_that_it_is_known(
    schedule_of: Parse, exclusions: str, left: str | None
) -> None:
    lines = notes(schedule_of, pruner(f"['*', {exclusions}]"))
    assert len(lines) == (left is not None)
    assert all(f"leaves out {left}:" in line for line in lines)


def test_a_tied_weight_is_excluded_by_any_of_its_names(schedule_of: Parse) -> None:
    model = Net()
    model.out = nn.Linear(5, 4, bias=False)
    model.out.weight = model.places.weight
    del model.lstm
    assert notes(schedule_of, pruner("['*', '!out.weight']"), model) == []


def test_an_exclusion_of_what_nothing_leaves_out_stays_a_fault(schedule_of: Parse) -> None:
    faults = Faults()
    schedule_of("version: 2\npolicies:\n" + pruner("['conv*', '!lstm*']")).bind(Net(), 3, faults)
    [line] = faults.lines
    assert "'!lstm*' excludes nothing" in line


def test_a_pattern_that_matches_other_weights_alone_says_so(schedule_of: Parse) -> None:
    faults = Faults()
    schedule_of(f"version: 2\npolicies:\n{pruner('type:LSTM')}").bind(Net(), 3, faults)
    [line] = faults.lines
    assert "'type:LSTM' matches no weight" in line
    assert "lstm.weight_ih_l0, lstm.weight_hh_l0 (LSTM)" in line


def test_a_pattern_that_is_none_stays_the_one_fault(schedule_of: Parse) -> None:
    faults = Faults()
    schedule_of("version: 2\npolicies:\n" + pruner("'re:('")).bind(Net(), 3, faults)
    [line] = faults.lines
    assert "is not a regular expression" in line


def computing(kind: str) -> nn.Module:
    model = Net()
    model.lstm, model.places = nn.Identity(), nn.Identity()
    if kind == "weight_norm":
        parametrizations.weight_norm(model.conv)
    elif kind == "spectral_norm":
        nn.utils.spectral_norm(model.conv)
    elif kind == "prune":
        prune.l1_unstructured(model.conv, "weight", 0.5)
    else:
        parametrize.register_parametrization(model.conv, "weight", nn.Tanh())
    return model


KINDS = {
    "weight_norm": ("WeightNorm", "remove_parametrizations(layer, 'weight')", "parametrizations.weight.original1"),
    "spectral_norm": ("spectral_norm", "remove_spectral_norm(layer)", "weight_orig"),
    "prune": ("torch.nn.utils.prune", "prune.remove(layer, 'weight')", "weight_orig"),
    "any": ("Tanh", "remove_parametrizations(layer, 'weight')", "parametrizations.weight.original"),
}
every_kind = pytest.mark.parametrize(("kind", "by", "remedy", "source"), [(k, *v) for k, v in KINDS.items()], ids=KINDS)


@every_kind
def test_a_star_leaves_out_a_computed_weight_and_says_what_to_do(
    schedule_of: Parse, kind: str, by: str, remedy: str, source: str
) -> None:
    for item in ("'*'", "'*.weight'"):
        [line] = notes(schedule_of, pruner(item), computing(kind))
        assert f"leaves out conv.weight, which {by} computes" in line
        assert line.endswith(f"{remedy} where the model is built")


def test_a_computed_weight_of_unknown_value_is_left_out_in_words_too(schedule_of: Parse) -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 3, 2)})
    with torch.device("meta"):
        model.head = parametrizations.orthogonal(nn.Linear(2, 3))  # its base is not there yet
    model.free = nn.Linear(2, 2)
    del model.free.weight
    model.free.weight = torch.ones(2, 2)
    lines = notes(schedule_of, pruner("'*'"), model)
    assert [line.partition("leaves out ")[2].partition(" computes")[0] for line in lines] == [
        "head.weight, which Orthogonal",
        "free.weight, which the model's own code",
    ]


@every_kind
def test_a_computed_weight_can_be_excluded(schedule_of: Parse, kind: str, by: str, remedy: str, source: str) -> None:
    for item in ("'!conv.weight'", "'!conv*'"):
        assert notes(schedule_of, pruner(f"['*', {item}]"), computing(kind)) == []


@every_kind
def test_a_computed_weight_and_its_sources_cannot_be_named(
    schedule_of: Parse, kind: str, by: str, remedy: str, source: str
) -> None:
    for name in ("conv.weight", f"conv.{source}"):
        faults = Faults()
        schedule_of(f"version: 2\npolicies:\n{pruner(name)}").bind(computing(kind), 3, faults)
        [line] = faults.lines
        assert line.startswith("s.yaml:3:")
        assert f"{name!r} cannot be selected: {by} computes conv.weight from" in line
        assert remedy in line
