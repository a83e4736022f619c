"""A run binds its schedule once: the network that is trained carries one pair of hooks where a criterion watches it."""

from pathlib import Path
from typing import Any

import pytest
from helpers import succeed
from torch import nn

from compressor.experiment import building, run
from compressor.models.output import Output

RUNNING = """\
version: 2
config: tiny
policies:
  - pruner:
      class: Pruner
      criterion: running_feature_map
      structure: Rows
      weights: [fc1.weight]
      rate: {events: 0.5}
    epochs: [1]
"""


def hooks(network: nn.Module) -> tuple[int, int]:
    """How many hooks before and after a forward pass all its modules carry, without the one that takes the logits."""
    modules = list(network.modules())
    after = [hook for one in modules for hook in one._forward_hooks.values() if not isinstance(hook, Output)]
    return sum(len(one._forward_pre_hooks) for one in modules), len(after)


def test_a_network_that_is_watched_carries_one_pair_of_hooks(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[nn.Module] = []
    begun: list[tuple[int, int]] = []
    new_model, start = building.new_model, run.start

    def model(*given: Any, **named: Any) -> nn.Module:
        built.append(new_model(*given, **named))
        assert hooks(built[-1]) == (0, 0)
        return built[-1]

    def started(*given: Any, **named: Any) -> Any:
        made = start(*given, **named)
        begun.append(hooks(made.model))
        return made

    monkeypatch.setattr(building, "new_model", model)
    monkeypatch.setattr(run, "start", started)
    (work / "running.yaml").write_text(RUNNING)
    succeed("train", "-s", "running.yaml", "-c", "tiny", "--out", "run", "--set", "epochs=2")
    assert begun == [(1, 1)]
    assert [hooks(network) for network in built] == [(1, 1)]
