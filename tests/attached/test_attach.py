"""What `attach` takes, and what it refuses by name and place."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import difference
from own_loop import GATED, STEPS, Net, attached, batches, train, weights

from compressor.attached import attach
from compressor.attached.images import Calibration
from compressor.errors import UserError

NEEDY = """\
version: 2
policies:
  - batchnorm: {batches: 2}
    ending_epoch: 2
  - instability: {part: test}
  - lr_scheduler: {class: ReduceLROnPlateau}
    ending_epoch: 2
  - pruner: {class: Pruner, structure: Filters, criterion: apoz, weights: 2.weight, rate: {sparsity: 0.5}}
    ending_epoch: 2
"""
IMAGE = (1, 8, 8)


def refused(schedule: Any, **more: Any) -> str:
    with pytest.raises(UserError) as error:
        attached(schedule, **more)
    return str(error.value)


def test_a_policy_that_needs_images_that_were_not_given_is_refused_by_name_and_line(tmp_path: Path) -> None:
    file = tmp_path / "needy.yaml"
    file.write_text(NEEDY)
    said = refused(str(file), shape=IMAGE)
    assert said.splitlines() == [
        f"{file}:3:5: 0.batchnorm needs training images: give attach(calibration=...), batches of (images, labels)",
        f"{file}:5:5: 1.instability needs test images, which attach does not take: choose `part: validation`",
        f"{file}:6:5: 2.ReduceLROnPlateau needs validation images: give attach(validation=...), batches of (images,"
        " labels)",
        f"{file}:8:5: 3.Pruner needs training images: give attach(calibration=...), batches of (images, labels)",
    ]
    given = {"calibration": batches(IMAGE), "validation": batches(IMAGE)}
    assert "1.instability" in refused(file, shape=IMAGE, **given)
    file.write_text(
        NEEDY.replace("test", "validation").replace("batchnorm: {batches: 2}", "freeze: {weights: 0.weight}")
    )
    it = attached(file, shape=IMAGE, **given)
    train(it, 1, given=batches(IMAGE))


def test_a_schedule_as_a_mapping_is_the_schedule_of_a_file(tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "gated.yaml"
    file.write_text(yaml.safe_dump(GATED))
    assert difference(train(attached(GATED)), train(attached(file))) is None


def test_faults_have_the_path_of_a_value_in_a_mapping() -> None:
    wrong = {
        "version": 2,
        "policies": [{"pruner": {"class": "Pruner", "weights": "fc9.weight", "rate": {"sparsity": 1.5}}}],
    }
    said = refused(wrong)
    assert said.startswith("the schedule: policies.0.pruner")
    assert "sparsity" in said
    wrong["policies"][0]["pruner"]["rate"] = {"sparsity": 0.5}  # type: ignore[index]
    assert refused(wrong).startswith("the schedule: policies.0.pruner.weights: ")
    assert "plain values" in refused({"version": 2, "policies": [torch.zeros(1)]})


def test_a_refused_schedule_leaves_model_and_optimizer_as_they_were() -> None:
    torch.manual_seed(1)
    model = Net()
    before, optimizer = weights(model), torch.optim.SGD(model.parameters(), 0.1)
    state = torch.get_rng_state()
    broken = {**GATED, "policies": [*GATED["policies"], {"batchnorm": {"batches": 2}, "ending_epoch": 3}]}
    with pytest.raises(UserError, match="no batch norm"):
        attach(
            broken,
            model,
            optimizer,
            epochs=3,
            steps_per_epoch=STEPS,
            sample_input=batches()[0][0],
            calibration=batches(),
        )
    assert len(optimizer.param_groups) == 1
    assert difference(weights(model), before) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_arguments_that_cannot_be_meant_are_refused() -> None:
    assert "epochs=0" in refused(GATED, epochs=0)
    assert "steps_per_epoch=2.5" in refused(GATED, steps_per_epoch=2.5)
    assert "got (6,) torch.float32" in refused(GATED, sample_input=torch.zeros(6))
    assert "torch.int64" in refused(GATED, sample_input=torch.zeros(1, 6, dtype=torch.int64))
    with pytest.raises(UserError, match="it holds no parameter of the model"):
        attach(
            GATED,
            Net(),
            torch.optim.SGD(Net().parameters(), 0.1),
            epochs=3,
            steps_per_epoch=4,
            sample_input=batches()[0][0],
        )
    assert "no schedule 'nowhere'" in refused("nowhere")


def test_the_number_of_training_images_is_said_where_it_is_guessed() -> None:
    said: list[str] = []
    attached(GATED, say=said.append)
    assert [line for line in said if "0.l0" in line and "taken as 20" in line]
    said.clear()
    it = attached(GATED, say=said.append, images=1000)
    assert not [line for line in said if "taken as" in line]
    assert it.data.images == 1000

    class Loader:
        dataset = range(77)

        def __iter__(self) -> Any:
            return iter(batches())

    assert attached(GATED, calibration=Loader()).data.images == 77


# --- calibration ------------------------------------------------------------------------------------------------------


def calibration(source: Any) -> Calibration:
    return Calibration(source, lambda: torch.device("cpu"), seed=3)


def test_calibration_batches_are_always_the_first_ones() -> None:
    given = batches(count=5)
    for source in (given, iter(given)):
        found = calibration(source)
        assert [x is y for (x, _), (y, _) in zip(found(2), given, strict=False)] == [True] * 2
        assert len(found(4)) == 4
        assert found(4)[3][0] is given[3][0]
        assert len(found(9)) == 5
    with pytest.raises(UserError, match="calibration gave no batch"):
        calibration([])(1)


def test_a_loader_that_shuffles_gives_the_same_batches_and_draws_nothing_from_the_loop() -> None:
    images, labels = torch.randn(40, 6), torch.randint(0, 3, (40,))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 5, shuffle=True)
    torch.manual_seed(11)
    first = calibration(loader)(3)
    after = torch.rand(1)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(99)
    assert difference(calibration(loader)(3), first) is None


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (torch.zeros(2, 6), "calibration gave Tensor"),
        ({"pixel_values": torch.zeros(2, 6)}, "calibration gave a mapping with 'pixel_values'"),
        ((torch.zeros(2, 6), [1, 2]), "calibration gave tuple"),
    ],
)
def test_another_form_of_a_batch_is_named(batch: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        calibration([batch])(1)


def test_a_batch_may_be_a_mapping() -> None:
    images, labels = batches()[0]
    found = calibration([{"labels": labels, "pixel_values": images}])(1)
    assert found[0][0] is images
    assert found[0][1] is labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": "a"}, "attach(seed='a'): should be a whole number from 0 to 2147483647"),
        ({"seed": None}, "attach(seed=None): should be a whole number from 0 to 2147483647"),
        ({"ema_decay": 1.5}, "attach(ema_decay=1.5): should be a number above 0 and below 1"),
        ({"ema_decay": 1}, "attach(ema_decay=1): should be a number above 0 and below 1"),
        ({"clip_norm": -1.0}, "attach(clip_norm=-1.0): should be a number above 0"),
        ({"clip_norm": float("nan")}, "attach(clip_norm=nan): should be a number above 0"),
        ({"images": 0}, "attach(images=0): should be a whole number of 1 or more"),
        ({"calibration": 7}, "attach(calibration=...): should give batches of (images, labels), got int"),
        ({"validation": 7}, "attach(validation=...): should give batches of (images, labels), got int"),
    ],
)
def test_a_wrong_argument_is_refused_by_name_before_anything_is_changed(given: dict[str, Any], said: str) -> None:
    assert refused(GATED, **given) == said


def test_what_is_no_model_no_optimizer_and_no_schedule_is_named() -> None:
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for given, said in (
        ((GATED, 7, optimizer), "attach(model=...): should be a torch.nn.Module, got int"),
        ((GATED, model, scheduler), "attach(optimizer=...): should be a torch.optim.Optimizer, got StepLR"),
        ((7, model, optimizer), "attach(schedule=...): should be a path, a bare name or a mapping, got int"),
    ):
        with pytest.raises(UserError) as error:
            attach(*given, epochs=1, steps_per_epoch=1, sample_input=torch.zeros(2, 4))  # type: ignore[arg-type]
        assert str(error.value) == said


@pytest.mark.parametrize("state", [None, {}, {"0.weight": torch.zeros(1)}])
def test_what_is_no_state_of_a_session_is_said_so(state: Any) -> None:
    with pytest.raises(UserError, match="no state of a session"):
        attached(GATED).load_state_dict(state)
