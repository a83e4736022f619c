"""Instability (t_pre - t_post) / t_pre: accuracies that are known by hand, and that measuring leaves no trace."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, compress, difference, metrics, succeed
from loop import Batch, Loop, random_batches
from torch import Tensor, nn

from compressor.errors import UserError

KEY = "1.instability"
STILL = {"lr": 1e-30}
"""Nothing moves: what is measured is what was set by hand."""

IMAGES: list[Batch] = [(torch.tensor([[1.0, 0], [1, 0.5], [0, 1]]), torch.tensor([0, 0, 1]))]
"""Of `two_by_two` all three are right. Where the second row is pruned, it says 0, and two are right. The feed's test
images are these in reverse order under the same labels: one is right, and two where the second row is pruned."""


def two_by_two() -> nn.Linear:
    """logits (2 x0 + .1, x1); 2 of its 4 weights are 0."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 0], [0, 1]]))
        model.bias.copy_(torch.tensor([0.1, 0]))
    return model


def schedule(*pruners: str, arguments: str = "part: validation", window: str = "") -> str:
    lines = [f"  - {{pruner: {{class: Pruner, {text}}}\n" for text in pruners]
    return f"version: 2\npolicies:\n{''.join(lines)}  - {{instability: {{{arguments}}}{window}}}\n"


def level(sparsity: float, epochs: str = "[0]", more: str = "") -> str:
    return f"weights: weight, rate: {{sparsity: {sparsity}}}{more}}}, epochs: {epochs}"


def figures(run: Loop, epoch: int, key: str = KEY) -> dict[str, float]:
    found: dict[str, float] = run.lines[epoch].get("figures", {}).get(key, {})
    return found


def test_accuracy_right_before_and_right_after_an_event() -> None:
    run = Loop(two_by_two(), IMAGES, schedule(level(0.75)), optimizer=STILL).run()  # the zeros and the 1
    assert figures(run, 0) == {
        "events": 1,
        "effective": 1,
        "before": 100.0,
        "after": pytest.approx(200 / 3),
        "instability": pytest.approx(1 / 3),
        "mean_instability": pytest.approx(1 / 3),
        "stability": pytest.approx(200 / 3),
    }


