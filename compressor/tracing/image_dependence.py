"""The channels that depend on the image, found in a forward pass of an image of NaN.

Values that depend on the image become NaN; the others stay numbers, and they are exact, because the network's own
operations computed them. Where a zero should stop NaN (0 * NaN), this is corrected here: after a zero weight or a zero
factor the values are numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.evaluating import evaluating

__all__ = ["LayerInputs", "dependent_logits", "inputs_of", "lost_classes", "probe"]

aten = torch.ops.aten

_ROUNDING = 4
"""The difference, in units of rounding, that one constant may have between positions."""


@dataclass(frozen=True)
class LayerInputs:
    """The inputs of a layer, by channel: whether it is 0 everywhere; the constant that it is everywhere, or NaN."""

    zero: Tensor
    constant: Tensor

    def also(self, other: "LayerInputs") -> "LayerInputs":
        """Return what is true in both of two calls of a layer."""
        same = self.constant == other.constant
        return LayerInputs(self.zero & other.zero, torch.where(same, self.constant, torch.nan))


def inputs_of(model: nn.Module, shape: tuple[int, ...], *, training: bool = False) -> dict[str, LayerInputs]:
    """Return the inputs of every convolution and linear layer, by the layer's path.

    With `training` only what is also true in training mode, where a batch norm normalizes by the batch (unless gamma is
    0).
    """
    found, lost = probe(model, shape, training=training)
    found = {path: seen for path, seen in found.items() if not isinstance(model.get_submodule(path), _BatchNorm)}
    if not lost:
        return found
    return {path: LayerInputs(seen.zero & False, seen.constant * torch.nan) for path, seen in found.items()}


def probe(model: nn.Module, shape: tuple[int, ...], *, training: bool = False) -> tuple[dict[str, LayerInputs], bool]:
    """Return the inputs of layers and batch norms, and whether a comparison read the image: then nothing is known."""
    found: dict[str, LayerInputs] = {}
    mode = _NaNMode(training)

    def look(path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            mode.paused = True
            seen = _look(module, arguments[0] if arguments else named["input"])
            mode.paused = False
            found[path] = found[path].also(seen) if path in found else seen

        return hook

    handles = [
        module.register_forward_pre_hook(look(path), with_kwargs=True)
        for path, module in model.named_modules()
        if isinstance(module, (_ConvNd, nn.Linear, _BatchNorm))
    ]
    try:
        _run(model, shape, mode)
    finally:
        for handle in handles:
            handle.remove()
    return found, mode.lost


def dependent_logits(model: nn.Module, shape: tuple[int, ...]) -> Tensor | None:
    """Return [classes]: whether each logit depends on the image; None where the forward pass does not show it."""
    mode = _NaNMode(training=False, by_class=True)
    try:
        logits = _run(model, shape, mode)
    except Exception:  # whatever a network's forward raises that cannot work with NaN
        return None
    if mode.lost or not isinstance(logits, Tensor) or not logits.is_floating_point():
        return None
    return torch.isnan(logits).flatten().cpu()


def lost_classes(depends: Tensor, classes: Sequence[str]) -> list[str]:
    """Return the names of the classes whose logits do not depend on the image; their numbers where there are no
    names.
    """
    names = list(classes) if len(classes) == len(depends) else list(map(str, range(len(depends))))
    return [name for name, one in zip(names, depends.tolist(), strict=True) if not one]


def _run(model: nn.Module, shape: tuple[int, ...], mode: "_NaNMode") -> Any:
    """Return the result of a forward pass of an image of NaN."""
    parameter = next(model.parameters())
    image = torch.full((1, *shape), torch.nan, device=parameter.device, dtype=parameter.dtype)
    with evaluating(model), torch.no_grad(), mode:
        return model(image)


def _look(module: nn.Module, given: Tensor) -> LayerInputs:
    dim = given.dim() - 1 if isinstance(module, nn.Linear) else 1
    flat = given.movedim(dim, 0).flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    # A vectorized function may round otherwise at the end of a tensor.
    equal = high - low <= _ROUNDING * torch.finfo(low.dtype).eps * low.abs()
    constant = torch.where(equal & torch.isfinite(low), low, torch.nan)
    return LayerInputs((flat == 0).all(1).cpu(), constant.double().cpu())


class _NaNMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let NaN mean "depends on the image" in every operation."""

    def __init__(self, training: bool, *, by_class: bool = False) -> None:
        """`by_class`: an output of a softmax over [1, classes] depends on the image where its own input does, not where
        only their sum does.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._training, self._by_class = training, by_class
        self.paused = False
        self.lost = False
        """Whether a truth value or an integer was made of values that depend on the image: then nothing is known."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return function(*args, **kwargs)
        if function is aten.convolution.default:
            return _through(function, args, 0, 1, 2)
        if function is aten.addmm.default:
            return _through(function, args, 1, 2, 0, **kwargs)
        if function in (aten.mm.default, aten.bmm.default):
            return _through(function, args, 0, 1, None)
        out = function(*args, **kwargs)
        if function in _BATCH_NORMS:
            return self._normalized(out, args)
        if function in (aten.mul.Tensor, aten.mul_.Tensor):
            return _product(out, args, function is aten.mul_.Tensor)
        if self._by_class and function in _SOFTMAX and out.dim() == 2:
            return _of_classes(function, args)
        given = [value for value in args if isinstance(value, Tensor) and value.is_floating_point()]
        first = out[0] if isinstance(out, tuple) and out else out  # a quantizer returns what it clipped, too
        for value in given if isinstance(first, Tensor) else ():
            if not first.is_floating_point():
                self.lost |= not first.is_complex() and bool(torch.isnan(value).any())
            elif value.shape == first.shape:  # sign and its like make numbers of NaN
                first.masked_fill_(torch.isnan(value), torch.nan)
        return out

    def _normalized(self, out: Any, args: tuple[Any, ...]) -> Any:
        image, gamma, beta = args[0], args[1], args[2]
        values = out[0]
        if gamma is None:
            if self._training:
                values.fill_(torch.nan)
            return out
        side = (1, -1) + (1,) * (image.dim() - 2)
        shut = (gamma == 0).reshape(side).expand_as(values)
        normalized = torch.full_like(values, torch.nan) if self._training else values
        values.copy_(torch.where(shut, beta.reshape(side).expand_as(values).to(values.dtype), normalized))
        return out


