"""A field that names a component: its name, `{name: {arguments}}`, or `{name: value}`; faults have their place."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar

import jsonschema
import pytest

from compressor.component import REGISTRY, Component, Named, Settings
from compressor.pruners.general import Pruner
from compressor.schedule.registry import components
from compressor.sparsity.structures import Blocks


class Tool(Component):
    section: ClassVar[str] = "test tools"


@pytest.fixture(autouse=True)
def tools() -> Iterator[None]:
    """Three tools: one without arguments, one with a main argument, one with two that are needed."""

    class Hand(Tool, name="hand", also=("fist",)):
        """A tool without arguments."""

    class Saw(Tool, name="saw"):
        """A tool with a main argument."""

        main: ClassVar[str] = "teeth"
        teeth: int
        fine: bool = False

    class Plane(Tool, name="plane"):
        """A tool with two arguments."""

        width: int
        depth: float

    yield
    REGISTRY.pop("test tools")


class Bench(Settings):
    tool: Annotated[Tool, Named("tool", "test tools")]
    other: Annotated[Tool, Named("tool", "test tools")] | None = None


FORMS = {
    "hand": "hand",
    "fist": "hand",
    "a main argument": ({"saw": 3}, {"saw": 3}),
    "a main argument by its name": ({"saw": {"teeth": 3}}, {"saw": 3}),
    "more than the main argument": ({"saw": {"teeth": 3, "fine": True}}, {"saw": {"teeth": 3, "fine": True}}),
    "arguments": ({"plane": {"width": 2, "depth": 0.5}}, {"plane": {"width": 2, "depth": 0.5}}),
    "no arguments": ({"hand": {}}, "hand"),
}


@pytest.mark.parametrize("key", FORMS)
def test_every_form_is_read_and_written_as_it_is_read(key: str) -> None:
    form = FORMS[key]
    given, written = form if isinstance(form, tuple) else (key, form)
    bench = Bench.model_validate({"tool": given})
    assert bench.model_dump(mode="json", exclude_unset=True) == {"tool": written}
    assert Bench.model_validate(bench.model_dump(mode="json")) == bench
    assert Bench.model_validate({"tool": bench.tool}).tool is bench.tool
    for each in (given, written):
        jsonschema.validate({"tool": each, "other": each}, Bench.model_json_schema())


@pytest.mark.parametrize(
    ("given", "message", "loc"),
    [
        ("hnad", "there is no tool 'hnad': did you mean 'hand'?", ("tool",)),
        ({"sew": 3}, "there is no tool 'sew': did you mean 'saw'?", ("tool",)),
        (3, "should be the name of a tool, or {name: {arguments}}, got 3", ("tool",)),
        ({}, "give exactly one of fist, hand, plane, saw", ("tool",)),
        ({"saw": 3, "hand": {}}, "give exactly one of fist, hand, plane, saw", ("tool",)),
        ({"hand": 3}, "hand takes its arguments as a mapping, got 3", ("tool",)),
        ("saw", "Field required", ("tool", "saw", "teeth")),
        ({"saw": "three"}, "Input should be a valid integer", ("tool", "saw", "teeth")),
        ({"plane": {"width": 2, "depth": "deep"}}, "Input should be a valid number", ("tool", "plane", "depth")),
        ({"plane": {"width": 2, "depth": 1.0, "hight": 3}}, "Extra inputs", ("tool", "plane", "hight")),
    ],
)
def test_a_wrong_form_is_refused_at_its_place(given: Any, message: str, loc: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="1 validation error") as caught:
        Bench.model_validate({"tool": given})
    (error,) = caught.value.errors()  # type: ignore[attr-defined]
    assert (message in error["msg"], error["loc"]) == (True, loc)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tool": given}, Bench.model_json_schema())


def test_a_component_that_comes_later_can_be_named_too() -> None:
    with pytest.raises(ValueError, match="no tool 'drill'"):
        Bench.model_validate({"tool": "drill"})

    class Drill(Tool, name="drill"):
        """A late one."""

    assert isinstance(Bench.model_validate({"tool": "drill"}).tool, Drill)
    jsonschema.validate({"tool": "drill"}, Bench.model_json_schema())


def test_a_component_of_another_section_does_not_fit() -> None:
    with pytest.raises(ValueError, match="should be the name of a tool"):
        Bench.model_validate({"tool": Blocks()})


def test_two_components_cannot_share_another_name() -> None:
    with pytest.raises(TypeError, match="are called 'fist'"):

        class Boxer(Tool, name="boxer", also=("fist",)):
            """No."""


# --- the general pruner -----------------------------------------------------------------------------------------------

TEXT = """\
version: 2
pruners:
  p:
    class: Pruner
    weights: '*'
    criterion: {criterion}
    structure: {structure}
    rate:
      {rate}