def test_it_measures_behind_all_that_prunes_wherever_it_stands_in_the_file() -> None:
    pruner = f"  - {{pruner: {{class: Pruner, {level(0.75)}}}\n"
    run = Loop(two_by_two(), IMAGES, f"version: 2\npolicies:\n  - instability: {{}}\n{pruner}", optimizer=STILL).run()
    assert figures(run, 0, "0.instability")["instability"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("epoch", [0, 1])  # where validation is known from the epoch before, it is of other images
def test_on_the_test_images_where_the_paper_measures(epoch: int) -> None:
    text = schedule(level(0.75, f"[{epoch}]"), arguments="part: test")
    run = Loop(two_by_two(), IMAGES, text, epochs=2, optimizer=STILL).run()
    found = figures(run, epoch)
    assert (found["before"], found["after"]) == (pytest.approx(100 / 3), pytest.approx(200 / 3))
    assert found["instability"] == pytest.approx(-1)  # pruning helped
    assert found["stability"] == pytest.approx(200)


@pytest.mark.parametrize("more", ["", ", args: {use_double_copies: true}", ", args: {mask_on_forward_only: true}"])
def test_in_every_mode_it_is_the_accuracy_of_the_masked_network(more: str) -> None:
    run = Loop(two_by_two(), IMAGES, schedule(level(0.75, more=more)), optimizer=STILL).run()
    assert (figures(run, 0)["before"], figures(run, 0)["after"]) == (100.0, pytest.approx(200 / 3))


def test_an_event_without_an_effect_has_instability_0_and_counts() -> None:
    text = schedule(level(0.5), level(0.75, "[2]"))
    run = Loop(two_by_two(), IMAGES, text, epochs=4, optimizer=STILL).run()
    lines = [figures(run, epoch, "2.instability") for epoch in range(4)]
    assert lines[0]["instability"] == 0  # what was pruned was 0 before
    assert [line["events"] for line in lines] == [1, 1, 2, 2]
    assert [line["effective"] for line in lines] == [0, 0, 1, 1]
    assert [line["stability"] for line in lines] == pytest.approx([100, 100, 500 / 6, 500 / 6])  # the mean of 0, 1/3
    assert ["instability" in line for line in lines] == [True, False, True, False]


def test_an_unpruned_network_has_no_events() -> None:
    run = Loop(two_by_two(), IMAGES, "version: 2\npolicies:\n  - instability: {}\n", epochs=2, optimizer=STILL).run()
    assert all("figures" not in line for line in run.lines)


def test_a_network_that_is_never_right_is_not_divided_by() -> None:
    wrong = [(IMAGES[0][0], 1 - IMAGES[0][1])]
    found = figures(Loop(two_by_two(), wrong, schedule(level(0.75)), optimizer=STILL).run(), 0)
    assert (found["before"], found["instability"], found["stability"]) == (0, 0, 100)


def test_all_that_prunes_at_one_epoch_is_one_event() -> None:
    text = schedule(level(0.75), "weights: weight, rate: {threshold: 3}}, epochs: [0]")
    run = Loop(two_by_two(), IMAGES, text, optimizer=STILL).run()
    found = figures(run, 0, "2.instability")
    assert found["events"] == 1
    assert (found["before"], found["after"]) == (100, pytest.approx(200 / 3))  # of both together


def test_only_what_is_newly_masked_is_an_event() -> None:
    # The same masks again in epoch 1; and a dense phase, which lets go of them.
    run = Loop(two_by_two(), IMAGES, schedule(level(0.75, "[0, 1]")), epochs=2, optimizer=STILL).run()
    assert [figures(run, epoch)["events"] for epoch in range(2)] == [1, 1]
    phases = "  - dsd: {weights: weight, sparsity: 0.75, dense_epochs: 1, sparse_epochs: 1, redense_epochs: 1}\n"
    text = f"version: 2\npolicies:\n{phases}  - instability: {{}}\n"
    run = Loop(two_by_two(), IMAGES, text, epochs=3, optimizer=STILL).run()
    assert [figures(run, epoch).get("events") for epoch in range(3)] == [None, 1, 1]


def test_it_measures_in_the_epochs_of_its_window_alone() -> None:
    text = schedule("weights: weight, rate: {events: 0.75}}, ending_epoch: 3", window=", epochs: [1]")
    run = Loop(two_by_two(), IMAGES, text, epochs=3, optimizer=STILL).run()
    assert [figures(run, epoch).get("events") for epoch in range(3)] == [None, 1, None]


class Net(nn.Module):
    """conv - bn - relu - dropout - fc: its accuracy moves, and so do its statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.bn, self.drop = nn.Conv2d(1, 8, 2), nn.BatchNorm2d(8), nn.Dropout(0.3)
        self.fc = nn.Linear(8, 3)
        nn.init.normal_(self.bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 1, 4, 4)
        logits: Tensor = self.fc(self.drop(torch.relu(self.bn(self.conv(x)))).mean((2, 3)))
        return logits


PRUNE = "criterion: l2, structure: Filters, weights: conv.weight, rate: {events: 0.75}}, ending_epoch: 6, frequency: 2"
VALIDATION = random_batches([50, 50], features=16, seed=9)


def train(text: str, epochs: int = 6, **settings: Any) -> Loop:
    settings = {"optimizer": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, **settings}
    train = random_batches([10] * 4, features=16)
    return Loop(Net(), train, text, epochs=epochs, validation=VALIDATION, **settings).run()


def top1(weights: dict[str, Tensor]) -> float:
    model = Net()
    model.load_state_dict(weights)
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in VALIDATION)
    return 100 * right / 100


@pytest.mark.parametrize("settings", [{}, {"ema": {"decay": 0.7}}], ids=["plain", "averaged"])
def test_in_training_it_is_the_last_validation_and_that_of_the_network_pruned_by_hand(settings: dict[str, Any]) -> None:
    run = train(schedule(PRUNE), **settings)
    instabilities = []
    for event, epoch in enumerate((2, 4), 2):
        saved = run.at((epoch, 0))
        trained = saved["state"]["live"] if settings else saved["model"]  # who goes is decided by what is trained
        norms = {**saved["model"], **trained}["conv.weight"].flatten(1).norm(dim=1)
        weights = {name: tensor.clone() for name, tensor in saved["model"].items()}
        for place in norms.argsort()[: 2 * event]:  # 6 of 8 in 3 events
            for name in ("conv.weight", "conv.bias", "bn.weight", "bn.bias"):
                weights[name][place] = 0
        found = figures(run, epoch)
        assert found["before"] == run.lines[epoch - 1]["val"]["top1"] == pytest.approx(top1(saved["model"]))
        assert found["after"] == pytest.approx(top1(weights))
        assert found["instability"] == (found["before"] - found["after"]) / found["before"]
        instabilities.append(found["instability"])
    assert any(instabilities)
    first = figures(run, 0)["instability"]
    assert figures(run, 5)["mean_instability"] == pytest.approx((first + sum(instabilities)) / 3)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_run_that_is_measured_has_the_bits_of_one_that_is_not(part: str) -> None:
    measured = train(schedule(PRUNE, arguments=f"part: {part}"))
    plain = train("version: 2\npolicies:\n" + f"  - {{pruner: {{class: Pruner, {PRUNE}}}\n")
    assert figures(measured, 5)["events"] == 3
    assert difference(measured.after, plain.after) is None
    without = [{key: value for key, value in line.items() if key != "figures"} for line in measured.lines]
    assert without == plain.lines
    assert difference(measured.at((6, 0))["model"], plain.at((6, 0))["model"]) is None
    assert difference(measured.at((6, 0))["state"]["rng"], plain.at((6, 0))["state"]["rng"]) is None


# --- through the command ----------------------------------------------------------------------------------------------

TEXT = """\
version: 2
config: tiny
policies:
  - pruner: {class: Pruner, structure: Rows, weights: fc1.weight, rate: {events: 0.9}}
    ending_epoch: 4
    frequency: 2
  - instability: {part: validation}
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "s.yaml").write_text(TEXT)
    return tmp_path


