"""The page of a run: its parts in their order, each number, names that would break it, parts without data."""

import html
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import drawn
import matplotlib
import pytest
from drawn import content, write

from compressor.pages import RunContent, run_page

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunContent:
    return content(write(tmp_path_factory.mktemp("runs") / "fine-digits-1"))


@pytest.fixture(scope="module")
def page(run: RunContent) -> str:
    return run_page(run)


def part(page: str, name: str) -> str:
    """The part of a page with that name."""
    return page.split(f'<section id="{name}">')[1].split("\n<section")[0]


def plain(text: str) -> str:
    """What is to be read of a piece of a page, without its drawings."""
    text = re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def rows(piece: str) -> list[list[str]]:
    """The cells of all tables of a piece of a page."""
    found = re.findall(r"<tr>(.*?)</tr>", piece, flags=re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in found]


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)]


def words(drawing: ElementTree.Element) -> list[str]:
    """The texts of a drawing."""
    return ["".join(element.itertext()) for element in drawing.iter(f"{SVG}text")]


def drawing(page: str, name: str) -> ElementTree.Element:
    return next(one for one in drawings(page) if one.get("aria-labelledby", "").startswith(f"{name}-title"))


def test_the_parts_are_in_their_order(page: str) -> None:
    order = "timeline training layers left churn values classes costs instability provenance files".split()
    assert re.findall(r'<section id="(\w+)">', page) == order
    assert page.index("Test top-1 accuracy") < page.index("Stored size") < page.index("Latency of one image")
    assert page.index("Latency of one image") < page.index('id="timeline"')
    linked = re.findall(r'<a href="#(\w+)">', page)
    assert linked == order[:-1]


def test_three_numbers_in_large_type_and_what_they_are_compared_with(page: str) -> None:
    numbers = [plain(one) for one in re.findall(r'<div class="number">(.*?)</div>', page, flags=re.DOTALL)]
    assert numbers == [
        "Test top-1 accuracy 85.00 % −2.50 points against 87.50 % of dense-1",
        # 3,000 bits are 375 bytes; the dense network 1,000 bytes.
        "Stored size 375 B as relative index, best widths −62.5 % against 1.00 kB of the dense network",
        "Latency of one image 1.900 ms ± 0.200 ms median ± interquartile range, 1 thread of the cpu"
        " no difference beyond the spread against 2.00 ms of the dense network zeros alone save no time",
    ]


@pytest.mark.parametrize(
    ("time", "spread", "said"),
    [
        (1.5, 0.2, "−25.0 % against"),  # 0.5 ms less, the spreads are 0.2 and 0.1 ms
        (2.5, 0.3, "+25.0 % against"),
        (1.8, 0.2, "no difference beyond the spread against"),  # 0.2 ms less, 0.3 ms
        (2.0, 0.0, "no difference beyond the spread against"),
    ],
)
def test_a_change_of_the_latency_is_said_where_it_is_beyond_the_spread(
    tmp_path: Path, time: float, spread: float, said: str
) -> None:
    latency = drawn.REPORT.latency
    assert latency is not None
    timings = list(latency.timings)
    timings[1] = timings[1].model_copy(update={"milliseconds": time, "interquartile_range": spread})
    report = drawn.REPORT.model_copy(update={"latency": latency.model_copy(update={"timings": timings})})
    page = run_page(content(write(tmp_path / "run"), report=report))
    number = plain(re.findall(r'<div class="number">(.*?)</div>', page, flags=re.DOTALL)[2])
    assert f"{said} 2.00 ms of the dense network" in number
    assert ("%" in number) == ("%" in said)


def test_the_facts_of_the_run(page: str) -> None:
    facts = plain(page.split('<dl class="facts">')[1].split("</dl>")[0])
    assert "lenet_5, 107 parameters" in facts
    assert "4 epochs, seed 7, 8 s" in facts
    assert "2025-12-31 23:30 UTC" in facts, "01:30 in a zone two hours ahead"
    assert "65.00 %" in facts
    assert "1,000, with non-zero weights 450" in facts
    assert "88.00 % after 4 epochs" in facts, "the best validation accuracy"


def test_the_timeline_says_when_each_policy_acts(page: str) -> None:
    piece = part(page, "timeline")
    assert rows(piece)[1:] == [
        ["0.fine", "pruner: Pruner", "epochs 1..3", "25.0 to 75.0 %", ""],
        ["1.shrink", "regularizer: Regularizer", "steps 5..24", "–", ""],
        ["2.thinner", "extension: Extension", "epochs 0, 2", "–", ""],
        ["3.watch", "instability: Instability", "epochs 0..3", "–", ""],
        ["4.later", "pruner: Pruner", "never in this run", "–", ""],
    ]
    assert "Never active in this run: 4.later." in plain(piece)
    assert "Ticks below a bar: the masks changed." in plain(piece)
    said = words(drawing(page, "timeline-lanes-wide"))
    assert any(text.startswith("0.fine") and "25.0 to 75.0 %" in text for text in said)


