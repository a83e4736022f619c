"""`package.module:factory`: a network of the user's own, by the function (or class) that makes it."""

import inspect
from typing import Any

from torch import nn

from compressor.errors import UserError
from compressor.importing import import_callable, isolated
from compressor.models.checking import refuse_unknown


def build(name: str, arguments: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """Return the network that the factory makes from the arguments; `num_classes` is passed where the factory has
    it.
    """
    factory = _find(name)
    parameters = _parameters(factory)
    takes_all = _takes_all(parameters)
    if "num_classes" not in parameters and not takes_all:
        arguments = {key: value for key, value in arguments.items() if key != "num_classes"}
    if pretrained:
        arguments = {**arguments, "pretrained": True}
    if not takes_all:
        refuse_unknown(name, _named(parameters), arguments)
    with isolated(f"model {name!r}: the factory failed"):
        network = factory(**arguments)
    if not isinstance(network, nn.Module):
        raise UserError(f"model {name!r}: the factory should return a torch.nn.Module, got {type(network).__name__}")
    return network.train()


def check_pretrained(name: str) -> None:
    """Raise `UserError` where the factory does not take `pretrained`."""
    parameters = _parameters(_find(name))
    if not _takes_all(parameters):
        refuse_unknown(name, _named(parameters), {"pretrained": True})


def arguments(name: str) -> dict[str, inspect.Parameter]:
    """Return the factory's parameters."""
    return _parameters(_find(name))


def _find(name: str) -> Any:
    return import_callable(name, f"model {name!r}")


def _parameters(factory: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a factory; a builtin without a signature is assumed to accept any."""
    try:
        return dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _takes_all(parameters: dict[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _named(parameters: dict[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """Return the parameters that can be given by name."""
    return {key: p for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
