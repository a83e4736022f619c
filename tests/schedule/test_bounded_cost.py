"""What a file costs is bounded: names that nearly match, patterns, counts."""

import difflib
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import nn

from compressor.config import DataConfig
from compressor.data import memory, random_set
from compressor.errors import UserError, did_you_mean
from compressor.policies.policy import View
from compressor.schedule import Faults, patterns, selectors
from compressor.schedule.faults import MOST, Place
from compressor.schedule.schedule import Schedule, view_of
from compressor.schedule.selectors import NameFault, WeightNames

Read = Callable[[str], Any]


class Counter:
    """Counts the products of the lengths of compared names, and the comparisons' calls."""

    work = calls = 0


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counter]]:
    Counter.work = Counter.calls = 0
    plain = difflib.get_close_matches

    def counted(word: str, possibilities: list[str], *args: Any, **kwargs: Any) -> list[str]:
        Counter.calls += 1
        Counter.work += sum(len(word) * len(each) for each in possibilities)
        return plain(word, possibilities, *args, **kwargs)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    return Counter


# --- names ---------------------------------------------------------------------------------------------------------


def test_a_very_long_name_is_compared_with_nothing(counter: type[Counter]) -> None:
    assert did_you_mean("weights" * 10_000, ["weights", "class"]) == "there are: class, weights"
    assert counter.work == 0


def test_with_many_names_only_those_that_begin_alike_are_compared(counter: type[Counter]) -> None:
    known = [
        f"layer{stage}.{block}.conv{number}.weight" for stage in range(9) for block in range(99) for number in "123"
    ]
    assert did_you_mean("layer7.55.convv2.weight", known).startswith("did you mean 'layer7.55.conv2.weight'")
    assert counter.work <= 300_000
    assert did_you_mean("layer7.55.convv2.weight", [*known[:5], "layer7.55.conv2.weight"]).startswith("did you mean")


def test_a_file_of_near_misses_stops_at_the_hundredth_fault(counter: type[Counter], faults_of: Read) -> None:
    keys = "\n".join(f"    starting_epoc{number}: 1" for number in range(5_000))
    text = f"policies:\n  - pruner:\n{keys}\n"
    assert len(text) > 112_000
    with pytest.raises(UserError) as raised:
        faults_of(text)
    lines = str(raised.value).splitlines()
    assert len(lines) == MOST + 1
    assert lines[0].startswith("s.yaml:3:5: unknown key 'starting_epoc0' in a policy: did you mean")
    assert lines[-1] == "these are 100 faults: correct them to see more"
    assert counter.calls <= MOST + 1


def test_a_fault_of_a_very_long_name_is_a_short_line() -> None:
    faults = Faults()
    faults.add(Place("s.yaml", 1, 1), "x" * 100_000)
    assert len(faults.lines[0]) < 2_100


# --- selectors -----------------------------------------------------------------------------------------------------


@pytest.fixture
def names() -> WeightNames:
    """The weights of six layers."""
    return WeightNames(nn.ModuleDict({f"layer{n}": nn.Linear(2, 2) for n in range(6)}))


@pytest.mark.parametrize("item", ["layer0.weight", "layer*", "re:^layer[02]", "type:Linear", "*"])
def test_a_selector_that_matches_is_compared_with_no_name(
    item: str, names: WeightNames, counter: type[Counter]
) -> None:
    assert names.select(item)
    assert counter.calls == 0


@pytest.mark.parametrize("prefix", ["", "re:", "*", "type:"])
def test_a_selector_has_a_largest_length(prefix: str, names: WeightNames) -> None:
    with pytest.raises(NameFault, match="at most 500 are allowed"):
        names.select(prefix + (selectors.LONGEST + 1) * "a")


def test_a_glob_of_many_stars_takes_no_time(names: WeightNames) -> None:
    with pytest.raises(NameFault, match="matches no weight"):
        names.select("*a" * 200 + "b")


def test_a_pattern_that_tries_without_end_is_stopped() -> None:
    pattern = r"(?:(?:e|n|er|.)+)+1$"
    with pytest.raises(ValueError, match=r"takes longer than 0.1 s: repeat less in it"):
        patterns.matching(pattern, ["encoder.layers.encoder_layer_11.self_attention.in_proj_weight"])


BOMBS = ["((a{1000}){1000}){1000}", "(" * 40 + "a" + ")+" * 40, "(" * 30 + "a?" + "){3}" * 30, "(?:" * 200, "a{5000}"]


@pytest.mark.parametrize("pattern", BOMBS)
def test_a_pattern_that_would_be_multiplied_out_is_not_compiled(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns.regex, "compile", lambda *given: pytest.fail("compiled"))
    with pytest.raises(ValueError, match="is too large: at most 5 groups"):
        patterns.matching(pattern, ["a"])


HIDDEN = ["(?x)#[\n((a{1000}){1000})#]", "(?#[)((a{1000}){1000})(?#])", "(?i-s:(?ix:(a{ 1000}){1 000}))"]
HIDDEN += ["(?V1)[[a])]", 7 * "((((([[:alpha:])))))]" + "a" + 35 * ")+"]


@pytest.mark.parametrize("pattern", HIDDEN)
def test_a_pattern_whose_groups_and_counts_cannot_be_seen_is_not_compiled(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns.regex, "compile", lambda *given: pytest.fail("compiled"))
    with pytest.raises(ValueError, match="are not allowed"):
        patterns.matching(pattern, ["a"])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"(?i)^(?P<x>LAYER)0", ["layer0.weight"]),
        (r"^(?!layer0)", ["layer1.weight"]),
        (r"(\w)\1", []),
        (r"[(](?:\(\(\(\(\(\()*|1", ["layer1.weight"]),
        (r"^layer\d{1,3}\.weight$", ["layer0.weight", "layer1.weight"]),
        (r"weight(?<=t)", ["layer0.weight", "layer1.weight"]),
    ],
)
def test_other_patterns_mean_what_they_mean_in_python(pattern: str, found: list[str]) -> None:
    assert patterns.matching(pattern, ["layer0.weight", "layer1.weight"]) == found


# --- counts --------------------------------------------------------------------------------------------------------

MANY = 10**6
PHASES = {
    "dsd": f"dsd: {{dense_epochs: 1, sparse_epochs: 1, redense_epochs: 1, repeats: {MANY}, ",
    "iht": f"iht: {{sparse_epochs: 1, dense_epochs: 1, cycles: {MANY}, ",
}


@pytest.mark.parametrize("policy", PHASES.values(), ids=PHASES)
def test_phases_take_no_memory_in_proportion_to_their_number(
    policy: str, schedule_of: Callable[[str], Schedule]
) -> None:
    schedule = schedule_of(f"version: 2\npolicies:\n  - {policy} weights: '*', sparsity: 0.5}}\n")
    model = nn.Sequential(nn.Linear(4, 4))
    view: View = view_of(model, epochs=5, validates=True)
    tracemalloc.start()
    try:
        bound = schedule.bind(model, 5, Faults()).check(view, Faults())
        assert bound.policies[0].policy.settled(None) > MANY  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_random_images_of_a_smoke_run_are_small_where_the_full_size_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 2**20)
    made, _ = random_set(DataConfig(name="cifar10", size=128), None, 0)
    assert made.shape == (3, 128, 128)
    assert made.train.images.shape == (64, 3, 64, 64)  # type: ignore[attr-defined]
