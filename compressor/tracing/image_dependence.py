"""The channels that depend on the image, found in a forward pass of an image of NaN.

Values that depend on the image become NaN; the others stay numbers, and they are exact, because the network's own
operations computed them: `nan_mode` says what each operation makes of NaN.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from compressor.copying import copied
from compressor.errors import CompressError
from compressor.evaluating import evaluating
from compressor.importing import random_state_kept
from compressor.tracing.draws import python_drew, seed
from compressor.tracing.nan_mode import NaNMode
from compressor.tracing.weight_inputs import LayerInputs, WeightInputs, inputs_along

__all__ = [
    "CannotProbe",
    "LayerInputs",
    "dependent_logits",
    "inputs_by_weight",
    "inputs_of",
    "lost_classes",
    "probe",
]


class CannotProbe(CompressError):
    """Raised where a network does not run on an image of unknown values: `training`: in training mode."""

    def __init__(self, error: Exception, *, training: bool) -> None:
        reason = (str(error).splitlines() or [""])[0]
        super().__init__(
            f"the network does not run {'in training mode ' if training else ''}on an image of NaN, by which unused"
            f" channels are found: {type(error).__name__}: {reason}"
        )
        self.training = training


def inputs_by_weight(model: nn.Module, shape: tuple[int, ...], *, training: bool = False) -> dict[str, LayerInputs]:
    """Return what each weight of a convolution or matrix product is multiplied with, by the weight's name.

    The inputs lie along the dim of the weight that is summed over; of a convolution they are all channels of its image,
    those of all groups. A weight that a module computes (weight_norm, a mask) is called `<module>.weight`. Of a
    recurrent layer these are the inputs of `weight_ih_l0`. Of a weight that is read along two dims, or partly, nothing
    is known.

    With `training` only what is also true in training mode, where a batch norm normalizes by the batch (unless gamma is
    0), and where branches run that run in training alone. Dropout and stochastic depth are left out. Raises
    `CannotProbe` where the network does not run, in one mode or the other.
    """
    found, lost = _probe(model, shape, training=training)
    return {name: seen.unknown() if lost else seen for name, seen in found.items()}


def inputs_of(model: nn.Module, shape: tuple[int, ...], *, training: bool = False) -> dict[str, LayerInputs]:
    """Return the inputs of every convolution and linear layer, by the layer's path; as `inputs_by_weight`."""
    return _by_path(model, inputs_by_weight(model, shape, training=training))


def probe(model: nn.Module, shape: tuple[int, ...], *, training: bool = False) -> tuple[dict[str, LayerInputs], bool]:
    """Return the inputs of layers and batch norms, by path, and whether Python read the image: then nothing is
    known.
    """
    norms: dict[str, LayerInputs] = {}
    found, lost = _probe(model, shape, training=training, norms=norms)
    return _by_path(model, found) | norms, lost


def _by_path(model: nn.Module, found: dict[str, LayerInputs]) -> dict[str, LayerInputs]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    paths = {}
    for path, module in model.named_modules():
        if isinstance(module, _ConvNd | nn.Linear):
            own = module._parameters.get("weight")  # one that is computed may change as it is read
            seen = found.get(names.get(id(own), f"{path}.weight"))
            wide = module.in_features if isinstance(module, nn.Linear) else module.in_channels
            if seen is not None and len(seen.zero) == wide:
                paths[path] = seen
    return paths


def dependent_logits(model: nn.Module, shape: tuple[int, ...]) -> Tensor | None:
    """Return [classes]: whether each logit depends on the image; None where the forward pass does not show it."""
    mode = NaNMode(training=False, by_class=True)
    try:
        with evaluating(model):
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


def _probe(
    model: nn.Module, shape: tuple[int, ...], *, training: bool, norms: dict[str, LayerInputs] | None = None
) -> tuple[dict[str, LayerInputs], bool]:
    """Return the inputs by weight, and whether nothing is known; add those of batch norms to `norms`, by path."""
    found: dict[str, LayerInputs] = {}
    weights = WeightInputs(found)
    mode = NaNMode(training, read=weights.read)
    with evaluating(model), weights.watching(model, mode), _looking(model, mode, norms):
        try:
            _run(model, shape, mode)
        except Exception as error:  # whatever a network's forward raises
            raise CannotProbe(error, training=False) from error
    if not training:
        return found, mode.lost
    own = copied(model)
    own.train()
    for module in own.modules():
        if isinstance(module, _BatchNorm) or _draws(module):
            module.eval()
    lost = [mode.lost]
    for high in (None, False, True):
        mode = NaNMode(training, read=weights.read, high=high)
        with weights.watching(own, mode), _looking(own, mode, norms), random_state_kept():
            seed(high is True)
            try:
                _pass(own, shape, mode, images=2)  # one image is refused by what normalizes over images
            except Exception as error:
                raise CannotProbe(error, training=True) from error
            chooses = (mode.lost and mode.drew) or python_drew(0)
        if high is None and not chooses:
            return found, lost[0] or mode.lost
        lost += [mode.lost] if high is not None else []  # it goes either way
    return found, any(lost)


def _run(model: nn.Module, shape: tuple[int, ...], mode: NaNMode) -> Any:
    """Return the result of a forward pass of an image of NaN."""
    with random_state_kept():
        return _pass(model, shape, mode, images=1)


def _pass(model: nn.Module, shape: tuple[int, ...], mode: NaNMode, images: int) -> Any:
    parameter = next(model.parameters())
    image = torch.full((images, *shape), torch.nan, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad(), _in_plain_steps(), mode:
        return model(image)


@contextmanager
def _in_plain_steps() -> Iterator[None]:
    """Let attention be computed by products and a softmax inside the block, not by one operation."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _looking(model: nn.Module, mode: NaNMode, norms: dict[str, LayerInputs] | None) -> Iterator[None]:
    """Add the inputs of batch norms to `norms` inside the block."""

    def hook(path: str, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        assert norms is not None
        mode.paused = True
        seen = inputs_along(args[0] if args else named["input"], 1)
        norms[path] = norms[path].also(seen) if path in norms else seen
        mode.paused = False

    handles = [
        module.register_forward_pre_hook(partial(hook, path), with_kwargs=True)
        for path, module in (model.named_modules() if norms is not None else ())
        if isinstance(module, _BatchNorm)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_DRAWS = ("DropPath", "StochasticDepth")
"""Stochastic depth of timm and torchvision, and of those who have it from there."""


def _draws(module: nn.Module) -> bool:
    """Return whether a module does nothing but draw what it leaves out."""
    return isinstance(module, _DropoutNd | nn.RReLU) or any(kind.__name__ in _DRAWS for kind in type(module).__mro__)
