"""The tensors of a network that can be pruned, and their names."""

from torch import nn

PRUNABLE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all convolutions and linear layers, by name, in the model's order; a tied one once."""
    layers = {
        f"{path}.weight" if path else "weight" for path, module in model.named_modules() if isinstance(module, PRUNABLE)
    }
    return {name: weight for name, weight in model.named_parameters() if name in layers}


def bias_of(weight: str) -> str:
    """Return the name of the bias beside a weight; the layer may have none."""
    return f"{weight.rpartition('.')[0]}.bias" if "." in weight else "bias"


def weight_count(model: nn.Module) -> int:
    """Return the number of prunable weights of a network."""
    return sum(weight.numel() for weight in prunable(model).values())
