"""`lampo inspect`."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lampo.cli import app
from lampo.types import LampoError


def test_what_is_slow_to_import_is_not_imported_to_open_a_run() -> None:
    check = (
        "import sys, lampo.cli, lampo.view.inspect.server, lampo.view.inspect.source, lampo.view.inspect.export; "
        "print({'torch', 'transformers', 'scipy', 'plotly'} & sys.modules.keys())"
    )
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout == "set()\n"


def test_the_command_exports_and_says_what_is_wrong(run: Path, tmp_path: Path) -> None:
    arguments = ["inspect", str(run), "--export", str(tmp_path / "a.html"), "--groups", "2"]
    answer = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert answer.output == f"2 groups in {tmp_path / 'a.html'}\n"
    with pytest.raises(LampoError, match="neither a run directory"):
        CliRunner().invoke(app, ["inspect", str(tmp_path)], catch_exceptions=False)


def test_the_command_serves_until_ctrl_c(run: Path) -> None:
    command = [sys.executable, "-m", "lampo", "inspect", str(run), "--no-browser", "--step", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"(http://127\.0\.0\.1:\d+/)(\?token=\S+)#2/0", line)
            assert found is not None, line
            with urllib.request.urlopen(f"{found[1]}api/index{found[2]}", timeout=60) as answer:
                assert len(json.load(answer)["groups"]) == 6
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()
