"""Files of torch.export (.pt2): a graph that torch runs without the model's code."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from compressor.errors import CompressError
from compressor.exports.capture import captured, quiet
from compressor.exports.format import Format, Model, Say
from compressor.strict_json import dumps

METADATA = "metadata.json"
"""The name of the extra file inside that holds what is said of the network."""

_RUN = """\
import sys, torch
network = torch.export.load(sys.argv[1]).module()
with torch.no_grad():
    torch.save([network(images) for images in torch.load(sys.argv[2])], sys.argv[3])
"""


class TorchExport(Format):
    """Write torch.export's file: `torch.export.load(FILE).module()` gives logits of images."""

    name = "torch-export"
    suffix = ".pt2"

    @property
    def reader(self) -> str:
        return "torch.export.load in a new process"

    def write(self, model: Model, path: Path, say: Say) -> int | None:
        program, batch = captured(model, say)
        for graph in (part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)):
            for node in graph.nodes:
                node.meta.pop("stack_trace", None)  # it has lines of code, with names of files of this machine
        program.example_inputs = None  # they are random
        with quiet(), open(path, "wb") as file:
            torch.export.save(program, file, extra_files={METADATA: dumps(dict(model.about))})
        return batch

    def outputs(self, model: Model, path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder) / "images.pt", Path(folder) / "logits.pt"
            torch.save([batch.clone() for batch in batches], given)
            command = [sys.executable, "-P", "-c", _RUN, *map(str, (path.absolute(), given, made))]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode != 0:
                said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
                raise CompressError(f"a new process cannot load and run the file: {said[-1].strip()}")
            found: list[Tensor] = torch.load(made, weights_only=True)
            return found
