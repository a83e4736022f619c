"""pydantic's complaints as faults, on the configuration: what is wrong, where, and what was meant."""

from collections.abc import Callable

import pytest

from compressor.config import Config
from compressor.schedule import parsing
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults

Configured = Callable[[str], tuple[Config | None, list[str]]]

GOOD = """\
model: {name: lenet_5}
data: {name: digits, batch: 16}
optimizer: {lr: 1e-2, momentum: 0.9}
epochs: 20
"""


@pytest.fixture
def configured() -> Configured:
    def read(text: str) -> tuple[Config | None, list[str]]:
        faults = Faults()
        document = parse("c.yaml", text, faults)
        config = parsing.build(Config, document.data, document, (), faults, what="the configuration")
        return config, faults.lines

    return read


def test_a_good_file_is_built_with_its_values_and_defaults(configured: Configured) -> None:
    config, faults = configured(GOOD)
    assert faults == []
    assert config is not None
    assert (config.model.name, config.data.batch, config.optimizer.lr, config.epochs) == ("lenet_5", 16, 0.01, 20)
    assert (config.seed, config.data.validation, config.optimizer.momentum) == (0, 0.1, 0.9)


def test_row_an_unknown_key_is_an_error_at_the_key_with_the_nearest_name(configured: Configured) -> None:
    config, faults = configured(GOOD.replace("momentum", "momentun"))
    assert config is None
    assert faults == ["c.yaml:3:23: unknown key 'momentun' in the configuration: did you mean 'momentum'?"]


def test_an_unknown_key_that_resembles_nothing_gets_the_list_of_what_exists(configured: Configured) -> None:
    _, faults = configured(GOOD.replace("batch: 16", "zzz: 16"))
    assert len(faults) == 1
    assert faults[0].startswith("c.yaml:2:22: unknown key 'zzz' in the configuration: there are: ")
    assert "batch" in faults[0]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("epochs", "epoch", "4:1: unknown key 'epoch' in the configuration: did you mean 'epochs'?"),
        ("optimizer:", "optimiser:", "3:1: unknown key 'optimiser' in the configuration: did you mean 'optimizer'?"),
        ("lr: 1e-2", "l_r: 1e-2", "3:13: unknown key 'l_r' in the configuration: did you mean 'lr'?"),
        ("name: digits", "nane: digits", "2:8: unknown key 'nane' in the configuration: did you mean 'name'?"),
    ],
)
def test_a_mistyped_required_key_is_one_fault_not_two(configured: Configured, old: str, new: str, fault: str) -> None:
    _, faults = configured(GOOD.replace(old, new))
    assert faults == [f"c.yaml:{fault}"]


def test_a_required_key_that_is_not_there_is_named_at_the_block_that_lacks_it(configured: Configured) -> None:
    _, faults = configured(GOOD.replace("lr: 1e-2, ", "").replace("epochs: 20\n", ""))
    assert faults == [
        "c.yaml:1:1: the configuration needs the key 'epochs'",
        "c.yaml:3:12: the configuration needs the key 'lr'",
    ]


def test_a_mistyped_key_in_one_block_does_not_hide_the_same_key_missing_in_another(configured: Configured) -> None:
    _, faults = configured(GOOD.replace("model: {name: lenet_5}", "model: {}").replace("name: digits", "nmae: digits"))
    assert len(faults) == 2
    assert faults[0] == "c.yaml:1:8: the configuration needs the key 'name'"
    assert faults[1] == "c.yaml:2:8: unknown key 'nmae' in the configuration: did you mean 'name' or 'images'?"


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("epochs: 20", "epochs: '20'", "4:9", ["'epochs'", "integer", "got '20'"]),
        ("epochs: 20", "epochs: 2.5", "4:9", ["'epochs'", "integer", "got 2.5"]),
        ("epochs: 20", "epochs: true", "4:9", ["'epochs'", "integer", "got True"]),
        ("epochs: 20", "epochs: 0", "4:9", ["'epochs'", "1", "got 0"]),
        ("epochs: 20", "epochs:", "4:8", ["'epochs'", "integer", "got nothing"]),
        ("epochs: 20", "epochs: [20]", "4:9", ["'epochs'", "integer", "got a list of 1"]),
        ("lr: 1e-2", "lr: fast", "3:17", ["'lr'", "number", "got 'fast'"]),
        ("lr: 1e-2", "lr: .nan", "3:17", ["'lr'", "finite"]),
        ("lr: 1e-2", "lr: .inf", "3:17", ["'lr'", "finite"]),
        ("lr: 1e-2", "lr: true", "3:17", ["'lr'", "number", "got True"]),
        ("model: {name: lenet_5}", "model: lenet_5", "1:8", ["'model'", "got 'lenet_5'"]),
        ("batch: 16", "augment: [crop, flap]", "2:38", ["'flap'", "crop", "flip"]),
    ],
)
def test_a_wrong_value_is_one_fault_at_the_value_with_what_was_expected_and_what_came(
    configured: Configured, old: str, new: str, place: str, words: list[str]
) -> None:
    config, faults = configured(GOOD.replace(old, new))
    assert config is None
    assert len(faults) == 1
    assert faults[0].startswith(f"c.yaml:{place}: ")
    assert all(word in faults[0] for word in words), faults[0]


def test_a_rule_between_two_keys_is_one_fault_in_its_own_words(configured: Configured) -> None:
    _, faults = configured(GOOD.replace("momentum: 0.9", "nesterov: true"))
    assert faults == ["c.yaml:3:12: 'optimizer' of the configuration: nesterov needs momentum: set momentum above 0"]


def test_all_faults_of_a_file_come_at_once(configured: Configured) -> None:
    _, faults = configured("model: {}\ndata: {name: digits, bacth: 3}\noptimizer: {lr: -1}\nepochs: x\nseeed: 1\n")
    places = [line.split(": ")[0] for line in faults]
    assert places == ["c.yaml:1:8", "c.yaml:2:22", "c.yaml:3:17", "c.yaml:4:9", "c.yaml:5:1"]


@pytest.mark.parametrize(("text", "got"), [("[1]", "a list of 1"), ("lenet", "'lenet'"), ("~", "nothing")])
def test_a_file_that_is_no_mapping_is_one_fault(configured: Configured, text: str, got: str) -> None:
    assert configured(text)[1] == [f"c.yaml:1:1: the configuration should be a mapping, got {got}"]


def test_a_huge_number_as_a_value_is_a_fault(configured: Configured) -> None:
    _, faults = configured(GOOD.replace("epochs: 20", f"epochs: 0x{'f' * 5000}"))
    assert len(faults) == 1
    assert faults[0].startswith("c.yaml:4:9: ")
