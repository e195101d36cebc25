"""A real browser: playwright drives the chromium of the system, and a page that complains or runs what a model wrote fails."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pictures import BROWSERS

RAN = "window.ran = where => { (window.everRan ??= []).push(where); };"
"""What a script of a model's would call."""


def script(where: str) -> str:
    """A text that runs wherever it is taken for markup: in elements, attributes, scripts, styles and links."""
    call = f"ran('{where}')"
    return (
        f'{where} </script></style></textarea></title></pre><script>{call}</script><img src=x onerror="{call}">'
        f'<svg onload={call}><a href="javascript:{call}">x</a>"\'><b onmouseover={call}>{{{{ 7*7 }}}}${{{call}}} \\u003cscript>'
    )


def until(page: Any, expression: str, given: object = None) -> None:
    """Wait until a JavaScript expression, or a function of what is given, is true; playwright's own way needs eval in the page."""
    for _ in range(200):
        if page.evaluate(expression, given):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not true within 10 s: {expression}, given {given!r}")


def poke(page: Any) -> None:
    """Touch all that can be touched: a pointer over every element, every fold open, tokens coloured and told."""
    page.evaluate(
        """() => { for (const fold of document.querySelectorAll("details")) fold.open = true;
        for (const each of document.querySelectorAll("body :not(svg *)"))
          for (const name of ["mouseover", "mouseenter", "focus"]) each.dispatchEvent(new Event(name, { bubbles: true })); }"""
    )
    page.wait_for_timeout(100)


PAGE_CHECKS = Path(__file__).with_name("page_checks.js").read_text(encoding="utf-8")
"""Texts that are cut at an edge or hard to read."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium without a screen; a test that needs it is skipped where it is not installed, and says why."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'lampo[browser]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium")
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address. At the end nothing may have gone wrong in the page, and nothing may have run that a model wrote."""
    opened: list[tuple[Any, list[str], tuple[str, ...]]] = []

    def open_tab(address: str, *, expected: tuple[str, ...] = (), **options: Any) -> Any:
        values = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
        context = browser.new_context(**values)
        context.add_init_script(RAN)
        context.set_default_timeout(10_000)
        page, wrong = context.new_page(), []
        page.on("console", lambda told: told.type in ("error", "warning") and wrong.append(f"{told.type}: {told.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        opened.append((page, wrong, expected))
        page.goto(address)
        return page

    yield open_tab
    for page, wrong, expected in opened:
        ran = page.evaluate("window.everRan ?? []")
        page.context.close()
        assert ran == []
        assert [each for each in wrong if not any(text in each for text in expected)] == []


@pytest.fixture
def looks_right() -> Callable[[Any], None]:
    """Whether a page is readable: on a phone, a tablet and a desk, and in the dark."""

    def check(page: Any) -> None:
        for scheme, widths in (("light", (360, 768, 1280)), ("dark", (360,))):
            page.emulate_media(color_scheme=scheme)
            for width in widths:
                page.set_viewport_size({"width": width, "height": 900})
                for _ in range(15):  # charts are laid out anew after a while
                    page.wait_for_timeout(200)
                    if not (found := page.evaluate(PAGE_CHECKS)):
                        break
                assert (found, scheme, width) == ([], scheme, width)
            page_colour = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
            assert (max(page_colour) < 60) == (scheme == "dark")

    return check
