"""The optimizer that a configuration describes."""

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from compressor.config import OptimizerConfig
from compressor.sparsity import is_bias


def build(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """SGD, Adam or AdamW over all parameters; biases in a group of their own where their rate differs."""
    biases = [p for name, p in model.named_parameters() if is_bias(name)]
    apart = biases if config.bias_lr_scale != 1.0 else []
    taken = {id(p) for p in apart}
    groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if id(p) not in taken], "lr": config.lr}]
    if apart:
        groups.append({"params": apart, "lr": config.lr * config.bias_lr_scale})
    for group in groups:
        group["initial_lr"] = group["lr"]
    if config.name == "sgd":
        return SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    adaptive = Adam if config.name == "adam" else AdamW
    betas = (config.betas[0], config.betas[1])
    return adaptive(groups, lr=config.lr, betas=betas, eps=config.eps, weight_decay=config.weight_decay)


def settings(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the settings of each parameter group: rates, momentum, weight decay."""
    groups = build(model, config).param_groups
    return [{key: value for key, value in group.items() if key != "params"} for group in groups]
