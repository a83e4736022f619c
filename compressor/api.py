"""The public functions of `compressor`: what the commands do, as functions; and sessions for loops of one's own."""

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from compressor import models, thinning
from compressor.attached import AttachedSession, attach
from compressor.copying import copied
from compressor.errors import CompressError, UserError
from compressor.evaluating import evaluating
from compressor.experiment import exporting, inspection, loading, packing, run
from compressor.experiment.run import Outcome
from compressor.experiment.specification import open_files, specification
from compressor.exports import Exported
from compressor.importing import plugins_allowed
from compressor.reports import Report, Thinning, compared, measure
from compressor.schedule import Faults, Message, Plan

__all__ = [
    "AttachedSession",
    "CompressError",
    "Exported",
    "Message",
    "Outcome",
    "Plan",
    "Report",
    "ThinModel",
    "Thinning",
    "UserError",
    "attach",
    "export",
    "load",
    "load_packed",
    "plan",
    "report",
    "thin",
    "train",
    "validate",
]

FilePath = str | PathLike[str]
Say = Callable[[str], None]

_SHAPES: "WeakKeyDictionary[nn.Module, tuple[int, int, int]]" = WeakKeyDictionary()
"""C, H, W of the images of networks that were loaded."""


class ThinModel(NamedTuple):
    """A model without its unused channels, and the record of the removal; None where nothing was unused."""

    model: nn.Module
    thinning: Thinning | None


def load(path: FilePath, *, config: FilePath | None = None, allow_plugins: bool = False) -> nn.Module:
    """Return the network of a checkpoint or a run's folder with its weights, in eval mode; a thinned one has its thin
    shapes.

    Args:
        path: A run's folder (its checkpoint.pt is read), a checkpoint, or a file of weights of another tool.
        config: The configuration (a path or a bare name) that has the model of weights of another tool.
        allow_plugins: Import and run the code that the file names (`package.module:factory`); else that is an error,
            unless COMPRESS_ALLOW_PLUGINS=1.

    Returns:
        The network: images (N, C, H, W) to logits (N, classes), or its own outputs where it gives several.

    Raises:
        UserError: The file has no weights, or none that fit.
    """
    with plugins_allowed(allow_plugins):
        loaded = loading.load(Path(path), None if config is None else fspath(config))
        network = models.as_built(loaded.network)
    _SHAPES[network] = loaded.shape
    return network


def load_packed(path: FilePath, *, allow_plugins: bool = False) -> nn.Module:
    """Return the network of a packed file (`compress export --format packed`) in eval mode; a thinned one has its thin
    shapes. Each of its tensors has the bits that were packed.

    Args:
        path: The file.
        allow_plugins: Import and run the code that the file names (`package.module:factory`); else that is an error,
            unless COMPRESS_ALLOW_PLUGINS=1.

    Returns:
        The network: images (N, C, H, W) to logits (N, classes), or its own outputs where it gives several.

    Raises:
        UserError: There is no such file, it is damaged or altered, or its tensors are not those of its model.
    """
    with plugins_allowed(allow_plugins):
        network, shape = packing.load_packed(Path(path))
    _SHAPES[network] = shape
    return network


def thin(model: nn.Module, sample_input: Tensor, *, round_to: int = 1) -> ThinModel:
    """Return a copy of a model without its unused channels; the outputs stay equal, and the model is not changed.

    Args:
        model: A model with zero filters or channels: a pruned one.
        sample_input: Images (N, C, H, W) on which the logits are compared, on the model's device; better real ones.
        round_to: Numbers of channels stay multiples of this.

    Returns:
        The thin model in eval mode, and the record of the removal: parameters before and after, the largest difference
        of a logit, and what stays and why.

    Raises:
        CompressError: Nothing can be removed of what is zero (with the reasons), the model's channels cannot be traced,
            or the outputs would change.
    """
    network = copied(model).eval()
    thinned = thinning.thin(network, sample_input, round_to=round_to)
    if thinned.stays and not thinned.cut:
        raise CompressError(thinning.nothing_removed(thinned.stays))
    if not thinned.cut:
        return ThinModel(network, None)
    thinned.cut.model(network)
    record = Thinning(
        when="compressor.thin",
        parameters_before=sum(parameter.numel() for parameter in model.parameters()),
        parameters_after=sum(parameter.numel() for parameter in network.parameters()),
        images=thinned.images,
        largest_difference=thinned.largest_difference,
        exact_difference=thinned.exact,
        stays=[str(stay) for stay in thinned.stays],
        skipped=list(thinned.skipped),
    )
    return ThinModel(network, record)


