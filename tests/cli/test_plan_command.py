"""`compress plan`: the figures of the papers and of the run itself, as JSON and for people; conflicts."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import Result, compress, metrics, succeed

FC1, FC2 = 16 * 64, 10 * 16
"""The two weights of `tiny`: fc1.weight and fc2.weight; 21 steps an epoch, four epochs."""

LEVEL = "class: SparsityLevelParameterPruner"


def planned(schedule: str, *arguments: str) -> dict[str, Any]:
    """`compress plan --json` of a schedule over `tiny`."""
    Path("s.yaml").write_text(schedule)
    result = compress("plan", "s.yaml", "-c", "tiny", "--json", *arguments)
    assert result.code == 0, result.err
    plan: dict[str, Any] = json.loads(result.out)
    return plan


def by_time(values: dict[str, Any]) -> dict[int, Any]:
    return {int(time): value for time, value in values.items()}


def test_the_plan_of_a_whole_schedule_as_json() -> None:
    plan = json.loads(succeed("plan", "prune", "--json"))
    pruner, regularizer, rate = plan["policies"]
    assert plan["epochs"] == 4
    assert [policy["kind"] for policy in plan["policies"]] == ["pruner", "regularizer", "lr_scheduler"]
    components = [policy["component"] for policy in plan["policies"]]
    assert components == ["AutomatedGradualPruner", "L1Regularizer", "StepLR"]
    assert [policy["fires"] for policy in plan["policies"]] == [[1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert pruner["weights"] == [{"name": "fc1.weight", "shape": [16, 64]}, {"name": "fc2.weight", "shape": [10, 16]}]
    assert regularizer["weights"] == [{"name": "fc1.weight", "shape": [16, 64]}]
    assert rate["weights"] == []
    assert by_time(pruner["sparsity"]) == pytest.approx({1: 0.25, 2: 0.6875, 3: 0.75})
    assert regularizer["sparsity"] == rate["sparsity"] == {}
    assert plan["lr"] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert (plan["total_weights"], plan["total_nonzero"], plan["total_sparsity"]) == (FC1 + FC2, 256 + 40, 0.75)
    assert plan["conflicts"] == []


def test_the_plan_trains_nothing_and_needs_no_data() -> None:
    before = sorted(path.name for path in Path().rglob("*"))
    agp = "policies:\n  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.5, weights: '*'}\n"
    Path("s.yaml").write_text(agp)
    result = compress("plan", "s.yaml", "-c", "resnet20_cifar10", "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["total_weights"] == 270_896  # section 4 of the grammar
    assert sorted(path.name for path in Path().rglob("*")) == sorted([*before, "s.yaml"])


AGP = """\
policies:
  - pruner: {{class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 0.5, weights: fc1.weight}}
    starting_epoch: 0
    ending_epoch: {end}
    frequency: {frequency}
"""
VECTORS = {
    (30, 2): ".05 .1397 .21662 .28172 .33601 .38045 .41603 .44375 .46458 .4795 .4895 .49557 .49869 .49984 .5",
    (10, 3): ".05 .36667 .48333 .5",
}


@pytest.mark.parametrize(("end", "frequency"), VECTORS)
def test_agp_s_reference_vector(end: int, frequency: int) -> None:
    vector = [float(value) for value in VECTORS[end, frequency].split()]
    (policy,) = planned(AGP.format(end=end, frequency=frequency), "--set", f"epochs={end}")["policies"]
    assert policy["fires"] == list(range(0, end, frequency))
    assert by_time(policy["sparsity"]) == pytest.approx(dict(zip(policy["fires"], vector, strict=True)), abs=6e-6)


LR = {
    "{class: StepLR, step_size: 4, gamma: 0.1}\n    starting_epoch: 6": [1] * 7 + [0.1] + [0.01] * 4,
    "{class: PolynomialLR, T_max: 10, power: 2}": [1, 0.81, 0.64, 0.49, 0.36, 0.25, 0.16, 0.09, 0.04, 0.01, 0, 0],
}


@pytest.mark.parametrize("text", LR)
def test_the_learning_rate_s_reference_vectors(text: str) -> None:
    plan = planned(f"policies:\n  - lr_scheduler: {text}\n", "--set", "epochs=12", "--set", "optimizer.lr=1")
    assert plan["lr"] == pytest.approx(LR[text], abs=1e-12)


def test_baidu_s_reference_vector_is_the_threshold_by_epoch() -> None:
    schedule = """\
