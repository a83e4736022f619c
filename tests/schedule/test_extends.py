"""`extends`: mappings are merged, lists replaced, null removes; every fault points into the file that it comes from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressor.errors import UserError
from compressor.schedule import open_config, open_schedule
from compressor.schedule.document import Document
from compressor.schedule.faults import Faults

Write = Callable[..., None]

CONFIG = """\
model: {name: mlp, hidden: [16, 8], dropout: [0.1, 0.2]}
data: {name: digits, size: 8}
optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
epochs: 4
ema: {decay: 0.9}
"""
SCHEDULE = """\
version: 2
config: tiny
expect: {sparsity: 0.5}
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.5, weights: [a]}
  other: {class: SparsityLevelParameterPruner, levels: {a: 0.5}}
policies:
- {pruner: {instance_name: fine}, starting_epoch: 1, ending_epoch: 4}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write `base.yaml` and `child.yaml` (and more) into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(**files: str) -> None:
        for name, text in files.items():
            path = Path(f"{name.replace('__', '/')}.yaml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    return write


def config(name: str = "child", overrides: Any = (), flags: Any = None) -> tuple[Any, Document, list[str]]:
    faults = Faults()
    built, document = open_config(name, overrides, flags or {}, {}, faults)
    return built, document, faults.lines


def schedule_faults(name: str = "child") -> list[str]:
    faults = Faults()
    open_schedule(name, (), faults)
    return faults.lines


def test_mappings_are_merged_lists_replaced_and_null_removes_a_key_of_the_base(write: Write) -> None:
    child = "extends: base\nmodel: {hidden: [32], dropout: null}\noptimizer: {lr: 0.2}\nema: null\nseed: 7\n"
    write(base=CONFIG, child=child)
    built, document, faults = config()
    assert faults == []
    assert document.data == {
        "model": {"name": "mlp", "hidden": [32]},
        "data": {"name": "digits", "size": 8},
        "optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.9},
        "epochs": 4,
        "seed": 7,
    }
    assert (built.optimizer.lr, built.optimizer.momentum, built.ema) == (0.2, 0.9, None)
    assert "extends" not in built.model_dump()


def test_every_place_is_in_the_file_that_a_value_comes_from(write: Write) -> None:
    write(base=CONFIG, child="extends: base\noptimizer:\n  momentum: 0.5\nmodel: {hidden: [32]}\n")
    _, document, _ = config()
    place = {path: str(document.place(path)) for path in document._values}
    assert place["epochs",] == "base.yaml:4:9"
    assert place["optimizer", "lr"] == "base.yaml:3:28"
    assert place["optimizer", "momentum"] == "child.yaml:3:13"
    assert str(document.place(("optimizer", "momentum"), key=True)) == "child.yaml:3:3"
    assert place["optimizer",] == "child.yaml:3:3"
    assert place["model", "hidden", 0] == "child.yaml:4:18"
    assert ("model", "hidden", 1) not in place  # of the base's longer list nothing is left
    assert place["model", "dropout", 1] == "base.yaml:1:52"


def test_a_fault_is_reported_where_it_stands(write: Write) -> None:
    bad = CONFIG.replace("momentum", "momentm")
    write(base=bad, child="extends: base\nepochs: 0\ndata: {size: .nan}\n")
    assert config()[2] == [
        "base.yaml:3:33: unknown key 'momentm' in the configuration: did you mean 'momentum'?",
        "child.yaml:2:9: 'epochs' of the configuration: should be greater than or equal to 1, got 0",
        "child.yaml:3:14: 'size': '.nan' is not a finite number",
    ]
    write(base=SCHEDULE.replace("weights: [a]", "wights: [a]"), child="version: 2\nextends: base\n")
    assert schedule_faults() == [
        "base.yaml:5:85: unknown key 'wights' in AutomatedGradualPruner 'fine': did you mean 'weights'?"
    ]
    write(base="a: [\n", child="extends: base\n")
    assert [line.partition(": ")[0] for line in config()[2]] == ["base.yaml:2:1"]


def test_a_chain_is_merged_from_its_end_and_a_name_is_sought_beside_its_file_first(write: Write) -> None:
    write(
        sub__base=CONFIG,
        sub__middle="extends: base.yaml\nepochs: 5\nseed: 5\n",
        base="model: nothing\n",  # beside the first file, not beside the one that names it
        child="extends: sub/middle\nseed: 6\n",
    )
    built, document, faults = config()
    assert faults == []
    assert (built.epochs, built.seed, built.optimizer.lr) == (5, 6, 0.1)
    places = [str(document.place((key,))) for key in ("seed", "epochs", "data")]
    assert places == ["child.yaml:2:7", "sub/middle.yaml:2:9", "sub/base.yaml:2:7"]
    write(child="extends: lenet5_digits\n")  # a shipped one
    assert config()[0].model.name == "lenet_5"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"child": "extends: child\n"}, "child.yaml:1:10: 'extends' goes in a circle: child.yaml -> child.yaml"),
        (
            {"child": "extends: a\n", "a": "extends: b.yaml\n", "b": "seed: 1\nextends: ./a.yaml\n"},
            "b.yaml:2:10: 'extends' goes in a circle: a.yaml -> b.yaml -> a.yaml",
        ),
        ({"child": "extends: [base]\n"}, "should be one path or name, got a list of 1; several are merged by a chain"),
        ({"child": "extends: 3\n"}, "child.yaml:1:10: 'extends' should be one path or name, got 3"),
        ({"child": "extends: bsae\n"}, "child.yaml:1:10: extends: no config 'bsae' in "),
        ({"child": "extends: bsae\n"}, "did you mean 'base'?"),
        ({"child": "extends: base\n", "base": "[1]\n"}, "base.yaml:1:1: a configuration should be a mapping"),
    ],
)
def test_what_cannot_be_extended_is_one_fault(write: Write, files: dict[str, str], said: str) -> None:
    write(**{"base": CONFIG, **files})
    built, _, faults = config()
    assert built is None
    assert len(faults) == 1
    assert said in faults[0]


