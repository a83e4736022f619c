"""What holds of every component on two processes, each of which sees one half of every batch; and of `attach`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import Pair
from rig import ADAM, merged, windowed
from test_components import COMPONENTS, schedule
from two_attached import GATED, SCHEDULE, THINS

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The two processes, started once."""
    found = Pair(tmp_path_factory.mktemp("pair"))
    yield found
    found.close()


FEW = {
    *("pruners.AutomatedGradualPruner", "pruners.SensitivityPruner", "pruners.ActivationAPoZRankedFilterPruner_AGP"),
    *("pruners.GradientRankedFilterPruner", "pruners.BernoulliFilterPruner", "pruners.FMReconstructionChannelPruner"),
    *("pruners.Pruner", "pruners.SplicingPruner", "regularizers.GroupLassoRegularizer"),
    *("lr_schedulers.ReduceLROnPlateau", "extensions.StructureRemover", "policies.batchnorm", "policies.dsd"),
    *("policies.channel_pruning", "policies.instability", "policies.strided"),
    *(key for key in COMPONENTS if key.startswith("gates.")),
}
"""Those of `make test`, beside all of them at once: the others go the ways of one of these."""

MORE = {
    "running statistics": """
version: 2
policies:
  - pruner: {class: Pruner, criterion: running_feature_map, structure: Filters, weights: ['conv*.weight'],
             rate: {agp: {final_sparsity: 0.5}}}
    ending_epoch: 3
""",
    "noise of a step": """
version: 2
policies:
  - noise: {class: Pruner, criterion: taylor, structure: Filters, weights: ['conv*.weight'], rate: {events: 0.5},
            args: {kind: gaussian, batches: 3}}
    ending_epoch: 3
""",
    "noise of a ranking": """
version: 2
policies:
  - pruner: {class: L1RankedStructureParameterPruner_AGP, group_type: Filters, weights: ['conv*.weight'],
             final_sparsity: 0.8, noise: 0.5}
    ending_epoch: 3
  - pruner: {class: Pruner, criterion: random, weights: [fc1.weight], rate: {random: {between: [0.1, 0.9]}}}
    ending_epoch: 3
""",
}
"""What no example of a component shows."""

every_one = pytest.mark.parametrize(
    "key", [*(pytest.param(key, marks=[pytest.mark.slow] * (key not in FEW)) for key in COMPONENTS), *MORE]
)

BY_IMAGE = {"gates.DropConnect": "it draws by image, and each process has its own images"}

TRAINED: dict[str, Any] = {}


def text(key: str) -> str:
    """The example of a component, in epochs 0, 1 and 2."""
    return windowed(schedule(key), first=0, end=3)


def trained(pair: Pair, key: str) -> Any:
    """The two answers of both processes for an exact run, made once."""
    if key not in TRAINED:
        # DropConnect's inference is in single precision.
        how = "digests" if key in BY_IMAGE else "halves"
        found = pair.ask(f"two_processes.{how}", MORE.get(key) or text(key))
        TRAINED[key] = [(answer, None) for answer in found] if key in BY_IMAGE else found
    return TRAINED[key]


@every_one
def test_both_processes_have_the_same_bits_after_every_step(key: str, pair: Pair) -> None:
    (one, _), (other, _) = trained(pair, key)
    assert one == other
    assert len({digests["model"] for digests in one.values()}) >= 12


@every_one
def test_two_halves_of_a_batch_train_as_the_whole_batch_on_one_process(key: str, pair: Pair) -> None:
    (_, difference), _ = trained(pair, key)
    assert difference is None


@pytest.mark.parametrize("key", [pytest.param(key, marks=pytest.mark.slow) for key in COMPONENTS])
def test_with_dropout_and_batch_norm_they_have_the_same_bits(key: str, pair: Pair) -> None:
    one, other = pair.ask("two_processes.digests", text(key))
    assert one == other


def test_all_components_at_once_have_the_same_bits_with_dropout_and_batch_norm(pair: Pair) -> None:
    config = {"optimizer": {**ADAM, "clip_norm": 1.0}, "ema": {"decay": 0.8}}
    one, other = pair.ask("two_processes.digests", merged(*map(text, COMPONENTS)), **config)
    assert one == other


def test_control_without_the_reduction_they_have_not(pair: Pair) -> None:
    one, other = pair.ask("two_processes.digests", text("regularizers.L1Regularizer"), reduces=False)
    assert all(one[moment]["model"] != other[moment]["model"] for moment in one)


@pytest.mark.parametrize("key", ["gates.HardConcreteL0", "pruners.BernoulliFilterPruner"])
def test_control_with_random_numbers_of_their_own_they_have_not(key: str, pair: Pair) -> None:
    one, other = pair.ask("two_processes.digests", text(key), apart=True)
    assert one != other


@pytest.mark.parametrize(
    ("given", "plain"), [(GATED, False), (THINS, False), (GATED, True)], ids=["gated", "thinned", "own reduction"]
)
def test_attached_both_have_the_same_bits_after_every_step(pair: Pair, given: object, plain: bool) -> None:
    one, other = pair.ask("two_attached.digests", given, plain=plain)
    assert one == other
    assert len(set(one)) == len(one)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        pytest.param(GATED, 1, id="gated", marks=pytest.mark.slow),
        pytest.param(THINS, 1, id="thinned"),
        pytest.param(SCHEDULE, 2, id="parts"),
    ],
)
def test_attached_two_halves_train_as_the_whole(pair: Pair, given: object, parts: int) -> None:
    found, _ = pair.ask("two_attached.differs_from_one", given, parts=parts)
    assert found is None


def test_attached_a_wrapper_of_the_old_shapes_says_that_it_must_be_built_again(pair: Pair) -> None:
    for said in pair.ask("two_attached.without_wrapping"):
        assert said.startswith("channels were removed (session.removals counts)")


def test_attached_only_the_first_process_says_something(pair: Pair) -> None:
    said, nothing = pair.ask("two_attached.what_is_said")
    assert any("parameters become" in line for line in said)
    assert nothing == []


@pytest.mark.parametrize(
    "given", [pytest.param(SCHEDULE, id="masked", marks=pytest.mark.slow), pytest.param(THINS, id="thinned")]
)
def test_attached_a_run_goes_on_on_another_number_of_processes(pair: Pair, given: object) -> None:
    [answer, _] = pair.ask("two_attached.resumed_elsewhere", given)
    assert answer == [None, None]


@pytest.mark.slow
def test_the_example_of_two_processes_runs(pair: Pair, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "schedule.yaml", tmp_path)
    text, nothing = pair.ask("two_attached.example", str(EXAMPLES / "own_loop_processes.py"), str(tmp_path))
    assert len(text.splitlines()) == 7
    assert nothing == ""