def test_the_curves_have_a_table(page: str) -> None:
    piece = part(page, "training")
    assert rows(piece)[0] == [
        "epoch", "training top-1", "validation top-1", "validation loss", "training loss, data", "training loss, l1",
        "learning rate", "sparsity",
    ]  # fmt: skip
    assert rows(piece)[3] == ["2", "80.00 %", "78.00 %", "0.25", "0.5", "0.05", "0.01", "50.00 %"]
    assert "0.fine, 1.shrink, 2.thinner. Policies that act in every epoch are not shaded." in plain(piece)


def test_curves_differ_by_more_than_their_colour(page: str) -> None:
    lines = [
        re.sub(r"stroke: [^;]*;|stroke-width: [^;]*;", "", one.get("style", ""))
        for one in drawing(page, "curves-wide").iter(f"{SVG}path")
        if re.search(r"fill: none; .*var\(--(blue|red|green)", one.get("style", "")) and one.get("clip-path")
    ]
    accuracy, losses = lines[:2], lines[2:5]
    assert len(set(accuracy)) == 2
    assert len(set(losses)) == 3


def test_target_and_reached_sparsity_by_layer(page: str) -> None:
    assert rows(part(page, "layers"))[1:] == [
        ["conv.weight", "50.00 %", "50.00 %", "0.00", "50.00 %"],
        ["fc.weight", "75.00 %", "75.00 %", "0.00", "75.00 %"],
    ]
    # conv: 3 epochs of a target and 3 reached, one colour each, and one epoch of nothing; fc: targets 25, 50, 75 %,
    # reached 0, 25 twice, 75 %; and the scale of ten colours.
    strips = drawing(page, "heat-wide")
    boxes = [one for one in strips.iter(f"{SVG}path") if re.search(r"fill: var\(--(scale|shade)", one.get("style", ""))]
    assert len(boxes) == (1 + 2) + (3 + 3) + 10


def test_beside_each_strip_stands_what_is_reached_and_what_was_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    layers = {"conv.weight": {"sparsity": 0.527, "target": 0.312}, "fc.weight": {"sparsity": 0.25, "target": None}}
    (folder / "layers.jsonl").write_text(json.dumps({"epoch": 3, "layers": layers, "events": []}) + "\n")
    page = run_page(content(folder))
    wide, narrow = (words(drawing(page, f"heat-{name}")) for name in ("wide", "narrow"))
    begin = wide.index("conv.weight")
    assert wide[begin : begin + 6] == ["conv.weight", "52.7 %", "31.2 %", "fc.weight", "25.0 %", "–"]
    assert [word for word in wide if word in ("reached", "target")] == ["reached", "target"]
    begin = narrow.index("conv.weight")
    assert narrow[begin : begin + 4] == ["conv.weight", "52.7 % / 31.2 %", "fc.weight", "25.0 % / –"]
    assert "reached / target" in narrow


def test_where_the_weights_are_left(page: str) -> None:
    found = rows(part(page, "left"))
    assert found[1:3] == [
        ["conv.weight", "40", "20", "50.00 %"],
        ["fc.weight", "60", "15", "25.00 %"],
    ]
    assert found[4:] == [
        ["conv.weight", "940", "470", "50.00 %"],  # 20 of 40 weights
        ["fc.weight", "60", "15", "25.00 %"],
    ]
    assert "Of 100 weights 35 (35.00 %) are not zero." in plain(part(page, "left"))


def width(path: ElementTree.Element) -> float:
    """The width of a rectangle."""
    x = [float(number) for number in re.findall(r"[ML] (-?[\d.]+)", path.get("d", ""))]
    return max(x) - min(x)


@pytest.mark.parametrize("screen", ["wide", "narrow"])
def test_a_bar_is_as_long_as_its_number(page: str, screen: str) -> None:
    made = drawing(page, f"weights-left-{screen}")
    bars = [one for one in made.iter(f"{SVG}path") if "var(--blue)" in one.get("style", "") and one.get("clip-path")]
    conv, fc = map(width, bars)
    assert conv / fc == pytest.approx(20 / 15, rel=0.01)


