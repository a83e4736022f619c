"""The harness sees what is wrong: widths, reasons, logits, momentum, architecture."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from compressor.thinning import Cut
from zoo import harness
from zoo.entry import Entry, entries
from zoo.harness import examine

ENTRY = entries()["FlattenedRest"]
"""One that thins: stem 8 of 16, a 4 of 8, fc 16 of 32."""


def problems(**changes: Any) -> list[str]:
    return examine(replace(ENTRY, **changes)).problems


def test_a_network_as_expected_has_no_problems() -> None:
    found = examine(ENTRY)
    assert found.problems == []
    assert found.widths == {"stem.0": (8,), "stem.1": (8,), "a.0": (4,), "a.1": (4,), "fc": (16,)}
    assert found.stays == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widths": {**ENTRY.widths, "a": 5}}, "a.0 has 4 of 8, expected 5"),
        ({"widths": {"stem": 8, "a": 4}}, "fc has 16 of 32, expected 32"),
        ({"widths": {**ENTRY.widths, "b": 4}}, "b is expected to narrow, and names nothing that could"),
        ({"stays": {"a": "view"}}, "a should stay for 'view', and nothing says so"),
    ],
)
def test_another_expectation_fails(changes: dict[str, Any], said: str) -> None:
    assert f"thinned afterwards: {said}" in problems(**changes)


def test_a_filter_that_stays_needs_its_reason() -> None:
    stays = {"a.0": "view_1 has 128 values", "b": "mean"}
    assert harness.wrong_reasons({"a": "View", "b": "mean"}, stays) == []
    assert harness.wrong_reasons({"b": "mean"}, stays) == ["zero filters of a.0 stay: view_1 has 128 values"]
    assert harness.wrong_reasons({"a": "view", "b": "amax"}, stays) == [
        "b stays, and the reason does not name 'amax': mean"
    ]


@pytest.mark.parametrize("name", ["a.0.weight", "a.1.running_var", "fc.bias"])
def test_a_spoiled_tensor_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Cut.model

    def spoiled(self: Cut, network: nn.Module) -> None:
        plain(self, network)
        with torch.no_grad():
            network.state_dict()[name].view(-1)[0] += 0.1

    def thin(network: nn.Module, *arguments: Any, **named: Any) -> Any:
        found = thinned(network, *arguments, **named)
        monkeypatch.setattr(Cut, "model", spoiled)
        return found

    thinned = harness.thin
    monkeypatch.setattr(harness, "thin", thin)
    found = problems()
    assert any(line.startswith("thinned afterwards: float64: a logit changes by") for line in found)
    assert any(line.startswith("thinned afterwards: float32: a logit changes by") for line in found)


def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cut, "optimizer", lambda self, optimizer, parameters: optimizer.state.clear())


def _not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "restore_live", lambda network, live: network.get_parameter("fc.bias").data.add_(1e-6))


def _narrower(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = harness.describe
    monkeypatch.setattr(harness, "describe", lambda network: {**plain(network), "a.1": {"num_features": 3}})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_forgotten, "thinned in mid-training: the loss of step 3"),
        (_not_resumed, "resumed: "),
        (_narrower, "thinning afterwards: RuntimeError: Error(s) in loading state_dict"),
    ],
)
def test_what_a_run_or_an_export_lost_is_seen(
    spoil: Callable[[pytest.MonkeyPatch], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch)
    assert any(line.startswith(said) for line in problems())


def test_logits_that_do_not_depend_on_the_image_prove_nothing() -> None:
    def blind() -> nn.Module:
        network = ENTRY.make()
        network.register_forward_hook(lambda module, given, out: out * 1e-6)
        return network

    found = examine(Entry("blind", "none", blind, ENTRY.widths)).problems
    assert any("hardly depend on the image" in line for line in found)
