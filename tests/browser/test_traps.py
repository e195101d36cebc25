"""The traps that the other tests rely on do catch."""

from typing import Any

import pytest

from .conftest import PAGE_CHECKS, RAN, script


def test_a_script_that_is_taken_for_markup_is_caught(browser: Any) -> None:
    page = browser.new_page()
    page.add_init_script(RAN)
    page.goto("data:text/html,<p>")
    page.evaluate("text => { document.body.innerHTML = text; }", script("here"))
    page.wait_for_function("window.everRan")
    assert set(page.evaluate("window.everRan")) == {"here"}
    page.close()


@pytest.mark.parametrize(
    ("markup", "said"),
    [
        ("<p>fine</p>", []),
        ("<p style='white-space: nowrap; width: 50px; overflow: hidden'>much too long</p>", ["cut: <p> much too long"]),
        ("<p style='white-space: nowrap; width: 50px; overflow: auto'>much too long</p>", []),
        ("<p style='color: #aaa'>pale</p>", ["contrast 2.32: <p> pale"]),
        ("<p style='color: #aaa; background: #000'>fine</p>", []),
    ],
)
def test_cut_and_pale_texts_are_caught(browser: Any, markup: str, said: list[str]) -> None:
    page = browser.new_page()
    page.set_content(f"<body style='background: #fff'>{markup}")
    assert page.evaluate(PAGE_CHECKS) == said
    page.set_content("<p style='width: 9999px; overflow: hidden'>wide</p>")
    assert "the page is" in page.evaluate(PAGE_CHECKS)[0]
    page.close()
