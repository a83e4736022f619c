"""Thinning as a user meets it: in mid-run, by `compress thin`, resumed, evaluated, fine-tuned, reloaded in Python."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import compress, interrupted, metrics, run_difference, saved, succeed, write_tiny

import compressor
from compressor.errors import UserError
from compressor.experiment.loading import load

FILTERS = """\
version: 2
config: tiny
pruners:
  neurons: {class: L1RankedStructureParameterPruner, group_type: Rows, desired_sparsity: 0.5, weights: [fc1.weight]}
policies:
  - {pruner: {instance_name: neurons}, epochs: [1]}
"""
"""Half of the 16 hidden neurons of `tiny`'s 64-16-10: 8 stay, that is 8 (64 + 1) + 10 (8 + 1) = 610 parameters."""

THINNER = """\
  - {extension: {class: StructureRemover}, epochs: [2]}
"""

DENSE, THIN = 16 * 65 + 10 * 17, 610


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run with half of its neurons masked."""
    folder = tmp_path_factory.mktemp("masked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tiny(folder)
        (folder / "filters.yaml").write_text(FILTERS)
        succeed("train", "-s", "filters", "--out", "run", "--set", "epochs=3")
        yield folder / "run"


def parameters(path: Path) -> int:
    return sum(tensor.numel() for tensor in saved(path)["model"].values())


def test_a_masked_run_is_thinned_and_says_what_that_gains(masked: Path) -> None:
    out = succeed("thin", masked, "--out", "thin.pt")
    assert (parameters(masked / "checkpoint.pt"), parameters(Path("thin.pt"))) == (DENSE, THIN)
    assert f"{DENSE:,} parameters became {THIN:,}" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert "zeros alone save no time" in lines["masked"]
    assert lines["thin"].split()[1:3] == [f"{THIN:,}", f"{8 * 64 + 10 * 8:,}"]
    assert "1 thread of the cpu" in out


def test_a_run_is_explained_as_its_configuration_is_and_neither_takes_the_other(masked: Path) -> None:
    of_run = json.loads(succeed("thin", masked, "--explain", "--json"))
    assert of_run == json.loads(succeed("thin", "--explain", "-c", "tiny", "--json"))
    assert not (masked / "thin.pt").exists()
    result = compress("thin", masked, "--explain", "-c", "tiny")
    assert (result.code, result.out) == (2, "")
    assert "has its own configuration: leave out --config" in result.err
    succeed("thin", masked, "--out", "thin.pt")
    assert json.loads(succeed("thin", "thin.pt", "--explain", "--json"))["groups"][0]["channels"] == 8


def test_the_json_report_has_the_stages_and_claims_nothing_of_the_masked_one(masked: Path) -> None:
    report = json.loads(succeed("thin", masked, "--out", "thin.pt", "--json"))
    stages = {stage["name"]: stage for stage in report["comparison"]["stages"]}
    assert list(stages) == ["dense", "masked", "thin"]
    gains = {(timing["stage"], timing["batch"]): timing["times_as_fast"] for timing in report["latency"]["timings"]}
    assert [gains["dense", batch] for batch in (1, 16)] == [1, 1]
    assert [gains["masked", batch] for batch in (1, 16)] == [None, None]
    assert all(gains["thin", batch] > 0 for batch in (1, 16))
    assert stages["masked"]["macs"] == stages["dense"]["macs"] == 16 * 64 + 160
    assert report["totals"]["dense_weights"] == 16 * 64 + 160
    [thinning] = report["thinnings"]
    assert thinning["largest_difference"] <= 1e-4
    assert thinning["images"] == 256


def test_the_dense_stage_computes_with_the_masked_networks_values(masked: Path) -> None:
    loaded = load(masked)
    own = loaded.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.dense().state_dict().items())
    succeed("thin", masked, "--out", "thin.pt")
    assert load(Path("thin.pt")).dense().get_submodule("fc1").weight.shape == (16, 64)


def test_a_thin_checkpoint_evaluates_reports_and_reloads_as_it_was(masked: Path) -> None:
    succeed("thin", masked, "--out", "thin.pt")
    before, after = (json.loads(succeed("eval", path, "--json")) for path in (masked, "thin.pt"))
    assert after == pytest.approx(before, abs=1e-4)
    report = json.loads(succeed("report", "thin.pt", "--json"))
    assert [row["shape"] for row in report["tensors"]] == [[8, 64], [10, 8]]
    network = compressor.load("thin.pt")
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), compressor.load(masked)(images))
    assert not network.training


def test_loading_what_is_no_checkpoint_is_one_clear_error() -> None:
    with pytest.raises(UserError, match=r"nothing\.pt: no such file"):
        compressor.load("nothing.pt")


def test_widths_can_be_rounded_up(masked: Path) -> None:
    succeed("thin", masked, "--round-to", "6", "--out", "thin.pt")
    assert saved(Path("thin.pt"))["model"]["fc1.weight"].shape == (12, 64)


def test_a_thin_checkpoint_is_not_overwritten(masked: Path) -> None:
    succeed("thin", masked)
    result = compress("thin", masked)
    assert result.code == 2
    assert "thin.pt exists" in result.err
    (masked / "thin.pt").unlink()


def test_where_nothing_is_zero_the_file_has_the_network_as_it_is_and_one_line_says_so() -> None:
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--out", "run")
    counted = "(0 of 1,184 weights are zero)"
    said = f"run: nothing to remove: no filter and no channel is all zero {counted}; thin.pt has the network as it is"
    assert succeed("thin", "run", "--out", "thin.pt") == f"{said}\n"
    before, after = (saved(Path(name)) for name in ("run/checkpoint.pt", "thin.pt"))
    assert all(torch.equal(value, after["model"][name]) for name, value in before["model"].items())
    assert (after["thinnings"], "architecture" in after) == ([], False)
    assert succeed("eval", "thin.pt") == succeed("eval", "run")
    result = compress("thin", "run", "--out", "again.pt", "--json")
    assert (result.code, json.loads(result.out)["thinnings"], said.replace("thin.pt", "again.pt") in result.err) == (
        0,
        [],
        True,
    )


@pytest.mark.parametrize(
    ("zero", "said"),
    [
        (lambda w: w["fc2.weight"][:2].zero_(), "fc2.weight: 2 zero filters stay: they are the network's output"),
        (lambda w: w["fc1.weight"][:, :3].zero_(), ""),  # columns of pixels are no channels that could go
        (lambda w: w["fc1.weight"][::2, ::2].zero_(), ""),  # scattered zeros
    ],
)
def test_zero_filters_of_which_none_can_be_removed_end_with_1_and_the_reasons(
    zero: Callable[[dict[str, torch.Tensor]], object], said: str, masked: Path
) -> None:
    run = saved(masked / "checkpoint.pt")
    draws = torch.Generator().manual_seed(0)
    run["model"] = {name: torch.rand(value.shape, generator=draws) + 0.1 for name, value in run["model"].items()}
    zero(run["model"])
    torch.save(run, "zero.pt")
    result = compress("thin", "zero.pt", "--out", "thin.pt")
    assert (result.code, Path("thin.pt").exists()) == ((1, False) if said else (0, True)), result.err
    if said:
        assert result.err == (
            f"error: zero.pt: nothing was removed, though filters or channels are all zero:\n  {said}\n"
        )


def test_a_run_whose_remover_removed_nothing_is_complete_and_ends_with_1() -> None:
    columns = FILTERS.replace("fc1", "fc2").replace("Rows", "Cols")
    Path("kept.yaml").write_text(columns + THINNER.replace("Structure", "Filter"))
    result = compress("train", "-s", "kept", "--out", "run")
    reasons = "\n  fc2.weight: 8 zero channels stay: only channels that are 0 are removed here (StructureRemover also"
    said = "1.FilterRemover, epoch 2: nothing was removed, though filters or channels are all zero:" + reasons
    assert (result.code, f"error: {said}" in result.err) == (1, True), result.err
    assert f"warning: {said}" in result.out + result.err
    assert saved(Path("run/checkpoint.pt"))["finished"]
    listed = succeed("report", "run", "--no-latency")
    assert f"epoch 2): nothing was removed, though filters or channels are all zero{reasons}" in listed
    assert "finished already" in succeed("train", "-s", "kept", "--out", "run", "--resume")  # as with a missed target
    succeed("train", "-s", "kept", "--out", "tried", "--smoke")


def test_fine_tuning_starts_from_a_thin_checkpoint(masked: Path) -> None:
    succeed("thin", masked, "--out", "thin.pt")
    succeed("train", "-c", "tiny", "--init", "thin.pt", "--out", "tuned", "--set", "epochs=2")
    assert parameters(Path("tuned/checkpoint.pt")) == parameters(Path("tuned/best.pt")) == THIN
    assert compressor.load("tuned").get_submodule("fc1").weight.shape == (8, 64)


def test_in_mid_run_the_network_is_thinned_said_and_counted_against_the_dense_one() -> None:
    Path("thinned.yaml").write_text(FILTERS + THINNER)
    out = succeed("train", "-s", "thinned", "--out", "run")
    assert f"{DENSE:,} parameters become {THIN:,}" in out
    assert parameters(Path("run/checkpoint.pt")) == parameters(Path("run/best.pt")) == THIN
    kept = (8 * 64 + 10 * 8) / (16 * 64 + 160)
    assert [line["sparsity"] for line in metrics(Path("run"))][2:] == pytest.approx([1 - kept] * 2)
    report = json.loads(Path("run/sparsity.json").read_text())
    assert report["thinnings"][0]["when"] == "1.StructureRemover, epoch 2"
    assert report["totals"]["dense_weights"] == 16 * 64 + 160


@pytest.mark.parametrize(("epoch", "step"), [(1, 9), (2, 0), (2, 9), (3, 3)])
def test_a_thinned_run_resumes_to_the_same_bits(epoch: int, step: int) -> None:
    Path("thinned.yaml").write_text(FILTERS + THINNER)
    averaged = ("-s", "thinned", "--set", "ema={decay: 0.9}", "--set", "optimizer={name: adamw, lr: 0.01}")
    succeed("train", *averaged, "--out", "whole")
    interrupted(*averaged, "--out", "run", epoch=epoch, step=step)
    succeed("train", *averaged, "--out", "run", "--resume")
    assert run_difference(Path("run"), Path("whole")) is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"fc1": {"in_features": 64, "out_features": 99}}, "'fc1'"),
        ({"fc9": {"in_features": 64, "out_features": 8}}, "'fc9'"),
        ({"fc1": {"in_features": "many"}}, "'fc1'"),
        ([1, 2], "a table of layers"),
        ({"fc1": {"in_features": 64, "out_features": 7}}, "fc1.weight is (8, 64) there, (7, 64) here"),
    ],
)
def test_a_damaged_architecture_is_one_clear_error(masked: Path, spoil: object, said: str) -> None:
    succeed("thin", masked, "--out", "thin.pt")
    checkpoint = saved(Path("thin.pt"))
    checkpoint["architecture"] = spoil
    torch.save(checkpoint, "bad.pt")
    for command in (("eval", "bad.pt"), ("report", "bad.pt"), ("train", "-c", "tiny", "--init", "bad.pt")):
        result = compress(*command)
        assert result.code == 2, result.err
        assert said in result.err
        assert len(result.err.splitlines()) == 1


RESIDUAL = """\
model: {name: resnet20_cifar}
data: {name: digits, channels: 3, size: 8, images: 128, batch: 32, validation: 0.1}
optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1e-4}
epochs: 2
report: {html: false}
"""
DEPTH = """\
version: 2
config: small
pruners:
  dead: {class: StructureParameterPruner, reg_regims: {'layer[13].1.conv2.weight': [9, 4D]}, threshold_criteria: Max}
