"""Schedules composed at random from the registry: every component with arguments drawn from its own JSON schema.

So a component that is added later is composed without a change here. The networks are tiny, and each has what makes
refusals: weights that share channels, groups, transposed and depthwise convolutions, layers used twice or not at all.
"""

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel
from torch import Tensor, nn

from compressor.component import Selects
from compressor.models.checking import Size
from compressor.policies.policy import Policy
from compressor.schedule.registry import components

Data = dict[str, Any]


class Tangled(nn.Module):
    """A shortcut, groups, a depthwise and a transposed convolution, a linear layer over positions; 8x8 images."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.bn3 = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.drop1 = nn.Dropout2d(0.2)
        self.mix = nn.Linear(8, 6)
        self.drop2 = nn.Dropout(0.2)
        self.fc = nn.Linear(4 * 8 * 6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 1, 8, 8) images."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        x = torch.relu(self.bn3(self.depthwise(self.grouped(x))))
        x = torch.relu(self.mix(self.drop1(self.up(x))))
        logits: Tensor = self.fc(self.drop2(torch.flatten(x, 1)))
        return logits


class Odd(nn.Module):
    """Dropout before any weight, a layer applied twice, one that is never used, a norm without gamma; 8x8 images."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.drop0 = nn.Dropout(0.1)
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1)
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.unused = nn.Linear(5, 4)
        self.fc1 = nn.Linear(3 * 16, 8)
        self.fc2 = nn.Linear(8, num_classes)
        self.unused.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 1, 8, 8) images."""
        x = torch.relu(self.conv1(self.drop0(x)))
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        x = nn.functional.max_pool2d(self.norm(x), 2)
        logits: Tensor = self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))
        return logits


class Lenet(nn.Module):
    """LeNet-5's layers by their names, with a twentieth of their channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 5), nn.Conv2d(3, 4, 5)
        self.fc1, self.fc2 = nn.Linear(4 * 16, 8), nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 1, 28, 28) images."""
        x = nn.functional.max_pool2d(self.conv1(x), 2)
        x = nn.functional.max_pool2d(self.conv2(x), 2)
        logits: Tensor = self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))
        return logits


def tangled(num_classes: Size = 10) -> Tangled:
    """A tiny network with a shortcut, groups, and a transposed convolution."""
    return Tangled(num_classes)


def odd(num_classes: Size = 10) -> Odd:
    """A tiny network with a layer applied twice, and one that is not used."""
    return Odd(num_classes)


def tiny_lenet(num_classes: Size = 10) -> Lenet:
    """A tiny network with the layers of LeNet-5."""
    return Lenet(num_classes)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"tangled": tangled, "odd": odd, "tiny_lenet": tiny_lenet}
"""The builders that the tests add to the registry of models."""

_WEIGHTS = {
    "mlp": ["fc1.weight", "fc2.weight", "fc3.weight"],
    "bn_cnn": [*(f"conv{n}.weight" for n in range(1, 5)), "fc.weight"],
    "tangled": [f"{p}.weight" for p in ("conv1", "conv2", "grouped", "depthwise", "up", "mix", "fc")],
    "odd": [f"{path}.weight" for path in ("conv1", "twice", "unused", "fc1", "fc2")],
}
_OTHERS = {"mlp": ["fc1.bias"], "bn_cnn": ["bn2.weight"], "tangled": ["bn1.bias"], "odd": ["conv1.bias"]}
_MODULES = {
    "mlp": ["fc1", "fc2", "fc3", "drop1", "drop2"],
    "bn_cnn": ["fc"],
    "tangled": ["mix", "fc", "drop1", "drop2"],
    "odd": ["drop0", "unused", "fc1", "fc2"],
}
_CONFIGS: dict[str, Data] = {
    "mlp": {"model": {"name": "mlp", "hidden": [8, 6], "dropout": [0.2, 0.2]}, "data": {}},
    "bn_cnn": {"model": {"name": "bn_cnn", "width": 4}, "data": {}},
    "tangled": {"model": {"name": "tangled"}, "data": {"size": 8}},
    "odd": {"model": {"name": "odd"}, "data": {"size": 8}},
}
_OPTIMIZERS: list[Data] = [
    {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
    {"name": "sgd", "lr": 0.1, "clip_norm": 1.0, "accumulate": 2},
    {"name": "adam", "lr": 0.001},
    {"name": "adamw", "lr": 0.001, "weight_decay": 0.01},
]
_EPOCHS = 3
_TINY = ("mlp", "lenet_5", "bn_cnn")
ROOT = Path(__file__).parents[2]


def compose(rng: random.Random) -> tuple[str, str]:
    """Return the texts of a schedule and of its configuration."""
    made = _Composer(rng)
    return yaml.safe_dump(made.schedule(), sort_keys=False), yaml.safe_dump(made.config(), sort_keys=False)


def shipped(rng: random.Random) -> tuple[str, str]:
    """Return the texts of a shipped schedule, and of a configuration with a tiny network of the same layers."""
    path = rng.choice(_shipped())
    schedule = path.read_text(encoding="utf-8")
    model = _model_of(schedule)
    name = "tiny_lenet" if model["name"] == "lenet_5" else model["name"]
    small = {"hidden": [8] * len(model.get("hidden", ())), "width": 4}
    allowed = {"mlp": ("hidden", "dropout"), "bn_cnn": ("width",)}.get(name, ())
    given = {key: value for key, value in {**model, **small}.items() if key in allowed}
    config = _Composer(rng).config() | {"model": {"name": name, **given}, "data": {"name": "mnist", "batch": 8}}
    return schedule, yaml.safe_dump(config, sort_keys=False)


@cache
def _shipped() -> list[Path]:
    """Return the shipped schedules whose network has a tiny one of the same layers."""
    every = sorted((ROOT / "schedules").rglob("*.yaml"))
    return [path for path in every if _model_of(path.read_text(encoding="utf-8")).get("name") in _TINY]


def _model_of(schedule: str) -> Data:
    """Return the model of the configuration that a schedule names; empty where it names none."""
    name = yaml.safe_load(schedule).get("config")
    if name is None:
        return {}
    model: Data = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))["model"]
    return model


class _Composer:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._model = rng.choice(list(_CONFIGS))
        self._version = rng.choice([1, 2, 2])
        self._sections: dict[str, Data] = {}

    def config(self) -> Data:
        rng, own = self._rng, _CONFIGS[self._model]
        data = {"name": "mnist", "batch": 8, "validation": 0 if rng.random() < 0.1 else 0.1, **own["data"]}
        config = {"model": own["model"], "data": data, "optimizer": rng.choice(_OPTIMIZERS), "epochs": _EPOCHS}
        return config | ({"ema": {"decay": 0.9}} if rng.random() < 0.2 else {})

    def schedule(self) -> Data:
        policies = [self._policy() for _ in range(self._rng.choice([1, 1, 2, 2, 3, 4]))]
        return {"version": self._version, **self._sections, "policies": policies}

    def _policy(self) -> Data:
        kinds = {name: cls for name, cls in components("policies").items() if issubclass(cls, Policy)}
        if self._version == 1:
            kinds = {name: cls for name, cls in kinds.items() if cls.component != "gates"}
        weights = [6 if name == "pruner" else 3 if cls.component else 1 for name, cls in kinds.items()]
        [kind] = self._rng.choices(list(kinds), weights)
        cls = kinds[kind]
        arguments = self._arguments(cls, leave_out={"window", kind}, share=0.15)
        if cls.component is None:
            return {kind: arguments, **self._window()}
        args = {"args": arguments} if arguments else {}
        component = self._component(cls.component)
        if self._rng.random() < 0.5:
            return {kind: {**component, **args}, **self._window()}
        section = self._sections.setdefault(cls.component, {})
        named = f"n{len(section)}"
        section[named] = component
        return {kind: {"instance_name": named, **args}, **self._window()}

    def _component(self, section: str) -> Data:
        name, cls = self._rng.choice(sorted(components(section).items()))
        return {"class": name, **self._arguments(cls, leave_out=set(), share=0.2)}

    def _window(self) -> Data:
        rng = self._rng
        match rng.randrange(6 if self._version == 2 else 5):
            case 0:
                return {"epochs": sorted(rng.sample(range(_EPOCHS + 1), rng.randint(1, 2)))}
            case 1:
                first = rng.randrange(_EPOCHS)
                return {"starting_epoch": first, "ending_epoch": rng.randint(first + 1, _EPOCHS + 1)}
            case 2:
                return {"starting_epoch": rng.randrange(_EPOCHS), "frequency": rng.randint(1, 2)}
            case 5:
                first = rng.randrange(3) * 1000
                return {"starting_step": first, "ending_step": first + 9000, "step_frequency": rng.choice([1, 3000])}
        return {}

    def _arguments(self, cls: type[BaseModel], leave_out: set[str], share: float) -> Data:
        """Return arguments of a class: the required ones, and a share of the others."""
        schema = cls.model_json_schema(by_alias=True)
        defs, given = schema.get("$defs", {}), {}
        for name, info in cls.model_fields.items():
            key = info.alias or name
            if key in leave_out or not (info.is_required() or self._rng.random() < share):
                continue
            mark = next((one for one in info.metadata if isinstance(one, Selects)), None)
            here = schema["properties"][key]
            given[key] = self._value(here, defs) if mark is None else self._selector(here, defs, mark)
        return given

    def _selector(self, schema: Data, defs: Data, mark: Selects) -> Any:
        options = schema.get("anyOf", [schema])
        chosen = self._rng.choice(options)
        names = self._modules(mark.modules) if mark.modules else self._weights()
        if chosen.get("type") == "string":
            return self._rng.choice(names)
        if chosen.get("type") == "array":
            return self._rng.sample(names, self._rng.randint(1, min(3, len(names))))
        if chosen.get("type") == "object":
            inside = chosen.get("additionalProperties", {})
            keys = self._rng.sample(names, self._rng.randint(1, min(2, len(names))))
            if mark.values:
                return {key: self._rng.choice(_WEIGHTS[self._model]) for key in keys}
            return {key: self._value(inside, defs) for key in keys}
        return self._value(chosen, defs)

    def _weights(self) -> list[str]:
        exact = _WEIGHTS[self._model]
        wide = ["*", "type:Linear", "fc*.weight", *(["conv*.weight", "type:Conv2d"] if self._model != "mlp" else [])]
        return [*exact, *wide, *(_OTHERS[self._model] if self._rng.random() < 0.05 else [])]

    def _modules(self, kinds: Sequence[str]) -> list[str]:
        right = [name for name in _MODULES[self._model] if name.startswith("drop") == ("Dropout" in kinds)]
        return right or ["x"]

    def _value(self, schema: Data, defs: Data) -> Any:
        """Return a value that a JSON schema allows."""
        rng = self._rng
        if "$ref" in schema:
            return self._value(defs[schema["$ref"].rpartition("/")[2]], defs)
        if "anyOf" in schema or "oneOf" in schema:
            return self._value(rng.choice(schema.get("anyOf") or schema["oneOf"]), defs)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return rng.choice(schema["enum"])
        match schema.get("type"):
            case "boolean":
                return rng.random() < 0.5
            case "integer":
                return rng.choice([schema.get("minimum", 0), schema.get("minimum", 0) + rng.randint(0, 3)])
            case "number":
                return self._number(schema)
            case "string":
                return "Rows+Cols" if "pattern" in schema else "x"
            case "null":
                return None
            case "array":
                return self._array(schema, defs)
            case "object":
                return self._object(schema, defs)
        raise AssertionError(f"no value is known for {schema}")

    def _number(self, schema: Data) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        low, high = (0.0 if low is None else low), (2.0 if high is None else high)
        low = high - 1 if low >= high else low
        edges: Sequence[float] = [schema[key] for key in ("minimum", "maximum") if key in schema]
        if edges and self._rng.random() < 0.1:
            return float(self._rng.choice(edges))
        return round(low + (high - low) * self._rng.uniform(0.05, 0.95), 3)

    def _array(self, schema: Data, defs: Data) -> list[Any]:
        if "prefixItems" in schema:
            return [self._value(each, defs) for each in schema["prefixItems"]]
        if isinstance(schema["items"], list):  # [lambda, group]
            return [self._value(each, defs) for each in schema["items"]]
        least = schema.get("minItems", 1)
        return [self._value(schema["items"], defs) for _ in range(min(schema.get("maxItems", least), least + 1))]

    def _object(self, schema: Data, defs: Data) -> Data:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        chosen = [key for key in properties if key in required or self._rng.random() < 0.3]
        if not chosen and schema.get("minProperties"):
            chosen = [self._rng.choice(list(properties))] if properties else []
        return {key: self._value(properties[key], defs) for key in chosen[: schema.get("maxProperties")]}
