"""ONNX files: one file with graph, weights and metadata, run by ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.errors import CompressError
from compressor.exports.capture import BATCH, IMAGES, LOGITS, captured, quiet
from compressor.exports.format import Format, Model, Pass, Say
from compressor.importing import late
from compressor.strict_json import dumps

_LARGEST = 2**31 - 1
"""The largest number of bytes of a protobuf message, and so of one ONNX file."""


class Onnx(Format):
    """Write ONNX: an input `images` (float32, [batch, C, H, W], normalized), an output `logits` ([batch, classes])."""

    name = "onnx"
    suffix = ".onnx"
    needs = {"onnx": ("onnx", "onnxscript", "onnxruntime")}

    @property
    def reader(self) -> str:
        return f"onnxruntime {late('onnxruntime').__version__}"

    def write(self, model: Model, path: Path, say: Say) -> int | None:
        program, batch = captured(model, say)
        shapes = None if batch else ({0: BATCH},)
        try:
            with quiet(), torch.no_grad():
                made = torch.onnx.export(
                    program,
                    input_names=[IMAGES],
                    output_names=[LOGITS],
                    dynamic_shapes=shapes,
                    dynamo=True,
                    verbose=False,
                )
            assert made is not None
            proto = made.model_proto
        except Exception as error:  # whatever the converter raises for an operation that it does not know
            raise CompressError(f"the model {model.name} cannot be exported to ONNX: {_cause(error)}") from error
        _strip(proto)
        for key, value in model.about.items():
            proto.metadata_props.add(key=key, value=dumps(value))
        size = proto.ByteSize()
        if size > _LARGEST:
            raise CompressError(f"the model {model.name} needs {size:,} bytes, an ONNX file has at most {_LARGEST:,}")
        path.write_bytes(proto.SerializeToString())
        late("onnx").checker.check_model(str(path))
        return batch

    def outputs(self, model: Model, path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
        try:
            forward = self.forward(path)
            return [forward(batch) for batch in batches]
        except Exception as error:  # its exceptions have no common class but this
            raise CompressError(f"{self.reader} cannot run the file: {_first(error)}") from error

    def forward(self, path: Path) -> Pass:
        """Return a forward pass in ONNX Runtime, on the CPU, with as many threads as torch has here."""
        runtime = late("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run([LOGITS], {IMAGES: images.numpy()})[0])


def _strip(proto: Any) -> None:
    """Remove what the exporter notes of every operation: names of files of this machine, lines of code."""
    graphs = [proto.graph, *proto.functions]
    while graphs:
        graph = graphs.pop()
        del graph.metadata_props[:]
        values = [getattr(graph, name, ()) for name in ("input", "output", "initializer", "value_info")]
        for item in (*graph.node, *(value for some in values for value in some if not isinstance(value, str))):
            del item.metadata_props[:]
            item.ClearField("doc_string")
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs


def _cause(error: BaseException) -> str:
    """Return the first error of a chain: the exporter wraps it in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first(error)}"


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
