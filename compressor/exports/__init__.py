"""A network as a file for others: written, run on real images beside the network, and only then moved into place.

A module for each format: `onnx_file`, `torch_export`, `tensors` (safetensors and torch's state dicts), `packed`. A new
format is a class of `format.Format` in `FORMATS`. The room is not called `export`: that is a function of the package.
"""

from compressor.exports.format import Format, Model
from compressor.exports.onnx_file import Onnx
from compressor.exports.packed import Packed
from compressor.exports.tensors import METADATA, Safetensors, StateDict
from compressor.exports.torch_export import TorchExport
from compressor.exports.writing import IMAGES, Exported, write

__all__ = ["FORMATS", "IMAGES", "METADATA", "Exported", "Format", "Model", "Packed", "write"]

FORMATS: dict[str, Format] = {one.name: one for one in (Onnx(), TorchExport(), Safetensors(), StateDict(), Packed())}
"""The formats by name."""