policies:
  - pruner: {class: BaiduRNNPruner, q: 0.2, ramp_epoch_offset: 3, ramp_slope_mult: 2, weights: fc1.weight}
    starting_epoch: 4
    ending_epoch: 21
    frequency: 3
"""
    plan = planned(schedule, "--set", "epochs=21")
    (policy,) = plan["policies"]
    thresholds = {time: float(said) for time, said in by_time(policy["threshold"]).items()}
    expected = {4: 0.0083333, 7: 0.05, 10: 0.1, 13: 0.15, 16: 0.2, 19: 0.25}
    assert thresholds == pytest.approx(expected, abs=1e-6)
    assert policy["sparsity"] == {}
    assert [(row["name"], row["nonzero"], row["sparsity"]) for row in plan["predicted"]] == [
        ("fc1.weight", None, None),
        ("fc2.weight", FC2, 0.0),
    ]
    assert (plan["total_nonzero"], plan["total_sparsity"]) == (None, None)


def test_inv_by_steps_is_shown_at_the_begin_of_each_epoch() -> None:
    text = "policies:\n  - lr_scheduler: {class: InvLR, gamma: 0.1, power: 0.75, args: {interval: step}}\n"
    assert planned(text)["lr"] == pytest.approx([0.1 * (1 + 0.1 * 21 * epoch) ** -0.75 for epoch in range(4)])


def test_step_windows_fire_in_steps_of_the_run() -> None:
    schedule = f"""\
version: 2
policies:
  - pruner: {{{LEVEL}, levels: {{fc1.weight: 0.5}}}}
    starting_step: 5
    ending_step: 90
    step_frequency: 20
"""
    (policy,) = planned(schedule)["policies"]
    assert (policy["unit"], policy["fires"]) == ("step", [5, 25, 45, 65])  # 84 steps: 85 is not reached


# What a run really does: the last epoch's weights, and the rates it trained with.

GLOBAL = "class: Pruner, scope: global, weights: '*', rate: {sparsity: %s}"
RUNS = {
    "agp in a window that the run cuts off": """\
policies:
  - pruner: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.9, weights: '*'}
    ending_epoch: 5
""",
    "agp in steps": """\
version: 2
policies:
  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.77, weights: [fc1.weight]}
    starting_step: 3
    ending_step: 50
    step_frequency: 4
  - lr_scheduler: {class: ExponentialLR, gamma: 0.7}
""",
    "agp on a list": """\
policies:
  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.77, weights: [fc2.weight]}
    epochs: [0, 2, 3]
""",
    "levels of their own": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.333, fc2.weight: 0.9}}}}
    epochs: [1]
  - lr_scheduler: {{class: MultiStepMultiGammaLR, milestones: [1, 2], gammas: [0.5, 0.1]}}
""",
    "two pruners on a weight, the stricter one first": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.8}}}}
    epochs: [0]
  - pruner: {{{LEVEL}, levels: {{fc1.weight: 0.5}}}}
    epochs: [1]
""",
    "one ranking": f"policies:\n  - pruner: {{{GLOBAL % 0.7}}}\n    epochs: [1]\n",
    "two rankings": f"""\
policies:
  - pruner: {{{GLOBAL % 0.5}}}
    epochs: [0]
  - pruner: {{{GLOBAL % 0.7}}}
    epochs: [1]
""",
    "double copies behind which the mask stays": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.5}}, args: {{use_double_copies: true}}}}
    epochs: [0]
""",
    "double copies, kept": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.5}}, args: {{use_double_copies: true, keep_mask: true}}}}
    epochs: [0]
""",
    "double copies in a window that the run cuts off": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.5}}, args: {{use_double_copies: true}}}}
    ending_epoch: 9
""",
    "forward only, forgotten at the end of the run": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.5}}, args: {{mask_on_forward_only: true}}}}
