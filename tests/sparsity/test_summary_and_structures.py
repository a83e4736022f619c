"""The report's shares of dead structures are those of the one vocabulary of structures."""

import pytest
import torch

from compressor.sparsity.structures import CHANNELS, COLS, FILTERS, KERNELS, ROWS, Structure
from compressor.sparsity.summary import summarize

CONVOLUTION = {"filters": FILTERS, "channels": CHANNELS, "kernels": KERNELS}
MATRIX = {"rows": ROWS, "cols": COLS}


def dead(structure: Structure, weight: torch.Tensor) -> float:
    return float((structure.norms(weight, "l1") == 0).float().mean())


@pytest.mark.parametrize("seed", range(5))
def test_the_summary_counts_the_structures_that_pruners_prune(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    for shape, structures in (((6, 5, 3, 3), CONVOLUTION), ((8, 7), MATRIX)):
        weight = torch.randn(shape, generator=draws)
        for structure in structures.values():
            index = torch.rand(structure.index_shape(shape), generator=draws) < 0.3
            weight = weight * structure.expand(~index, shape)
        summary = summarize("w", weight)
        for name, structure in structures.items():
            assert getattr(summary, name) == pytest.approx(dead(structure, weight))
        assert any(getattr(summary, name) > 0 for name in structures)
