"""Windows in epochs, places of events, numbers with units, contrasts of the colours, and the page of a plan."""

import re

import pytest
from drawn import PLAN, content, policy, write

from compressor.pages import churn, numbers, palette, plan_page, timeline
from compressor.schedule import Plan


def plan_of(*policies: dict[str, object]) -> Plan:
    return PLAN.model_copy(
        update={"policies": [Plan.model_fields["policies"].annotation.__args__[0].model_validate(p) for p in policies]}
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fires", "unit", "runs"),
    [
        ([1, 2, 3], "epoch", [(0.5, 3.5)]),
        ([2], "epoch", [(1.5, 2.5)]),
        ([0, 2, 3], "epoch", [(-0.5, 0.5), (1.5, 3.5)]),
        (list(range(5, 25)), "step", [(0.0, 2.0)]),  # ten steps an epoch: the middle of epoch 0 to that of epoch 2
        ([0, 25], "step", [(-0.5, -0.4), (2.0, 2.1)]),
    ],
)
def test_a_window_in_epochs(fires: list[int], unit: str, runs: list[tuple[float, float]]) -> None:
    (window,) = timeline.windows(plan_of(policy("0.a", "pruner", fires, unit), policy("1.b", "pruner", [])))
    assert [pytest.approx(run) for run in runs] == list(window.runs)
    assert (window.first, window.last) == (window.runs[0][0], window.runs[-1][1])


def test_an_event_lies_in_its_epoch(tmp_path: object) -> None:
    first, _, last = churn.events(content(write(tmp_path / "run")).recorded.layers, 10)  # type: ignore[operator]
    assert first.at == pytest.approx(1 - 0.5 + 0.05)
    assert last.at == pytest.approx(3 - 0.5 + 0.95)


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (numbers.size(999), "999 B"),
        (numbers.size(1_720_000), "1.72 MB"),
        (numbers.size(12_345_678), "12.3 MB"),
        (numbers.size(None), "–"),
        (numbers.amount(2_293_000), "2.29 M"),
        (numbers.amount(4_100_000_000), "4.10 G"),
        (numbers.milliseconds(0.01234), "0.0123 ms"),
        (numbers.milliseconds(123.4), "123 ms"),
        (numbers.signed(-0.001), "0.00"),
        (numbers.signed(1.5, 1), "+1.5"),
        (numbers.fraction(0.12345), "12.35 %"),
        (numbers.date("2026-06-01T00:10:00-0130"), "2026-06-01 01:40 UTC"),
        (numbers.date("some day"), "some day"),
        (numbers.duration(59), "59 s"),
        (numbers.duration(150), "2.5 min"),
        (numbers.duration(9_000), "2.5 h"),
    ],
)
def test_numbers_have_units(made: str, shown: str) -> None:
    assert made == shown


def luminance(colour: str) -> float:
    """Of a colour, as WCAG 2.1 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_contrasts_are_enough_in_both_settings(colours: dict[str, str]) -> None:
    for behind in ("page", "shade"):
        for text in ("ink", "muted"):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    assert contrast(colours["blue"], colours["page"]) >= 4.5, "links"
    for hue in palette.HUES:
        assert contrast(colours[hue], colours["page"]) >= 3, hue


def test_the_scale_gets_steadily_further_from_the_page() -> None:
    for dark in (False, True):
        colours = dict(line.split(": ") for line in palette.declarations(dark=dark))
        steps = [contrast(colours[f"--scale{number}"], colours["--page"]) for number in range(palette.LEVELS)]
        assert steps == sorted(steps)
        assert steps[-1] > 8
    assert [palette.level(value) for value in (0.05, 0.1, 0.95, 1.0)] == [
        palette.level(0.0), palette.level(0.15), palette.level(1.0), palette.level(0.9),
    ]  # fmt: skip


def test_the_page_of_a_plan_has_the_timeline_and_what_is_expected() -> None:
    page = plan_page(PLAN, "fine<b>", [("Model", "lenet_5")], ["warning: no data"], "version: 2\n")
    assert re.findall(r'<section id="(\w+)">', page) == ["timeline", "predicted", "files"]
    assert "fine&lt;b&gt;" in page
    assert "warning: no data" in page
    assert "The learning rate of 1 epoch is decided by validation." in page
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)
    assert cells[cells.index("fc.weight") :][:5] == ["fc.weight", "3x20", "60", "15", "75.00 %"]
    assert cells[-6:] == ["conv.weight", "4x1x2x5", "40", "–", "–", "drawn"]
    assert cells[cells.index("learning rate") + 1 :][:4] == ["0", "0.1", "1", "0.1"]
