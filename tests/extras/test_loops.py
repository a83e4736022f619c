"""One schedule in three loops (a bare one, Lightning's, Hugging Face's): the same masks and weights; each resumes."""

import importlib
import os
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import difference
from torch import Tensor, nn
from torch.utils.data import DataLoader

import compressor
from compressor.errors import UserError

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]
EPOCHS, BATCH, IMAGES = 3, 5, 40

SCHEDULE: dict[str, Any] = {
    "version": 2,
    "gates": {
        "l0": {"class": "HardConcreteL0", "weights": ["fc1.weight"], "lambda": 0.1},
        "surgery": {"class": "NetworkSurgery", "weights": ["fc2.weight"], "c": 0.3, "gamma": 0.1, "stop_step": 20},
    },
    "policies": [
        {"gate": {"instance_name": "l0"}, "starting_epoch": 0, "ending_epoch": 2},
        {"gate": {"instance_name": "surgery"}, "starting_epoch": 0, "ending_epoch": 3},
        {
            "pruner": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.1,
                "final_sparsity": 0.75,
                "weights": ["fc3.weight"],
            },
            "starting_step": 0,
            "ending_step": 11,
            "step_frequency": 2,
        },
        {"regularizer": {"class": "L1Regularizer", "reg_regims": {"fc3.weight": 0.01}}, "ending_epoch": 3},
    ],
}
"""Two gates, a pruner that counts steps, a penalty."""
RATES = {
    "lr_scheduler": {"class": "StepLR", "step_size": 3, "gamma": 0.7, "args": {"interval": "step"}},
    "ending_epoch": 3,
}
WITH_RATES = {**SCHEDULE, "policies": [*SCHEDULE["policies"], RATES]}


