"""The page of a sweep: its drawings say what they show, its tables have each setting and each run."""

import re

import pytest
from swept import run, sweep

from compressor.pages import SweepContent, sweep_page
from compressor.reports import settings_of


@pytest.fixture(scope="module")
def page() -> str:
    failed = run({"schedule.pruners.fine.sparsity": "0.9", "optimizer.lr": "0.1"}, 0, None)
    return sweep_page(SweepContent("fine", "tiny", settings_of([*sweep(), failed])))


def descriptions(page: str) -> dict[str, str]:
    return dict(re.findall(r'<desc id="([\w-]+)-desc">([^<]*)</desc>', page))


def test_each_drawing_says_which_settings_are_on_its_front(page: str) -> None:
    said = descriptions(page)
    assert list(said) == [
        f"trade-{key}-{kind}" for key in ("sparsity", "bytes", "latency") for kind in ("wide", "narrow")
    ]
    assert said["trade-sparsity-wide"] == (
        "4 settings. On the Pareto front: setting 1 (sparsity 0.0, lr 0.1): 95.00 % at 0.00 %; setting 2 (sparsity 0.5,"
        " lr 0.1): 93.00 % at 50.00 %; setting 3 (sparsity 0.75, lr 0.1): 90.00 % at 75.00 %."
    )
    assert said["trade-bytes-narrow"].endswith("setting 1 (sparsity 0.0, lr 0.1): 95.00 % at 8.00 kB.")
    assert "setting 2" not in said["trade-latency-wide"]


def test_the_tables_have_each_setting_and_each_run(page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", page.split('id="settings"')[1])
    assert "95.00 ± 1.41" in text
    assert len(re.findall(r"finished", text)) == 8
    assert "5 settings, 8 of 9 runs finished." in page
    assert "<li>0.9-0.1-0: failed: it &lt;broke&gt; &amp; burnt</li>" in page


def test_sizes_of_several_magnitudes_have_plain_numbers_at_their_axis() -> None:
    runs = [run({"s": str(s)}, 0, 90 - s, sparsity=s) for s in (0.0, 0.9, 0.99)]
    page = sweep_page(SweepContent("fine", "tiny", settings_of(runs)))
    assert "mathdefault" not in page
    drawn = page.split('id="trade-bytes-wide-desc"')[1].split("</svg>")[0]
    assert re.findall(r">(0\.\d|\d)<", drawn)[:4] == ["0.1", "0.3", "1", "3"]


def test_numbers_of_settings_do_not_lie_on_each_other() -> None:
    runs = [run({"s": str(s)}, 0, 90 - s, sparsity=s) for s in (0.5, 0.5001, 0.9)]
    page = sweep_page(SweepContent("fine", "tiny", settings_of(runs)))
    drawn = page.split('id="trade-sparsity-wide-desc"')[1].split("</svg>")[0]
    assert len(re.findall(r">[123]</text>", drawn)) == 2


def test_without_a_finished_run_there_is_no_drawing() -> None:
    page = sweep_page(SweepContent("fine", "tiny", settings_of([run({}, 0, None)])))
    assert "No run is finished." in page
    assert "<svg" not in page
    assert "as in the files" not in page


def test_times_that_differ_by_less_than_their_spread_have_no_front() -> None:
    runs = [one.model_copy(update={"latency": (2.0, 3.0)}) for one in sweep()]
    page = sweep_page(SweepContent("fine", "tiny", settings_of(runs)))
    assert "nothing can be said of speed here" in page
    assert descriptions(page)["trade-latency-wide"] == "4 settings. There is no Pareto front."
