"""The parts of an experiment: device, model, data."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from compressor import data, models
from compressor.config import Config, InitConfig, ModelConfig
from compressor.data import DataSet
from compressor.errors import UserError
from compressor.experiment.outputs import Shape, check_classes, check_outputs
from compressor.session import zero_weights
from compressor.thinning import Architecture, describe
from compressor.training import Found, fit, initialize, read


def device(wanted: str) -> torch.device:
    """Return the device `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`; CUDA's number N becomes the
    process's own device, which libraries use that are told none.

    Raises `UserError` with the devices that exist where it is none of them.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    numbered = [f"cuda:{number}" for number in range(count)]
    known = ["cpu", *(["cuda", *numbered] if count else [])]
    if wanted == "auto":
        return torch.device("cuda" if count else "cpu")
    if wanted not in known:
        none = "" if count or not wanted.startswith("cuda") else ": torch sees no CUDA device here"
        raise UserError(f"there is no device {wanted!r}{none}: --device takes {', '.join(['auto', *known])}")
    found = torch.device(wanted)
    if found.index is not None:
        torch.cuda.set_device(found)
    return found


def model(
    config: ModelConfig,
    classes: int | None,
    *,
    trained_elsewhere: bool = False,
    image: tuple[int, int, int] | None = None,
) -> nn.Module:
    """Return the network of a configuration; `classes` is used where it has no `num_classes`.

    Published weights are not fetched where other weights are loaded anyway. `image`: C, H, W of the images, from which
    lazy layers get their sizes.
    """
    network = models.build(
        config.name,
        num_classes=config.num_classes or classes,
        pretrained=config.pretrained and not trained_elsewhere,
        **config.arguments,
    )
    return models.with_output(models.with_sizes(network, config.name, image), config.output)


def skeleton(config: ModelConfig, classes: int | None) -> nn.Module:
    """Return the same network for its names and shapes; ours and torchvision's are without storage."""
    network = models.skeleton(config.name, num_classes=config.num_classes or classes, **config.arguments)
    return models.with_output(network, config.output)


def new_model(
    config: Config,
    network: nn.Module,
    dataset: DataSet,
    where: torch.device,
    *,
    resumed: bool,
    say: Callable[[str], None],
) -> nn.Module:
    """Return a new network, ready to train on `dataset`: initialized or loaded from `init`, tried on one image.

    `say` receives what was read, and what was done to make it fit. `resumed`: its weights will be those of a run's
    checkpoint, so `init` need not exist and nothing is fetched.
    """
    classes = len(dataset.classes)
    check_classes(config, dataset.name, classes)
    source = config.checkpoint_path
    if resumed:
        pass
    elif source is None:
        initialize(network, config.scheme)
    else:
        for line in put(network, read(Path(source), config.start.weights), config.start, dataset.shape):
            say(line)
    network = network.to(where)
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)
    check_outputs(config, network, dataset.shape, dataset.name, classes)
    return network


def put(network: nn.Module, found: Found, start: InitConfig, image: Shape) -> list[str]:
    """Load the weights of a file; return what was read and done, in words. Raises `UserError` where they do not fit.

    `image`: C, H, W of the network's input.
    """
    return found.said + fit(
        network,
        found.tensors,
        start.path,
        head=start.head,
        strict=start.strict,
        image=image,
        architecture=architecture_of(network, found),
    )


def architecture_of(network: nn.Module, found: Found) -> Architecture | None:
    """Return the numbers of channels that a file gives; None where only the shapes of its tensors tell them.

    An export's layers may have other names than the network's, which the tensors' names are fitted to.
    """
    if found.own is None and found.architecture and not found.architecture.keys() <= describe(network).keys():
        return None
    return found.architecture


def load_data(config: Config, root: Path | None) -> DataSet:
    """Return the data set of a configuration."""
    return data.load(config.data, root, config.seed)


def zeros_in_words(source: str, network: nn.Module, held: int | None) -> list[str]:
    """Return a line on the zero weights of the checkpoint with which training begins; `held`: how many are held."""
    parameters = dict(network.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values() if parameter.dim() > 1)
    zeros = zero_weights(parameters)
    count = sum(zeros.values()) if held is None else held
    whole = [name for name, number in zeros.items() if number == parameters[name].numel()]
    also = f"; wholly zero: {', '.join(whole)}" if whole else ""
    said = f"{source} has {count:,} zero weights, {100 * count / max(total, 1):.1f} % of {total:,}{also}"
    if held is not None:
        return [f"{said}: they stay zero to the end" if held else f"{source} has no zero weights that could be kept"]
    how = "to keep them, give --keep-zeros, or `init: {path: ..., keep_zeros: true}` in the configuration"
    return [f"warning: {said}: they are trained again, except where a pruner masks them; {how}"] if zeros else []
