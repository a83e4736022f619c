"""Inputs and outputs of layers on training images, at some positions of each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.tracing.calls import Call, tensors
from compressor.tracing.layer_calls import Layer
from compressor.tracing.watching import Look, Watching

__all__ = ["Batches", "Samples", "sample_inputs", "sample_outputs"]

Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass
class Samples:
    """Samples of one layer, by batch: rows and columns of each image's positions [images, points, 2], the layer's
    outputs there [samples, outputs], and the tensors that are added to them, if any. A linear layer has no positions.
    """

    positions: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    others: list[Tensor] = field(default_factory=list)


def sample_outputs(
    model: nn.Module, batches: Batches, layers: Sequence[Layer], points: int, draws: np.random.Generator
) -> dict[str, Samples]:
    """Return the outputs of layers in the network as it is now, at `points` random positions of each image."""
    found = {layer.name: Samples() for layer in layers}

    def output(samples: Samples) -> Look:
        def look(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
            samples.positions.append(_positions(result, points, draws))
            samples.outputs.append(_at(result, samples.positions[-1]))

        return look

    before = [look for layer in layers for look in _added(layer, found[layer.name].positions, found[layer.name].others)]
    _run(model, batches, before, [(layer.calls[0], output(found[layer.name])) for layer in layers])
    return found


def sample_inputs(
    model: nn.Module, batches: Batches, layer: Layer, positions: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the inputs of a layer in the network as it is now [samples, inputs, positions of the kernel].

    Also returns the tensors that are added to its outputs, by batch, at the same positions.
    """
    given: list[Tensor] = []
    others: list[Tensor] = []

    def look(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        given.append(_patches(layer.calls[0], args, named, positions[len(given)]))

    _run(model, batches, [(layer.calls[0], look), *_added(layer, positions, others)], [])
    return torch.cat(given), others


def _added(layer: Layer, positions: Sequence[Tensor], others: list[Tensor]) -> list[tuple[Call, Look]]:
    """Return a function that collects the tensors added to a layer's outputs, at the positions of the current batch."""

    def look(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        others.append(_at(tensors((*args, *named.values()))[layer.other], positions[len(others)]))

    return [] if layer.addition is None else [(layer.addition, look)]


def _run(
    model: nn.Module, batches: Batches, before: Sequence[tuple[Call, Look]], after: Sequence[tuple[Call, Look]]
) -> None:
    for images, _ in batches:
        with Watching(before, after):
            model(images)


def _positions(outputs: Tensor, points: int, draws: np.random.Generator) -> Tensor:
    """Return this many different positions of each image's map, or all where it has no more."""
    if outputs.dim() == 2:
        return torch.empty(0, dtype=torch.long)
    images, _, height, width = outputs.shape
    count = min(points, height * width)
    order = draws.random((images, height * width)).argpartition(count - 1, axis=1)[:, :count]
    rows, columns = np.divmod(order, width)
    return torch.from_numpy(np.stack([rows, columns], axis=2)).to(outputs.device)


def _at(maps: Tensor, positions: Tensor) -> Tensor:
    """Return [samples, channels]: a map [images, channels, height, width] at the positions of each image."""
    maps = maps.detach()
    if maps.dim() == 2:
        return maps.cpu()
    images = torch.arange(len(maps), device=maps.device).unsqueeze(1)
    return maps[images, :, positions[..., 0], positions[..., 1]].flatten(0, 1).cpu()


def _patches(call: Call, args: Sequence[Any], named: Mapping[str, Any], positions: Tensor) -> Tensor:
    """Return [samples, inputs, positions of the kernel]: the values that a call of `conv2d` or `linear` multiplies by
    its weight.
    """
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = {"stride": 1, "padding": 0, "dilation": 1, **dict(zip(names, args, strict=False)), **named}
    values: Tensor = given["input"].detach()
    if call.function == "linear":
        return values.unsqueeze(2).cpu()
    kernel = given["weight"].shape[2:]
    stride, dilation = _pair(given["stride"]), _pair(given["dilation"])
    padding = given["padding"]
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        sides = [(all_ // 2, all_ - all_ // 2) for all_ in total]
    else:
        sides = [(side, side) for side in _pair(padding)]
    padded = F.pad(values, (*sides[1], *sides[0]))
    rows, columns = (
        positions[..., dim, None] * stride[dim] + torch.arange(kernel[dim], device=values.device) * dilation[dim]
        for dim in (0, 1)
    )
    images = torch.arange(len(values), device=values.device).reshape(-1, 1, 1, 1)
    found = padded[images, :, rows.unsqueeze(3), columns.unsqueeze(2)]  # [images, points, rows, columns, inputs]
    return found.flatten(2, 3).transpose(2, 3).flatten(0, 1).cpu()


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (tuple(value) * 2)[:2]
