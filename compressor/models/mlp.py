"""The multi-layer perceptron; by default LeNet-300-100.

"Gradient-Based Learning Applied to Document Recognition",
Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Proceedings of the IEEE 86(11), 1998.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from compressor.errors import UserError
from compressor.models.checking import Rate, Size
from compressor.models.registry import model

Widths = Annotated[Sequence[Size], Field(min_length=1, max_length=100)]


class MLP(nn.Sequential):
    """flatten, then fc1, relu1[, drop1], fc2, relu2[, drop2], ..., and a last fc without ReLU."""

    def __init__(self, num_classes: int, hidden: Sequence[int], dropout: Sequence[float] | None, inputs: int) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        widths = [inputs, *hidden]
        for i, (before, after) in enumerate(zip(widths, hidden, strict=False), start=1):
            self.add_module(f"fc{i}", nn.Linear(before, after))
            self.add_module(f"relu{i}", nn.ReLU())
            if dropout is not None:
                self.add_module(f"drop{i}", nn.Dropout(dropout[i - 1]))
        self.add_module(f"fc{len(widths)}", nn.Linear(widths[-1], num_classes))


@model
def mlp(
    num_classes: Size = 10,
    hidden: Widths = (300, 100),
    dropout: list[Rate] | None = None,
    inputs: Size = 784,
) -> MLP:
    """Fully connected `hidden` layers, `dropout` after each; by default LeNet-300-100 (LeCun et al. 1998)."""
    if dropout is not None and len(dropout) != len(hidden):
        raise UserError(
            f"model 'mlp': dropout should have one rate for each hidden layer ({len(hidden)}), got {len(dropout)}"
        )
    return MLP(num_classes, hidden, dropout, inputs)