""",
    "discarded, kept in the end": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.5}}, args: {{discard_masks_at_minibatch_end: true, keep_mask: true}}}}
    epochs: [1]
""",
    "discarded to the end of the run": f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.5}}, args: {{discard_masks_at_minibatch_end: true}}}}
""",
    "a dense run with a rate": "policies:\n  - lr_scheduler: {class: CosineAnnealingLR, T_max: 4}\n",
}


@pytest.mark.parametrize("schedule", RUNS.values(), ids=RUNS)
def test_a_real_run_has_the_zeros_and_the_rates_that_the_plan_predicted(schedule: str) -> None:
    plan = planned(schedule)
    result = compress("train", "-s", "s.yaml", "-c", "tiny", "--out", "run")
    report = json.loads(Path("run/sparsity.json").read_text())
    assert [row["name"] for row in plan["predicted"]] == [row["name"] for row in report["tensors"]]
    for predicted, measured in zip(plan["predicted"], report["tensors"], strict=True):
        assert (predicted["shape"], predicted["weights"]) == (measured["shape"], measured["weights"])
        if predicted["nonzero"] is not None:
            assert predicted["nonzero"] == measured["nonzero"]
            assert predicted["sparsity"] == pytest.approx(measured["sparsity"], abs=1e-12)
    assert plan["total_weights"] == report["totals"]["weights"]
    assert plan["total_nonzero"] == report["totals"]["nonzero"]
    assert plan["total_sparsity"] == pytest.approx(report["totals"]["sparsity"], abs=1e-12)
    assert plan["lr"] == pytest.approx([line["lr"] for line in metrics(Path("run"))], rel=1e-12)
    assert result.code == 0 or "target missed" in result.err


def test_a_window_of_more_steps_than_are_shown_is_predicted_to_its_end() -> None:
    schedule = """\
version: 2
policies:
  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.75, weights: '*'}
    starting_step: 0
    ending_step: 20000
"""
    plan = planned(schedule, "--set", "epochs=1000")  # 21,000 steps
    assert plan["total_nonzero"] == (FC1 + FC2) // 4
    assert max(by_time(plan["policies"][0]["sparsity"]).values()) == 0.75


# Conflicts.


def conflicts(schedule: str, *arguments: str) -> list[str]:
    found: list[str] = planned(schedule, *arguments)["conflicts"]
    return found


def test_two_pruners_on_a_weight_are_a_conflict_that_names_both_and_the_weight() -> None:
    schedule = f"""\
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.8}}}}
    epochs: [0]
  - pruner: {{class: AutomatedGradualPruner, final_sparsity: 0.5, weights: fc1.weight}}
"""
    (line,) = conflicts(schedule)
    assert all(part in line for part in ("0.Sparsity", "1.Automated", "fc1.weight"))
    assert "fc2.weight" not in line


@pytest.mark.parametrize("window", ["starting_epoch: 4\n    ending_epoch: 9", "epochs: [7]", "ending_epoch: 9"])
def test_a_window_that_the_run_never_reaches_to_its_end_is_a_conflict(window: str) -> None:
    Path("s.yaml").write_text(f"policies:\n  - pruner: {{{LEVEL}, levels: {{'*': 0.8}}}}\n    {window}\n")
    result = compress("plan", "s.yaml", "-c", "tiny", "--json")
    (line,) = json.loads(result.out)["conflicts"]
    assert "0.Sparsity" in line
    assert ("7" if "7" in window else "8") in line
    assert "epoch 4" in line


def test_a_window_in_steps_that_the_run_never_reaches_is_a_conflict() -> None:
    schedule = f"""\
version: 2
policies:
  - pruner: {{{LEVEL}, levels: {{'*': 0.8}}}}
    starting_step: 84
    ending_step: 90