policies:
  - {pruner: {instance_name: dead}, epochs: [1]}
"""


def speaking(block: str, which: int) -> list[str]:
    """A convolution of a block, and what speaks for it."""
    return [f"{block}.conv{which}.weight", f"{block}.bn{which}.weight", f"{block}.bn{which}.bias"]


def test_a_layer_that_is_pruned_as_a_whole_goes_with_its_norm_and_compress_thin_skips_the_block(work: Path) -> None:
    (work / "small.yaml").write_text(RESIDUAL)
    (work / "depth.yaml").write_text(DEPTH)
    succeed("train", "-s", "depth", "--out", "run")
    trained = saved(work / "run" / "checkpoint.pt")["model"]
    for block in ("layer1.1", "layer3.1"):
        assert not any(trained[name].any() for name in speaking(block, 2))
        assert all(trained[name].any() for name in speaking(block, 1))
    assert trained["layer2.1.conv2.weight"].all()
    out = succeed("thin", "run", "--out", "thin.pt")
    named = "layer1.1.conv1, layer1.1.conv2, layer3.1.conv1, layer3.1.conv2"
    assert f"skipped: no later layer reads them: {named}\n" in out
    assert named in succeed("report", "thin.pt")
    before, after = (json.loads(succeed("eval", path, "--json")) for path in ("run", "thin.pt"))
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(compressor.load("thin.pt")(x), compressor.load("run")(x), rtol=1e-4, atol=1e-4)
    succeed("train", "-c", "small", "--init", "thin.pt", "--out", "tuned")
    assert len(metrics(work / "tuned")) == 2
    assert "layer1.1.conv1.weight" not in saved(work / "tuned" / "checkpoint.pt")["model"]
    result = compress("thin", "thin.pt", "--out", "again.pt")
    assert (result.code, "nothing to remove" in result.out) == (0, True)
