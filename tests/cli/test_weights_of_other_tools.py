"""`eval`, `report`, `thin`, `train --init` and `compressor.load` with files that other tools wrote."""

import json
from pathlib import Path

import pytest
import torch
from helpers import compress, saved, succeed
from torch import Tensor

import compressor
from compressor import models
from compressor.errors import UserError

SMALL = ("--set", "data.images=128", "--set", "epochs=1", "--set", "data.validation=0")
FROZEN = (*SMALL, "--set", "optimizer.lr=1e-30", "--set", "optimizer.weight_decay=0")


@pytest.fixture
def weights(work: Path) -> dict[str, Tensor]:
    """Two sets of weights of the network of `tiny`, in one file; in the first half of the hidden neurons are zero."""
    torch.manual_seed(0)
    network, average = (models.build("mlp", num_classes=10, hidden=[16], dropout=[0.2], inputs=64) for _ in range(2))
    with torch.no_grad():
        network.fc1.weight[8:] = 0  # type: ignore[union-attr, operator]
        network.fc1.bias[8:] = 0  # type: ignore[union-attr, operator]
    content = {"model": network.state_dict(), "model_ema": average.state_dict(), "epoch": 4}
    torch.save(content, work / "theirs.pth")
    return network.state_dict()


def top1(*arguments: object) -> float:
    return float(json.loads(succeed("eval", *arguments, "--json"))["top1"])


def test_they_are_evaluated_under_a_configuration(weights: dict[str, Tensor]) -> None:
    result = compress("eval", "theirs.pth", "-c", "tiny", "--json")
    assert result.code == 0
    assert result.err.startswith("theirs.pth: 4 tensors under 'model', of epoch 4; not read: 'model_ema' (")
    succeed("train", "-c", "tiny", *FROZEN, "--init", "theirs.pth", "--out", "run")
    assert json.loads(result.out)["top1"] == top1("run")
    assert all(torch.equal(value, weights[name]) for name, value in saved(Path("run/best.pt"))["model"].items())


def test_another_key_is_chosen_in_the_configuration(weights: dict[str, Tensor], work: Path) -> None:
    (work / "average.yaml").write_text(
        (work / "tiny.yaml").read_text() + "init: {path: theirs.pth, weights: model_ema}\n"
    )
    out = succeed("train", "-c", "average", *FROZEN, "--out", "run")
    assert "theirs.pth: 4 tensors under 'model_ema', of epoch 4; not read: 'model' (" in out
    assert "theirs.pth: 4 tensors under 'model_ema'" in (work / "run" / "log.txt").read_text()
    begun = saved(Path("run/checkpoint.pt"))["model"]
    assert all(torch.equal(value, torch.load("theirs.pth")["model_ema"][name]) for name, value in begun.items())
    failed = compress("train", "-c", "average", "--set", "init.weights=model_em", "--out", "other")
    assert failed.code == 2
    assert "no weights under 'model_em': did you mean 'model_ema'" in failed.err
    assert not (work / "other").exists()


def test_the_best_weights_of_a_run_are_begun_with(weights: dict[str, Tensor], work: Path) -> None:
    succeed("train", "-c", "tiny", *SMALL, "--out", "run")
    best = saved(work / "run" / "best.pt")
    best["model"] = weights
    torch.save(best, work / "run" / "best.pt")
    out = succeed("train", "-c", "tiny", *FROZEN, "--init", "run", "--out", "next")
    assert f"{work}/run/best.pt: read, of epoch 1" in out
    assert f"{work}/run has 512 zero weights" in out
    assert all(torch.equal(value, weights[name]) for name, value in saved(Path("next/best.pt"))["model"].items())
    (work / "run" / "best.pt").unlink()
    failed = compress("train", "-c", "tiny", *SMALL, "--init", "run", "--out", "third")
    assert failed.code == 2
    assert "no weights" in failed.err


def test_the_report_has_no_accuracy_and_needs_no_data(weights: dict[str, Tensor]) -> None:
    report = json.loads(
        succeed("report", "theirs.pth", "-c", "tiny", "--json", "--no-latency"),
        parse_constant=lambda constant: pytest.fail(constant),
    )
    totals = report["totals"]
    assert (totals["weights"], totals["nonzero"]) == (64 * 16 + 160, 64 * 8 + 160)
    assert (totals["top1"], totals["train_top1"]) == (None, None)


