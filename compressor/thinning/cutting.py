"""The removal of channels from parameters, gradients, buffers, and all tensors that have their shapes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.thinning.graph import ChannelGraph, Node
from compressor.thinning.layers import new_widths, set_widths, widths
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
    """Return the cut of all parameters and buffers that a removal makes."""
    own: dict[str, Tensor] = dict((*network.named_parameters(), *network.named_buffers()))
    kept: dict[str, Tensor] = {}
    for name, lines in graph.slices.items():
        tensor = own.get(name)
        if tensor is None:
            continue
        places = torch.arange(tensor.numel()).view(tensor.shape)
        for dim, cells in enumerate(lines):
            if cells is not None and len(cells) == tensor.shape[dim]:
                stay = removal.kept(cells)
                places = places if len(stay) == len(cells) else places.index_select(dim, stay)
        kept[name] = places
    groups: dict[str, int] = {}
    for path, node in graph.by_path.items():
        name = graph.weights.get(path, "")
        module = network.get_submodule(path)
        if path in removal.skipped:
            kept[name] = (
                torch.arange(own[name].numel()).view(own[name].shape).index_select(0, removal.kept(node.out))[:, :0]
            )
        elif node.kind == "producer" and node.groups > 1 and name in own:
            places = torch.arange(own[name].numel()).view(own[name].shape)
            groups[path], kept[name] = _grouped(node, places, removal)
            bias = f"{path}.bias" if path else "bias"
            if bias in own:
                kept[bias] = removal.kept(node.out)
        elif node.kind == "depthwise":
            groups[path] = len(removal.kept(node.out))
        elif isinstance(module, nn.GroupNorm):
            groups[path] = module.num_groups * len(removal.kept(node.out)) // max(len(node.out), 1)
    stays = {name: places for name, places in kept.items() if places.shape != own[name].shape}
    shapes = {name: own[name].shape for name in stays}
    return Cut(stays, shapes, _sizes(graph, network, removal, stays, groups))


def _sizes(
    graph: ChannelGraph,
    network: nn.Module,
    removal: Removal,
    stays: Mapping[str, Tensor],
    groups: Mapping[str, int],
) -> dict[str, dict[str, int]]:
    """Return the new numbers of channels of the layers that change, by path."""
    found: dict[str, dict[str, int]] = {}
    for path, module in network.named_modules():
        before = widths(module)
        node = graph.by_path.get(path)
        if not before:
            continue
        if node is not None:
            out = len(removal.kept(node.out))
            into = out if node.into is None else len(removal.kept(node.into))
            if path in removal.skipped:
                into, groups = 0, {**groups, path: 1}
            if isinstance(module, nn.GroupNorm):
                after = new_widths(module, out, groups.get(path, module.num_groups), 1)
            else:
                after = new_widths(module, into, out, groups.get(path, int(getattr(module, "groups", 1))))
        else:  # a layer that the graph has as a bare parameter: PReLU, recurrent layers
            name = "weight_ih_l0" if isinstance(module, nn.RNNBase) else "weight"
            places = stays.get(f"{path}.{name}" if path else name)
            if places is None:
                continue
            after = new_widths(module, places.shape[-1], places.shape[0], 1)
        if after != before:
            found[path] = after
    return found


def _grouped(node: Node, places: Tensor, removal: Removal) -> tuple[int, Tensor]:
    """Return the kept groups of a grouped convolution, and the kept entries of its weight."""
    assert node.into is not None
    out, into = removal.kept(node.out), removal.kept(node.into)
    outs, ins = len(node.out) // node.groups, len(node.into) // node.groups
    parts = []
    for group in range(node.groups):
        rows = out[(out >= group * outs) & (out < (group + 1) * outs)]
        columns = into[(into >= group * ins) & (into < (group + 1) * ins)]
        if len(rows) == 0 and len(columns) == 0:
            continue
        if node.transposed:
            parts.append(places.index_select(0, columns).index_select(1, rows - group * outs))
        else:
            parts.append(places.index_select(0, rows).index_select(1, columns - group * ins))
    return len(parts), torch.cat(parts)
