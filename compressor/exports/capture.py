"""The forward pass of a network as a graph, by torch.export: what ONNX and torch.export files are made of."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from compressor.errors import CompressError
from compressor.exports.format import Model, Say
from compressor.exports.plain import plain
from compressor.importing import blame, global_state_kept

IMAGES, LOGITS, BATCH = "images", "logits", "batch"
"""The names of the graph's input, its output, and the dim that any number of images may have."""


def captured(model: Model, say: Say) -> tuple[ExportedProgram, int | None]:
    """Return the graph of a network, and the only number of images that it takes; None for any.

    Where the number of images cannot be left open the graph is of one image, with a message. Raises `CompressError`
    where the forward pass cannot be followed.
    """
    network = plain(model.network)
    two, one = torch.rand(2, *model.shape), torch.rand(1, *model.shape)
    try:
        return _export(network, two, ({0: Dim(BATCH, min=1)},)), None
    except Exception as error:  # whatever torch's tracers raise
        why = _in_words(error)
    try:
        program = _export(network, one, None)
    except Exception as error:
        raise CompressError(
            f"the model {model.name} cannot be exported: its forward pass cannot be followed: {_in_words(error)}"
        ) from error
    say(f"the file takes 1 image at a time: {why}")
    return program, 1


def _export(network: torch.nn.Module, images: Tensor, shapes: Any) -> ExportedProgram:
    with quiet(), global_state_kept(), torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)


def _in_words(error: Exception) -> str:
    """Return why a graph could not be made, and at which line of the model's code."""
    said = blame(error)
    if "specialized it to be a constant" in str(error):
        return "the model's code computes with the number of images as a constant"
    if "DataDependent" in type(error).__name__:
        return f"what is computed, or a shape, depends on the values of a tensor {said[said.rindex('(') :]}"
    return said


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what exporters print, log and warn of from the terminal; the text is collected."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    loggers = [logging.getLogger(name) for name in (None, "torch", "onnxscript", "onnx_ir")]
    before = [(logger, list(logger.handlers)) for logger in loggers]
    try:
        for logger in loggers:
            logger.handlers[:] = [handler]
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(text),
            contextlib.redirect_stderr(text),
        ):
            warnings.simplefilter("ignore")
            yield text
    finally:
        for logger, handlers in before:
            logger.handlers[:] = handlers
