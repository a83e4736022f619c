"""A schedule bound to the model of a configuration: everything that can be known to be wrong without the data."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from compressor import data, models
from compressor.config import SCHEMES, Config, InitConfig
from compressor.copying import without_storage
from compressor.data import DataSet
from compressor.errors import UserError, did_you_mean, listed
from compressor.experiment.networks import Networks
from compressor.experiment.outputs import OUTPUT, check_classes, check_forms
from compressor.experiment.specification import Specification
from compressor.policies.policy import View
from compressor.schedule import BoundSchedule, Document, Faults, Message, view_of
from compressor.sparsity import PRUNABLE, computed, in_use, prunable
from compressor.tracing import OnMeta
from compressor.training import optimizers


def bind(
    spec: Specification,
    faults: Faults,
    networks: Networks,
    *,
    init: bool = True,
    known: DataSet | None = None,
    processes: int = 1,
) -> tuple[BoundSchedule, View | None]:
    """Return the schedule bound to the model, and what is known of that; what does not fit becomes a fault.

    `init: False` where the weights come from a run's own checkpoint: then its source may be gone. `known`: the data,
    where they were read before. `processes`: how many share each batch.
    """
    config, document = spec.config, spec.config_document
    bound, view = BoundSchedule(notes=tuple(spec.schedule.notes) if spec.schedule else ()), None
    classes = config.model.num_classes or (len(known.classes) if known else data.class_count(config.data.name))
    try:
        network = networks.skeleton(classes)
        if config.model.pretrained and init and config.checkpoint_path is None:
            models.check_pretrained(config.model.name)
    except models.NeedsImages as error:
        note = Message(document.place(("model", "name")), str(error), "warning")
        bound = replace(bound, notes=(*bound.notes, note))
    except UserError as error:
        keys = ("pretrained", *config.model.arguments)
        named = [key for key in keys if repr(key) in str(error) or f"`{key}`" in str(error)]
        faults.add(document.place(("model", *(named or ["name"])[:1])), str(error))
    else:
        view = view_of(
            network,
            image=known.shape if known else data.image_shape(config.data),
            groups=optimizers.settings(network, config.optimizer),
            epochs=config.epochs,
            steps=data.expected_steps(config.data),
            examples=-(-config.data.batch // (config.optimizer.accumulate * processes)),
            validates=config.data.validation > 0,
            tests=config.test,
            build=lambda: networks.for_trial(classes),
            processes=processes,
        )
        notes, wrong = list[str](), None
        try:
            notes = _check_outputs(config, view, networks, data.expected_images(config.data), processes)
        except UserError as error:
            wrong = error
        if spec.schedule is not None:
            bound = spec.schedule.bind(network, config.epochs, faults)
            if wrong is None or OUTPUT not in str(wrong):  # else nothing is known of its logits
                bound = bound.check(view, faults)
        if wrong is not None and (OUTPUT in str(wrong) or not faults):  # a policy's own message says more
            _add(wrong, spec, faults)
        shown = (Message(None, note, "note") for note in notes)
        bound = replace(bound, notes=(*bound.notes, *shown, *_frozen(network, document)))
        if init:
            bound = replace(bound, notes=(*bound.notes, *_overwritten(config, document)))
            bound = replace(bound, notes=(*bound.notes, *_undrawn(network, config.scheme, document, faults)))
    for key, said in data.misfits(config.data).items():
        faults.add(document.place(("data", key)), said)
    check_augment(spec, known.shape if known else data.image_shape(config.data), faults)
    source = config.checkpoint_path if init else None
    if source is not None and not Path(source).exists():
        schemes = "" if isinstance(config.init, InitConfig) else f"neither one of {', '.join(SCHEMES)} nor "
        said = f"init: {source!r} is {schemes or 'not '}a checkpoint file"
        if source in SCHEMES:
            said = f"init: there is no checkpoint file {source!r}: write `init: {source}`, which has no zeros to keep"
        faults.add(document.place(("init", "path")), said)
    if ":" not in config.data.name and config.data.name not in data.catalogue():
        hint = did_you_mean(config.data.name, data.catalogue())
        faults.add(document.place(("data", "name")), f"there is no data set {config.data.name!r}: {hint}")
    return bound, view


def check_augment(spec: Specification, shape: tuple[int, int, int] | None, faults: Faults) -> None:
    """Add a fault for each random change of images that cannot be built, or does not fit images of `shape`."""
    for number, said in data.augment_misfits(spec.config.data, shape).items():
        faults.add(spec.config_document.place(("data", "augment", number)), said)


def check_outputs(
    spec: Specification, view: View, faults: Faults, networks: Networks, count: int, processes: int = 1
) -> list[str]:
    """Add a fault where the model does not take the images, or does not give one logit for each class.

    Returns a line where it gives several outputs. `count`: the number of training images; `processes`: how many share
    each batch.
    """
    try:
        return _check_outputs(spec.config, view, networks, count, processes)
    except UserError as error:
        _add(error, spec, faults)
        return []


def _add(error: UserError, spec: Specification, faults: Faults) -> None:
    found = [key for key in ("output", "num_classes") if f"model.{key}" in str(error)]
    keys = [key for key in found if getattr(spec.config.model, key) is not None]
    faults.add(spec.config_document.place(("model", *(keys or ["name"])[:1])), str(error))


def _check_outputs(config: Config, view: View, networks: Networks, count: int | None, processes: int) -> list[str]:
    """Return what `check_forms` says, without storage where that is possible; where it is not, the model is built."""
    classes = data.class_count(config.data.name)
    if classes is not None:
        check_classes(config, config.data.name, classes)
    if view.image is None:
        return []
    try:
        with OnMeta():  # type: ignore[no-untyped-call]
            model = without_storage(view.model)
            return check_forms(config, model, view.image, config.data.name, classes, count, processes)
    except (
        Exception
    ):  # a network may not be copied, or need its values; and what is wrong is said better by the real one
        network = networks.for_trial(config.model.num_classes or classes)
        return check_forms(config, network, view.image, config.data.name, classes, count, processes)


def _frozen(network: nn.Module, document: Document) -> list[Message]:
    """Return a line on parameters that the network's own code has frozen."""
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    said = (
        f"{len(frozen)} parameters are frozen (requires_grad is False): {listed(frozen, 4)}: they are not trained, and"
        " may be pruned"
    )
    return [Message(document.place(("model", "name")), said, "note")] if frozen else []


