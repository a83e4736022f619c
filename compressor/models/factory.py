"""`package.module:factory`: a network of the user's own, by the function (or class) that makes it."""

import importlib
import inspect
from typing import Any

from torch import nn

from compressor.errors import CompressError, UserError, did_you_mean
from compressor.models.checking import one_line, refuse_unknown


def build(name: str, arguments: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """What the factory makes of the arguments; `num_classes` is passed where it takes it."""
    factory = _find(name)
    parameters = _parameters(factory)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "num_classes" not in parameters and not takes_all:
        arguments = {key: value for key, value in arguments.items() if key != "num_classes"}
    if pretrained:
        arguments = {**arguments, "pretrained": True}
    named = {key: p for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not takes_all:
        refuse_unknown(name, named, arguments)
    try:
        network = factory(**arguments)
    except CompressError:
        raise
    except Exception as error:
        raise UserError(f"model {name!r}: the factory failed: {one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"model {name!r}: the factory should return a torch.nn.Module, got {type(network).__name__}")
    return network


def arguments(name: str) -> dict[str, inspect.Parameter]:
    """The factory's parameters."""
    return _parameters(_find(name))


def _find(name: str) -> Any:
    """The callable that `module:factory` names."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UserError(f"model {name!r}: expected `package.module:factory`")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Not found may be something that the module itself imports: then that is the name to give.
        raise UserError(
            f"model {name!r}: no module {error.name or module_name!r} (is it installed, or on PYTHONPATH?)"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"model {name!r}: importing {module_name!r} failed: {one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if factory is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"model {name!r}: {module_name!r} has no {attribute!r}: {did_you_mean(attribute, public)}")
    if not callable(factory):
        raise UserError(f"model {name!r}: {attribute!r} should be callable, got {type(factory).__name__}")
    return factory


def _parameters(factory: Any) -> dict[str, inspect.Parameter]:
    """Its parameters; those of a builtin that does not tell them are taken to be anything."""
    try:
        return dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}
