"""What holds of every component on two processes, each of which sees one half of every batch; and of `attach`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import Pair
from test_components import COMPONENTS, every_component, schedule
from two_attached import GATED, SCHEDULE, THINS

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The two processes, started once."""
    found = Pair(tmp_path_factory.mktemp("pair"))
    yield found
    found.close()


@every_component
def test_both_processes_have_the_same_bits_after_every_step(key: str, pair: Pair) -> None:
    one, other = pair.ask("two_processes.digests", schedule(key))
    assert one == other


def test_control_without_the_reduction_they_have_not(pair: Pair) -> None:
    text = schedule("regularizers.L1Regularizer")
    one, other = pair.ask("two_processes.digests", text, reduces=False)
    assert all(one[moment]["model"] != other[moment]["model"] for moment in one)


@pytest.mark.parametrize("key", ["gates.HardConcreteL0", "pruners.BernoulliFilterPruner"])
def test_control_with_random_numbers_of_their_own_they_have_not(key: str, pair: Pair) -> None:
    one, other = pair.ask("two_processes.digests", schedule(key), apart=True)
    assert one != other


BY_IMAGE = {"gates.DropConnect": "it draws by image, and each process has its own images"}


@pytest.mark.parametrize("key", [key for key in COMPONENTS if key not in BY_IMAGE])
def test_two_halves_of_a_batch_train_as_the_whole_batch_on_one_process(key: str, pair: Pair) -> None:
    found, _ = pair.ask("two_processes.differs_from_one", schedule(key))
    assert found is None


@pytest.mark.parametrize(
    ("text", "plain"), [(GATED, False), (THINS, False), (GATED, True)], ids=["gated", "thinned", "own reduction"]
)
def test_attached_both_have_the_same_bits_after_every_step(pair: Pair, text: object, plain: bool) -> None:
    one, other = pair.ask("two_attached.digests", text, plain=plain)
    assert one == other
    assert len(set(one)) == len(one)


@pytest.mark.parametrize(("text", "parts"), [(GATED, 1), (THINS, 1), (SCHEDULE, 2)], ids=["gated", "thinned", "parts"])
def test_attached_two_halves_train_as_the_whole(pair: Pair, text: object, parts: int) -> None:
    found, _ = pair.ask("two_attached.differs_from_one", text, parts=parts)
    assert found is None


def test_attached_a_wrapper_of_the_old_shapes_says_that_it_must_be_built_again(pair: Pair) -> None:
    for said in pair.ask("two_attached.without_wrapping"):
        assert said.startswith("channels were removed (session.removals counts)")


def test_attached_only_the_first_process_says_something(pair: Pair) -> None:
    said, nothing = pair.ask("two_attached.what_is_said")
    assert any("parameters become" in line for line in said)
    assert nothing == []


@pytest.mark.parametrize("text", [SCHEDULE, THINS], ids=["masked", "thinned"])
def test_attached_a_run_goes_on_on_another_number_of_processes(pair: Pair, text: object) -> None:
    [answer, _] = pair.ask("two_attached.resumed_elsewhere", text)
    assert answer == [None, None]


@pytest.mark.slow
def test_the_example_of_two_processes_runs(pair: Pair, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "schedule.yaml", tmp_path)
    text, nothing = pair.ask("two_attached.example", str(EXAMPLES / "own_loop_processes.py"), str(tmp_path))
    assert len(text.splitlines()) == 7
    assert nothing == ""
