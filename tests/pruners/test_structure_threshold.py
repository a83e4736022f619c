"""Structures whose largest or mean |w| is at most a threshold go. Weights by hand."""

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import torch
from helpers import compress
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.pruners.distiller import StructureParameterPruner
from compressor.pruners.pruner import Request
from compressor.timing.window import Window

RunOf = Callable[..., Any]

TABLE = torch.arange(1.0, 13).reshape(4, 3)
"""1 2 3, 4 5 6, 7 8 9, 10 11 12."""

KERNELS = torch.tensor(
    [
        [[[1.0, -8], [0, 3]], [[2, 2], [2, 2]], [[0, 0], [0, 5]]],
        [[[4, -4], [4, -4]], [[0, 0], [0, 0]], [[9, 1], [1, 1]]],
    ]
)
"""2 filters of 3 channels of 2x2: the largest |w| of the kernels 8 2 5, 4 0 9; their sums 12 8 5, 16 0 12."""


def kept(weight: Tensor, threshold: float, group: str, criterion: str) -> Tensor:
    """What stays, as numbers."""
    pruner = StructureParameterPruner.model_validate(
        {"reg_regims": {"w": [threshold, group]}, "threshold_criteria": criterion}
    )
    targets = {"reg_regims": dict(pruner.reg_regims)}
    masks = pruner.keep(Request({"w": weight}, targets, Window(epochs=[0]), 0))
    assert masks["w"].dtype == torch.bool
    return masks["w"].int()


