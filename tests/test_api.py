"""The functions of the package: what the commands do, in Python."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, difference, succeed, write_tiny
from torch import nn

import compressor
from compressor.errors import CompressError, UserError

FEW = {"epochs": 2, "data.images": 128, "data.batch": 32, "report": {"html": False}}


def test_the_package_alone_imports_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys, compressor; dir(compressor); compressor.__version__;"
        "print([name for name in ('torch', 'pydantic', 'yaml', 'compressor.api') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[]"]


def test_every_public_name_is_there_and_an_unknown_one_is_named() -> None:
    assert [name for name in compressor.__all__ if not hasattr(compressor, name)] == []
    assert set(compressor.__all__) <= set(dir(compressor))
    with pytest.raises(AttributeError, match="no attribute 'atach'"):
        compressor.atach  # noqa: B018
    for name in compressor.__all__:
        if name != "__version__":
            assert (getattr(compressor, name).__doc__ or "").strip(), name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return tmp_path


def test_train_plan_validate_report_load_are_the_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = compressor.train("prune", overrides=FEW, out="run", seed=3)
    assert outcome.folder == Path("run")
    assert outcome.report is not None
    sets = [part for key, value in FEW.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = compress("train", "-s", "prune", "--out", "command", "--seed", "3", *sets)
    assert command.err == "error: " + "\n".join(outcome.shortfalls) + "\n"
    one, other = compressor.load("run"), compressor.load(here / "command")
    assert difference(dict(one.state_dict()), dict(other.state_dict())) is None
    # A loaded network needs no sample: its images are known.
    by_path, by_network = compressor.report("run", latency=False), compressor.report(one, latency=False)
    assert by_path.tensors == by_network.tensors == outcome.report.tensors
    assert by_path.totals.macs == by_network.totals.macs == 64 * 16 + 16 * 10
    assert by_path.totals.top1 == outcome.report.totals.top1
    made = compressor.plan("prune", overrides={"epochs": 4}, say=lambda text: None)
    capsys.readouterr()
    assert json.loads(made.model_dump_json(by_alias=True)) == json.loads(
        succeed("plan", "prune", "--json", "--set", "epochs=4")
    )
    assert next(policy.fires for policy in made.policies) == [1, 2, 3]
    assert not [one for one in compressor.validate("prune") if one.severity == "error"]


def test_findings_have_a_place_and_a_severity(here: Path) -> None:
    (here / "wrong.yaml").write_text((here / "prune.yaml").read_text().replace("fc1.weight", "fc7.weight"))
    faults = [one for one in compressor.validate("wrong.yaml") if one.severity == "error"]
    assert len(faults) == 1
    place = faults[0].place
    assert place is not None
    assert (place.source, place.line) == ("wrong.yaml", 6)
    assert "fc7.weight" in faults[0].text
    with pytest.raises(UserError, match=r"wrong\.yaml:6:"):
        compressor.plan("wrong.yaml")
    with pytest.raises(UserError, match="plain values"):
        compressor.plan("prune", overrides={"epochs": object()})


def test_a_run_may_be_trained_outside_of_the_main_thread(here: Path) -> None:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(compressor.train("prune", overrides=FEW, out="run", smoke=True))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert isinstance(found[0], compressor.Outcome), found


def pruned() -> nn.Sequential:
    """A network of 4 and 6 filters, of which 2 and 3 are zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 3)
    )
    with torch.no_grad():
        for layer, zeros in ((model[0], 2), (model[2], 3)):
            layer.weight[:zeros] = 0
            layer.bias[:zeros] = 0
    return model


def test_a_model_is_thinned_in_a_copy() -> None:
    model, sample = pruned(), torch.randn(5, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    thin, record = compressor.thin(model, sample)
    assert [tuple(p.shape) for p in thin.parameters()][::2] == [(2, 1, 3, 3), (3, 2, 3, 3), (3, 48)]
    assert torch.allclose(thin(sample), model(sample), atol=1e-6)
    assert difference(dict(model.state_dict()), before) is None
    assert record is not None
    assert (record.parameters_before, record.parameters_after) == (40 + 222 + 291, 20 + 57 + 147)
    assert model.training
    again = compressor.thin(thin, sample)
    assert again.thinning is None
    assert compressor.thin(pruned(), sample, round_to=4).model[0].weight.shape[0] == 4  # type: ignore[index,union-attr]


def test_zeros_that_cannot_go_are_an_error_with_the_reason() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            with torch.no_grad():
                self.two.weight[0] = 0
                self.two.bias[0] = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x)).sort(-1).values  # type: ignore[no-any-return]

    with pytest.raises(CompressError, match="two"):
        compressor.thin(Positions(), torch.randn(3, 4))


def test_a_report_of_a_model_needs_a_sample() -> None:
    with pytest.raises(UserError, match="give sample_input"):
        compressor.report(pruned())
    found = compressor.report(pruned(), torch.zeros(1, 1, 8, 8), latency=False)
    assert found.totals.weights == 36 + 216 + 288
    assert found.totals.nonzero == 18 + 108 + 288
    assert found.totals.macs == 36 * 36 + 216 * 16 + 288
    assert found.comparison is not None
    assert found.comparison.stages[0].name == "masked"


def test_a_report_of_a_session_is_of_what_is_shipped_and_counts_removed_channels() -> None:
    schedule = {
        "version": 2,
        "policies": [
            {
                "pruner": {"class": "Pruner", "structure": "Filters", "weights": "0.weight", "rate": {"sparsity": 0.5}},
                "epochs": [0],
            }
        ],
    }
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    session = compressor.attach(
        schedule,
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        epochs=1,
        steps_per_epoch=1,
        sample_input=torch.randn(2, 1, 8, 8),
        say=lambda text: None,
    )
    with session.epoch(0), session.step() as step:
        step.backward(nn.functional.cross_entropy(model(torch.randn(2, 1, 8, 8)), torch.tensor([0, 1])))
    masked = compressor.report(session, latency=False)
    assert masked.totals.nonzero == 18 + 432
    assert masked.thinnings == []
    session.thin()
    thin = compressor.report(session, latency=False)
    assert (thin.totals.weights, thin.totals.dense_weights) == (18 + 216, 36 + 432)
    assert thin.thinnings[0].parameters_after == 20 + 219
    assert thin.comparison is not None
    assert thin.comparison.stages[0].name == "thin"
