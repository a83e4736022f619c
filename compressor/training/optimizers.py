"""The optimizer that a configuration describes."""

from torch import nn
from torch.optim import SGD, Optimizer

from compressor.config import OptimizerConfig


def build(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """SGD over all parameters; biases in a group of their own where their rate differs (Caffe's is doubled)."""
    biases = [p for name, p in model.named_parameters() if name.rpartition(".")[2] == "bias"]
    scaled = config.bias_lr_scale != 1.0 and biases
    taken = {id(p) for p in biases} if scaled else set()
    groups = [{"params": [p for p in model.parameters() if id(p) not in taken], "lr": config.lr}]
    if scaled:
        groups.append({"params": biases, "lr": config.lr * config.bias_lr_scale})
    for group in groups:
        group["initial_lr"] = group["lr"]
    return SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