def test_a_key_that_the_base_lacks_is_not_removed_by_null_but_judged(write: Write) -> None:
    write(base=CONFIG, child="extends: base\noptimizer: {momentm: null}\n")
    assert config()[2] == ["child.yaml:2:13: unknown key 'momentm' in the configuration: did you mean 'momentum'?"]


def test_the_environment_says_where_the_base_of_a_configuration_is(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(there__base=CONFIG, child="extends: '${WHERE}/base.yaml'\n", sched="version: 2\nextends: '${WHERE}/base'\n")
    assert config()[2] == [
        "child.yaml:1:10: extends: there is no environment variable 'WHERE': set it (export WHERE=...), or write its"
        " value here"
    ]
    monkeypatch.setenv("WHERE", str(tmp_path / "there"))
    assert config()[0].epochs == 4
    assert "no schedule '${WHERE}/base' in" in schedule_faults("sched")[0]  # a schedule has no variables


def test_a_symbolic_link_finds_the_base_beside_the_file_it_leads_to_unless_there_is_one_beside_the_link(
    write: Write, tmp_path: Path
) -> None:
    write(there__base=CONFIG, there__child="extends: ./base.yaml\n")
    (tmp_path / "link.yaml").symlink_to("there/child.yaml")
    assert config("link")[0].epochs == 4
    write(base=CONFIG.replace("epochs: 4", "epochs: 5"))
    assert config("link")[0].epochs == 5


def test_a_key_of_the_base_that_does_not_fit_any_more_is_marked_there_with_the_way_to_remove_it(write: Write) -> None:
    write(base=CONFIG, child="extends: base\noptimizer: {name: adam}\n")
    [said] = config()[2]
    assert said.startswith("base.yaml:3:33: ")
    assert said.endswith("adam has no argument 'momentum': remove it; `momentum: null` in child.yaml removes it there")
    write(child="extends: base\noptimizer: {name: adam, momentum: null}\n")
    assert config()[2] == []
    [said] = config(overrides=[("optimizer.momentum", "0.5")])[2]
    assert said.startswith("--set optimizer.momentum=0.5: ")
    assert said.endswith("remove it")


def test_both_schedules_have_version_2(write: Write) -> None:
    write(base=SCHEDULE, child="extends: base\n")
    assert schedule_faults() == ["child.yaml:1:1: 'extends' needs `version: 2`"]
    write(base="version: 1\npolicies: []\n", child="version: 2\nextends: base\n")
    assert schedule_faults() == [
        "child.yaml:2:10: extends: base.yaml has version 1, this file 2: both need `version: 2`"
    ]


def test_a_schedule_keeps_its_own_claim_alone_and_its_text_is_the_merged_one(write: Write, tmp_path: Path) -> None:
    write(tiny=CONFIG, base=SCHEDULE, child="version: 2\nextends: base\npruners: {fine: {final_sparsity: 0.75}}\n")
    faults = Faults()
    schedule = open_schedule("child", (), faults)
    assert faults.lines == []
    assert schedule.claim is None
    assert schedule.config == "tiny"
    assert schedule.notes == []  # a base may have components that this schedule does not use
    data = yaml.safe_load(SCHEDULE)
    del data["expect"]
    data["pruners"]["fine"]["final_sparsity"] = 0.75
    assert yaml.safe_load(schedule.document.text) == data
    assert not schedule.document.overridden
    write(child="version: 2\nextends: base\nexpect: {sparsity: 0.6}\n")
    assert open_schedule("child", (), faults).claim.sparsity == 0.6  # type: ignore[union-attr]


def test_the_flag_of_a_key_does_not_extend(write: Write) -> None:
    write(base=CONFIG, child=CONFIG)
    with pytest.raises(UserError, match="--set extends=base: 'extends' is a key of a file"):
        config(overrides=[("extends", "base")])


@pytest.mark.parametrize(
    ("text", "overrides", "flags", "seed"),
    [
        ("seed: 3\n", [("seed", "2")], {"seed": 1}, 1),
        ("seed: 3\n", [("seed", "2")], {}, 2),
        ("seed: 3\n", [], {}, 3),
        ("", [], {}, 4),
    ],
    ids=["flag > --set", "--set > file", "file > extends", "extends > default"],
)
def test_precedence(write: Write, text: str, overrides: Any, flags: Any, seed: int) -> None:
    write(base=f"{CONFIG}seed: 4\n", child=f"extends: base\n{text}")
    built, _, faults = config(overrides=overrides, flags=flags)
    assert faults == []
    assert built.seed == seed
    assert config("base", overrides=[("seed", "null")])[2] != []  # null is a value of `--set`, not a removal


@pytest.mark.parametrize(
    ("init", "flags", "expected"),
    [
        ("{path: a.pt, keep_zeros: true}", {"init": "b.pt"}, ("b.pt", True)),
        ("{path: a.pt, keep_zeros: true}", {"init": "xavier"}, (None, False)),
        ("a.pt", {"init": "b.pt"}, ("b.pt", False)),
        ("xavier", {"init": "b.pt"}, ("b.pt", False)),
        ("a.pt", {"keep-zeros": True}, ("a.pt", True)),
        ("{path: a.pt}", {"keep-zeros": True}, ("a.pt", True)),
        ("{path: a.pt}", {"init": "b.pt", "keep-zeros": True}, ("b.pt", True)),
        ("default", {"init": "b.pt", "keep-zeros": True}, ("b.pt", True)),
        ("{path: a.pt, keep_zeros: true}", {"keep-zeros": False}, ("a.pt", True)),
    ],
)
def test_flags_change_of_init_only_what_they_say(
    write: Write, init: str, flags: dict[str, Any], expected: tuple[str | None, bool]
) -> None:
    write(child=f"{CONFIG}init: {init}\n")
    built, _, faults = config(flags=flags)
    assert faults == []
    assert (built.checkpoint_path, built.keeps_zeros) == expected


@pytest.mark.parametrize("init", ["xavier", "default"])
def test_zeros_are_kept_of_a_checkpoint_alone(write: Write, init: str) -> None:
    write(child=f"{CONFIG}init: {init}\n")
    with pytest.raises(UserError, match="--keep-zeros needs a checkpoint: --init CHECKPOINT"):
        config(flags={"keep-zeros": True})