def test_changes_of_masks_by_event(page: str) -> None:
    piece = part(page, "churn")
    assert rows(piece)[1:] == [
        ["1", "0", "0.fine", "30", "0"],
        ["2", "0", "2.thinner", "10", "0"],
        ["3", "9", "0.fine", "40", "5"],
    ]
    assert "3 events: 80 entries pruned, 5 revived." in plain(piece)


def test_values_of_the_weights(page: str) -> None:
    assert rows(part(page, "values"))[1:] == [
        ["conv.weight", "0.0 %", "50.0 %", "-1 to 1", "-1 to 1"],
        ["fc.weight", "0.0 %", "75.0 %", "-1 to 1", "-1 to 1"],
    ]


def test_accuracy_by_class_and_calibration(page: str) -> None:
    piece = part(page, "classes")
    assert rows(piece)[1:4] == [
        ["cat", "40", "95.0 %", "90.0 %", "−5.0"],
        ["dog", "40", "95.0 %", "95.0 %", "0.0"],
        ["owl", "40", "67.5 %", "70.0 %", "+2.5"],
    ]
    said = plain(piece)
    assert "1 of 3 classes lost accuracy, 1 gained" in said
    assert "cat (−5.0 points)" in said
    assert "Expected calibration error 10.00 %, before 10.00 %" in said


def test_memory_macs_stored_size_and_latency(page: str) -> None:
    found = rows(part(page, "costs"))
    assert ["MACs of one image", "of them non-zero", "450"] in found
    assert ["peak memory of activations of one image", "dense", "8.00 kB"] in found
    assert ["peak memory of activations of one image", "shipped", "4.00 kB"] in found
    assert found[found.index(["format", "bytes"]) + 1 :][:3] == [["dense", "1,000"], ["CSR", "500"], ["bitmask", "400"]]
    assert ["masked", "16", "20.5 ms", "1.50 ms", "–"] in found


def test_instability_where_it_was_measured(run: RunContent, page: str) -> None:
    assert rows(part(page, "instability"))[1:] == [["2", "3.watch", "80.00 %", "70.00 %", "+12.50 %"]]
    assert "mean instability +12.50 % over 1 event" in plain(part(page, "instability"))


def test_provenance_has_a_column_for_each_start(page: str) -> None:
    found = {row[0]: row[1:] for row in rows(part(page, "provenance"))}
    assert found[""] == ["start", "resume 1"]
    assert found["time"] == ["2025-12-31 23:30 UTC", "2026-01-02 10:00 UTC"]
    assert found["command"] == ["compress train --out 'a b'", "compress train --resume"]
    assert found["version of torch"] == ["2.14", "–"]
    assert found["SHA-256 of config"] == ["c0ffee", "–"]


def test_one_file_without_a_script_or_a_network(page: str) -> None:
    assert not re.search(r"<script|<link|<img|<iframe|@import|javascript:|\ssrc=|\son\w+=", page)
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_each_drawing_is_valid_and_described_and_its_text_is_text(page: str) -> None:
    found = drawings(page)
    assert len(found) == 2 * 10 + 3
    for one in found:
        assert one.get("role") == "img"
        named = [element for element in one if element.tag in (f"{SVG}title", f"{SVG}desc")]
        assert [element.get("id") for element in named] == one.get("aria-labelledby", "").split()
        assert all((element.text or "").strip() for element in named)
        assert words(one)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|xlink:href="#)([^")]+)', page)) <= set(ids)


def test_colours_follow_the_readers_setting(page: str) -> None:
    for one in drawings(page):
        text = ElementTree.tostring(one, encoding="unicode")
        assert re.findall(r"#[0-9a-fA-F]{3,6}\b(?![-\w])", text) == []
        plain_text = [element for element in one.iter(f"{SVG}text") if "fill: var(--" not in element.get("style", "")]
        assert plain_text == [], words(one)
    assert "prefers-color-scheme: dark" in page


def test_the_same_run_is_the_same_page_whatever_settings_matplotlib_has(run: RunContent, page: str) -> None:
    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 30, "axes.grid": True, "text.color": "red"}):
        assert run_page(run) == page


HOSTILE = '<script>alert("1")</script> $x_1$ \x1b[31m & ]]> 層'


