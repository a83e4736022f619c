"""`compress export`: the network of a run as a file for others, verified on real images of its data set."""

import platform
import traceback
from collections.abc import Sequence
from hashlib import file_digest
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import compressor
from compressor import models
from compressor.copying import blank, copied
from compressor.data import DataFeed, DataSet
from compressor.errors import CompressError, UserError, did_you_mean
from compressor.experiment import folder, loading
from compressor.experiment.channel_removal import thin_network
from compressor.experiment.inspection import best_of
from compressor.experiment.loading import Loaded, Say
from compressor.exports import FORMATS, IMAGES, Exported, Format, Model, Packed, write
from compressor.files import append_text
from compressor.reports import formats
from compressor.thinning import describe, nothing_zero, resize
from compressor.training import checkpoint


def export(
    path: Path,
    *,
    format: str,
    thin: bool = False,
    out: Path | None = None,
    config: str | None = None,
    sets: Sequence[tuple[str, str]] = (),
    data: Path | None = None,
    other_data: bool = False,
    measures: bool = True,
    say: Say = lambda text: None,
) -> Exported:
    """Write the network of a run's folder (its checkpoint.pt), a checkpoint, or weights of another tool as a file.

    `format`: one of `FORMATS`. `thin`: without its unused channels. `out`: the file; default: a new one beside the
    weights. `config`, `sets`: the configuration of weights of another tool. `data`: the folder of the data sets, on
    whose test images the file is verified; `other_data`: also where they are not those of the training. `measures`:
    also measure the latency of an ONNX file. `say` receives messages.

    Raises `UserError` for wrong input and missing libraries, `CompressError` where the network cannot be exported or
    the file's logits differ; a file that was there before is unchanged then.
    """
    chosen = _format(format)
    loaded = loading.load(path, config, sets, root=data, say=say)
    file = path / folder.CHECKPOINT if path.is_dir() else path
    target = _new(file.parent, "thin" if thin else "model", chosen.suffix) if out is None else _given(out, file)
    dataset = loading.dataset_of(loaded, path, data, say, other_data=other_data)
    for line in best_of(path) if path.is_dir() else ():
        say(line)
    feed = DataFeed(dataset, loaded.config.data, loaded.config.seed, torch.device("cpu"))
    network = loaded.network
    if thin:
        network = _thinned(network, next(iter(feed.test()))[0], path, say)
    try:
        images = _images(feed)
        model = _model(loaded, network, dataset, file, images)
        return write(model, chosen, target, images, measures=measures, say=say)
    except CompressError:
        if path.is_dir():  # a run has a log, where what the libraries said can be read
            append_text(path / folder.LOG, traceback.format_exc())
        raise


def export_network(
    network: nn.Module,
    images: Tensor,
    *,
    format: str,
    out: Path,
    thin: bool = False,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    measures: bool = True,
    say: Say = lambda text: None,
) -> Exported:
    """Write a network of no run as a file, verified on `images` (N, C, H, W), as the network takes them.

    A copy is written, on the CPU and in eval mode. `class_names`: default: numbers; `mean`, `std`: what the images were
    normalized by, for whoever runs the file. Raises as `export` does.
    """
    chosen = _format(format)
    if isinstance(chosen, Packed):
        raise UserError(f"format {format!r} needs a run or a checkpoint, which name the model for its reader")
    if images.dim() != 4 or not images.is_floating_point():
        kind = f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
        raise UserError(f"sample_input: should be images (N, C, H, W) of floats, got {kind}")
    target = _given(out, None)
    name, images = type(network).__name__, images.detach().cpu()
    network = models.with_output(copied(network).cpu().eval(), None)
    dense = describe(network)
    if thin:
        network = _thinned(network, images, name, say)
    architecture = describe(network)
    with torch.no_grad():
        outputs = network(images[:1]).shape[1]
    if class_names is not None and len(class_names) != outputs:
        raise UserError(f"class_names: {len(class_names)} names are given, the model has {outputs} outputs")
    channels, height, width = images.shape[1:]
    about = {
        **_of_images((channels, height, width), class_names or [], mean, std, outputs),
        "model": {"name": name},
        "source": {"versions": _versions()},
    }
    changed = None if architecture == dense else architecture
    model = Model(name, network, (channels, height, width), about, lambda: blank(network), changed)
    return write(model, chosen, target, images[:IMAGES], measures=measures, say=say)


