"""The networks by name: our own (one builder in each file), torchvision's classifiers, the user's `module:factory`.

A new model is one new file of this package with a function under `@model`; nothing else is edited.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from compressor.errors import UserError, did_you_mean
from compressor.models import factory, torchvision_models
from compressor.models.checking import checked, construct, shapes
from compressor.models.lazy import NeedsImages, with_sizes
from compressor.models.output import (
    PREFERRED,
    Key,
    as_built,
    chosen,
    described,
    entries,
    has_logits,
    logits_of,
    other_logits,
    output_seen,
    used,
    with_output,
)
from compressor.models.registry import Builder, builders, model

__all__ = [
    "PREFERRED",
    "Key",
    "NeedsImages",
    "arguments",
    "as_built",
    "build",
    "catalogue",
    "check_pretrained",
    "chosen",
    "classes_argument",
    "described",
    "entries",
    "has_logits",
    "logits_of",
    "model",
    "other_logits",
    "output_seen",
    "skeleton",
    "used",
    "with_output",
    "with_sizes",
]


def build(name: str, /, *, num_classes: int | None = None, pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Return the network `name` with new random weights (or, with `pretrained`, torchvision's published ones).

    Raises `UserError` for a wrong name or argument, `CompressError` where published weights cannot be fetched.
    """
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if ":" in name:
        return factory.build(name, arguments, pretrained=pretrained)
    builder = _own(name)
    if builder is None:
        return torchvision_models.build(name, arguments, pretrained=pretrained)
    if pretrained:
        check_pretrained(name)
    valid = checked(name, _parameters(builder), arguments)
    return construct(name, lambda: builder(**valid))


def skeleton(name: str, /, *, num_classes: int | None = None, **arguments: Any) -> nn.Module:
    """Return the network `name` for names and shapes: without storage, but for a user's own, which may read values.

    Raises `UserError` where it cannot be built or has nothing to train.
    """
    if ":" in name:
        return build(name, num_classes=num_classes, **arguments)
    _signature(name)  # imports what the name needs: a module keeps the tensors that it makes while it is imported
    network = shapes(lambda: build(name, num_classes=num_classes, **arguments))
    if next(network.parameters(), None) is None:
        raise UserError(f"the model {name!r} has no parameters to train")
    return network


def check_pretrained(name: str) -> None:
    """Raise `UserError` where the network `name` has no weights that `pretrained` could mean."""
    if ":" in name:
        factory.check_pretrained(name)
    elif _own(name) is not None:
        raise UserError(f"model {name!r} has no published weights: remove `pretrained`, or start from a checkpoint")


def classes_argument(name: str, given: Mapping[str, Any], outputs: int) -> str | None:
    """Return the argument, other than `num_classes`, that seems to be the number of `outputs` of a factory's network.

    `given` are the arguments of the configuration.
    """
    return factory.classes_argument(name, given, outputs) if ":" in name else None


def arguments(name: str) -> dict[str, inspect.Parameter]:
    """Return the arguments of the model `name`: argument -> its annotation and default."""
    return _signature(name)


def _signature(name: str) -> dict[str, inspect.Parameter]:
    if ":" in name:
        return factory.arguments(name)
    builder = _own(name)
    return dict(torchvision_models.arguments(name)) if builder is None else _parameters(builder)


def catalogue() -> dict[str, str]:
    """Return every model's name with a description in one line; our own first."""
    own = {name: (inspect.getdoc(it) or "").partition("\n")[0] for name, it in sorted(builders().items())}
    return own | {name: "torchvision" for name in torchvision_models.names() if name not in own}


def _own(name: str) -> Builder | None:
    """Return our builder of that name; None where torchvision has one."""
    own = builders()
    body = name.removesuffix("_earlyexit")
    if body != name and (body in own or body in torchvision_models.names()):
        raise UserError(
            f"the model {name!r} is known from Distiller, and not built yet: it has early exits; without them: {body!r}"
        )
    if name not in own and name not in (theirs := torchvision_models.names()):
        raise UserError(f"there is no model {name!r}: {did_you_mean(name, [*own, *theirs])}")
    return own.get(name)


def _parameters(builder: Builder) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(builder, eval_str=True).parameters)
