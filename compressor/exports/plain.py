"""A network as plain layers: weights that are computed before each forward pass become parameters."""

from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from compressor.copying import copied


def plain(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode without torch's weight_norm, spectral_norm, parametrizations and pruning masks: each
    of their weights is a parameter with the value that it has in eval mode.
    """
    made = copied(network).eval()
    for module in list(made.modules()):
        if parametrize.is_parametrized(module):
            _keep_values(module)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    return made.requires_grad_(False)


@torch.no_grad()
def _keep_values(module: nn.Module) -> None:
    """Let the parametrized tensors of a copied layer be parameters.

    `parametrize.remove_parametrizations` would take them away from the class, which a copy shares with its original.
    """
    values = {name: getattr(module, name) for name in cast(nn.ModuleDict, module.parametrizations)}
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value.clone()))
