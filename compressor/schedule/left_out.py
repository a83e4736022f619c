"""The weights that selectors by pattern leave out, and how that is said."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.utils import parametrize

from compressor.errors import listed
from compressor.sparsity import Computed, computed, in_use


@dataclass(frozen=True)
class Other:
    """A parameter of two or more dims that is no weight of a convolution or linear layer, or that a layer computes."""

    name: str
    layer: str
    """The class of the layer that has it."""
    size: int
    computed: Computed | None = None


def others(model: nn.Module, weights: Collection[str]) -> list[Other]:
    """Return the parameters that no pattern selects, in the model's order."""
    by_name = {one.name: one for one in computed(model)}
    sources = {source for one in by_name.values() for source in one.sources}
    found, tensors, parameters = [], in_use(model), dict(model.named_parameters())
    for one in by_name.values():
        if one.name not in tensors:  # its value, and with it its shape, is not known
            own = [parameters[source] for source in one.sources if source in parameters]
            if not own or max(tensor.dim() for tensor in own) > 1:
                found.append(_of(model, one.name, sum(tensor.numel() for tensor in own), one))
    for name, tensor in tensors.items():
        if tensor.dim() > 1 and name not in weights and name not in sources:
            found.append(_of(model, name, tensor.numel(), by_name.get(name)))
    return found


def _of(model: nn.Module, name: str, size: int, one: Computed | None) -> Other:
    module = model.get_submodule(name.rpartition(".")[0])
    return Other(name, parametrize.type_before_parametrizations(module).__name__, size, one)


def said(item: str, left: Sequence[Other], parameters: int) -> list[str]:
    """Return in words what a selector leaves out of a model with so many parameters, why, and what to do."""
    layers: dict[str, list[str]] = {}
    steps: dict[Computed, list[str]] = {}
    for one in left:
        if one.computed is None:
            layers.setdefault(one.layer, []).append(one.name)
        else:
            alike = replace(one.computed, name="", sources=())
            steps.setdefault(alike, []).append(one.name)
    lines = []
    if layers:
        share = 100 * sum(one.size for one in left if one.computed is None) / max(parameters, 1)
        shown = "; ".join(f"{listed(names)} ({layer})" for layer, names in layers.items())
        lines.append(
            f"{item!r} selects the weights of convolutions and linear layers; it leaves out {shown}: {share:.1f} % of"
            f" the parameters. They are pruned only where they are named"
        )
    for how, names in steps.items():
        lines.append(
            f"{item!r} leaves out {listed(names)}, which {how.by} computes: a mask on what it is computed from is no"
            f" mask on the weight. To prune it, {how.remedy}"
        )
    return lines
