"""`package.module:factory`: a network of the user's own, by the function (or class) that makes it."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

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
    without = {key: value for key, value in arguments.items() if key != "num_classes"}
    if "num_classes" not in parameters and not takes_all:
        arguments = without
    if pretrained:
        arguments = {**arguments, "pretrained": True}
    if not takes_all:
        refuse_unknown(name, _named(parameters), arguments)
    if missing := _missing(parameters, arguments):
        raise UserError(f"model {name!r}: {missing}")
    try:
        network = _call(name, factory, arguments)
    except UserError as error:
        # What takes any arguments may pass them on to a class that calls the number of classes otherwise.
        if "num_classes" in parameters or "argument 'num_classes'" not in str(error.__cause__ or ""):
            raise
        network = _call(name, factory, without)
    if why := _unusable(network):
        raise UserError(f"model {name!r}: the factory {why}")
    made: nn.Module = network.cpu()
    return made.train()


def _call(name: str, factory: Any, arguments: dict[str, Any]) -> Any:
    with isolated(f"model {name!r}: the factory failed"):
        return factory(**arguments)


def classes_argument(name: str, given: Mapping[str, Any], outputs: int) -> str | None:
    """Return the argument, other than `num_classes`, that seems to be the number of outputs; None where none does."""
    values = {key: p.default for key, p in _named(_parameters(_find(name))).items()} | dict(given)
    values.pop("num_classes", None)
    equal = [key for key, value in values.items() if type(value) is int and value == outputs]
    named = [key for key in values if any(word in key.lower() for word in ("class", "label", "logit", "out"))]
    return next((found[0] for found in ([key for key in equal if key in named], equal, named) if found), None)


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


def _missing(parameters: dict[str, inspect.Parameter], given: Mapping[str, Any]) -> str:
    """Return in words which argument is missing; empty where none is."""
    for key, parameter in parameters.items():
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY or key == "name":
            why = "`model.name` is the factory itself" if key == "name" else "it has to be given by position"
            return (
                f"its argument {key!r} is required, and cannot be given in the configuration ({why}): name a function"
                " of your own that calls it"
            )
        if key == "num_classes" and key not in given:
            return (
                "its argument 'num_classes' is required, and only the data tell the number of classes: set"
                " model.num_classes"
            )
        if key not in given:
            return f"its argument {key!r} is required: set model.{key}"
    return ""


def _named(parameters: dict[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """Return the parameters that can be given by name."""
    return {key: p for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


_WRAPPERS = {
    "DataParallel": "its attribute `module`",
    "DistributedDataParallel": "its attribute `module`",
    "FullyShardedDataParallel": "its attribute `module`",
    "OptimizedModule": "the network before torch.compile (`compile: true` in the configuration compiles it)",
}
"""The classes of torch that wrap a network, and what should be returned in their place."""


def _unusable(network: Any) -> str:
    """Return in words why a factory's result cannot be trained, and what to do; empty where it can."""
    kind = type(network).__name__
    if not isinstance(network, nn.Module):
        return f"should return a torch.nn.Module, got {kind}{_instead(network)}"
    if kind in _WRAPPERS:
        return f"returns a network wrapped in {kind}: return {_WRAPPERS[kind]}"
    for path, module in network.named_modules():
        what = f"the layer {path!r} ({type(module).__name__})" if path else f"a {type(module).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            return f"returns {what} of torch.jit, which cannot be pruned: return the network from which it was made"
        if ".quantized" in type(module).__module__:
            return f"returns {what} with quantized weights, which cannot be trained: return the float network"
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_meta:
            return f"returns a network whose {name} is on the meta device: it has no values; build it on the CPU"
        if not is_lazy(tensor) and tensor.is_inference():
            return (
                f"returns a network whose {name} was made in torch.inference_mode(): leave that out where it is built"
            )
    for name, parameter in network.named_parameters():
        if parameter.dtype != torch.float32:
            given = str(parameter.dtype).removeprefix("torch.")
            return (
                f"returns a network whose {name} is {given}, training needs float32: call its method float()"
                " (`precision: bf16` in the configuration computes forward passes in bfloat16)"
            )
    parameters = [parameter.requires_grad for parameter in network.parameters()]
    if not parameters:
        return "returns a network that has no parameters to train"
    if not any(parameters):
        return "returns a network whose parameters are all frozen (requires_grad is False): there is nothing to train"
    return ""


def _instead(result: Any) -> str:
    """Return what may be meant by a result that is no network."""
    if isinstance(result, type) and issubclass(result, nn.Module):
        return f": it should call {result.__name__}"
    if isinstance(result, Mapping):
        return ": load a state dict into the network, and return that"
    if isinstance(result, tuple | list) and any(isinstance(one, nn.Module) for one in result):
        return f": return the network alone, item {[isinstance(one, nn.Module) for one in result].index(True)}"
    return ""