def test_its_figures_stand_in_the_metrics_and_in_the_report(files: Path) -> None:
    out = succeed("train", "-s", "s", "--out", "run")
    lines = [line["figures"][KEY] for line in metrics(files / "run")]
    assert [line["events"] for line in lines] == [1, 1, 2, 2]
    mean = (lines[0]["instability"] + lines[2]["instability"]) / 2
    assert lines[3]["mean_instability"] == pytest.approx(mean)
    assert lines[3]["stability"] == pytest.approx(100 - 100 * mean)
    assert lines[2]["before"] == metrics(files / "run")[1]["val"]["top1"]
    assert json.loads((files / "run" / "sparsity.json").read_text())["figures"][KEY] == lines[3]
    assert f"{KEY}: events 2, effective" in (files / "run" / "log.txt").read_text() + out


@pytest.mark.parametrize("command", [("train", "-s", "s"), ("validate", "s")])
def test_without_held_out_images_it_is_an_error_that_names_its_place(files: Path, command: tuple[str, ...]) -> None:
    result = compress(*command, "--set", "data.validation=0")
    assert result.code == 2
    said = "s.yaml:7:5: 1.instability needs validation images, the configuration has none: set data.validation\n"
    assert result.err.removeprefix("error: ") == said
    (files / "s.yaml").write_text(TEXT.replace("part: validation", "part: test"))
    assert compress("validate", "s", "--set", "data.validation=0").code == 0


def test_without_held_out_images_the_policy_itself_refuses_too() -> None:
    with pytest.raises(UserError, match=r"no validation images: data.validation is 0 \(`part: test`"):
        Loop(two_by_two(), IMAGES, schedule(level(0.75)), validation=[])


def test_a_window_in_steps_is_refused(files: Path) -> None:
    (files / "s.yaml").write_text(TEXT + "    starting_step: 0\n    ending_step: 4\n")
    result = compress("validate", "s")
    assert result.code == 2
    assert "events are measured at the beginning of epochs: its window counts epochs" in result.err
