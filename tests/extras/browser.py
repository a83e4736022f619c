"""Pages in headless Chromium: what a reader's browser would complain of, or could not show."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WIDTHS, SCHEMES = (1280, 400), ("light", "dark")
SAYS_WHERE = """
() => [...document.querySelectorAll("body *")]
    .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .slice(0, 3).map(one => one.outerHTML.slice(0, 80))
"""
CUT = """
() => [...document.querySelectorAll("svg.plot")].flatMap(plot => {
    const box = plot.getBoundingClientRect();
    return [...plot.querySelectorAll("text")].filter(text => {
        const own = text.getBoundingClientRect();
        return own.left < box.left - 1 || own.right > box.right + 1
            || own.top < box.top - 1 || own.bottom > box.bottom + 1;
    }).map(text => `${plot.querySelector("title").textContent}: ${text.textContent}`);
})
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield Debian's Chromium, driven by playwright; where one is missing, skip, or fail where CI=true."""
    path = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed: pip install -e '.[browser]'")
    if path is None:
        _missing("there is no browser: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def problems(browser: Any, url: str, width: int, scheme: str, *, host: str = "file:") -> list[str]:
    """Return what is wrong with a page at a width in a colour scheme, in words.

    An error on the console, a request to anywhere but `host`, content wider than the page, text of too little contrast
    (axe-core), and a text that ends outside its drawing.
    """
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, found = context.new_page(), []
    page.set_default_timeout(300_000)  # of a busy machine
    page.on("console", lambda said: found.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    allowed = (host, "data:", "blob:", "about:")
    page.on("request", lambda one: None if one.url.startswith(allowed) else found.append(f"request: {one.url}"))
    try:
        page.goto(url)
        page.wait_for_load_state("load")
        page.wait_for_timeout(300)
        wide, shown = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        if wide > shown:
            found.append(f"overflow: {wide} pixels in {shown}: {page.evaluate(SAYS_WHERE)}")
        found += [f"cut: {one}" for one in page.evaluate(CUT)]
        result = Axe().run(page, options={"runOnly": {"type": "rule", "values": ["color-contrast"]}})
        for violation in result.response["violations"]:
            found += [f"contrast: {node['html'][:120]}: {node['any'][0]['message']}" for node in violation["nodes"]]
    finally:
        context.close()
    return found
