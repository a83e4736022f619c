"""The site: it builds without a network, a broken link is an error, and its pages are good in a browser."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import SCHEMES, WIDTHS, chromium, problems

ROOT = Path(__file__).parents[2]
PAGES = ("methods/filters.html", "reference/gates.html")

pytestmark = pytest.mark.extras


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the pages of a copy of the project, as `make docs` does, with every way out of the machine closed."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=folder,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("built") / "site"
    result = build(ROOT, made)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return made


def test_it_has_every_page(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 30
    assert [page for page in pages if not (site / page).with_suffix(".html").is_file()] == []


@pytest.mark.parametrize("line", ["[gone](no_such_page.md)", "[gone](schedules.md#no-such-heading)"])
def test_a_broken_link_is_an_error(tmp_path: Path, line: str) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "compressor", tmp_path / "compressor", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    index = tmp_path / "docs" / "index.md"
    index.write_text(f"{index.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    result = build(tmp_path, tmp_path / "site")
    assert result.returncode == 1
    assert line.partition("(")[2].rstrip(")") in result.stderr


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_is_good(browser: Any, address: str, page: str, width: int, scheme: str) -> None:
    assert problems(browser, address + page, width, scheme, host=address) == []


BAD = """<html lang="en"><title>x</title><body style="background:#fff;color:#ccc;margin:0">pale
<div style="width:3000px">wide</div><img src="http://127.0.0.1:9/gone.png" alt="">
<script>console.error("said")</script>"""


def test_a_bad_page_is_found(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD, encoding="utf-8")
    found = problems(browser, (tmp_path / "bad.html").as_uri(), 400, "light")
    assert {one.partition(":")[0] for one in found} == {"console", "request", "overflow", "contrast"}
