"""Real files of other libraries, pruned by filters, fine-tuned, thinned, evaluated: the commands of docs/weights.md."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, environment, saved, work  # noqa: F401
from test_weights_page import BLOCKS, PAGE
from torch import nn

import compressor
from compressor.training.weights import read

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]
SMALL = ("--set", "data.images=64", "--set", "epochs=1", "--set", "data.validation=0")
DISTILLER = Path(os.environ.get("COMPRESS_DISTILLER", Path(__file__).parents[2].parent / "shared" / "distiller"))
NEEDS = {"timm": "timm", "lightning": "lightning.pytorch"}


def extra(name: str) -> Any:
    """Import a library of the extra `interop`; where it is missing that is a failure in CI, else a skip."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        said = f"{name} is not installed: pip install 'compressor[interop]' ({error})"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)


@pytest.mark.parametrize(
    ("name", "block"), BLOCKS, ids=["torchvision", "timm", "lightning", "safetensors", "distiller", ""]
)
def test_the_commands_of_the_page_end(name: str, block: str, work: Path) -> None:  # noqa: F811
    if name in NEEDS:
        extra(NEEDS[name])
    if name == "cifar10":
        pytest.skip("needs CIFAR-10")
    if name == "distiller":
        if not DISTILLER.is_dir():
            pytest.skip(f"needs Distiller's checkpoints in {DISTILLER}, or in the folder COMPRESS_DISTILLER")
        for file in DISTILLER.glob("*.pth.tar"):
            (work / file.name).symlink_to(file)
    for kind, file, text in re.findall(r"```(yaml|python)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL):
        assert kind
        (work / file).write_text(text)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        if program == "python":
            subprocess.run([sys.executable, *arguments], cwd=work, env=environment(), check=True, timeout=300)
            continue
        assert program == "compress"
        result = compress(*arguments, *(SMALL if arguments[0] == "train" else ()))
        assert result.code == 0, f"{line}: {result.err}"
    for thin in work.glob("of_*/thin.pt"):
        whole = saved(thin.with_name("best.pt"))["model"]
        assert sum(tensor.numel() for tensor in saved(thin)["model"].values()) < 0.8 * sum(
            tensor.numel() for tensor in whole.values()
        )


@torch.no_grad()
def logits(network: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    outputs: torch.Tensor = network.eval()(torch.rand(4, 3, 32, 32, generator=generator))
    return outputs


def test_a_network_of_timm_computes_the_same_here(work: Path) -> None:  # noqa: F811
    timm = extra("timm")
    theirs = timm.create_model("resnet18", num_classes=10)
    torch.save(theirs.state_dict(), work / "timm.pth")
    torch.testing.assert_close(logits(compressor.load("timm.pth", config="resnet18_digits")), logits(theirs))


def test_a_checkpoint_of_timms_training_script_is_read(work: Path) -> None:  # noqa: F811
    timm, utils = extra("timm"), extra("timm.utils")
    network = timm.create_model("resnet18", num_classes=10)
    optimizer = torch.optim.AdamW(network.parameters())
    average = utils.ModelEmaV3(network)
    args = Namespace(model="resnet18", data_dir=Path("x"), device=torch.device("cpu"), opt_betas=None)
    saver = utils.CheckpointSaver(network, optimizer, args, average, checkpoint_dir=str(work))
    saver.save_checkpoint(3, metric=71.5)
    found = read(work / "last.pth.tar")
    assert (found.key, found.keys, found.epoch, found.arch) == ("state_dict", ["state_dict_ema"], 3, "resnet18")
    own = network.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.tensors.items())
    assert set(found.tensors) == set(own)


def test_hyper_parameters_of_lightning_are_objects_without_behaviour(work: Path) -> None:  # noqa: F811
    lightning = extra("lightning.pytorch")

    class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, args: Namespace, root: Path, loss: nn.Module) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Linear(4, 2)
            self.loss = loss

        def training_step(self, batch: list[torch.Tensor], index: int) -> Any:
            return self.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters())
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    module = Classifier(Namespace(rate=0.1, device=torch.device("cpu")), work, nn.CrossEntropyLoss())
    data = torch.utils.data.TensorDataset(torch.rand(4, 4), torch.tensor([0, 1, 0, 1]))
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_progress_bar=False, default_root_dir=str(work),
        callbacks=[lightning.callbacks.ModelCheckpoint(dirpath=work, monitor=None)],
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=2))
    trainer.save_checkpoint(work / "w.ckpt")
    found = read(work / "w.ckpt")
    assert (found.key, set(found.tensors)) == ("state_dict", {"net.weight", "net.bias"})
    assert torch.equal(found.tensors["net.weight"], module.net.weight.detach())
