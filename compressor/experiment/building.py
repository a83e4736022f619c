"""The parts of an experiment: model, data, optimizer, session."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from compressor import data, models
from compressor.config import Config, ModelConfig
from compressor.context.data import Data
from compressor.data.feed import DataFeed
from compressor.data.images import DataSet
from compressor.errors import UserError
from compressor.evaluating import evaluating
from compressor.experiment.specification import Specification
from compressor.models.checking import shapes
from compressor.policies.policy import View
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import BoundSchedule, view_of
from compressor.session.session import Session, Settings
from compressor.thinning.architecture import resize
from compressor.timing.clock import Clock
from compressor.training import checkpoint, optimizers
from compressor.training.initialization import SCHEMES, initialize

Shape = tuple[int, int, int]


def device(wanted: str) -> torch.device:
    """`auto` is CUDA where there is one; raises `UserError` where it is wanted and there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("--device cuda: torch sees no CUDA device here; --device cpu works")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def model(config: ModelConfig, classes: int | None, *, trained_elsewhere: bool = False) -> nn.Module:
    """The network a configuration names; `classes` counts where it does not say. Published weights are not fetched
    where others are loaded anyway."""
    return models.build(
        config.name,
        num_classes=config.num_classes or classes,
        pretrained=config.pretrained and not trained_elsewhere,
        **config.arguments,
    )


def skeleton(config: Config) -> nn.Module:
    """The network without storage: enough to resolve names and shapes. Raises `UserError` where it cannot be built."""
    network = shapes(lambda: model(config.model, data.class_count(config.data.name), trained_elsewhere=True))
    if next(network.parameters(), None) is None:
        raise UserError(f"the model {config.model.name!r} has no parameters to train")
    return network


def new_model(config: Config, dataset: DataSet, where: torch.device, *, resumed: bool) -> nn.Module:
    """A network ready to train on `dataset`: built, initialized or loaded from `init`, tried on one image.

    `resumed`: its weights will be those of a run's checkpoint, so that `init` may be gone and nothing is fetched.
    """
    classes = len(dataset.classes)
    if config.model.num_classes is not None and config.model.num_classes < classes:
        raise UserError(f"model.num_classes is {config.model.num_classes}, but {dataset.name} has {classes} classes")
    network = model(config.model, classes, trained_elsewhere=resumed or config.init not in SCHEMES)
    if resumed:
        pass
    elif config.init in SCHEMES:
        initialize(network, config.init)
    else:
        load_weights(network, checkpoint.load(Path(config.init)), config.init)
    network = network.to(where)
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)
    logits = try_out(network, dataset.shape, config.model.name, dataset.name)
    wanted = config.model.num_classes or classes
    if logits < classes or (config.model.num_classes and logits != wanted):
        raise UserError(f"the model {config.model.name} tells {logits} classes apart, {wanted} are wanted")
    return network


def load_weights(network: nn.Module, saved: checkpoint.Checkpoint, source: str) -> None:
    """Load a checkpoint's plain weights strictly, thinning the network where that was thinned.

    Raises `UserError` naming what does not fit.
    """
    resize(network, saved.get("architecture", {}), source)
    own = network.state_dict()
    theirs = saved["model"]
    wrong = [
        f"{name} is {tuple(theirs[name].shape)} there, {tuple(own[name].shape)} here"
        for name in own
        if name in theirs and theirs[name].shape != own[name].shape
    ]
    names = [f"{name} is missing there" for name in own if name not in theirs]
    names += [f"{name} is unknown here" for name in theirs if name not in own]
    if wrong or names:
        raise UserError(f"{source}: the weights do not fit this model: {'; '.join((wrong + names)[:3])}")
    network.load_state_dict(theirs)


@torch.no_grad()
def restore_live(network: nn.Module, live: dict[str, torch.Tensor]) -> None:
    """Put the values back that training goes on from, where the checkpoint's weights are masked or averaged ones."""
    for name, tensor in network.state_dict().items():
        if name in live:
            tensor.copy_(live[name])


@torch.no_grad()
def try_out(network: nn.Module, shape: Shape, name: str, images: str) -> int:
    """One image through the network, so that a shape that does not fit is said before training, in one line.

    Returns how many classes it tells apart.
    """
    parameter = next(network.parameters(), torch.empty(0))
    try:
        with evaluating(network):
            logits = network(torch.zeros(1, *shape, device=parameter.device))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the model {name} does not take {images} images of {'x'.join(map(str, shape))}: {reason}"
        ) from None
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        raise UserError(f"the model {name} is no classifier: one image should give a (1, classes) tensor of logits")
    return logits.shape[1]


def bind(spec: Specification, network: nn.Module, faults: Faults) -> BoundSchedule:
    """Bind the schedule to the network and ask every policy what is wrong with it; empty without a schedule."""
    if spec.schedule is None:
        return BoundSchedule()
    return spec.schedule.bind(network, spec.config.epochs, faults).check(view(spec.config, network), faults)


def view(config: Config, network: nn.Module) -> View:
    """Return what is known of a network and a configuration before there are data."""
    groups = optimizers.build(network, config.optimizer).param_groups
    return view_of(
        network,
        image=data.image_shape(config.data),
        groups=[{key: value for key, value in group.items() if key != "params"} for group in groups],
        epochs=config.epochs,
        validates=config.data.validation > 0,
    )


def session(
    config: Config,
    network: nn.Module,
    bound: BoundSchedule,
    feed: DataFeed,
    say: Callable[[str], None],
    dense: Mapping[str, Sequence[int]] | None = None,
) -> Session:
    """Make optimizer, masks and policies over `network`; raises `UserError` where a policy does not fit it.

    `dense` has the parameters' shapes at the run's beginning, where the network has been thinned since.
    """
    return Session(
        network,
        optimizers.build(network, config.optimizer),
        bound.policies,
        Clock(config.epochs, feed.steps_per_epoch, pace=feed.pace),
        Data(
            batches=lambda count: list(itertools.islice(feed.train(0, 0), count)),
            images=feed.images,
            held_out=feed.held_out,
        ),
        settings=Settings(config.optimizer.clip_norm, config.ema.decay if config.ema else None, config.seed),
        say=say,
        dense=dense,
    )


def load_data(config: Config, root: Path | None) -> DataSet:
    """The data set a configuration names."""
    return data.load(config.data, root, config.seed)
