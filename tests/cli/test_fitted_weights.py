"""A run that begins with the weights of another tool, as a user meets it: thinned ones, sparse ones, other classes."""

import json
from pathlib import Path

import pytest
import torch
from helpers import compress, interrupted, run_difference, saved, succeed

import compressor
from compressor import models

SCHEDULE = """\
version: 2
pruners:
  neurons: {class: L1RankedStructureParameterPruner, group_type: Rows, desired_sparsity: 0.5, weights: [fc1.weight]}
policies:
  - {pruner: {instance_name: neurons}, epochs: [0]}
  - {extension: {class: StructureRemover}, epochs: [2]}
"""


def write(path: str, hidden: int, classes: int = 10, sparse: bool = False) -> None:
    """A plain state_dict of `tiny`'s network, as Lightning names it, with so many hidden neurons; `tiny` has 16."""
    torch.manual_seed(0)
    network = models.build("mlp", inputs=64, hidden=[hidden], num_classes=classes)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    if sparse:
        state["model.fc1.weight"][:, ::2] = 0
    torch.save(state, path)


def test_a_run_begins_with_a_thinned_network_and_everything_after_it_knows_the_widths(work: Path) -> None:
    """16 neurons in the model, 12 in the file, 6 after the pruner: 6 (64 + 1) + 10 (6 + 1) = 460 parameters."""
    write("narrow.pt", 12)
    (work / "schedule.yaml").write_text(SCHEDULE)
    train = ("-s", "schedule.yaml", "-c", "tiny", "--init", "narrow.pt", "--set", "epochs=3")
    said = succeed("train", *train, "--out", "whole")
    assert "narrow.pt: the prefix 'model.' of its names is left out" in said
    assert "narrow.pt: 1 layer is narrower than the model's: fc1 16 -> 12" in said
    assert "mlp (910 parameters) on digits" in said  # 12 (64 + 1) + 10 (12 + 1)
    interrupted(*train, "--out", "halted", epoch=1)
    assert saved(work / "halted" / "checkpoint.pt")["architecture"]["fc1"] == {"in_features": 64, "out_features": 12}
    (work / "narrow.pt").unlink()
    succeed("train", "--resume", "--out", "halted")
    assert run_difference(work / "halted", work / "whole") is None
    assert "of the dense network's 1,184 weights 444 are left" in succeed("report", "whole", "--no-latency")
    assert "top-1" in succeed("eval", "whole")
    assert compressor.load("whole").get_submodule("fc1").weight.shape == (6, 64)
    thin = compress("thin", "halted", "--out", "thin.pt")
    assert (thin.code, "nothing to remove" in thin.out) == (0, True)
    # Which weights are dense is told by the model of the configuration, not by the file.
    write("narrow.pt", 12)
    succeed("train", "-c", "tiny", "--init", "narrow.pt", "--set", "epochs=1", "--out", "plain")
    totals = json.loads(succeed("report", "plain", "--json", "--no-latency"))["totals"]
    assert (totals["weights"], totals["dense_weights"]) == (12 * 74, 16 * 74)


def test_zeros_of_another_tools_file_are_counted_and_kept(work: Path) -> None:
    write("sparse.pt", 16, sparse=True)
    start = ("train", "-c", "tiny", "--init", "sparse.pt", "--set", "epochs=1")
    assert "sparse.pt has 512 zero weights, 43.2 % of 1,184: they are trained again" in succeed(
        *start, "--out", "plain"
    )
    assert "512 zero weights, 43.2 % of 1,184: they stay zero" in succeed(*start, "--keep-zeros", "--out", "held")
    assert int((saved(work / "held" / "checkpoint.pt")["model"]["fc1.weight"] == 0).sum()) == 512


def test_other_classes_need_head_reset_and_what_is_left_out_stands_in_the_log(work: Path) -> None:
    write("seven.pt", 16, classes=7)
    start = ("train", "-c", "tiny", "--set", "epochs=1", "--out", "run")
    refused = compress(*start, "--init", "seven.pt")
    assert refused.code == 2
    assert "fc2.weight is (7, 16) there, (10, 16) here" in refused.err.splitlines()[-1]
    assert "head: reset" in refused.err.splitlines()[-1]
    assert not (work / "run").exists()
    succeed(*start, "--set", "init={path: seven.pt, head: reset}")
    line = (
        "head: reset: new random weights: fc2.weight ((7, 16) there, (10, 16) here), fc2.bias ((7,) there, (10,) here)"
    )
    assert line in (work / "run" / "log.txt").read_text()


@pytest.mark.parametrize("strict", ["true", "false"])
def test_strict_false_begins_with_what_fits_and_lists_the_rest(work: Path, strict: str) -> None:
    write("wide.pt", 20)
    result = compress(
        "train", "-c", "tiny", "--set", "epochs=1", "--set", f"init={{path: wide.pt, strict: {strict}}}", "--out", "run"
    )
    assert result.code == (2 if strict == "true" else 0)
    said = result.err if strict == "true" else (work / "run" / "log.txt").read_text()
    assert "3 tensors do not fit: fc1.weight is (20, 64) there, (16, 64) here" in said


def test_one_of_several_networks_in_a_file_is_chosen_by_the_prefix_of_its_names(work: Path) -> None:
    write("one.pt", 16)
    one = {name.removeprefix("model."): tensor for name, tensor in torch.load("one.pt", weights_only=True).items()}
    both = {
        f"{whose}.{name}": tensor + (whose == "teacher") for name, tensor in one.items() for whose in ("a", "teacher")
    }
    torch.save({"state_dict": both}, "both.pt")
    start = ("train", "-c", "tiny", "--set", "epochs=1", "--set", "optimizer.lr=1e-30", "--out", "run")
    refused = compress(*start, "--init", "both.pt")
    assert (
        "2 networks that fit this model, under 'a.', 'teacher.': choose with `init: {path: ..., weights: a}`"
        in refused.err
    )
    succeed(*start, "--set", "init={path: both.pt, weights: teacher}")
    assert torch.equal(saved(work / "run" / "checkpoint.pt")["model"]["fc1.weight"], one["fc1.weight"] + 1)
    wrong = compress(*start[:-1], "other", "--set", "init={path: both.pt, weights: student}")
    assert wrong.code == 2
    assert "no weights under 'student'" in wrong.err
