"""One process alone, and two over gloo, started once: sums, decisions, and streams that are the same on both."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import environment

from compressor.world import World

WORKER = """\
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from compressor.errors import UserError
from compressor.world import Processes

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(rank)
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
)
world = Processes(seed=3)
found = {"rank": world.rank, "size": world.size}

mine = torch.tensor([1.0, 10.0]) * (rank + 1)
found["sum"], found["summand"] = world.sum(mine), mine

calls = []
found["decided"] = world.decide(lambda: (calls.append(rank), {"rank": rank, "draw": float(torch.rand(()))})[1])
found["calls"] = calls


def refuse():
    raise UserError(f"refused on rank {rank}")


try:
    world.decide(refuse)
except UserError as error:
    found["refused"] = str(error)

before = torch.get_rng_state()
a, b = world.stream("a"), world.stream("b")
found["draws"] = torch.rand(3, generator=a)
found["other"] = torch.rand(3, generator=b)
found["global"] = torch.equal(torch.get_rng_state(), before)
state = {name: bits.clone() for name, bits in world.state_dict().items()}
found["next"] = torch.rand(2, generator=a)
late = torch.rand(2, generator=world.stream("late"))
world.load_state_dict(state)
found["again"] = torch.rand(2, generator=a)
found["begins again"] = torch.equal(torch.rand(2, generator=world.stream("late")), late)

other = Processes(seed=3)
other.load_state_dict(state)
found["elsewhere"] = torch.rand(2, generator=other.stream("a"))
found["of another seed"] = torch.rand(3, generator=Processes(seed=4).stream("a"))
torch.save(found, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found; they meet at a file."""
    folder = tmp_path_factory.mktemp("pair")
    variables = {**environment(), "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    command = [sys.executable, "-c", WORKER]
    running = [subprocess.Popen([*command, str(rank), str(folder)], env=variables) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_know_who_they_are(pair: list[dict[str, Any]]) -> None:
    assert [(one["rank"], one["size"]) for one in pair] == [(0, 2), (1, 2)]


def test_a_sum_is_over_both_and_leaves_the_summands(pair: list[dict[str, Any]]) -> None:
    assert [one["sum"].tolist() for one in pair] == [[3, 30], [3, 30]]
    assert [one["summand"].tolist() for one in pair] == [[1, 10], [2, 20]]


def test_rank_0_decides_for_both_and_the_other_does_not_compute(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["decided"] == pair[1]["decided"]
    assert pair[0]["decided"]["rank"] == 0
    assert [one["calls"] for one in pair] == [[0], []]


def test_what_fails_on_rank_0_fails_on_both(pair: list[dict[str, Any]]) -> None:
    assert [one["refused"] for one in pair] == ["refused on rank 0"] * 2


def test_a_stream_is_the_same_on_both_ranks_and_none_of_the_global_one(pair: list[dict[str, Any]]) -> None:
    for name in ("draws", "other", "next"):
        assert torch.equal(pair[0][name], pair[1][name])
    one = pair[0]
    assert not torch.equal(one["draws"], one["other"])
    assert not torch.equal(one["draws"], one["of another seed"])
    assert one["global"]


def test_saved_streams_go_on_and_one_that_was_not_saved_begins_again(pair: list[dict[str, Any]]) -> None:
    for one in pair:
        assert torch.equal(one["again"], one["next"])
        assert torch.equal(one["elsewhere"], one["next"])
        assert one["begins again"]


def test_one_process_sums_and_decides_for_itself() -> None:
    world, summand = World(), torch.tensor([1.0, 2.0])
    assert (world.rank, world.size) == (0, 1)
    assert torch.equal(world.sum(summand), summand)
    answer: Callable[[], str] = lambda: "mine"  # noqa: E731
    assert world.decide(answer) == "mine"


def test_the_streams_of_one_process_are_torch_s_global_generator() -> None:
    world = World()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn = [torch.rand(1, generator=world.stream(name)) for name in ("a", "b", "a")]
    assert torch.equal(torch.cat(drawn), expected)
    assert world.state_dict() == {}
    world.load_state_dict({})
