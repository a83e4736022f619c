"""Components enter their section by being defined; a schedule finds exactly those."""

import re
from typing import ClassVar

import pytest
from helpers import DISTILLER
from pydantic import ValidationError

from compressor.component import REGISTRY, Component, Settings
from compressor.schedule.registry import SECTIONS, components


class _Shelf(Component):
    section: ClassVar[str] = "test shelf"

    size: int = 1


def test_a_named_class_enters_its_section_and_an_unnamed_one_does_not() -> None:
    class Abstract(_Shelf):
        pass

    class Concrete(Abstract, name="Concrete"):
        """A line.

        More.
        """

    assert components("test shelf")["Concrete"] is Concrete
    assert "Abstract" not in components("test shelf")
    assert Concrete.name == "Concrete"
    assert Concrete.summary() == "A line."


def test_two_different_classes_of_one_name_in_one_section_are_refused() -> None:
    class First(_Shelf, name="Taken"):
        pass

    with pytest.raises(TypeError, match="Taken"):

        class Second(_Shelf, name="Taken"):
            pass

    assert REGISTRY["test shelf"]["Taken"] is First


def test_settings_are_frozen_and_strict() -> None:
    class Block(Settings):
        count: int
        share: float = 0.0

    block = Block(count=2, share=1)
    with pytest.raises(ValidationError):
        block.count = 3  # type: ignore[misc]
    for wrong in ({"count": "2"}, {"count": True}, {"count": 2, "share": float("nan")}, {"count": 2, "extra": 1}, {}):
        with pytest.raises(ValidationError):
            Block.model_validate(wrong)


def test_the_first_methods_are_there_under_their_distiller_names() -> None:
    assert {"SparsityLevelParameterPruner", "AutomatedGradualPruner"} <= set(components("pruners"))
    assert "L1Regularizer" in components("regularizers")
    assert "PolynomialLR" in components("lr_schedulers")
    assert {"pruner", "regularizer", "lr_scheduler"} <= set(components("policies"))
    assert components("no such section") == {}


def test_every_torch_scheduler_with_plain_arguments_is_there() -> None:
    wanted = {
        "StepLR",
        "MultiStepLR",
        "ConstantLR",
        "LinearLR",
        "ExponentialLR",
        "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts",
        "CyclicLR",
        "OneCycleLR",
        "PolynomialLR",
        "ReduceLROnPlateau",
    }
    assert wanted <= set(components("lr_schedulers"))


@pytest.mark.parametrize("section", [*SECTIONS, "policies", "gates"])
def test_every_component_says_what_it_is_and_shows_a_schedule_with_itself_in_it(section: str) -> None:
    for name, cls in components(section).items():
        assert cls.section == section
        assert cls.summary().endswith("."), name
        if section != "policies":
            assert re.search(rf"class: {name}\b", cls.example), name


def test_distillers_class_names_are_all_known() -> None:
    # schedule-grammar.md, section 3; a pruner with "(_AGP)" has two names
    assert {section: len(set(names)) for section, names in DISTILLER.items()} == {
        "pruners": 23,
        "regularizers": 3,
        "extensions": 3,
        "lr_schedulers": 2,
    }
    assert [name for section, names in DISTILLER.items() for name in names if name not in components(section)] == []
