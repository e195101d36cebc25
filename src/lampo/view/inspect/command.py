"""`lampo inspect`: rollouts in the browser, or in one file."""

from __future__ import annotations

import sys
from pathlib import Path

from .source import open_source


def inspect(folder: Path, *, step: int | None, export: Path | None, groups: int, port: int, open_browser: bool) -> None:
    """Serve the rollouts of a run or an evaluation, or write the most telling groups into one page."""
    source = open_source(folder, lambda text: print(text, file=sys.stderr))
    if export is not None:
        from .export import export as write

        count = write(source, export, step=step, groups=groups)
        print(f"{count} groups in {export}")
        return
    from .server import serve

    serve(source, port=port, step=step, browser=open_browser)
