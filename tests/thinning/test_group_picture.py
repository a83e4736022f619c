"""The picture of channel groups: what stands where, for whom it is readable, and that it is well-formed."""

import re
import xml.etree.ElementTree as xml
from itertools import pairwise

import torch
from torch import nn
from torch.nn import Conv2d, Linear

from compressor.thinning import Group, channel_graph, groups, groups_as_svg
from compressor.thinning.group_picture import _STYLE

SVG = "{http://www.w3.org/2000/svg}"


class Dense(nn.Module):
    """Six layers that read all before them, a shortcut, a name that is no XML."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv2d(1, 4, 3)
        self.layers = nn.ModuleList(Conv2d(4 + 2 * i, 2, 3, padding=1) for i in range(6))
        self.add_module("a<b>&\"c'", Conv2d(16, 16, 1))
        self.fc = Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.fc((x + self.get_submodule("a<b>&\"c'")(x)).mean((2, 3)))


def drawn(network: nn.Module, name: str = "net") -> tuple[tuple[Group, ...], xml.Element]:
    graph = channel_graph(network, (1, 6, 6))
    found = groups(graph)
    return found, xml.fromstring(groups_as_svg(graph, found, name))


def titled(root: xml.Element) -> dict[str, xml.Element]:
    """The bars with their marks, by the first line of their titles."""
    return {str(bar[0].text).split("\n")[0]: bar for bar in root.findall(f"{SVG}g")}


def span(bar: xml.Element) -> tuple[float, float, float]:
    """The column, the top and the bottom of a bar."""
    y = float(bar[1].attrib["y"])
    return float(bar[1].attrib["x"]) + float(bar[1].attrib["width"]) / 2, y, y + float(bar[1].attrib["height"])


def test_each_group_has_a_bar_with_a_title_that_says_all_about_it() -> None:
    found, root = drawn(Dense(), "a<b>")
    assert root[0].text == "Channel groups of a<b>"
    bars = titled(root)
    assert list(bars) == [f"group {group.number}: {group.channels} channels" for group in found]
    title = str(bars["group 1: 4 channels"][0].text)
    assert "made by first, a<b>&\"c'\n" in title
    assert title.endswith("removable yes")
    assert "script" not in xml.tostring(root, "unicode")


def test_marks_stand_in_the_rows_of_their_layers() -> None:
    _, root = drawn(nn.Sequential(Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(4, 3)))
    rows = {str(text.text): float(text.attrib["y"]) for text in root.findall(f"{SVG}text")}
    assert rows["0"] < rows["3"]
    marks = titled(root)["group 1: 4 channels"][2:]
    assert [mark.tag.removeprefix(SVG) for mark in marks] == ["rect", "circle"]  # made by 0, read by 3
    heights = [float(marks[0].attrib["y"]) + 5.5, float(marks[1].attrib["cy"])]
    assert heights == [rows["0"] - 4, rows["3"] - 4]
    assert rows["#1 4"] == rows["0"]


def test_bars_in_one_column_do_not_touch() -> None:
    chain = nn.Sequential(*(Conv2d(1, 1, 1) for _ in range(7)), nn.Flatten())
    for network, columns in ((Dense(), 8), (chain, 2)):
        spans = sorted(span(bar) for bar in titled(drawn(network)[1]).values())
        assert len({x for x, _, _ in spans}) == columns
        assert all(x != other or bottom < top for (x, _, bottom), (other, top, _) in pairwise(spans))


def test_a_group_that_stays_is_hatched_and_the_reason_is_written() -> None:
    found, root = drawn(Dense())
    bars = list(titled(root).values())
    assert ["kept" in bar[1].attrib["class"] for bar in bars] == [group.reason is not None for group in found]
    assert any("they are the network's output" in str(text.text) for text in root.findall(f"{SVG}text"))


def test_a_picture_fits_a_telephone_and_each_text_the_picture() -> None:
    _, root = drawn(Dense(), "a long name of a network that nobody would read " * 3)
    width = float(root.attrib["width"])
    assert width <= 400
    for text in root.findall(f"{SVG}text"):
        assert float(text.attrib["x"]) + 6.7 * len(str(text.text)) <= width + 24, text.text  # letters are 5 to 7 wide


def luminance(colour: str) -> float:
    """Of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_have_contrast_on_light_and_dark_pages() -> None:
    for style in _STYLE.split("@media (prefers-color-scheme: dark)"):
        pages = [re.search(rf"\.{name} {{ fill: (#\w+)", style) for name in ("page", "even")]
        colours = {name: re.search(rf"\.{name} {{ fill: (#\w+)", style) for name in ("c0", "c1", "c2", "c3")}
        said = re.search(r"text {[^}]*fill: (#\w+)", style)
        for name, found in {**colours, "text": said}.items():
            for page in pages:
                assert found
                assert page
                low, high = sorted(map(luminance, (found[1], page[1])))
                assert (high + 0.05) / (low + 0.05) >= (4.5 if name == "text" else 3), (name, page[1])
