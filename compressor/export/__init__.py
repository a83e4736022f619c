"""A network as a file for others: written, run on real images beside the network, and only then moved into place.

A module for each format: `onnx_file`, `torch_export`, `tensors` (safetensors and torch's state dicts). A new format is
a class of `format.Format` in `FORMATS`.
"""

from compressor.export.format import Format, Model
from compressor.export.onnx_file import Onnx
from compressor.export.tensors import Safetensors, StateDict
from compressor.export.torch_export import TorchExport
from compressor.export.writing import IMAGES, Exported, write

__all__ = ["FORMATS", "IMAGES", "Exported", "Format", "Model", "write"]

FORMATS: dict[str, Format] = {one.name: one for one in (Onnx(), TorchExport(), Safetensors(), StateDict())}
"""The formats by name."""