policies:
  - pruner: {{instance_name: p}}
"""
GOOD = {"criterion": "l1", "structure": "Filters", "rate": "sparsity: 0.5"}


@pytest.mark.parametrize(
    ("axis", "given", "place", "message"),
    [
        ("criterion", "appoz", "6:16", "there is no criterion 'appoz': did you mean 'apoz'?"),
        ("structure", "Filtres", "7:16", "there is no structure 'Filtres': did you mean 'Filters'?"),
        ("rate", "sparsty: 0.5", "9:7", "there is no rate 'sparsty': did you mean 'sparsity'?"),
        ("rate", "sparsity: 5", "9:17", "should be less than or equal to 1, got 5"),
        ("rate", "agp: {final_sparsty: 0.5}", "9:13", "unknown key 'final_sparsty' in Pruner 'p': did you mean 'final"),
        ("rate", "agp: {final_sparsity: high}", "9:29", "should be a number, got 'high'"),
        ("rate", "agp: {}", "9:12", "needs the key 'final_sparsity'"),
        ("rate", "random: [0.5, 0.1]", "9:15", "random should be [least, most], got [0.5, 0.1]"),
        ("structure", "{Blocks: {filters: 0}}", "7:35", "should be greater than or equal to 1, got 0"),
        ("structure", "{Blocks: {fliters: 2}}", "7:26", "unknown key 'fliters' in Pruner 'p': did you mean 'filters'?"),
        ("criterion", "{random: {zeros: 1}}", "6:26", "unknown key 'zeros' in Pruner 'p': did you mean 'zeros_first'"),
    ],
)
def test_a_wrong_argument_has_its_line_and_column(
    faults_of: Callable[[str], list[str]], axis: str, given: str, place: str, message: str
) -> None:
    (fault,) = faults_of(TEXT.format(**{**GOOD, axis: given}))
    assert fault.startswith(f"s.yaml:{place}: ")
    assert message in fault


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"structure": "Kernels"}, {"structure": "2D"}),  # one name of several
        ({"structure": {"Blocks": {"filters": 2, "depth": 3}}}, {"structure": {"Blocks": {"filters": 2, "depth": 3}}}),
        ({"structure": "Blocks", "block_shape": [2, 3]}, {"structure": "Blocks", "block_shape": [2, 3]}),
        ({"criterion": {"random": {"zeros_first": False}}}, {"criterion": {"random": {"zeros_first": False}}}),
        ({"allocation": "global"}, {"allocation": "global"}),
    ],
)
def test_a_pruner_is_written_as_it_was_read(given: dict[str, Any], written: dict[str, Any]) -> None:
    rest = {"weights": "*", "rate": {"agp": {"final_sparsity": 0.5}}}
    one = Pruner.model_validate({**rest, **given})
    dumped = one.model_dump(mode="json", exclude_unset=True)
    assert dumped == {**rest, **written}
    assert Pruner.model_validate(dumped) == one
    jsonschema.validate(dumped, Pruner.model_json_schema())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"structure": "Blocks"}, "needs `block_shape"),
        ({"structure": "Rows", "block_shape": [2, 3]}, "belongs to `structure: Blocks`"),
        ({"structure": {"Blocks": {"filters": 2}}, "block_shape": [2, 3]}, "belongs to `structure: Blocks`"),
    ],
)
def test_the_sides_of_blocks_are_given_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pruner.model_validate({"weights": "*", "rate": {"sparsity": 0.5}, **given})


def test_the_json_schema_lists_the_names_and_their_arguments() -> None:
    options = {axis: Pruner.model_json_schema()["properties"][axis]["anyOf"] for axis in ("criterion", "rate")}
    names = options["criterion"][0]["enum"]
    assert set(names) == set(components("criteria"))
    with_arguments = [next(iter(option["properties"])) for option in options["rate"]]  # each takes an argument
    assert with_arguments == sorted(components("rates"))