def _format(name: str) -> Format:
    """Return a format whose libraries are installed. Raises `UserError`."""
    if name not in FORMATS:
        raise UserError(f"there is no format {name!r}: {did_you_mean(name, FORMATS)}")
    FORMATS[name].check_installed()
    return FORMATS[name]


def _new(folder: Path, stem: str, suffix: str) -> Path:
    """Return the first of STEM, STEM-2, ... in the folder that is no file yet."""
    names = (folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
    return next(path for path in names if not path.exists())


def _given(out: Path, source: Path | None) -> Path:
    """Return the path of `--out`. Raises `UserError` where no file can be there, or a checkpoint is there."""
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(
            f"--out {out}: it is a folder" if out.is_dir() else f"--out {out}: there is no folder {out.parent}"
        )
    if out.exists() and ((source is not None and out.samefile(source)) or checkpoint.is_signed(out)):
        raise UserError(f"--out {out}: it is a checkpoint, which is not overwritten: give another file")
    return out


def _thinned(network: nn.Module, images: Tensor, path: Path | str, say: Say) -> nn.Module:
    """Return the network without its unused channels; `say` receives what was removed."""
    thin, record = thin_network(network, images, path)
    say(f"{path}: {nothing_zero(network) if record is None else formats.thinned(record)}")
    for stay in () if record is None else record.stays:
        say(f"  {stay}")
    return thin


def _images(feed: DataFeed) -> Tensor:
    """Return the first test images, as many as a file is verified on."""
    found, left = list[Tensor](), IMAGES
    for images, _ in feed.test():
        found.append(images[:left])
        left -= len(found[-1])
        if not left:
            break
    return torch.cat(found)


def _model(loaded: Loaded, network: nn.Module, dataset: DataSet, file: Path, images: Tensor) -> Model:
    with torch.no_grad():
        outputs = network(images[:1]).shape[1]
    architecture = describe(network)
    dense = describe(loaded.networks.skeleton(len(loaded.saved["classes"])))

    def fresh() -> nn.Module:
        """Return the network as its class builds it, in the widths that it has now."""
        made = loaded.networks.to_load(len(loaded.saved["classes"]))
        if architecture != dense:
            resize(made, architecture, str(file))
        return made

    about = {
        **_of_images(loaded.shape, dataset.classes, dataset.mean, dataset.std, outputs),
        **_source(loaded, file),
    }
    changed = None if architecture == dense else architecture
    return Model(loaded.config.model.name, network, loaded.shape, about, fresh, changed)


def _of_images(
    shape: tuple[int, int, int],
    classes: Sequence[str],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    outputs: int,
) -> dict[str, Any]:
    """Return what whoever runs the network must know: the input that it expects, and the classes of its outputs."""
    channels, height, width = shape
    colours = "grey" if channels == 1 else "RGB" if channels == 3 else f"{channels} channels"
    names = [*classes, *map(str, range(len(classes), outputs))]
    return {
        "class_names": names[:outputs],
        "mean": None if mean is None else list(mean),
        "std": None if std is None else list(std),
        "image_size": [height, width],
        "channels": channels,
        "preprocessing": f"{colours}; the centre in the proportions of {height} x {width}, resized to that (bilinear,"
        " antialiased); divided by 255, minus mean, divided by std; float32 [batch, channels, height, width]",
    }


def _source(loaded: Loaded, file: Path) -> dict[str, Any]:
    """Return where the network comes from."""
    with open(file, "rb") as opened:
        digest = file_digest(opened, "sha256").hexdigest()
    model, classes = loaded.config.model, len(loaded.saved["classes"])
    return {
        # The classes of the data are in it, too: it builds the network where there are no data.
        "model": {
            **model.model_dump(exclude={"pretrained"}, exclude_defaults=True),
            "num_classes": model.num_classes or classes,
        },
        "source": {
            "checkpoint": file.name,
            "sha256": digest,
            "epoch": loaded.saved["epoch"],
            "schedule": loaded.saved.get("schedule"),
            "test": loaded.saved["metrics"].get("test"),
            "versions": _versions(),
        },
    }


def _versions() -> dict[str, str | None]:
    return {
        "compressor": compressor.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: _version(name) for name in ("onnx", "onnxscript", "onnxruntime", "safetensors")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
