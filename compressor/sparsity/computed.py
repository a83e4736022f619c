"""Tensors that a layer computes from its parameters: weight_norm, spectral_norm, torch's own pruning, parametrizations.

A mask on such a parameter is no mask on the weight: a filter of weight_norm that is wholly zero becomes NaN.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compressor.evaluating import evaluating
from compressor.sparsity.weights import PRUNABLE


@dataclass(frozen=True)
class Computed:
    """A tensor `name` that `by` computes before each forward pass from the parameters `sources`."""

    name: str
    by: str
    sources: tuple[str, ...]
    remedy: str

    @property
    def reason(self) -> str:
        """Return in words why it cannot be selected, and what to do."""
        of = f" from {' and '.join(self.sources)}" if self.sources else ""
        return f"{self.by} computes {self.name}{of}, so it cannot be pruned or changed: {self.remedy}"


def computed(model: nn.Module) -> list[Computed]:
    """Return all tensors that the model's layers compute from parameters, in the model's order."""
    found = []
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        mine = list(_of_module(module, f"{path}." if path else ""))
        known = {one.name.rpartition(".")[2] for one in mine}
        if isinstance(module, PRUNABLE) and "weight" not in module._parameters and "weight" not in known:
            name = f"{path}.weight" if path else "weight"
            mine.append(Computed(name, "the model's own code", (), "make it a parameter of its layer in the model"))
        found += mine
    return found


def _of_module(module: nn.Module, path: str) -> Iterator[Computed]:
    if parametrize.is_parametrized(module):
        every = cast(Mapping[str, parametrize.ParametrizationList], module.parametrizations)
        for name, steps in every.items():
            by = " and ".join(type(step).__name__.strip("_") for step in steps)
            sources = tuple(f"{path}parametrizations.{name}.{own}" for own, _ in steps.named_parameters(recurse=False))
            yield Computed(path + name, by, sources, _remedy(f"parametrize.remove_parametrizations(layer, {name!r})"))
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            sources = (f"{path}{hook.name}_g", f"{path}{hook.name}_v")
            yield Computed(path + hook.name, "weight_norm", sources, _remedy("remove_weight_norm(layer)"))
        elif isinstance(hook, SpectralNorm):
            sources = (f"{path}{hook.name}_orig",)
            yield Computed(path + hook.name, "spectral_norm", sources, _remedy("remove_spectral_norm(layer)"))
        elif isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            remedy = _remedy(f"prune.remove(layer, {name!r})")
            yield Computed(path + name, "torch.nn.utils.prune", (f"{path}{name}_orig",), remedy)


def _remedy(call: str) -> str:
    return f"call torch.nn.utils.{call} where the model is built"


@torch.no_grad()
def in_use(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter by name, in the model's order; a tied one once.

    Where a layer computes a tensor of the same shape from it, that tensor stands in its place, under its own name.
    """
    by_source = {source: one for one in computed(model) for source in one.sources}
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        one = by_source.get(name)
        value = None if one is None else _value(model, one)
        if one is not None and value is not None and value.shape == parameter.shape:
            found[one.name] = value
        else:
            found[name] = parameter
    return found


def _value(model: nn.Module, one: Computed) -> Tensor | None:
    """Return the value that the forward pass would compute now; None where the model is without storage and it is not
    possible.
    """
    path, _, name = one.name.rpartition(".")
    module = model.get_submodule(path)
    try:
        return _computed_now(module, name)
    except Exception:  # whatever a parametrization raises that finds no numbers
        return None


def _computed_now(module: nn.Module, name: str) -> Tensor:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            return hook.compute_weight(module)  # type: ignore[no-any-return]
        if isinstance(hook, SpectralNorm) and hook.name == name:
            return hook.compute_weight(module, do_power_iteration=False)
        if isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == name:
            return cast(Tensor, hook.apply_mask(module))  # type: ignore[no-untyped-call]
    with evaluating(module):  # in training a spectral norm takes a step of its power iteration
        value: Tensor = getattr(module, name)
        return value
