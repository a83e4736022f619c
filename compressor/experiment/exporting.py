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
from compressor.data import DataFeed, DataSet
from compressor.errors import CompressError, UserError, did_you_mean
from compressor.experiment import folder, loading
from compressor.experiment.channel_removal import thin_network
from compressor.experiment.inspection import best_of
from compressor.experiment.loading import Loaded, Say
from compressor.exports import FORMATS, IMAGES, Exported, Model, write
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
    if format not in FORMATS:
        raise UserError(f"there is no format {format!r}: {did_you_mean(format, FORMATS)}")
    chosen = FORMATS[format]
    chosen.check_installed()
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


def _new(folder: Path, stem: str, suffix: str) -> Path:
    """Return the first of STEM, STEM-2, ... in the folder that is no file yet."""
    names = (folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
    return next(path for path in names if not path.exists())


def _given(out: Path, source: Path) -> Path:
    """Return the path of `--out`. Raises `UserError` where no file can be there, or a checkpoint is there."""
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(
            f"--out {out}: it is a folder" if out.is_dir() else f"--out {out}: there is no folder {out.parent}"
        )
    if out.exists() and (out.samefile(source) or checkpoint.is_signed(out)):
        raise UserError(f"--out {out}: it is a checkpoint, which is not overwritten: give another file")
    return out


def _thinned(network: nn.Module, images: Tensor, path: Path, say: Say) -> nn.Module:
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

    about = {**_of_images(loaded, dataset, outputs), **_source(loaded, file)}
    changed = None if architecture == dense else architecture
    return Model(loaded.config.model.name, network, loaded.shape, about, fresh, changed)


def _of_images(loaded: Loaded, dataset: DataSet, outputs: int) -> dict[str, Any]:
    """Return what whoever runs the network must know: the input that it expects, and the classes of its outputs."""
    channels, height, width = loaded.shape
    colours = "grey" if channels == 1 else "RGB" if channels == 3 else f"{channels} channels"
    names = [*dataset.classes, *map(str, range(len(dataset.classes), outputs))]
    return {
        "class_names": names[:outputs],
        "mean": list(dataset.mean),
        "std": list(dataset.std),
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
            "versions": {
                "compressor": compressor.__version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                **{name: _version(name) for name in ("onnx", "onnxscript", "onnxruntime", "safetensors")},
            },
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
