"""What other packages do at each step of a bare loop for the same end: the peers that `step_overhead` prints.

Where masks are in force, 80 % of each weight is masked; where they are computed at every mini-batch, half, as AGP
begins. torch.nn.utils.prune has no call that ranks again: its `compute_mask` is called and the buffer replaced.
torch-pruning has importances and no masks: the filters are zeroed here. Its groups also hold the batch norm and the
inputs behind.
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

IN_FORCE, RANKED = 0.8, 0.5


@dataclass(frozen=True)
class Hooks:
    """What is called within a step."""

    before_forward: Callable[[], object] = lambda: None
    after_backward: Callable[[], object] = lambda: None
    after_step: Callable[[], object] = lambda: None


NO_HOOKS = Hooks()

Peer = Callable[[nn.Module, Tensor], Hooks]
"""Readies a network that sees such images."""


def _layers(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _first_convolutions(network: nn.Module) -> dict[str, nn.Module]:
    """Of the blocks: `layer*.conv1`."""
    names = [name for name, _ in network.named_modules()]
    return {n: network.get_submodule(n) for n in names if n.startswith("layer") and n.endswith("conv1")}


def group_norm(network: nn.Module, images: Tensor) -> Hooks:
    torch_pruning = importlib.import_module("torch_pruning")
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    last = [network.get_submodule("fc")]
    pruner = torch_pruning.pruner.GroupNormPruner(network, images[:1], importance, ignored_layers=last)
    network.train()  # it leaves it in eval mode
    return Hooks(after_backward=lambda: pruner.regularize(network))


def pruned(network: nn.Module, images: Tensor) -> Hooks:
    for layer in _layers(network):
        prune.l1_unstructured(layer, "weight", IN_FORCE)
    return NO_HOOKS


class _Masked(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def parametrized(network: nn.Module, images: Tensor) -> Hooks:
    for layer in _layers(network):
        weight = layer.weight.detach()
        mask = prune.L1Unstructured(IN_FORCE).compute_mask(weight, torch.ones_like(weight))
        parametrize.register_parametrization(layer, "weight", _Masked(mask))
    return NO_HOOKS


def _ranked_again(layers: list[nn.Module], method: prune.BasePruningMethod) -> Hooks:
    for layer in layers:
        prune.identity(layer, "weight")

    @torch.no_grad()
    def rank() -> None:
        for layer in layers:
            layer.weight_mask = method.compute_mask(layer.weight_orig, torch.ones_like(layer.weight_orig))

    return Hooks(before_forward=rank)


def elements_ranked(network: nn.Module, images: Tensor) -> Hooks:
    return _ranked_again(_layers(network), prune.L1Unstructured(RANKED))


def filters_ranked(network: nn.Module, images: Tensor) -> Hooks:
    return _ranked_again([*_first_convolutions(network).values()], prune.LnStructured(RANKED, n=1, dim=0))


def importance_ranked(network: nn.Module, images: Tensor) -> Hooks:
    torch_pruning = importlib.import_module("torch_pruning")
    graph = torch_pruning.DependencyGraph().build_dependency(network, images[:1])
    network.train()
    importance = torch_pruning.importance.MagnitudeImportance(p=1, group_reduction="first", normalizer=None)
    groups = []
    for layer in _first_convolutions(network).values():
        every = list(range(len(layer.weight)))
        group = graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, every)
        groups.append((layer.weight.detach(), group))

    def rank() -> None:
        for weight, group in groups:
            weight[importance(group).topk(int(RANKED * len(weight)), largest=False).indices] = 0.0

    return Hooks(after_step=rank)


def fasterai(network: nn.Module, images: Tensor) -> Hooks:
    sparsifier = _sparsifier(network, "weight")
    sparsifier.sparsify_model(IN_FORCE)
    return Hooks(after_step=sparsifier._apply_masks)


def fasterai_elements(network: nn.Module, images: Tensor) -> Hooks:
    sparsifier = _sparsifier(network, "weight")
    return Hooks(lambda: sparsifier.sparsify_model(RANKED), after_step=sparsifier._apply_masks)


def fasterai_filters(network: nn.Module, images: Tensor) -> Hooks:
    sparsifier = _sparsifier(network, "filter")
    share = dict.fromkeys(_first_convolutions(network), RANKED)
    return Hooks(lambda: sparsifier.sparsify_model(share), after_step=sparsifier._apply_masks)


def _sparsifier(network: nn.Module, granularity: str) -> Any:
    """What fasterai's SparsifyCallback calls."""
    from fasterai.core.criteria import large_final
    from fasterai.sparse.sparsifier import Sparsifier

    return Sparsifier(network, granularity, "local", large_final, layer_type=(nn.Conv2d, nn.Linear))


def nncf(network: nn.Module, images: Tensor) -> Hooks:
    _nncf(network, images, IN_FORCE)
    return NO_HOOKS


def nncf_elements(network: nn.Module, images: Tensor) -> Hooks:
    mode = _nncf(network, images, RANKED)
    from nncf.torch.function_hook.pruning.magnitude.schedulers import MultiStepMagnitudePruningScheduler

    scheduler = MultiStepMagnitudePruningScheduler(network, mode=mode, steps={0: RANKED})
    return Hooks(before_forward=scheduler.step)


def _nncf(network: nn.Module, images: Tensor, ratio: float) -> object:
    """Has nncf mask a network in place; returns the mode."""
    os.environ.setdefault("NNCF_CI", "1")  # no telemetry
    from nncf import PruneMode, prune

    mode = PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL
    prune(network, mode, ratio=ratio, examples_inputs=images[:1])
    network.train()
    return mode


PEERS: dict[str, dict[str, Peer]] = {
    "element mask in force": {
        "torch.nn.utils.prune": pruned,
        "torch.nn.utils.parametrize, weight * mask": parametrized,
        "fasterai, Sparsifier": fasterai,
        "nncf, magnitude pruning": nncf,
    },
    "AGP, masks every mini-batch": {
        "torch.nn.utils.prune, L1Unstructured": elements_ranked,
        "fasterai, sparsify_model": fasterai_elements,
        "nncf, pruning scheduler": nncf_elements,
    },
    "AGP over filters, masks every mini-batch": {
        "torch.nn.utils.prune, LnStructured": filters_ranked,
        "torch-pruning, MagnitudeImportance": importance_ranked,
        "fasterai, sparsify_model of filters": fasterai_filters,
    },
    "group lasso over filters": {"torch-pruning, GroupNormPruner.regularize": group_norm},
}
"""By the row of ours that they stand under."""