@pytest.mark.parametrize(
    ("group", "criterion", "threshold", "expected"),
    [
        ("Rows", "Max", 7, [0, 0, 1, 1]),  # the grammar's reference vector
        ("Rows", "Max", 9, [0, 0, 0, 1]),  # at the threshold it goes
        ("Rows", "Max", 8.999, [0, 0, 1, 1]),
        ("Rows", "Mean_Abs", 5, [0, 0, 1, 1]),  # 2 5 8 11
        ("Rows", "Mean_Abs", 4.999, [0, 1, 1, 1]),
        ("Filters", "Mean_Abs", 5, [0, 0, 1, 1]),
        ("3D", "Max", 7, [0, 0, 1, 1]),
        ("Rows", "Max", 0, [1, 1, 1, 1]),
        ("Rows", "Max", 12, [0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_rows_of_a_matrix(group: str, criterion: str, threshold: float, expected: list[int], sign: int) -> None:
    found = kept(sign * TABLE, threshold, group, criterion)
    assert found.tolist() == [[keep] * 3 for keep in expected]


@pytest.mark.parametrize(
    ("group", "criterion", "threshold", "expected"),
    [
        ("Cols", "Max", 10, [0, 1, 1]),  # 10 11 12
        ("Channels", "Max", 11, [0, 0, 1]),
        ("Cols", "Mean_Abs", 6.5, [0, 0, 1]),  # 5.5 6.5 7.5
    ],
)
def test_columns_of_a_matrix(group: str, criterion: str, threshold: float, expected: list[int]) -> None:
    assert kept(TABLE, threshold, group, criterion).tolist() == [expected] * 4


@pytest.mark.parametrize(
    ("group", "criterion", "threshold", "expected"),
    [
        ("2D", "Max", 4, [[1, 0, 1], [0, 0, 1]]),
        ("Kernels", "Max", 4.5, [[1, 0, 1], [0, 0, 1]]),
        ("2D", "Mean_Abs", 2, [[1, 0, 0], [1, 0, 1]]),  # 3 2 1.25, 4 0 3
        ("Filters", "Max", 8, [[0, 0, 0], [1, 1, 1]]),  # 8 9
        ("3D", "Mean_Abs", 25 / 12, [[0, 0, 0], [1, 1, 1]]),  # 25/12, 28/12
        ("Channels", "Max", 2, [[1, 0, 1], [1, 0, 1]]),  # 8 2 9
        ("Channels", "Mean_Abs", 3, [[1, 0, 0], [1, 0, 0]]),  # 28/8 8/8 17/8
        ("4D", "Max", 8.5, [[1, 1, 1], [1, 1, 1]]),
        ("4D", "Max", 9, [[0, 0, 0], [0, 0, 0]]),
        ("Layer", "Mean_Abs", 2.2, [[1, 1, 1], [1, 1, 1]]),  # 53/24 = 2.208
        ("4D", "Mean_Abs", 2.21, [[0, 0, 0], [0, 0, 0]]),
        ("Shapes", "Max", 4, None),
    ],
)
def test_structures_of_a_convolution(
    group: str, criterion: str, threshold: float, expected: list[list[int]] | None
) -> None:
    found = kept(KERNELS, threshold, group, criterion)
    if expected is None:  # at each place the larger of both filters: 4 8 4 4, 2 2 2 2, 9 1 1 5
        places = [[[0, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 1]]]
        assert found.tolist() == [places, places]
    else:
        assert found.tolist() == [[[[keep] * 2] * 2 for keep in row] for row in expected]


POLICY = """\
version: {version}
policies:
  - {{pruner: {{class: StructureParameterPruner, threshold_criteria: {criterion}, reg_regims: {regims}}}, {when}}}
"""


def schedule(regims: str, criterion: str = "Max", version: int = 1, when: str = "epochs: [0]") -> str:
    return POLICY.format(regims=regims, criterion=criterion, version=version, when=when)


def net() -> nn.Sequential:
    """Filters of largest |w| 1 4 2 3, a batch norm, a second convolution of 2 filters."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -4, 2, 3]).reshape(4, 1, 1, 1))
        model[3].weight.copy_(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]).reshape(2, 4, 1, 1))
        for parameter in (model[0].bias, model[1].bias, model[3].bias):
            nn.init.ones_(parameter)
    return model


def begun(run_of: RunOf, text: str, model: nn.Module, **options: Any) -> Any:
    run = run_of(text, model, images=torch.zeros(2, 1, 3, 3), **options)
    run.begin(0)
    return run


def dead(run: Any) -> dict[str, list[int]]:
    """Of each parameter that is masked, which entries of its first dim are gone."""
    found = {name: run.masks.keep(name) for name in run.parameters}
    return {
        name: torch.where(~keep.flatten(1).any(1) if keep.dim() > 1 else ~keep)[0].tolist()
        for name, keep in found.items()
        if keep is not None
    }


@pytest.mark.parametrize("group", ["Filters", "3D"])
def test_filters_go_with_their_biases_and_batch_norms(run_of: RunOf, group: str) -> None:
    run = begun(run_of, schedule(f"{{module.0.weight: [2, {group}]}}"), net())
    assert dead(run) == {key: [0, 2] for key in ("0.weight", "0.bias", "1.weight", "1.bias")}
    assert not run.model[1].bias[[0, 2]].any()
    assert run.model[1].bias[[1, 3]].all()


def test_what_is_no_whole_output_goes_alone(run_of: RunOf) -> None:
    run = begun(run_of, schedule("{0.weight: [2, 2D], 3.weight: [6, Channels], 7.weight: [0, Cols]}"), net())
    assert dead(run) == {"0.weight": [0, 2], "3.weight": [], "7.weight": []}
    assert run.model[3].weight.flatten(1).tolist() == [[0, 0, 3, 4], [0, 0, 7, 8]]


def test_each_weight_has_its_own_threshold_and_group(run_of: RunOf) -> None:
    run = begun(run_of, schedule("{'*': [0, 2D], 0.weight: [3, 3D], 7.weight: [0, Rows]}"), net())
    assert dead(run)["0.weight"] == dead(run)["1.bias"] == [0, 2, 3]
    assert run.model[3].weight.all()
    assert run.masks.keep("3.bias") is None


def test_what_has_grown_above_the_threshold_comes_back_where_it_lived_on(run_of: RunOf) -> None:
    text = schedule("{0.weight: [2, 3D]}, args: {use_double_copies: true}", when="epochs: [0, 1]")
    run = begun(run_of, text, net(), lr=1.0)
    run.gradient = -1.5  # 2.5 -2.5 3.5 4.5
    run.step()
    run.end()
    run.begin(1)
    assert dead(run) == {key: [] for key in ("0.weight", "0.bias", "1.weight", "1.bias")}


def test_it_goes_by_threshold_and_promises_no_share(run_of: RunOf) -> None:
    run = begun(run_of, schedule("{0.weight: [0.5, 3D], 7.weight: [2, Rows]}", "Mean_Abs"), net())
    pruner = run.events._policies[0].policy.pruner
    targets = {"reg_regims": {"a": (0.5, "3D"), "b": (2.0, "Rows"), "c": (0.5, "3D")}}
    assert pruner.threshold(targets, Window(epochs=[0]), 0) == "Mean_Abs 0.5, 2"
    assert pruner.goals(targets, Window(epochs=[0]), 0) == []
    assert run.events.shortfalls() == []


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regims", "message"),
    [
        ("{w: [1, Filtres]}", "no group 'Filtres': did you mean 'Filters'"),
        ("{w: [1, Elements]}", "no group 'Elements'"),
        ("{w: [1, Rows+Cols]}", r"no group 'Rows\+Cols'"),
        ("{w: ['1', 3D]}", "should be a number, got '1'"),
        ("{w: [-1, 3D]}", "greater than or equal to 0, got -1"),
        ("{w: [1, 3]}", "should be a string, got 3"),
        ("{w: 1}", r"should be \[threshold, group\]"),
        ("{w: [1]}", r"should be \[threshold, group\]"),
        ("{w: [1, 3D, 2]}", r"should be \[threshold, group\]"),
        ("{}", "at least 1 item"),
    ],
)
def test_a_wrong_regim_is_said(faults_of: Callable[[str], list[str]], regims: str, message: str) -> None:
    [line] = faults_of(schedule(regims))
    with pytest.raises(UserError, match=message):
        raise UserError(line)
    schema = StructureParameterPruner.model_json_schema()
    found = {"{w: [1, Rows+Cols]}": [1, "Rows+Cols"], "{w: 1}": 1, "{w: [1]}": [1], "{w: [-1, 3D]}": [-1, "3D"]}
    jsonschema.validate(
        {"reg_regims": {"w": [1, "3D"]}, "threshold_criteria": "Max"}, schema, cls=jsonschema.Draft7Validator
    )
    if regims in found:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(
                {"reg_regims": {"w": found[regims]}, "threshold_criteria": "Max"},
                schema,
                cls=jsonschema.Draft7Validator,
            )


def test_the_criterion_is_max_or_mean_abs(faults_of: Callable[[str], list[str]]) -> None:
    [line] = faults_of(schedule("{w: [1, 3D]}", "Mean"))
    assert "'threshold_criteria'" in line
    assert "'Max' or 'Mean_Abs', got 'Mean'" in line


def validated(text: str, config: str, name: str = "s.yaml") -> tuple[int, str]:
    with open(name, "w") as file:
        file.write(text)
    result = compress("validate", name, "-c", config)
    return result.code, result.out + result.err


@pytest.mark.parametrize(
    ("regims", "said"),
    [
        ("{conv1.weight: [1, Rows]}", "conv1.weight: Rows are structures of weights of linear layers"),
        ("{fc1.weight: [1, 2D]}", "fc1.weight: 2D are structures"),
        ("{conv1.weight: [1, 3D], fc1.weight: [1, Kernels]}", "fc1.weight: 2D are structures"),
    ],
)
def test_a_weight_that_has_no_such_structures_is_said_by_validate(
    regims: str, said: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, lines = validated(schedule(regims), "lenet5_digits")
    assert code == 2
    assert said in lines
    assert lines.count("structures of weights") == 1


@pytest.mark.parametrize("version", [1, 2])
def test_filters_that_are_shared_with_others_are_said_as_for_every_pruner(
    version: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    two = "{conv1.weight: [0.1, 3D], layer1.0.conv2.weight: [0.2, Filters]}"
    code, lines = validated(schedule(two, version=version), "resnet20_cifar10")
    assert "prunes one by one, though they share channels: conv1.weight, layer1.0.conv2.weight" in lines
    assert (
        "conv1.weight, layer1.0.conv2.weight are pruned by 0.StructureParameterPruner, but layer1.1.conv2.weight"
        in lines
    )
    assert code == (0 if version == 1 else 2)
    code, lines = validated(schedule("{'layer*.conv1.weight': [0.1, 3D]}", version=version), "resnet20_cifar10")
    assert code == 0
    assert "channels" not in lines
