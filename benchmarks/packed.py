"""Bytes of a packed file beside the other formats and the entropy bound, and the time that reading it takes.

    python -m benchmarks.packed [--model resnet18] [--sparsity 0.9] [--blocks 7]

The network has random weights; of each weight of two or more dims the smallest are zero; batch norms are random, too:
nothing is shorter than after training. Time is CPU time of the process on one thread, of `load_packed` alone: reading,
the checksum, building the network, decoding and comparing every tensor. Libraries are imported before; the first call
of a process also imports rooms of this package. Best and worst of the blocks are printed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import compressor
from benchmarks.measuring import Figure
from compressor import models
from compressor.storage import pack, stored_bits

CLASSES = 1000
BOUND, FILE = "entropy bound", "the file, header included"


def pruned(name: str, sparsity: float) -> nn.Module:
    """Return the network with random weights of which a fraction is zero, layer by layer."""
    torch.manual_seed(0)
    network = models.build(name, num_classes=CLASSES)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() < 2:
                parameter.uniform_(0.5, 1.5)
                continue
            limit = parameter.abs().flatten().kthvalue(round(sparsity * parameter.numel())).values
            parameter.masked_fill_(parameter.abs() <= limit, 0.0)
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return network


def packed(network: nn.Module, name: str) -> bytes:
    """Return the packed file of the network, with class names of a usual length."""
    about = {
        "model": {"name": name, "num_classes": CLASSES},
        "class_names": [f"n{number:08d}" for number in range(CLASSES)],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "image_size": [224, 224],
        "channels": 3,
    }
    return pack(network.state_dict(), {key: json.dumps(value) for key, value in about.items()})


def measure(name: str, sparsity: float, blocks: int) -> tuple[dict[str, float], list[float]]:
    """Return bytes by format (`entropy bound` and `the file` among them), and the CPU seconds of each reading."""
    network = pruned(name, sparsity)
    weights = {name for name, parameter in network.named_parameters() if parameter.dim() > 1}
    stored = stored_bits(network.state_dict(), weights)
    assert stored.entropy is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.safetensors"
        path.write_bytes(packed(network, name))
        size, spent = path.stat().st_size, []
        for _ in range(blocks):
            begun = time.process_time()
            compressor.load_packed(path)
            spent.append(time.process_time() - begun)
    return {**stored.bytes, BOUND: stored.entropy / 8, FILE: size}, spent


def figures(blocks: int) -> list[Figure]:
    """The size and the reading of resnet18 at 90 %."""
    sizes, spent = measure("resnet18", 0.9, blocks)
    of_bound = f"{sizes[FILE] / sizes[BOUND]:.4f} of the entropy bound"
    return [
        Figure("packed resnet18 at 90 %", sizes[FILE] / 1e6, "MB", 5.6, note=of_bound),
        Figure("load_packed of it", min(spent), "s", note=f"the best of {len(spent)}, the worst {max(spent):.2f} s"),
    ]


def main() -> None:
    """Print the table and the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--blocks", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes, spent = measure(given.model, given.sparsity, given.blocks)
    print(f"{given.model}, {CLASSES:,} classes, {100 * given.sparsity:g} % of each weight zero")
    print(f"{'':44}{'bytes':>12}  {'of the bound':>12}")
    for what, count in sizes.items():
        print(f"{what:44}{count:12,.0f}  {count / sizes[BOUND]:12.4f}")
    print(f"load_packed, CPU seconds on one thread: best {min(spent):.3f}, worst {max(spent):.3f} of {len(spent)}")


if __name__ == "__main__":
    main()
