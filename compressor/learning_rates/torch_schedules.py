"""What torch's learning-rate schedules do, and what their arguments mean: torch's own classes have no such texts.

Times are in epochs, or in optimizer steps where the policy says `interval: step`.
"""

from typing import NamedTuple


class Described(NamedTuple):
    """One sentence on a schedule, arguments for an example, and one sentence on each argument."""

    summary: str
    example: str
    arguments: dict[str, str]


_GAMMA = "factor on the rate at each change"
_LOWEST = "lowest learning rate; default 0"
_CYCLES = {
    "cycle_momentum": "true: momentum falls while the rate rises, and rises while it falls; the optimizer needs one",
    "base_momentum": "lowest momentum, at the highest rate",
    "max_momentum": "highest momentum, at the lowest rate",
}

TORCH = {
    "StepLR": Described(
        "Multiply the rate by `gamma` every `step_size` epochs (torch's).",
        "step_size: 30, gamma: 0.1",
        {"step_size": "number of epochs (or steps) between two changes", "gamma": _GAMMA},
    ),
    "MultiStepLR": Described(
        "Multiply the rate by `gamma` at each milestone (torch's).",
        "milestones: [60, 120], gamma: 0.2",
        {"milestones": "epochs (or steps) at which the rate changes, in rising order", "gamma": _GAMMA},
    ),
    "ConstantLR": Described(
        "Multiply the rate by `factor` at first, and not at all from `total_iters` on (torch's).",
        "factor: 0.5, total_iters: 5",
        {
            "factor": "factor on the rate at first, at most 1; default: a third",
            "total_iters": "number of epochs (or steps) for which the factor holds",
        },
    ),
    "LinearLR": Described(
        "Change the rate along a straight line from `start_factor` to `end_factor` (torch's): a warm-up.",
        "start_factor: 0.1, total_iters: 5",
        {
            "start_factor": "factor on the rate at first, above 0 and at most 1; default: a third",
            "end_factor": "factor on the rate at the end; default 1: the configuration's rate",
            "total_iters": "number of epochs (or steps) until the end of the line",
        },
    ),
    "ExponentialLR": Described(
        "Multiply the rate by `gamma` after every epoch (torch's).",
        "gamma: 0.95",
        {"gamma": "factor on the rate after each epoch (or step)"},
    ),
    "CosineAnnealingLR": Described(
        "Lower the rate along half a cosine, to `eta_min` at `T_max` (torch's; Loshchilov and Hutter 2017).",
        "T_max: 10",
        {
            "T_max": "number of epochs (or steps) until the lowest rate; afterwards the rate rises again",
            "eta_min": _LOWEST,
        },
    ),
    "CosineAnnealingWarmRestarts": Described(
        "Lower the rate along half a cosine, again and again (torch's; SGDR, Loshchilov and Hutter 2017).",
        "T_0: 5, T_mult: 2",
        {
            "T_0": "number of epochs (or steps) of the first cycle",
            "T_mult": "factor on the length of each next cycle; default 1: all are equal",
            "eta_min": _LOWEST,
        },
    ),
    "CyclicLR": Described(
        "Let the rate rise and fall between two values of its own (torch's; Smith 2017).",
        "base_lr: 0.001, max_lr: 0.1, step_size_up: 4",
        {
            "base_lr": "lowest learning rate, where a cycle begins, in place of the configuration's",
            "max_lr": "highest learning rate, in the middle of a cycle",
            "step_size_up": "number of epochs (or steps) in which the rate rises",
            "step_size_down": "number of epochs (or steps) in which the rate falls; default: as many as it rises",
            "mode": "height of the cycles: triangular (constant), triangular2 (halved each time), exp_range (gamma^t)",
            "gamma": "base of `mode: exp_range`; default 1: constant",
            "scale_mode": "whether a scaling function counts cycles or time; without effect: no function can be given",
            **_CYCLES,
        },
    ),
    "OneCycleLR": Described(
        "Let the rate rise to `max_lr` and fall far below its start, once (torch's; Smith and Topin 2019).",
        "max_lr: 0.1, total_steps: 10",
        {
            "max_lr": "highest learning rate, in place of the configuration's",
            "total_steps": "number of epochs (or steps) of the cycle; default: epochs x steps_per_epoch",
            "epochs": "number of epochs of the cycle, with steps_per_epoch; default: total_steps says it",
            "steps_per_epoch": "number of optimizer steps in an epoch, with epochs; default: total_steps says it",
            "pct_start": "fraction of the cycle in which the rate rises",
            "anneal_strategy": "form of the curve: cos, or linear",
            "div_factor": "the first rate is max_lr divided by this number",
            "final_div_factor": "the last rate is the first one divided by this number",
            "three_phase": "true: fall to the first rate as fast as it rose, then to the last; false: in one phase",
            **_CYCLES,
        },
    ),
}
