"""The size of a packed file that the project promises."""

from pathlib import Path

import pytest
import torch

import compressor
from benchmarks.packed import packed, pruned
from compressor.storage import stored_bits


@pytest.mark.slow
def test_resnet18_of_1000_classes_with_a_tenth_of_its_weights_takes_5_6_megabytes(tmp_path: Path) -> None:
    network = pruned("resnet18", 0.9)
    file = packed(network, "resnet18")
    weights = {name for name, parameter in network.named_parameters() if parameter.dim() > 1}
    stored = stored_bits(network.state_dict(), weights)
    # 11,678,912 weights: 0.469 bits for each, four bytes for each tenth one; 19,200 other numbers and 20 counters.
    bound = 11_678_912 * (0.4690 / 8 + 0.1 * 4) + 4 * 19_400 + 8 * 20
    assert stored.entropy is not None
    assert stored.entropy / 8 == pytest.approx(bound, rel=1e-3)
    assert stored.entropy / 8 < len(file) < 1.01 * bound < 5_600_000
    header = int.from_bytes(file[:8], "little")
    assert len(file) == 8 + header + stored.bytes["packed file (best by tensor)"]
    path = tmp_path / "a.safetensors"
    path.write_bytes(file)
    found = compressor.load_packed(path).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())
