"""torchvision's classifiers by their names there; torchvision is imported when the first one is needed."""

import inspect
import types
from collections.abc import Sequence
from functools import cache
from http.client import HTTPException
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import nn

from compressor.errors import CompressError
from compressor.importing import late
from compressor.models.checking import Factor, Rate, Size, checked, construct, one_line, shapes

# Auxiliary heads make the training-mode output a tuple; not to say `init_weights` is a FutureWarning.
WITH_AUXILIARY_HEADS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
# These builders take more than the class behind them shows.
MORE_ARGUMENTS: dict[str, dict[str, Any]] = {
    name: {"width_mult": 1.0, "reduced_tail": False, "dilated": False}
    for name in ("mobilenet_v3_large", "mobilenet_v3_small")
}


@cache
def names() -> tuple[str, ...]:
    """Return every classifier of the installed torchvision."""
    torchvision = late("torchvision")
    return tuple(torchvision.models.list_models(module=torchvision.models))


def build(name: str, given: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """Return the classifier; `pretrained` with another number of classes keeps all but the last layer."""
    torchvision = late("torchvision")
    valid = checked(name, arguments(name), given)
    defaults = WITH_AUXILIARY_HEADS.get(name, {})

    def fresh() -> nn.Module:
        network: nn.Module = torchvision.models.get_model(name, weights=None, **{**defaults, **valid})
        return network

    return construct(name, lambda: _fetch(name, valid), draft=fresh) if pretrained else construct(name, fresh)


@cache
def arguments(name: str) -> dict[str, inspect.Parameter]:
    """Return the plain arguments of the class that a builder makes: numbers, strings, and flat lists of them."""
    torchvision = late("torchvision")
    # Which class that is only an instance tells; a builder's own signature is `**kwargs`.
    defaults = WITH_AUXILIARY_HEADS.get(name, {})
    made = shapes(lambda: torchvision.models.get_model(name, weights=None, **defaults))
    initializer = type(made).__init__
    hints = get_type_hints(initializer)
    found = {
        key: parameter.replace(annotation=plain, kind=inspect.Parameter.KEYWORD_ONLY)
        for key, parameter in inspect.signature(initializer).parameters.items()
        if key in hints and key != "aux_logits" and (plain := _plain(key, hints[key])) is not None
        if not _fixed(name, {key: None, **defaults})  # a default that is set to None may be warned of
    }
    for key, default in MORE_ARGUMENTS.get(name, {}).items():
        found[key] = inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_plain(key, type(default))
        )
    return found


def _fixed(name: str, attempt: dict[str, Any]) -> bool:
    """Return whether the builder sets one of these itself (resnet18 its `layers`): only a call shows that."""
    torchvision = late("torchvision")
    try:
        shapes(lambda: torchvision.models.get_model(name, weights=None, **attempt))
    except Exception as error:
        return isinstance(error, TypeError) and "multiple values" in str(error)
    return False


def _plain(key: str, hint: Any) -> Any:
    """Return the annotation, with a range, where YAML can express it (tuples as lists); None for modules, nested
    lists.
    """
    chance = "drop" in key or "prob" in key
    scalars: dict[Any, Any] = {bool: bool, int: Size, float: Rate if chance else Factor, str: str}
    if hint in scalars:
        return scalars[hint]
    origin, inner = get_origin(hint), [t for t in get_args(hint) if t is not Ellipsis]
    if origin in (list, tuple, Sequence):
        return types.GenericAlias(list, (scalars[inner[0]],)) if inner[0] in scalars else None
    if origin in (Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        one = _plain(key, next(t for t in inner if t is not type(None)))
        return None if one is None else one | None
    return None


def _fetch(name: str, valid: dict[str, Any]) -> nn.Module:
    """Return the classifier with torchvision's default weights; a new head where the classes differ."""
    torchvision = late("torchvision")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    classes = valid.get("num_classes", len(weights.meta["categories"]))
    body = {key: value for key, value in valid.items() if key != "num_classes"}
    try:
        network: nn.Module = torchvision.models.get_model(name, weights=weights, **body)
    except (OSError, HTTPException) as error:
        raise CompressError(
            f"the weights of {name!r} could not be fetched from {weights.url}: {one_line(error)}"
        ) from error
    if name == "inception_v3":  # its builder, unlike googlenet's, refuses to drop the published auxiliary head
        for key, value in {"aux_logits": False, "AuxLogits": None}.items():
            setattr(network, key, value)
    if classes != len(weights.meta["categories"]):
        _replace_head(network, classes)
    return network


def _replace_head(network: nn.Module, classes: int) -> None:
    """Return a new last layer (Linear, or SqueezeNet's 1x1 convolution) of `classes` outputs."""
    path, head = [(p, m) for p, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    fresh: nn.Module
    if isinstance(head, nn.Linear):
        fresh = nn.Linear(head.in_features, classes, bias=head.bias is not None)
    else:
        fresh = nn.Conv2d(head.in_channels, classes, head.kernel_size, bias=head.bias is not None)  # type: ignore[arg-type]
    parent, _, leaf = path.rpartition(".")
    setattr(network.get_submodule(parent), leaf, fresh)
