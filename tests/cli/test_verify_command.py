"""`compress verify`: claims judged by runs that it makes, finds or continues; the smoke digest; failures."""

import json
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from helpers import compress, saved, signal_after, succeed

# Half of 1,024 + 160 weights: 592 zeros, 592 multiply-adds.
SCHEDULE = """\
version: 2
config: tiny
expect: {claim}
pruners:
  half: {{class: SparsityLevelParameterPruner, levels: {{'*': 0.5}}}}
policies:
  - {{pruner: {{instance_name: half}}, epochs: [0]}}
"""
HOLDS = "{top1: {min: 5.0, seeds: 2}, sparsity: 0.5, macs: 592}"


def claim(work: Path, text: str, name: str = "claimed") -> None:
    (work / f"{name}.yaml").write_text(SCHEDULE.format(claim=text))


@pytest.fixture
def quick(work: Path) -> Path:
    """The working directory; a run of tiny.yaml has one epoch."""
    (work / "tiny.yaml").write_text((work / "tiny.yaml").read_text().replace("epochs: 4", "epochs: 1"))
    return work


def top1(run: Path) -> float:
    return float(saved(run / "checkpoint.pt")["metrics"]["test"]["top1"])


def changed(file: Path, **values: Any) -> None:
    """Change the record of `claimed` in records.json."""
    content = json.loads(file.read_text())
    content["schedules"]["claimed"].update(values)
    file.write_text(json.dumps(content))


def test_the_mean_of_the_seeds_is_judged_and_the_runs_are_taken_again(quick: Path) -> None:
    claim(quick, HOLDS)
    out = succeed("verify", "claimed")
    assert [line.split()[-1] for line in out.splitlines() if "claimed " in line][1:] == ["-", *["holds"] * 3]
    assert "the claims of 1 of 1 schedule hold" in out
    runs = sorted((quick / "runs").iterdir())
    assert [saved(run / "checkpoint.pt")["config"]["seed"] for run in runs] == [0, 1]
    reached = [top1(run) for run in runs]
    mean = sum(reached) / 2
    assert min(reached) < mean  # otherwise the mean and the lowest one are equal
    claim(quick, f"{{top1: {{min: {mean - 0.01:.4f}, seeds: 2}}}}")
    result = compress("verify", "claimed")
    assert result.code == 0
    assert f"{mean:.2f} %, mean of 2 seeds ({min(reached):.2f} to {max(reached):.2f})" in result.out
    assert result.err.count("finished already") == 2
    claim(quick, f"{{top1: {{min: {mean + 0.01:.4f}, seeds: 2}}}}")
    assert compress("verify", "claimed").code == 1
    best = max(range(2), key=reached.__getitem__)
    if best == 0:
        assert compress("verify", "claimed", "--seeds", 1).code == 0
    assert sorted((quick / "runs").iterdir()) == runs


def test_every_missed_figure_is_a_failure_that_names_its_schedule(quick: Path) -> None:
    claim(quick, HOLDS.replace("seeds: 2", "seeds: 1"))
    claim(quick, "{top1: {min: 100}, sparsity: 0.51, macs: 591}", "other")
    result = compress("verify", "claimed", "other", "--seeds", 1, "--junit", "verify.xml")
    assert result.code == 1
    assert "other: sparsity: claimed at least 51.00 %, reached 50.00 %" in result.out
    assert "other: MACs: claimed at most 591 MACs, reached 592 MACs" in result.out
    assert "the claims of 1 of 2 schedules hold" in result.out
    root = ElementTree.parse(quick / "verify.xml").getroot()
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "8",
        "failures": "3",
        "errors": "0",
        "skipped": "2",
    }
    failures = {case.get("name"): case.find("failure") for case in root.iter("testcase")}
    missed = {name: failure.get("message", "") for name, failure in failures.items() if failure is not None}
    assert list(missed) == [f"other: {figure}" for figure in ("test top-1", "sparsity", "MACs")]
    assert all(message.startswith("other: ") for message in missed.values())


def test_the_smoke_digest_is_compared_where_torch_and_processor_are_the_recorded_ones(quick: Path) -> None:
    claim(quick, "{sparsity: 0.5}")
    assert "none is recorded" in succeed("verify", "claimed")
    assert "written: " in compress("verify", "claimed", "--record").err
    file = quick / "records.json"
    assert "smoke digest" in succeed("verify", "claimed")
    assert " equal " in succeed("verify", "claimed")
    kept = file.read_text()
    changed(file, smoke="0" * 64)
    result = compress("verify", "claimed", "--junit", "verify.xml")
    assert result.code == 1
    assert "claimed: the smoke digest differs" in result.out
    [failure] = ElementTree.parse(quick / "verify.xml").getroot().iter("failure")
    assert str(failure.get("message")).startswith("claimed: ")
    environment = json.loads(kept)["schedules"]["claimed"]["environment"]
    for name, other in (
        ("processor", {**environment, "processor": "another"}),
        ("torch", {**environment, "versions": {**environment["versions"], "torch": "1.0"}}),
        ("numpy", {**environment, "versions": {**environment["versions"], "numpy": "1.0"}}),
    ):
        changed(file, environment=other)
        out = succeed("verify", "claimed")
        assert "not compared" in out
        assert name in out
    changed(file, environment=environment)
    (quick / "claimed.yaml").write_text((quick / "claimed.yaml").read_text().replace("'*': 0.5", "'*': 0.6"))
    assert "the schedule or its configuration has changed since" in succeed("verify", "claimed")


