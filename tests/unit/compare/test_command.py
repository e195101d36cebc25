import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lampo.compare.command import compare_study
from lampo.compare.suite_command import show_suite
from lampo.types import LampoError

GSM8K = Path(__file__).parents[3] / "docs" / "results" / "gsm8k"


def test_the_page_of_committed_results_is_written_without_running_anything_and_without_torch(tmp_path: Path):
    program = "import sys; from lampo.cli import app; app(standalone_mode=False); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", program, "compare", str(GSM8K / "study.yaml"), "--page"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    *text, results, page = ended.stdout.splitlines()
    assert results == f"results: {GSM8K / 'results.parquet'}"
    assert page == "page: runs/gsm8k/comparison.html"
    written = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["comparison.html", "comparison.md"]
    assert "\n".join(text).strip() == (GSM8K / "comparison.md").read_text().strip()


def test_results_that_were_kept_without_their_runs_have_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load((GSM8K / "study.yaml").read_text())
    recipe = str((GSM8K / values["recipe"]).resolve())
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values | {"name": "mine", "recipe": recipe, "folder": str(tmp_path / "runs")}))
    with pytest.raises(LampoError, match="No run of the study .* has ended yet, .* lampo compare STUDY"):
        compare_study(file, Console(quiet=True), only_page=True)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    shutil.copy(GSM8K / "results.parquet", tmp_path / "runs" / "mine")
    compare_study(file, Console(quiet=True), only_page=True)
    assert capsys.readouterr().out.endswith(f"page: {tmp_path / 'runs' / 'mine' / 'comparison.html'}\n")


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_output_that_fails_ends_neither_a_page_nor_the_table_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout", Full())
    compare_study(GSM8K / "study.yaml", Console(quiet=True), only_page=True)
    show_suite(GSM8K.parent / "suite" / "suite.yaml")
    assert capsys.readouterr().err.count("The output cannot be written (No space left on device)") == 2
    assert (tmp_path / "runs" / "gsm8k" / "comparison.html").is_file()
