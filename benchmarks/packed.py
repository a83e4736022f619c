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
from compressor import models
from compressor.storage import pack, stored_bits

CLASSES = 1000


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


def main() -> None:
    """Print the table and the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--blocks", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = pruned(given.model, given.sparsity)
    weights = {name for name, parameter in network.named_parameters() if parameter.dim() > 1}
    stored = stored_bits(network.state_dict(), weights)
    assert stored.entropy is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.safetensors"
        path.write_bytes(packed(network, given.model))
        size, spent = path.stat().st_size, []
        for _ in range(given.blocks):
            begun = time.process_time()
            compressor.load_packed(path)
            spent.append(time.process_time() - begun)
    bound = stored.entropy / 8
    print(f"{given.model}, {CLASSES:,} classes, {100 * given.sparsity:g} % of each weight zero")
    print(f"{'':44}{'bytes':>12}  {'of the bound':>12}")
    for what, count in {**stored.bytes, "entropy bound": bound, "the file, header included": size}.items():
        print(f"{what:44}{count:12,.0f}  {count / bound:12.4f}")
    print(f"load_packed, CPU seconds on one thread: best {min(spent):.3f}, worst {max(spent):.3f} of {len(spent)}")


if __name__ == "__main__":
    main()
