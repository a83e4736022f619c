"""Learning-rate schedules as functions of the time alone: torch's own, by name; and ReduceLROnPlateau, which is not
one.
"""

import collections.abc
import inspect
import math
import typing
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field, ValidationInfo, create_model, field_validator, model_validator
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_lr

from compressor.component import Component
from compressor.context import Groups
from compressor.errors import CompressError
from compressor.learning_rates.torch_schedules import TORCH

Rates = list[dict[str, Any]]
"""The values that the schedule sets for each parameter group: lr, and momentum or betas where it cycles them."""


class LRScheduler(Component):
    """A learning rate as a function of whole numbers: epochs, or optimizer steps."""

    section: ClassVar[str] = "lr_schedulers"

    def build(self, optimizer: Optimizer) -> Any:
        """Return the torch scheduler over `optimizer`."""
        raise TypeError(f"{type(self).__name__} builds no scheduler")


class PureScheduler(LRScheduler):
    """A schedule whose value depends on the time alone."""

    own_rates: ClassVar[bool] = False
    """Whether its rates are its own arguments, not multiples of the configuration's."""

    @model_validator(mode="after")
    def _torch_takes_it(self) -> Self:
        for field, value in self:
            if any(number < 0 for number in _numbers(value)):
                raise ValueError(f"{field} should be 0 or more, got {value}")
        try:
            simulation = Simulation(self, [{"lr": 1.0, "momentum": 0.9}])
            simulation.at(2)
        except CompressError as error:
            raise ValueError(str(error)) from None
        except Exception as error:
            raise ValueError(f"torch refuses these arguments: {error}") from None
        return self


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, list):
        return [item for item in value if isinstance(item, (int, float))]
    return [value] if isinstance(value, (int, float)) else []


class GroupsOnly(Optimizer):
    """Parameter groups without parameters, for schedules to act on. Torch's own optimizers take a second to import."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = [{**group, "params": []} for group in groups]
        self.defaults = dict(groups[0])

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing."""


