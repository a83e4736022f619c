"""The pages of runs, plans and sweeps in headless Chromium: light and dark, wide and narrow, tables shut and open."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import SCHEMES, WIDTHS, chromium, problems
from drawn import PLAN, content, write
from helpers import compress, succeed, write_tiny
from swept import run, sweep

from compressor.pages import SweepContent, plan_page, run_page, sweep_page
from compressor.reports import settings_of

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]

THIN = """\
version: 2
config: resnet20_digits
pruners:
  filters:
    class: L1RankedStructureParameterPruner_AGP
    group_type: Filters
    final_sparsity: 0.5
    weights: ['layer1.*.conv1.weight', 'layer2.*.conv1.weight']
extensions:
  thinner: {class: FilterRemover}
policies:
  - {pruner: {instance_name: filters}, starting_epoch: 0, ending_epoch: 2}
  - {extension: {instance_name: thinner}, epochs: [2]}
"""
STEPS = """\
version: 2
config: tiny
pruners:
  fine: {class: Pruner, weights: '*', rate: {sparsity: 0.5}}
policies:
  - {pruner: {instance_name: fine}, starting_step: 2, ending_step: 8, step_frequency: 3}
"""
SHORT = ("--set", "report.html=true", "--set", "data.images=256")
PAGES = ("by hand", "of a plan", "of a sweep", "demo", "thinned", "resumed", "with a reference", "compared", "seeds")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> dict[str, Path]:
    """A page of each kind, and under `NAME, open` the same with all tables open."""
    work = tmp_path_factory.mktemp("pages")
    made = {name: work / f"{name.replace(' ', '_')}.html" for name in PAGES}
    made["by hand"].write_text(run_page(content(write(work / "hand"))), encoding="utf-8")
    made["of a plan"].write_text(plan_page(PLAN, "fine", [], [], "version: 2\n"), encoding="utf-8")
    swept = SweepContent("fine", "tiny", settings_of([*sweep(), run({"optimizer.lr": "3"}, 0, None)]))
    made["of a sweep"].write_text(sweep_page(swept), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        (work / "thin.yaml").write_text(THIN)
        (work / "steps.yaml").write_text(STEPS)
        write_tiny(work)
        succeed("train", "-s", "lenet5_agp", "-c", "lenet5_digits", *SHORT, "--out", "demo")
        succeed("train", "-s", "thin", *SHORT, "--set", "epochs=3", "--out", "thinned")
        succeed("train", "-s", "steps", *SHORT, "--out", "resumed", "--set", "epochs=2")
        succeed("train", "-s", "steps", *SHORT, "--set", "epochs=3", "--resume", "--out", "resumed")
        referring = ("--set", "report.reference=thinned", "--set", "epochs=3", "--seed", "1")
        succeed("train", "-s", "thin", *SHORT, *referring, "--out", "referring")
        folders = {"demo": "demo", "thinned": "thinned", "resumed": "resumed", "with a reference": "referring"}
        made |= {name: work / folder / "report.html" for name, folder in folders.items()}
        judged = ("--max-drop", "100", "--min-sparsity", "0.99", "--html", str(made["compared"]))
        assert compress("compare", "thinned", "demo", "referring", *judged).code == 1
        succeed("compare", "thinned", "referring", "--html", str(made["seeds"]))
    for name, path in list(made.items()):
        made[f"{name}, open"] = work / f"open_{name.replace(' ', '_')}.html"
        text = path.read_text(encoding="utf-8").replace("<details>", "<details open>")
        made[f"{name}, open"].write_text(text, encoding="utf-8")
    return made


@pytest.mark.parametrize("name", ["demo", *(f"{name}, open" for name in PAGES)])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_is_good(browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    assert problems(browser, pages[name].as_uri(), width, scheme) == []


def test_a_resumed_run_has_a_column_for_each_start(pages: dict[str, Path]) -> None:
    assert "resume 1" in pages["resumed"].read_text(encoding="utf-8")
    assert "thin" in pages["thinned"].read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_one_of_each_drawing_is_shown_with_legible_text(browser: Any, pages: dict[str, Path], width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(pages["demo"].as_uri())
    scales = page.evaluate(
        """() => [...document.querySelectorAll("figure")].map(figure => [...figure.querySelectorAll("svg")].map(
            svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"""
    )
    page.close()
    assert len(scales) == 12
    for scale in scales:
        (shown,) = [one for one in scale if one]
        assert 12 * shown >= 10, "text of 12 units is at least 10 pixels high"