"""
    (line,) = conflicts(schedule)
    assert "step 89" in line
    assert "step 84" in line


LATE = "version: {version}\npolicies:\n  - lr_scheduler: {{class: ExponentialLR, gamma: 0.9{args}}}\n    {window}\n"


def test_row_lr_origin_absolute_a_late_exponential_jumps_to_53_percent_in_version_1() -> None:
    schedule = LATE.format(version=1, args="", window="starting_epoch: 5")
    plan = planned(schedule, "--set", "epochs=8")
    (line,) = plan["conflicts"]
    assert plan["lr"] == pytest.approx([0.1] * 6 + [0.0531441, 0.04782969])
    assert all(part in line for part in ("0.ExponentialLR", "epoch 5", "0.1", "0.0531441", "origin: start"))


@pytest.mark.parametrize(("version", "args"), [(2, ""), (1, ", args: {origin: start}")])
def test_row_lr_origin_start_a_late_exponential_does_not_jump(version: int, args: str) -> None:
    plan = planned(LATE.format(version=version, args=args, window="starting_epoch: 5"), "--set", "epochs=8")
    assert plan["conflicts"] == []
    assert plan["lr"] == pytest.approx([0.1] * 6 + [0.09, 0.081])


@pytest.mark.parametrize(
    ("version", "args", "window"),
    [
        (1, "{interval: step}", "starting_epoch: 2"),
        (2, "{interval: step, origin: absolute}", "starting_epoch: 2"),
        (2, "{interval: step, origin: absolute}", "starting_step: 30\n    ending_step: 84"),
    ],
)
def test_row_lr_origin_absolute_a_late_schedule_in_steps_jumps_too(version: int, args: str, window: str) -> None:
    # By 0.9^43 after its first step (0.9^31 from step 30 on): from 0.1 to 0.001.
    plan = planned(LATE.format(version=version, args=f", args: {args}", window=window))
    assert plan["lr"][3] < 1e-3
    assert any("jump" in line and "0.ExponentialLR" in line for line in plan["conflicts"])


def test_a_rate_that_jumps_back_where_the_next_policy_starts_is_a_conflict() -> None:
    schedule = """\
version: 2
policies:
  - lr_scheduler: {class: ExponentialLR, gamma: 0.1}
    ending_epoch: 3
  - lr_scheduler: {class: StepLR, step_size: 9}
    starting_epoch: 3
    ending_epoch: 6
"""
    plan = planned(schedule, "--set", "epochs=6")
    assert plan["lr"] == pytest.approx([0.1, 0.01, 0.001, 0.1, 0.1, 0.1])
    assert any("jump" in line and "1.StepLR" in line for line in plan["conflicts"])


def two_rates(first: str, second: str) -> list[str]:
    schedule = f"""\
version: 2
policies:
  - lr_scheduler: {{class: ConstantLR, factor: 1.0, args: {{origin: start{", interval: step" * ("step" in first)}}}}}
    {first}
  - lr_scheduler: {{class: ConstantLR, factor: 1.0}}
    {second}
"""
    return conflicts(schedule)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("starting_epoch: 0", "starting_epoch: 0"),
        ("starting_epoch: 0\n    ending_epoch: 3", "starting_epoch: 2"),
        ("epochs: [0, 2]", "epochs: [2, 3]"),
        ("starting_step: 0\n    ending_step: 30", "starting_epoch: 0"),  # step 29 is in epoch 1
        ("starting_step: 0\n    ending_step: 30", "starting_epoch: 1"),
    ],
)
def test_two_rates_in_the_same_epochs_are_a_conflict(first: str, second: str) -> None:
    (line,) = two_rates(first, second)
    assert all(part in line for part in ("0.ConstantLR", "1.ConstantLR", "learning rate"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ending_epoch: 2", "starting_epoch: 2"),
        ("epochs: [0, 2]", "epochs: [1, 3]"),
        ("starting_step: 0\n    ending_step: 21", "starting_epoch: 1"),
    ],
)
def test_two_rates_in_turn_are_no_conflict(first: str, second: str) -> None:
    assert two_rates(first, second) == []


# For people.


def test_the_text_has_the_figures_of_the_json() -> None:
    plan = json.loads(succeed("plan", "prune", "--json"))
    text = succeed("plan", "prune")
    lines = text.splitlines()
    for policy in plan["policies"]:
        assert any(all(part in line for part in (policy["key"], policy["kind"], policy["component"])) for line in lines)
        for weight in policy["weights"]:
            assert any(line.split() == [weight["name"], "x".join(map(str, weight["shape"]))] for line in lines)
    assert "epochs 1..3" in text
    assert "1: 25.00 %, 2: 68.75 %, 3: 75.00 %" in text
    assert [line.strip() for line in lines if line.strip()[1:3] == ".."] == ["0..1: 0.1", "2..3: 0.01"]
    for row in plan["predicted"]:
        figures = (row["name"], f"{row['weights']:,}", f"{100 * row['sparsity']:.2f} %", f"{row['nonzero']:,}")
        assert any(all(part in line for part in figures) for line in lines)
    assert f"{plan['total_nonzero']:,} of {plan['total_weights']:,}" in text
    assert "conflict" not in text
    assert max(map(len, lines)) <= 120


def test_the_text_names_thresholds_unknown_rates_and_conflicts() -> None:
    Path("s.yaml").write_text("""\
