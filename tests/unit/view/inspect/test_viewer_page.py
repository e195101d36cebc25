"""The page of the viewer: its own script and style, and no other."""

import re
from typing import Any

from lampo.view.inspect.viewer_page import page


def test_the_page_runs_its_own_script_and_no_other(ask: Any) -> None:
    status, body, headers = ask("/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", body)
    assert not re.search(r"\sstyle=|\son\w+=", body)
    assert "innerHTML" not in body
    assert "insertAdjacentHTML" not in body


def test_the_hashes_are_those_of_the_page() -> None:
    import base64
    import hashlib

    text = page({"a": 1})
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text
