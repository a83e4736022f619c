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


def is_bias(name: str) -> bool:
    """Return whether a parameter's name is that of a bias: `bias`, and torch's `bias_ih_l0` and `in_proj_bias`."""
    own = name.rpartition(".")[2]
    return own in ("bias", "in_proj_bias") or own.startswith(("bias_ih_l", "bias_hh_l", "bias_hr_l"))


def biases_of(weight: str) -> list[str]:
    """Return the names that the biases of a weight's layer may have."""
    path, _, own = weight.rpartition(".")
    beside = own.replace("weight", "bias")
    return list(dict.fromkeys([bias_of(weight), *([f"{path}.{beside}" if path else beside] if beside != own else [])]))


def weight_count(model: nn.Module) -> int:
    """Return the number of prunable weights of a network."""
    return sum(weight.numel() for weight in prunable(model).values())