def test_a_thin_checkpoint_of_them_is_like_any_other(weights: dict[str, Tensor]) -> None:
    before = top1("theirs.pth", "-c", "tiny")
    out = succeed("thin", "theirs.pth", "-c", "tiny", "--set", "data.batch=32", "--no-latency")
    assert "1,210 parameters became 610" in out
    thin = saved(Path("thin.pt"))
    assert (thin["shape"], thin["classes"]) == ([1, 8, 8], [str(digit) for digit in range(10)])
    assert thin["config"]["data"]["batch"] == 32
    assert top1("thin.pt") == before
    told, introduced = succeed("train", "-c", "tiny", *SMALL, "--init", "thin.pt", "--out", "run").splitlines()[:2]
    assert told.endswith("1 layer is narrower than the model's: fc1 16 -> 8")
    assert "610 parameters" in introduced
    assert "compress thin" in succeed("report", "thin.pt")


def test_python_gets_the_network(weights: dict[str, Tensor]) -> None:
    network = compressor.load("theirs.pth", config="tiny")
    assert not network.training
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="give the configuration of their model and data with --config"):
        compressor.load("theirs.pth")


def test_without_a_configuration_the_model_that_a_file_names_must_have_a_single_one(work: Path) -> None:
    content = {"arch": "vgg11_bn_cifar", "state_dict": models.build("vgg11_bn_cifar", num_classes=10).state_dict()}
    torch.save(content, work / "vgg.pth.tar")
    result = compress("report", "vgg.pth.tar", "--json", "--no-latency")
    assert result.code == 0
    assert "it names the model vgg11_bn_cifar: read under the configuration vgg11_cifar10" in result.err
    torch.save({**content, "arch": "resnet18"}, work / "resnet.pth.tar")
    assert "it names the model 'resnet18'): give" in (said := compress("report", "resnet.pth.tar").err)
    assert "shipped for resnet18: resnet18_cifar10, resnet18_cifar10_adam, resnet18_digits, resnet18_imagenet" in said


@pytest.mark.parametrize("command", ["eval", "report", "thin"])
def test_a_checkpoint_has_its_own_configuration(command: str, weights: dict[str, Tensor]) -> None:
    succeed("thin", "theirs.pth", "-c", "tiny", "--no-latency", "--out", "own.pt")
    for given, named in ((("-c", "tiny"), "--config"), (("--set", "data.batch=3"), "--set")):
        failed = compress(command, "own.pt", *given)
        assert failed.code == 2
        assert failed.err == f"error: own.pt has its own configuration: leave out {named}\n"


@pytest.mark.parametrize("command", ["eval", "report", "thin"])
def test_what_does_not_fit_is_one_message(command: str, weights: dict[str, Tensor], work: Path) -> None:
    failed = compress(command, "theirs.pth", "-c", "lenet5_digits")
    assert failed.code == 2
    assert failed.err.splitlines()[-1].startswith("error: theirs.pth: the weights do not fit this model")
    failed = compress(command, "tiny.yaml", "-c", "tiny")
    assert failed.code == 2
    assert failed.err == "error: tiny.yaml: no weights: it is a YAML file (a configuration is given with --config)\n"


def test_which_file_of_a_run_was_read_is_said_where_the_best_is_another(work: Path) -> None:
    succeed("train", "-c", "tiny", *SMALL, "--out", "run")
    run = work / "run"
    assert compress("eval", "run").err == ""
    torch.save({**saved(run / "best.pt"), "epoch": 0}, run / "best.pt")
    assert compress("eval", "run").err == "run: read checkpoint.pt (epoch 1, the last); best.pt is of epoch 0\n"
    assert compress("eval", "run/best.pt").err == ""
    (run / "best.pt").write_bytes(b"")
    assert compress("eval", "run").err == ""
    (run / "best.pt").unlink()
    assert compress("eval", "run").err == ""


def test_what_is_left_out_without_strict_is_listed_where_a_file_is_evaluated(
    weights: dict[str, Tensor], work: Path
) -> None:
    torch.save({**weights, "centers": torch.ones(3)}, work / "more.pth")
    refused = compress("eval", "more.pth", "-c", "tiny")
    assert (refused.code, "unknown here: centers" in refused.err) == (2, True)
    result = compress("eval", "more.pth", "-c", "tiny", "--set", "init.strict=false", "--json")
    assert "more.pth: strict: false: unknown here: centers" in result.err
    assert json.loads(result.out)["top1"] == top1("theirs.pth", "-c", "tiny")