class Simulation:
    """Step a schedule over groups without parameters, so that its value at any time is known without saved state."""

    def __init__(self, scheduler: PureScheduler, groups: Groups) -> None:
        self._scheduler = scheduler
        bases = [group.get("initial_lr", group["lr"]) for group in groups]
        # Groups differ by a factor (`bias_lr_scale`), which schedules that name their own rates would forget.
        self._scales = [base / bases[0] for base in bases]
        # Torch starts from `initial_lr` where there is one, also where the schedule names its own first rate.
        first = {key: value for key, value in groups[0].items() if key not in ("params", "initial_lr")}
        self._group = {**first, "lr": bases[0]}
        self._restart()

    def _restart(self) -> None:
        self._optimizer = GroupsOnly([self._group])
        self._torch = self._scheduler.build(self._optimizer)
        self._time = 0

    def at(self, time: int) -> Rates:
        """Return the rates after `time` steps of the schedule; a schedule that ends keeps its last value."""
        if time < self._time:
            self._restart()
        # OneCycleLR has an end, beyond which it extrapolates for a step and then refuses.
        time = min(time, getattr(self._torch, "total_steps", time + 1) - 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while self._time < time:
                self._torch.step()
                self._time += 1
        decided = ("lr", "momentum", "betas") if getattr(self._torch, "cycle_momentum", False) else ("lr",)
        group = self._optimizer.param_groups[0]
        if not math.isfinite(group["lr"]) or group["lr"] < 0:
            raise CompressError(f"{self._scheduler.name} gives the learning rate {group['lr']} at time {time}")
        rates = {key: group[key] for key in decided if key in group}
        return [{**rates, "lr": group["lr"] * scale} for scale in self._scales]


_SIMULATIONS: "OrderedDict[tuple[Any, ...], Simulation]" = OrderedDict()
_KEPT = 32
"""Simulations are cached, so that the next step of a schedule costs one step of torch's."""


def rates_at(scheduler: PureScheduler, groups: Groups, time: int) -> Rates:
    """Return the rates of every parameter group at a time of the schedule, as a function of its arguments alone."""
    bases = tuple(group.get("initial_lr", group["lr"]) for group in groups)
    key = (type(scheduler), scheduler.model_dump_json(), bases, tuple(sorted(groups[0])))
    simulation = _SIMULATIONS.pop(key, None) or Simulation(scheduler, groups)
    _SIMULATIONS[key] = simulation
    while len(_SIMULATIONS) > _KEPT:
        _SIMULATIONS.popitem(last=False)
    return simulation.at(time)


def _argument_type(hint: Any) -> Any:
    """Return a type for plain YAML: one number for all parameter groups, a list where torch takes any iterable."""
    if hint == float | list[float]:
        return float
    return list[int] if hint == Iterable[int] else hint


def _from_torch(cls: type) -> None:
    """Register a torch scheduler: its plain arguments become the component's fields."""
    # torch imports some of its annotations' names for type checkers only.
    init = vars(cls)["__init__"]
    hints = typing.get_type_hints(init, {**vars(typing), **vars(collections.abc), **init.__globals__})
    fields: dict[str, Any] = {}
    described = TORCH[cls.__name__]
    for name, parameter in inspect.signature(cls).parameters.items():
        if name in ("optimizer", "last_epoch", "scale_fn"):
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        said = described.arguments.get(name, f"torch's argument {name!r}")  # of a torch newer than our texts
        fields[name] = (_argument_type(hints[name]), Field(default, description=said))

    def build(self: Component, optimizer: Optimizer) -> Any:
        return cls(optimizer, **{name: getattr(self, name) for name in fields})

    component = create_model(
        cls.__name__,
        __base__=PureScheduler,
        __module__=__name__,
        __doc__=described.summary,
        __cls_kwargs__={"name": cls.__name__},
        **fields,
    )
    component.build = build  # type: ignore[method-assign]
    component.example = _EXAMPLE.format(name=cls.__name__, arguments=described.example)
    component.own_rates = "max_lr" in fields


_EXAMPLE = """
    lr_schedulers:
      lr: {{class: {name}, {arguments}}}
    policies:
      - {{lr_scheduler: {{instance_name: lr}}, starting_epoch: 0, ending_epoch: 10}}
    """

for _name in TORCH:
    _from_torch(getattr(torch_lr, _name))


def _either_name(schema: dict[str, Any]) -> None:
    """Add both names of PolynomialLR's length to the schema, for editors: one of them is needed."""
    schema["properties"]["total_iters"] = schema["properties"]["T_max"]
    schema["required"].remove("T_max")
    schema["oneOf"] = [{"required": ["T_max"]}, {"required": ["total_iters"]}]


class PolynomialLR(PureScheduler, name="PolynomialLR"):
    """Set lr * (1 - t / T_max)^power, and 0 from T_max on (Distiller's name for torch's total_iters)."""

    example: ClassVar[str] = """
    lr_schedulers:
      lr: {class: PolynomialLR, T_max: 10, power: 2}
    policies:
      - {lr_scheduler: {instance_name: lr}, starting_epoch: 0, ending_epoch: 10}
    """

    model_config = ConfigDict(json_schema_extra=_either_name)

    T_max: int = Field(
        ge=1, description="number of epochs (or steps) until the rate is 0; also `total_iters`, torch's name"
    )
    power: float = Field(default=1.0, ge=0, description="exponent of the decay; default 1: a straight line")

    @model_validator(mode="before")
    @classmethod
    def _torchs_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and "total_iters" in data and "T_max" not in data:
            return {("T_max" if key == "total_iters" else key): value for key, value in data.items()}
        return data

    def build(self, optimizer: Optimizer) -> Any:
        return torch_lr.LambdaLR(optimizer, lambda time: (1 - min(time, self.T_max) / self.T_max) ** self.power)


class MultiStepMultiGammaLR(PureScheduler, name="MultiStepMultiGammaLR"):
    """Multiply the rate at each milestone by the milestone's own gamma (Distiller)."""

    example: ClassVar[str] = """
    lr_schedulers:
      lr: {class: MultiStepMultiGammaLR, milestones: [4, 8], gammas: [0.1, 0.5]}
    policies:
      - {lr_scheduler: {instance_name: lr}, starting_epoch: 0, ending_epoch: 10}
    """

    milestones: list[int] = Field(
        min_length=1, description="epochs (or steps) at which the rate changes, in rising order"
    )
    gammas: list[float] = Field(min_length=1, description="factor on the rate at each milestone, as many as milestones")

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.milestones) != len(self.gammas) or self.milestones != sorted(set(self.milestones)):
            raise ValueError("milestones should rise, and have one gamma each")
        return self

    def build(self, optimizer: Optimizer) -> Any:
        def factor(time: int) -> float:
            return math.prod(g for m, g in zip(self.milestones, self.gammas, strict=False) if time >= m)

        return torch_lr.LambdaLR(optimizer, factor)