def report(
    target: nn.Module | AttachedSession | FilePath,
    sample_input: Tensor | None = None,
    *,
    latency: bool = True,
    config: FilePath | None = None,
    data: FilePath | None = None,
    allow_plugins: bool = False,
    say: Say = print,
) -> Report:
    """Return the sparsity report of a model, a session, a run's folder or a checkpoint.

    Args:
        target: A model; a session, of which the model is measured that would be shipped now; or the path of a run's
            folder, a checkpoint, or weights of another tool.
        sample_input: Of a model: images (N, C, H, W), of which the shape alone is used. A network from `load` needs
            none.
        latency: Also measure the time of a forward pass, which takes some seconds.
        config: Of weights of another tool: the configuration with their model and data.
        data: Of weights of another tool: the folder of the data sets, where only these tell the shape of the images.
        allow_plugins: Import and run the code that a file names.
        say: Receives messages, one line each.

    Returns:
        The report: sparsity by weight and in total (fractions), MACs of one image, stored bits, accuracies in percent
        where they were recorded, latency in milliseconds.

    Raises:
        UserError: There are no such weights, or `sample_input` is missing.
    """
    if isinstance(target, AttachedSession):
        return _of_session(target, latency=latency)
    if isinstance(target, nn.Module):
        if sample_input is None and target not in _SHAPES:
            raise UserError(
                "report(model): MACs depend on the images: give sample_input, a batch of images (N, C, H, W)"
            )
        shape = _SHAPES[target] if sample_input is None else tuple(sample_input.shape[1:])
        return _of_model(target, shape, latency=latency)
    with plugins_allowed(allow_plugins):
        return inspection.report(
            Path(target),
            measures=latency,
            config=None if config is None else fspath(config),
            root=None if data is None else Path(data),
            say=say,
        )


def _of_session(session: AttachedSession, *, latency: bool) -> Report:
    with session.as_shipped() as shipped:
        figures = {**shipped.figures, **session.events.figures()}
    return _of_model(
        session.shipped_model(),
        tuple(session.sample_input.shape[1:]),
        latency=latency,
        thinnings=[Thinning.model_validate(one) for one in shipped.thinnings],
        dense=session.dense if session.records.thinnings else None,
        figures=figures,
    )


def _of_model(network: nn.Module, shape: Any, *, latency: bool, **known: Any) -> Report:
    """Return the report of a network; of images (C, H, W), or other inputs, of a shape."""
    with torch.no_grad(), evaluating(network):
        measured = measure(network, shape, **known)
        pruned = any(row.nonzero < row.weights for row in measured.tensors)
        stage = "thin" if known.get("dense") is not None else "masked" if pruned else "dense"
        return compared(measured, {stage: network}, shape, measures=latency)


def export(
    target: nn.Module | AttachedSession | FilePath,
    *,
    format: str,
    out: FilePath | None = None,
    thin: bool = False,
    sample_input: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    latency: bool = True,
    config: FilePath | None = None,
    data: FilePath | None = None,
    other_data: bool = False,
    allow_plugins: bool = False,
    say: Say = print,
) -> Exported:
    """Write a network as a file for other programs, as `compress export` does; it is run on images before it gets its
    name.

    Args:
        target: The path of a run's folder, a checkpoint, or weights of another tool; a session, of which the model is
            written that would be shipped now; or a model.
        format: `onnx`, `torch-export`, `safetensors`, `state-dict`, or `packed` (of a path alone).
        out: The file; one of that name is replaced. Default, of a path alone: a new file beside the weights.
        thin: Without unused channels.
        sample_input: Of a model or a session: images (N, C, H, W) as the model takes them, real ones, on at most 32 of
            which the file is run; default: those that were given to `attach`.
        class_names: Of a model or a session: the names of the outputs, for the file's metadata; default: numbers.
        mean: Of a model or a session: what each channel of pixels in [0, 1] was normalized by, for the metadata.
        std: The same.
        latency: Also measure the time of an ONNX file beside torch's.
        config: Of weights of another tool: the configuration with their model and data.
        data: Of a path: the folder of the data sets, on whose test images the file is run; default: COMPRESS_DATA.
        other_data: Of a path: these may be other images than those of the training.
        allow_plugins: Import and run the code that a file names.
        say: Receives messages, one line each.

    Returns:
        What was written: path, bytes, the largest difference of a logit, absolute and as a fraction of the logits'
        spread, and the latency in milliseconds.

    Raises:
        UserError: An argument is wrong, or a library is not installed.
        CompressError: The network cannot be written, or the file's logits differ by more than 1e-4 of their spread; a
            file that was there before is unchanged then.
    """
    if not isinstance(target, (nn.Module, AttachedSession)):
        if any(given is not None for given in (sample_input, class_names, mean, std)):
            raise UserError("export(path): leave out sample_input, class_names, mean, std: they are those of the run")
        with plugins_allowed(allow_plugins):
            return exporting.export(
                Path(target),
                format=format,
                thin=thin,
                out=None if out is None else Path(out),
                config=_name(config),
                data=None if data is None else Path(data),
                other_data=other_data,
                measures=latency,
                say=say,
            )
    if out is None:
        raise UserError("export: give out, the path of the file")
    if isinstance(target, AttachedSession):
        sample_input = target.sample_input if sample_input is None else sample_input
        target = target.shipped_model()
    if sample_input is None:
        raise UserError("export(model): give sample_input, images (N, C, H, W) on which the file is run")
    return exporting.export_network(
        target,
        sample_input,
        format=format,
        out=Path(out),
        thin=thin,
        class_names=class_names,
        mean=mean,
        std=std,
        measures=latency,
        say=say,
    )


