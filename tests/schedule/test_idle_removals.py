"""A removal that acts before anything is pruned is named before the run."""

import pytest
from loop import read
from torch.nn import Conv2d, Flatten, Linear, Sequential

from compressor.schedule.faults import Faults
from compressor.schedule.schedule import view_of

PRUNER = "{class: Pruner, structure: Filters, weights: ['0.weight'], rate: {sparsity: 0.5}}"
AGP = PRUNER.replace("sparsity: 0.5", "agp: {final_sparsity: 0.5}")
THRESHOLD = "{class: StructureParameterPruner, threshold_criteria: Max, reg_regims: {0.weight: [0.1, 3D]}}"
IDLE = "1.StructureRemover: nothing is pruned before it acts ({}): it removes what is zero from the start"


@pytest.mark.parametrize(
    ("pruner", "pruned", "removed", "said"),
    [
        (PRUNER, "[2]", "[1]", IDLE.format("epoch 1")),
        (PRUNER, "[3]", "[0, 1, 2]", IDLE.format("epochs 0 to 2")),
        (AGP, "[1, 2, 3]", "[1]", IDLE.format("epoch 1")),  # its sparsity begins at 0
        (AGP, "[1, 2, 3]", "[1, 2]", ""),
        (PRUNER, "[1]", "[1]", ""),
        (PRUNER, "[0]", "[7]", ""),  # that it is after the run is a warning of its own
        (THRESHOLD, "[2]", "[1]", IDLE.format("epoch 1")),
        (THRESHOLD, "[1]", "[1]", ""),
    ],
)
def test_a_removal_that_finds_nothing_pruned_is_named(pruner: str, pruned: str, removed: str, said: str) -> None:
    text = f"  - pruner: {pruner}\n    epochs: {pruned}\n  - extension: {{class: StructureRemover}}\n"
    text += f"    epochs: {removed}\n"
    net, faults = Sequential(Conv2d(1, 4, 3), Flatten(), Linear(144, 3)), Faults()
    bound = (
        read(f"version: 2\npolicies:\n{text}")
        .bind(net, 4, faults)
        .check(view_of(net, image=(1, 8, 8), epochs=4), faults)
    )
    faults.raise_any()
    assert [note.text for note in bound.notes if "nothing is pruned" in note.text] == ([said] if said else [])