def extra(name: str, of: str) -> Any:
    """Import a library of an extra; where it is missing that is a failure in CI, else a skip."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        said = f"{name} is not installed: pip install 'compressor[{of}]' ({error})"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))  # type: ignore[no-any-return]


def data() -> list[dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 6, generator=draws)
    labels = torch.randint(0, 4, (IMAGES,), generator=draws)
    return [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]


def loader() -> DataLoader[dict[str, Tensor]]:
    return DataLoader(data(), BATCH)  # type: ignore[arg-type]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def attached(model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, accumulate: int) -> Any:
    return compressor.attach(
        schedule,
        model,
        optimizer,
        epochs=EPOCHS,
        steps_per_epoch=IMAGES // BATCH // accumulate,
        sample_input=torch.zeros(BATCH, 6),
        say=lambda text: None,
    )


def result(session: Any) -> dict[str, Any]:
    """The masks and the weights, live and shipped."""
    masks = {name: session.masks.keep(name) for name in session.network.parameters}
    return {
        "masks": {name: mask for name, mask in masks.items() if mask is not None},
        "live": {name: value.detach().clone() for name, value in session.model.state_dict().items()},
        "shipped": dict(session.shipped_model().state_dict()),
        "time": session.clock.global_step,
    }


def bare(schedule: Any = SCHEDULE, accumulate: int = 1, clip: float | None = None) -> dict[str, Any]:
    model = Net()
    optimizer = optimizer_of(model)
    session = attached(model, optimizer, schedule, accumulate)
    for number in range(EPOCHS):
        with session.epoch(number):
            batches = list(loader())
            for start in range(0, len(batches), accumulate):
                with session.step() as step:
                    for batch in batches[start : start + accumulate]:
                        loss = nn.functional.cross_entropy(model(batch["pixel_values"]), batch["labels"])
                        step.backward(loss, share=1 / accumulate)
    return result(session)


# --- Lightning --------------------------------------------------------------------------------------------------------


def lightning_trainer(
    folder: Path, callback: Any, *, epochs: int = EPOCHS, accumulate: int = 1, more: Any = (), **given: Any
) -> Any:
    pl = extra("lightning.pytorch", "lightning")
    return pl.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        callbacks=[callback, *more],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **given,
    )


def lightning_module(validates: list[Any] | None = None, scheduler: bool = False) -> Any:
    pl = extra("lightning.pytorch", "lightning")

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch["pixel_values"]), batch["labels"])

        def configure_optimizers(self) -> Any:
            made = optimizer_of(self)
            return ([made], [torch.optim.lr_scheduler.StepLR(made, 1)]) if scheduler else made

    if validates is not None:

        def validation_step(self: Any, batch: Any, index: int) -> None:
            validates.append({name: value.detach().clone() for name, value in self.net.state_dict().items()})
            self.log("val_loss", torch.tensor(float(len(validates))))

        Module.validation_step = validation_step
    return Module()


def lightning_callback(schedule: Any = SCHEDULE, **more: Any) -> Any:
    extra("lightning.pytorch", "lightning")
    from compressor.integrations.lightning import CompressionCallback

    return CompressionCallback(schedule, torch.zeros(BATCH, 6), module="net", say=lambda text: None, **more)


@pytest.mark.parametrize("schedule", [SCHEDULE, WITH_RATES], ids=["", "rates"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_gives_the_masks_and_weights_of_the_bare_loop(tmp_path: Path, accumulate: int, schedule: Any) -> None:
    callback = lightning_callback(schedule)
    lightning_trainer(tmp_path, callback, accumulate=accumulate).fit(lightning_module(), loader())
    expected = bare(schedule, accumulate)
    assert difference(result(callback.session), expected) is None
    assert int((~expected["masks"]["fc3.weight"]).sum()) == 24  # 0.75 of 32


@pytest.mark.parametrize("when", [{"save_on_train_epoch_end": True}, {"every_n_train_steps": 8}], ids=["end", "step"])
def test_lightning_resumes_from_its_checkpoint(tmp_path: Path, when: Any) -> None:
    pl = extra("lightning.pytorch", "lightning")
    whole = bare(WITH_RATES)
    saving = pl.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", **when)

    class Stops(pl.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_start(self, trainer: Any, *rest: Any) -> None:
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    first = lightning_callback(WITH_RATES)
    with pytest.raises(SystemExit):
        lightning_trainer(tmp_path, first, more=[saving, Stops()]).fit(lightning_module(), loader())
    again = lightning_callback(WITH_RATES)
    torch.rand(3)
    lightning_trainer(tmp_path, again).fit(lightning_module(), loader(), ckpt_path=str(tmp_path / "epoch=1.ckpt"))
    assert difference(result(again.session), whole) is None


def test_lightning_validates_what_would_be_shipped_and_passes_its_figures_on(tmp_path: Path) -> None:
    seen: list[Any] = []
    plateau = {
        "lr_scheduler": {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.5},
        "ending_epoch": 3,
    }
    callback = lightning_callback(
        {**SCHEDULE, "policies": [*SCHEDULE["policies"], plateau]}, metrics={"loss": "val_loss"}, validation=loader()
    )
    trainer = lightning_trainer(tmp_path, callback, num_sanity_val_steps=0)
    trainer.fit(lightning_module(seen), loader(), DataLoader(data()[:BATCH], BATCH))  # type: ignore[arg-type]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 / 4)  # 1, 2, 3
    assert len(seen) == 3
    shipped = callback.session.shipped_model().state_dict()
    assert (seen[-1]["fc2.weight"] == 0).any()
    assert difference(dict(shipped), seen[-1]) is None
    assert difference(dict(callback.session.model.state_dict()), seen[-1]) is not None


def test_lightning_is_refused_where_a_schedule_cannot_act(tmp_path: Path) -> None:
    for module, schedule, said in [
        (lightning_module(scheduler=True), WITH_RATES, "4.StepLR and a scheduler of configure_optimizers both set"),
        (lightning_module(scheduler=True), SCHEDULE, "a gate of the schedule has added parameters"),
    ]:
        with pytest.raises(UserError, match=said):
            lightning_trainer(tmp_path, lightning_callback(schedule)).fit(module, loader())
    with pytest.raises(UserError, match="give Trainer"):
        lightning_trainer(tmp_path, lightning_callback(), epochs=-1).fit(lightning_module(), loader())


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def hugging_face(
    folder: Path, schedule: Any = SCHEDULE, accumulate: int = 1, more: Any = (), **given: Any
) -> tuple[Any, Any]:
    transformers = extra("transformers", "transformers")
    from compressor.integrations.transformers import CompressionCallback

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(pixel_values)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Trainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> Any:
            return self.accelerator.prepare(loader())

    model = Classifier()
    optimizer = optimizer_of(model)
    session = attached(model.net, optimizer, schedule, accumulate)
    arguments = transformers.TrainingArguments(
        str(folder),
        **{
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": accumulate,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "logging_strategy": "no",
            **given,
        },
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=data(),
        optimizers=(optimizer, None),
        callbacks=[CompressionCallback(session), *more],
    )
    return trainer, session


@pytest.mark.parametrize("schedule", [SCHEDULE, WITH_RATES], ids=["", "rates"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_hugging_face_gives_the_masks_and_weights_of_the_bare_loop(
    tmp_path: Path, accumulate: int, schedule: Any
) -> None:
    trainer, session = hugging_face(tmp_path, schedule, accumulate)
    trainer.train()
    assert difference(result(session), bare(schedule, accumulate)) is None


@pytest.mark.parametrize("step", [8, 11])
def test_hugging_face_resumes_from_its_checkpoint(tmp_path: Path, step: int) -> None:
    whole = bare(WITH_RATES)
    first, _ = hugging_face(tmp_path, WITH_RATES, save_strategy="steps", save_steps=step)
    first.train()
    again, session = hugging_face(tmp_path, WITH_RATES)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert difference(result(session), whole) is None
    # From a folder of another name, which must be given; without it that is an error that says so.
    shutil.move(tmp_path / f"checkpoint-{step}", tmp_path / "elsewhere")
    lost, _ = hugging_face(tmp_path, WITH_RATES)
    with pytest.raises(UserError, match="resume_from="):
        lost.train(resume_from_checkpoint=str(tmp_path / "elsewhere"))


def test_hugging_face_is_refused_where_a_schedule_cannot_act(tmp_path: Path) -> None:
    trainer, _ = hugging_face(tmp_path, WITH_RATES, lr_scheduler_type="linear")
    with pytest.raises(UserError, match=r"4\.StepLR and Trainer both set the learning rate"):
        trainer.train()
    trainer, _ = hugging_face(tmp_path, num_train_epochs=2)
    with pytest.raises(UserError, match="Trainer will take 16 steps, attach was told 3 epochs of 8 steps"):
        trainer.train()


# --- the examples and what callbacks cannot do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "library", "of"),
    [
        ("lightning_loop.py", "lightning.pytorch", "lightning"),
        ("hugging_face_trainer.py", "transformers", "transformers"),
    ],
)
def test_the_examples_run(
    file: str,
    library: str,
    of: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    extra(library, of)
    examples = Path(__file__).parents[2] / "examples"
    shutil.copy(examples / "schedule.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(examples / file), run_name="__main__")
    assert "% of the weights are zero" in capsys.readouterr().out


def test_a_policy_that_needs_the_loss_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.policies.gating import GatePolicy

    def before_backward_pass(self: Any, ctx: Any, memory: Any, loss: Tensor) -> Tensor:
        return loss

    monkeypatch.setattr(GatePolicy, "before_backward_pass", before_backward_pass)
    with pytest.raises(UserError, match=r"^0\.l0, 1\.surgery change the loss, which a callback of Lightning cannot"):
        lightning_trainer(tmp_path, lightning_callback()).fit(lightning_module(), loader())
    with pytest.raises(UserError, match=r"^0\.l0, 1\.surgery change the loss, which a callback of Trainer cannot"):
        hugging_face(tmp_path)