_BATCH_NORMS = tuple(
    getattr(aten, name).default
    for name in (
        "native_batch_norm",
        "cudnn_batch_norm",
        "miopen_batch_norm",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_no_update",
    )
    if hasattr(aten, name)
)


_SOFTMAX = (aten._softmax.default, aten._log_softmax.default)


def _of_classes(function: Any, args: tuple[Any, ...]) -> Tensor:
    unknown = torch.isnan(args[0])
    values: Tensor = function(torch.where(unknown, 0, args[0]), *args[1:])
    return values.masked_fill_(unknown, torch.nan)


def _through(function: Any, args: tuple[Any, ...], left: int, right: int, bias: int | None, **kwargs: Any) -> Tensor:
    """Return a convolution or product: an output depends on the image where a NaN meets an entry that is not 0."""
    args = tuple(args)
    a, b = args[left], args[right]
    unknown_a, unknown_b = torch.isnan(a), torch.isnan(b)
    clean = list(args)
    clean[left], clean[right] = torch.where(unknown_a, 0, a), torch.where(unknown_b, 0, b)
    values: Tensor = function(*clean, **kwargs)
    reached = torch.zeros_like(values, dtype=torch.bool)
    there = (((a != 0) | unknown_a), ((b != 0) | unknown_b))
    for first, second in ((unknown_a, there[1]), (there[0], unknown_b)):
        if bool(first.any()) and bool(second.any()):
            paths = list(args)
            paths[left], paths[right] = first.to(a.dtype), second.to(b.dtype)
            if bias is not None and paths[bias] is not None:
                paths[bias] = torch.zeros_like(paths[bias])
            reached |= function(*paths, **kwargs) > 0.5
    return torch.where(reached, torch.nan, values)


def _product(out: Tensor, args: tuple[Any, ...], in_place: bool) -> Tensor:
    """Return a product in which 0 times NaN is 0; in place the first factor is lost, so only zeros of the second one
    count.
    """
    for factor in args[1:] if in_place else args:
        if isinstance(factor, Tensor):
            out.masked_fill_((factor == 0).expand_as(out), 0)
    return out