policies:
  - pruner: {class: MagnitudeParameterPruner, thresholds: {fc1.weight: 0.125}}
    epochs: [0, 2]
  - pruner: {class: SensitivityPruner, sensitivities: {fc1.weight: 0.5}}
    epochs: [1, 9]
  - lr_scheduler: {class: ReduceLROnPlateau}
    starting_epoch: 1
""")
    text = succeed("plan", "s.yaml", "-c", "tiny")
    plan = json.loads(succeed("plan", "s.yaml", "-c", "tiny", "--json"))
    assert by_time(plan["policies"][0]["threshold"]) == {0: "0.125", 2: "0.125"}
    assert by_time(plan["policies"][1]["threshold"]) == {1: "0.5 std"}
    assert plan["lr"] == [0.1, 0.1, None, None]  # the validation of epoch 1 decides what epoch 2 has
    assert all(part in text for part in ("0: 0.125", "1: 0.5 std", "0..1: 0.1", "2..3: decided by validation"))
    assert len(plan["conflicts"]) == 2
    assert all(line in text for line in plan["conflicts"])
    assert "not known before the run: `rate: " in text


def test_the_text_of_a_long_run_stays_short() -> None:
    Path("s.yaml").write_text("""\
version: 2
policies:
  - pruner: {class: AutomatedGradualPruner, final_sparsity: 0.75, weights: '*'}
    starting_step: 0
    ending_step: 2000
  - lr_scheduler: {class: StepLR, step_size: 30}
""")
    text = succeed("plan", "s.yaml", "-c", "tiny", "--set", "epochs=100")
    assert len(text.splitlines()) < 30
    assert max(map(len, text.splitlines())) < 500
    assert "steps 0..1999" in text
    assert "1999: 75.00 %" in text
    assert "0..29: 0.1" in text


# What is wrong.


def one_line(result: Result) -> str:
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1
    return result.err


def test_a_plan_of_weights_that_are_not_there_is_exit_2_with_the_nearest_name() -> None:
    Path("s.yaml").write_text(f"policies:\n  - pruner: {{{LEVEL}, levels: {{fc1.weigth: 0.8}}}}\n")
    said = one_line(compress("plan", "s.yaml", "-c", "tiny"))
    assert "s.yaml:2:" in said
    assert "did you mean 'fc1.weight'" in said


def test_a_plan_without_a_configuration_is_exit_2() -> None:
    Path("s.yaml").write_text(f"policies:\n  - pruner: {{{LEVEL}, levels: {{fc1.weight: 0.8}}}}\n")
    assert "--config" in one_line(compress("plan", "s.yaml"))


def test_steps_without_the_data_are_a_warning() -> None:
    text = "policies:\n  - lr_scheduler: {class: InvLR, gamma: 0.1, power: 0.75, args: {interval: step}}\n"
    Path("s.yaml").write_text(text)
    result = compress("plan", "s.yaml", "-c", "lenet5_mnist", "--json", "--data", "nowhere")
    assert result.code == 0
    assert len(json.loads(result.out)["lr"]) == 20
    assert result.err.startswith("warning: ")
    assert result.err.count("\n") == 1