def test_names_of_users_cannot_break_the_page(tmp_path: Path) -> None:
    text = (
        json.dumps(drawn.FIGURES)
        .replace('"cat"', json.dumps(HOSTILE))
        .replace("conv.weight", json.dumps(HOSTILE)[1:-1])
    )
    folder = write(tmp_path / "<b>run", figures=json.loads(text))
    layers = (folder / "layers.jsonl").read_text()
    (folder / "layers.jsonl").write_text(
        layers.replace("conv.weight", json.dumps(HOSTILE)[1:-1]).replace("0.fine", "<i>&")
    )
    (folder / "schedule.yaml").write_text("a: </pre><script>alert(2)</script>\n")
    policies = [one.model_copy(update={"key": f"{HOSTILE}{one.key}"}) for one in drawn.PLAN.policies]
    plan = drawn.PLAN.model_copy(update={"policies": policies, "conflicts": [HOSTILE]})
    rows_of_report = [one.model_copy(update={"name": f"{one.name}{HOSTILE}"}) for one in drawn.REPORT.tensors]
    report = drawn.REPORT.model_copy(update={"tensors": rows_of_report, "lost_classes": [HOSTILE]})
    page = run_page(content(folder, plan=plan, report=report, images=f"{HOSTILE} \ud800", claims=[HOSTILE]))
    assert "<script" not in page
    assert "<b>run" not in page
    assert "\x1b" not in page
    page.encode()
    assert "&lt;script&gt;alert(2)" in page, "the schedule's text"
    said = [text for one in drawings(page) for text in words(one)]
    assert any("$x_1$" in text for text in said)
    assert any(text.startswith("<script>") for text in said)


def test_a_part_without_data_says_why(tmp_path: Path) -> None:
    folder = write(tmp_path / "old")
    for name in ("layers.jsonl", "figures.json", "environment.json"):
        (folder / name).unlink()
    lines = [{**line, "figures": {}} for line in drawn.EPOCHS[:1]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    totals = drawn.REPORT.totals.model_copy(update={"top1": None, "stored_bits": None})
    report = drawn.REPORT.model_copy(update={"latency": None, "comparison": None, "totals": totals})
    made = content(folder, plan=None, no_plan="the schedule cannot be drawn: no", report=report, finished=False)
    page = run_page(made)
    missing = {
        name: plain(re.findall(r'<p class="missing">(.*?)</p>', part(page, name))[0])
        for name in ("timeline", "layers", "churn", "values", "classes", "provenance")
    }
    assert missing == {
        "timeline": "the schedule cannot be drawn: no",
        "layers": "layers.jsonl is not recorded in this run",
        "churn": "layers.jsonl is not recorded in this run",
        "values": "histograms of the weights are not recorded in this run",
        "classes": "figures.json is not recorded: the run was not tested by class",
        "provenance": "environment.json is not recorded in this run",
    }
    assert 'id="instability"' not in page
    assert "The run is not finished: 1 of 4 epochs." in plain(page)
    assert "Validation top-1 accuracy 48.00 %" in plain(page)
    warnings = plain(page.split('<ul class="warnings">')[1].split("</ul>")[0])
    assert "layers.jsonl: not recorded: what is drawn from it is not complete" in warnings
    assert "figures.json" not in warnings, "it is written at the end"
    assert len(drawings(part(page, "training"))) == 2


def test_a_network_of_many_layers_and_classes_shows_the_largest_and_has_all_in_tables(tmp_path: Path) -> None:
    names = [f"encoder.layers.{number}.self_attention.out_proj.weight" for number in range(80)]
    folder = write(tmp_path / "deep")
    layers = {name: {"sparsity": 0.5, "target": 0.5} for name in names}
    lines = [{"epoch": epoch, "layers": layers, "events": []} for epoch in range(4)]
    (folder / "layers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    correct = {f"class {number}": number % 41 for number in range(100)}
    figures: Any = {**drawn.FIGURES, "evaluation": drawn.evaluation(50.0, correct), "reference": None}
    (folder / "figures.json").write_text(json.dumps(figures))
    tensors = [drawn.weight(name, [10, 10], 100, 50) for name in names]
    report = drawn.REPORT.model_copy(update={"tensors": tensors})
    sizes = {name: 100 + number for number, name in enumerate(names)}
    page = run_page(content(folder, report=report, dense=sizes, macs=sizes, shipped_macs=sizes))
    assert len(rows(part(page, "layers"))) == 1 + 80
    assert "60 (on narrow screens 24) of 80" in plain(part(page, "layers"))
    shown = " ".join(words(drawing(page, "heat-wide")))
    assert shown.count("out_proj.weight") == 60
    assert " ".join(words(drawing(page, "heat-narrow"))).count("proj.weight") == 24
    assert len(rows(part(page, "classes"))) >= 1 + 100
    assert "Drawn are the 30 classes with the lowest accuracy, of 100" in plain(part(page, "classes"))
