"""The page of a comparison: whole numbers at the ticks, and a page of seeds alone."""

import re

from compressor.pages import ComparisonContent, comparison_page
from compressor.pages.page import Table
from compressor.reports import Group
from compressor.reports.comparison import METRICS, RunFigures, group


def seeds(*sizes: float) -> Group:
    """Return a group of runs of these stored sizes: class 7 has 96 and 97 %, class 3 has 90 and 91 %."""
    runs = [
        RunFigures(
            run=f"r{seed}",
            seed=seed,
            figures={**dict.fromkeys(METRICS, 0.0), "top1": 98.0 + seed, "bytes": size},
            classes={"7": 96.0 + seed, "3": 90.0 + seed},
            layers={"fc.weight": 0.9},
        )
        for seed, size in enumerate(sizes)
    ]
    return group("digits", runs)


def page_of(*groups: Group) -> str:
    return comparison_page(ComparisonContent(groups, Table([""], []), Table([""], []), [], False, []))


def test_a_tick_says_its_whole_value() -> None:
    drawn = re.search(r'<svg[^>]*aria-labelledby="trade.*?</svg>', page_of(seeds(200_170, 200_183)), re.DOTALL)
    assert drawn is not None
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn[0])
    assert any(re.fullmatch(r"200\.17\d*", text) for text in texts), texts
    assert not [text for text in texts if text.startswith("+")], texts


def test_seeds_alone_have_their_classes_and_are_compared_with_nothing() -> None:
    page = page_of(seeds(200_170, 200_183))
    assert "Seeds of one schedule and configuration." in page
    assert "2 runs, seeds 0, 1" in page
    assert "Compared with" not in page
    assert "not recorded" not in page
    assert "Means of 2 runs. Lowest: 3, 90.5 %." in page
    assert "96.50 ± 0.71" in page  # s of 96 and 97: 1 / sqrt(2)


def test_one_run_has_a_seed() -> None:
    assert "1 run, seed 0" in page_of(seeds(200_170))