class InvLR(PureScheduler, name="InvLR"):
    """Set lr * (1 + gamma t)^-power, Caffe's `inv`, with t in steps where `interval: step`."""

    example: ClassVar[str] = """
    lr_schedulers:
      lr: {class: InvLR, gamma: 1e-4, power: 0.75}
    policies:
      - {lr_scheduler: {instance_name: lr, args: {interval: step}}, starting_epoch: 0, ending_epoch: 10}
    """

    gamma: float = Field(ge=0, description="speed of the decay, by epoch (or step)")
    power: float = Field(ge=0, description="exponent of the decay; 0: a constant rate")

    def build(self, optimizer: Optimizer) -> Any:
        return torch_lr.LambdaLR(optimizer, lambda time: (1 + self.gamma * time) ** -self.power)


def _best(metric: str) -> typing.Literal["min", "max"]:
    """Return whether the best value of a validation figure is the smallest or the largest."""
    return "min" if metric == "loss" else "max"


class ReduceLROnPlateau(LRScheduler, name="ReduceLROnPlateau"):
    """Multiply the rate by `factor` when the validation metric has not improved for `patience` epochs (torch's)."""

    example: ClassVar[str] = _EXAMPLE.format(name="ReduceLROnPlateau", arguments="factor: 0.5, patience: 2")

    metric: typing.Literal["loss", "top1", "top5"] | None = Field(
        default=None,
        description="validation figure that is watched; default: loss with `mode: min` or without mode, top1 with"
        " `mode: max`",
    )
    mode: typing.Literal["min", "max"] | None = Field(
        default=None,
        description="whether the best figure is the smallest or the largest; default: min of a loss, max of others",
    )
    factor: float = Field(default=0.1, gt=0, lt=1, description="factor on the rate when the figure has not improved")
    patience: int = Field(
        default=10, ge=0, description="number of epochs without improvement that are accepted before the rate changes"
    )
    threshold: float = Field(default=1e-4, ge=0, description="smallest change that counts as an improvement")
    threshold_mode: typing.Literal["rel", "abs"] = Field(
        default="rel",
        description="rel: the threshold is a fraction of the best figure; abs: it is in the figure's own unit",
    )
    cooldown: int = Field(
        default=0, ge=0, description="number of epochs after a change in which nothing is counted; default 0: none"
    )
    min_lr: float = Field(default=0.0, ge=0, description="lowest learning rate; default 0")
    eps: float = Field(default=1e-8, ge=0, description="smallest change of the rate: smaller ones are left out")

    @field_validator("mode")
    @classmethod
    def _of_the_metric(cls, mode: str | None, info: ValidationInfo) -> str | None:
        metric = info.data.get("metric")
        if metric is not None and mode is not None and mode != _best(metric):
            raise ValueError(
                f"`metric: {metric}` is best at its {_best(metric)}, got {mode!r}: remove one of the two keys"
            )
        return mode

    @property
    def watched(self) -> str:
        """Return the validation figure that decides."""
        return self.metric or ("top1" if self.mode == "max" else "loss")

    def build(self, optimizer: Optimizer) -> torch_lr.ReduceLROnPlateau:
        return torch_lr.ReduceLROnPlateau(
            optimizer,
            mode=_best(self.watched),
            factor=self.factor,
            patience=self.patience,
            threshold=self.threshold,
            threshold_mode=self.threshold_mode,
            cooldown=self.cooldown,
            min_lr=self.min_lr,
            eps=self.eps,
        )
