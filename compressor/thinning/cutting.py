"""The removal of channels from parameters, gradients, buffers, and all tensors that have their shapes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.thinning.graph import ChannelGraph
from compressor.thinning.layers import dims, new_widths, set_widths, tensors
from compressor.thinning.removal import Removal
from compressor.thinning.skipping import skip


@dataclass(frozen=True)
class Cut:
    """For each tensor that changes: the positions of the kept entries in the old flattened tensor, in the new shape."""

    stays: Mapping[str, Tensor]
    shapes: Mapping[str, torch.Size]
    """The old shapes."""
    sizes: Mapping[str, Mapping[str, int]]
    """The new numbers of channels, by the path of each layer that changes."""

    def __bool__(self) -> bool:
        return bool(self.stays)

    def tensor(self, name: str, value: Tensor) -> Tensor:
        """Return the kept entries of a tensor that belongs to the parameter or buffer `name`; others as they are."""
        index = self.stays.get(name)
        if index is None or value.shape != self.shapes[name]:
            return value
        kept = value.detach().flatten()[index.flatten().to(value.device)].reshape(index.shape)
        if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous():
            kept = kept.contiguous(memory_format=torch.channels_last)
        return kept

    def memory(self, value: Any) -> Any:
        """Return a nested container in which every tensor that has a parameter's name and its shape is cut."""
        if isinstance(value, dict):
            return {
                key: self.tensor(key, item) if isinstance(item, Tensor) and isinstance(key, str) else self.memory(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return type(value)(self.memory(item) for item in value)
        return value

    @torch.no_grad()
    def model(self, network: nn.Module) -> None:
        """Cut the parameters (they stay the same objects) with their gradients, and the buffers."""
        parameters = dict(network.named_parameters())
        for name in self.stays:
            path, _, own = name.rpartition(".")
            if name in parameters:
                parameter = parameters[name]
                gradient = None if parameter.grad is None else self.tensor(name, parameter.grad)
                parameter.grad = None
                parameter.data = self.tensor(name, parameter)
                parameter.grad = gradient
            else:
                module = network.get_submodule(path)
                module._buffers[own] = self.tensor(name, module._buffers[own])  # type: ignore[arg-type]
        for path, sizes in self.sizes.items():
            set_widths(network.get_submodule(path), dict(sizes))
            if not all(sizes.values()):
                skip(network, path, dict(sizes))

    @torch.no_grad()
    def optimizer(self, optimizer: Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Cut the tensors that an optimizer keeps in the shape of a parameter: momentum, moments."""
        for name, parameter in parameters:
            state = optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor):
                    state[key] = self.tensor(name, value)


def cut_of(graph: ChannelGraph, network: nn.Module, removal: Removal) -> Cut:
    """Return the cut of every layer's tensors that a removal makes."""
    stays: dict[str, Tensor] = {}
    shapes: dict[str, torch.Size] = {}
    sizes: dict[str, dict[str, int]] = {}
    for path, node in graph.by_path.items():
        if node.kind not in ("producer", "depthwise", "norm", "prelu"):
            continue
        module = network.get_submodule(path)
        own = tensors(module)
        places = {name: torch.arange(tensor.numel()).view(tensor.shape) for name, tensor in own.items()}
        out = removal.kept(node.out)
        into = out if node.into is None else removal.kept(node.into)
        if path in removal.skipped:
            after = new_widths(module, 0, len(out), 1)
            places["weight"] = places["weight"].index_select(0, out)[:, :0]
        elif len(out) == len(node.out) and (node.into is None or len(into) == len(node.into)):
            continue
        elif node.kind == "producer":
            groups, kept = _weight(module, places["weight"], node.out, node.into, out, into)
            after = new_widths(module, len(into), len(out), groups)
            places["weight"] = kept
        else:
            after = new_widths(module, len(out), len(out), len(out))
            places["weight"] = places["weight"].index_select(0, out) if "weight" in places else torch.empty(0)
        for name, tensor in own.items():
            kept = places[name] if name == "weight" else places[name].index_select(0, out)
            if kept.shape != tensor.shape:
                full = f"{path}.{name}" if path else name
                stays[full], shapes[full] = kept, tensor.shape
        sizes[path] = after
    return Cut(stays, shapes, sizes)


def _weight(
    module: nn.Module, places: Tensor, cells_out: Tensor, cells_in: Tensor | None, out: Tensor, into: Tensor
) -> tuple[int, Tensor]:
    """Return the kept groups of a convolution (1 for a linear layer), and the kept entries of its weight."""
    assert cells_in is not None
    out_dim, in_dim = dims(module)
    groups = int(getattr(module, "groups", 1))
    if groups == 1:
        return 1, places.index_select(out_dim, out).index_select(in_dim, into)
    outs, ins = len(cells_out) // groups, len(cells_in) // groups
    parts = []
    for group in range(groups):
        rows = out[(out >= group * outs) & (out < (group + 1) * outs)]
        columns = into[(into >= group * ins) & (into < (group + 1) * ins)] - group * ins
        if len(rows) == 0 and len(columns) == 0:
            continue
        if out_dim == 0:
            parts.append(places.index_select(0, rows).index_select(1, columns))
        else:
            parts.append(places.index_select(0, columns + group * ins).index_select(1, rows - group * outs))
    return len(parts), torch.cat(parts)