def plan(
    schedule: FilePath,
    config: FilePath | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    data: FilePath | None = None,
    allow_plugins: bool = False,
    say: Say = print,
) -> Plan:
    """Return what a schedule will do, epoch by epoch, without training.

    Args:
        schedule: A path or a bare name.
        config: A path or a bare name; default: the schedule's own `config:`.
        overrides: Values by dotted key, as `--set` takes them: `{"epochs": 3, "schedule.pruners.fine.levels": ...}`.
        data: The folder of the data sets, for schedules that count steps.
        allow_plugins: Import and run the code that the files name.
        say: Receives warnings and notes, one line each.

    Returns:
        The plan: when each policy acts, on which weights, with which sparsity (a fraction), the learning rate of each
        epoch, and the predicted sparsity of each weight.

    Raises:
        UserError: A file is wrong, or does not fit the model; with one line for each fault.
    """
    with plugins_allowed(allow_plugins):
        spec = specification(fspath(schedule), _name(config), _pairs(overrides))
        made, notes = inspection.plan(spec, None if data is None else Path(data))
    for line in notes:
        say(line)
    return made


def validate(
    schedule: FilePath,
    config: FilePath | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    allow_plugins: bool = False,
) -> list[Message]:
    """Return the findings on a schedule: faults, warnings and notes; no data are read.

    Args:
        schedule: A path or a bare name.
        config: A path or a bare name; default: the schedule's own `config:`. Without any, names of weights are not
            checked.
        overrides: Values by dotted key, as `--set` takes them.
        allow_plugins: Import and run the code that the files name.

    Returns:
        The findings in file order, each a line of text with `severity` ("error", "warning" or "note"), `place` (file,
        line and column) and `text`. The schedule is valid where none is an error.

    Raises:
        UserError: A file does not exist or cannot be read.
    """
    faults = Faults()
    notes: list[Message] = []
    with plugins_allowed(allow_plugins):
        spec = open_files(fspath(schedule), _name(config), _pairs(overrides), faults)
        if spec is not None:
            notes = inspection.validate(spec, faults)
    return [*notes, *faults.lines]


def train(
    schedule: FilePath | None = None,
    config: FilePath | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: FilePath | None = None,
    data: FilePath | None = None,
    device: str = "auto",
    seed: int | None = None,
    init: FilePath | None = None,
    keep_zeros: bool = False,
    resume: bool = False,
    smoke: bool = False,
    other_data: bool = False,
    allow_plugins: bool = False,
) -> Outcome:
    """Train a model under a schedule, in the folder of a run, as `compress train` does.

    Args:
        schedule: A path or a bare name; None: plain dense training.
        config: A path or a bare name; default: the schedule's own `config:`.
        overrides: Values by dotted key, as `--set` takes them.
        out: The folder of the run; default: a new one, `runs/SCHEDULE-CONFIG-N`.
        data: The folder of the data sets; default: COMPRESS_DATA.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
        seed: Default: the configuration's.
        init: A checkpoint, a run's folder (its best.pt), or weights of another tool, to begin with.
        keep_zeros: Hold the weights that are zero in that checkpoint at zero.
        resume: Continue `out`, else the newest unfinished run of these files.
        smoke: Try it: two steps an epoch, no target judged, and an estimate of what the full run takes.
        other_data: A run may be continued on other images than it began with.
        allow_plugins: Import and run the code that the files name.

    Returns:
        The outcome: the folder, the report (None where the run was finished before), one line for each target that was
        missed (`shortfalls`), and after a smoke run the estimate.

    Raises:
        UserError: Something must be corrected: a file, an argument, the data.
        CompressError: The run failed; what was saved stays. After an interrupt (SIGINT, SIGTERM) the checkpoint is
            written first.
    """
    with plugins_allowed(allow_plugins):
        spec = specification(
            None if schedule is None else fspath(schedule),
            _name(config),
            _pairs(overrides),
            seed=seed,
            init=None if init is None else fspath(init),
            keep_zeros=keep_zeros,
        )
        return run.train(
            spec,
            None if out is None else Path(out),
            None if data is None else Path(data),
            device,
            resume,
            smoke=smoke,
            other_data=other_data,
        )


def _name(path: FilePath | None) -> str | None:
    return None if path is None else fspath(path)


def _pairs(overrides: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return overrides as pairs of a key and the YAML of its value; JSON is YAML."""
    try:
        return [(key, json.dumps(value)) for key, value in (overrides or {}).items()]
    except TypeError as error:
        raise UserError(f"overrides: should have plain values only: {error}") from None
