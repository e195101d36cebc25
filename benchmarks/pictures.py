"""Make the pictures of README and docs anew, from real results and a real run.

    lampo train recipes/quickstart.yaml                     # two minutes; runs/quickstart
    python -m benchmarks.pictures                           # all of them
    python -m benchmarks.pictures viewer --run runs/mine    # one of them, from another run

overview is the chart of all studies in docs/results. quickstart is the top of a run's report. viewer is a group in `lampo inspect`.
Chromium draws them, without a screen.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.overview import ROOT, read, write_page
from lampo.store.rollouts import read_groups, rollout_steps
from lampo.types import LampoError
from lampo.view.report.report_page import write_report

WIDTH = 1280
VIEWER_SIZE = "1440,1150"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VIEWER_STEP = 12  # late enough for right answers, early enough for wrong ones


def overview(picture: Path, _: Path) -> None:
    """The chart with which the page of all studies starts, and nothing else."""
    shoot(write_page(read), picture, hidden="main > :not(.first)")


def quickstart(picture: Path, run: Path) -> None:
    """The report of a run as it opens, without what is folded away."""
    shoot(write_report(run), picture, hidden=".fold, figure details")


def viewer(picture: Path, run: Path) -> None:
    """A group of which some responses are right and some wrong."""
    steps = rollout_steps(run)
    step = min(steps, key=lambda kept: abs(kept - VIEWER_STEP))
    groups = [[rollout["status"] == "right" for rollout in group["rollouts"]] for group in read_groups(run, step)]
    number = max(
        range(len(groups)), key=lambda at: min(sum(groups[at]), len(groups[at]) - sum(groups[at]))
    )  # counted from 0, as in the address
    command = [sys.executable, "-m", "lampo", "inspect", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
            if found is None:
                raise LampoError(f"lampo inspect {run} did not say where its page is. Run it by hand to see why.")
            browse(f"{found[0]}#{step}/{number}", f"--screenshot={picture}", f"--window-size={VIEWER_SIZE}")
        finally:
            process.terminate()


PICTURES: dict[str, Callable[[Path, Path], None]] = {"overview": overview, "quickstart": quickstart, "viewer": viewer}


def shoot(page: Path, picture: Path, *, hidden: str) -> None:
    """A picture of a page down to its end, without what the CSS selector `hidden` names."""
    text = page.read_text(encoding="utf-8")
    style = f"<style>{hidden} {{ display: none }} main {{ padding-block: 1rem }}</style>"
    measure = "<script>document.documentElement.dataset.height = document.querySelector('main').offsetHeight</script>"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(
            text.replace("</head>", f"{style}</head>").replace("</body>", f"{measure}</body>"), encoding="utf-8"
        )
        found = re.search(r'data-height="(\d+)"', browse(copy.as_uri(), "--dump-dom", f"--window-size={WIDTH},900"))
        if found is None:
            raise LampoError(f"The browser did not lay out {page}. Open it by hand to see why.")
        browse(copy.as_uri(), f"--screenshot={picture}", f"--window-size={WIDTH},{found[1]}")


def browse(address: str, *options: str) -> str:
    """What a browser without a screen prints."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise LampoError("The pictures need a browser: apt-get install chromium, or put google-chrome on the path.")
    # the sandbox of chromium refuses to run as root, as in a container; the pages are our own
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000")
    ended = subprocess.run([browser, *fixed, *options, address], capture_output=True, text=True, timeout=120)
    if ended.returncode:
        raise LampoError(f"{browser} failed: {ended.stderr.strip().splitlines()[-1:]}")
    return ended.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PICTURE", help=f"{', '.join(PICTURES)}; all if none is given")
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "quickstart", help="of which report and viewer are")
    options = parser.parse_args()
    try:
        for name in options.names or PICTURES:
            if name not in PICTURES:
                raise LampoError(f"There is no picture {name!r}. There are {', '.join(PICTURES)}.")
            if name != "overview" and not (options.run / "metrics.jsonl").is_file():
                raise LampoError(
                    f"{options.run} is no run. Make it: lampo train recipes/quickstart.yaml, or name one with --run."
                )
            picture = ROOT / "docs" / f"{name}.png"
            PICTURES[name](picture, options.run)
            print(picture)
    except LampoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