def test_a_missed_claim_prints_how_environment_and_data_differ_from_the_record(quick: Path) -> None:
    claim(quick, "{sparsity: 0.5}")
    succeed("verify", "claimed", "--record")
    claim(quick, "{sparsity: 0.6}")
    assert "  environment and data are those of the record" in compress("verify", "claimed").out
    record = json.loads((quick / "records.json").read_text())["schedules"]["claimed"]
    counts = [1, *record["data"]["counts"]["train"][1:]]
    environment = {**record["environment"], "versions": {**record["environment"]["versions"], "numpy": "1.0"}}
    data = {**record["data"], "counts": {**record["data"]["counts"], "train": counts}}
    changed(quick / "records.json", environment=environment, data=data)
    result = compress("verify", "claimed", "--json")
    assert result.code == 1
    [found] = json.loads(result.out)["schedules"]
    numpy, images = found["differences"]
    assert numpy.startswith("numpy is ")
    assert numpy.endswith(" here, 1.0 in the record")
    assert images.startswith("data: the number of train images by class: '0' had 1, has ")


def test_an_interrupted_call_is_continued(quick: Path) -> None:
    claim(quick, HOLDS)
    succeed("train", "-s", "claimed", "--seed", 0, "--out", "runs/whatever")
    with signal_after(signal.SIGTERM, 0, 5):
        assert compress("verify", "claimed").code == 128 + signal.SIGTERM
    result = compress("verify", "claimed")
    assert result.code == 0
    assert "whatever: finished already" in result.err
    assert "continuing in epoch 1 after 6 steps" in result.err
    assert len(list((quick / "runs").iterdir())) == 2


def test_a_run_that_begins_with_another_one_begins_with_its_last_weights_of_the_same_seed(quick: Path) -> None:
    claim(quick, "{sparsity: 0.5, init: {config: tiny, set: {optimizer.lr: 0.05}}, set: {optimizer.lr: 0.01}}")
    succeed("verify", "claimed", "--seeds", 2)
    configs = {path.parent: yaml.safe_load(path.read_text()) for path in (quick / "runs").glob("*/config.yaml")}
    starts = {str(path / "checkpoint.pt"): config for path, config in configs.items() if "dense" in path.name}
    others = [config for path, config in configs.items() if "claimed" in path.name]
    assert [config["optimizer"]["lr"] for config in starts.values()] == [0.05, 0.05]
    assert sorted(config["seed"] for config in others) == [0, 1]
    for config in others:
        assert config["optimizer"]["lr"] == 0.01
        assert (
            starts[config["init"]["path"] if isinstance(config["init"], dict) else config["init"]]["seed"]
            == config["seed"]
        )


def test_all_faults_are_said_before_anything_is_trained(quick: Path) -> None:
    claim(quick, HOLDS)
    claim(quick, "{top2: 3}", "wrong")
    (quick / "silent.yaml").write_text(SCHEDULE.replace("expect: {claim}\n", "").format())
    result = compress("verify", "claimed", "wrong", "silent", "nowhere")
    assert result.code == 2
    assert "wrong.yaml:3:10" in result.err
    assert "silent.yaml: it claims nothing that could be verified" in result.err
    assert "no schedule 'nowhere'" in result.err
    assert compress("verify", "claimed", "--junit", "no/verify.xml").code == 2
    assert not (quick / "runs").exists()


def test_without_its_data_a_schedule_is_an_error_and_the_others_are_judged(quick: Path) -> None:
    claim(quick, "{sparsity: 0.5}")
    (quick / "mnist.yaml").write_text((quick / "tiny.yaml").read_text().replace("digits", "mnist"))
    claim(quick, "{sparsity: 0.5, config: mnist}", "missing")
    result = compress("verify", "missing", "claimed", "--data", "no-data", "--junit", "verify.xml")
    assert result.code == 2
    assert "missing: not judged: mnist" in result.out
    assert "the claims of 1 of 2 schedules hold" in result.out
    [error] = ElementTree.parse(quick / "verify.xml").getroot().iter("error")
    assert str(error.get("message")).startswith("missing: mnist")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 9, "schedules": {}}', '{"schema": 1, "schedules": {"claimed": {}}}']
)
def test_a_damaged_record_is_said(quick: Path, text: str) -> None:
    claim(quick, "{sparsity: 0.5}")
    (quick / "records.json").write_text(text)
    result = compress("verify", "claimed")
    assert result.code == 2
    assert "records.json: " in result.out