def _overwritten(config: Config, document: Document) -> list[Message]:
    """Return a line where an initialization draws weights that a factory may have loaded."""
    said = (
        f"init: {config.scheme} replaces the weights of convolutions and linear layers by new random ones, also those"
        f" that {config.model.name} has loaded; `init: default` keeps them"
    )
    own = ":" in config.model.name and config.scheme != "default"
    return [Message(document.place(("init",)), said, "note")] if own else []


def _undrawn(network: nn.Module, scheme: str, document: Document, faults: Faults) -> list[Message]:
    """Return a line on the weights that an initialization leaves as PyTorch draws them; those that a convolution or
    linear layer computes become faults.
    """
    if scheme == "default":
        return []
    place = document.place(("init",))
    by_name = {one.name: one for one in computed(network)}
    for name, one in by_name.items():
        if isinstance(network.get_submodule(name.rpartition(".")[0]), PRUNABLE):
            faults.add(place, f"init: {scheme}: {one.reason}; or set `init: default`")
    known = {*prunable(network), *by_name, *(source for one in by_name.values() for source in one.sources)}
    left = [name for name, tensor in in_use(network).items() if tensor.dim() > 1 and name not in known]
    said = f"init: {scheme} draws convolutions and linear layers; {listed(left, 4)} begin as PyTorch draws them"
    return [Message(place, said, "note")] if left else []
