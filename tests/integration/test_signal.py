"""`lampo signal` on a model of a few thousand weights."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lampo import cli
from lampo.config.explain import dump_config
from lampo.signal import command

from ..helpers import warm
from ..helpers.parsed_page import Page
from ..helpers.small_run import small_config

EVEN = "def verify(completion, answer):\n    return len(completion) % 2 == 0\n"
OWN = """
def halved(rewards_N, group_ids_N, *, valid_N):
    from lampo.algo.advantages import grpo_advantages
    return grpo_advantages(rewards_N, group_ids_N, valid_N=valid_N) / 2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """What is right is the even: a random model gets half of that."""
    (tmp_path / "evenness.py").write_text(EVEN + OWN)
    path = tmp_path / "recipe.yaml"
    config = small_config(
        tmp_path / "runs",
        "verifier.name=python:evenness.verify",
        "training.tokens_per_microbatch=auto",  # as every recipe has it
        rewards={"verifier": {}},
        warmstart__steps=2,
    )
    path.write_text(dump_config(config))
    return path


def lampo(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["lampo", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_tables_page_and_numbers(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("signal", recipe, "--groups", "16", "--method", "python:evenness.halved")
    assert lampo(monkeypatch, *arguments) == 0
    output, folder = capfd.readouterr().out, tmp_path / "runs" / "small-signal"
    assert re.search(r"signal 16/16  right 0\.\d{3}\n", output)
    assert output.splitlines()[-2:] == [f"page:    {folder / 'signal.html'}", f"numbers: {folder / 'signal.json'}"]
    assert (folder / "signal.md").read_text() in output
    numbers = json.loads((folder / "signal.json").read_text())
    assert (numbers["groups"], numbers["rollouts"], numbers["groups_per_step"]) == (16, 4, 3)
    of = {(e["verdicts"], e["group_size"], e["scaling"], e["estimator"]): e["versus"] for e in numbers["signals"]}
    assert {(verdicts, size) for verdicts, size, _, _ in of} == {
        ("clean verdicts", 4),
        ("clean verdicts", 2),
        *((f"{errors}", 4) for errors in ("20% false positives", "40% false positives", "20% false negatives")),
    }
    own = of["clean verdicts", 4, "adam", "evenness.halved"]
    assert own["signal"] == pytest.approx(of["clean verdicts", 4, "adam", "grpo"]["signal"], rel=1e-6)
    assert own["verdict"] in ("same", "cannot tell")  # the latter where GRPO's own signal is too noisy
    page = Page(folder / "signal.html")
    assert "small" in page.of("h1")
    assert "How to read this" in page.of("h2")
    known = {key for key, versus in of.items() if versus["difference"] is not None and versus["verdict"] != "baseline"}
    drawn = any(size == 4 and scaling == "adam" for _, size, scaling, _ in known)
    assert ("Signal against grpo" in page.of("h2")) == drawn  # a chart of nothing is left out
    assert not any(value.startswith("http") for _, key, value in page.attributes if key in ("src", "href"))

    before = {key: entry["signal"] for key, entry in of.items()}
    with monkeypatch.context() as changed, open("/dev/full", "w") as full:
        changed.setattr("sys.stdout", full)  # the answer is the same where nobody can read of it
        assert lampo(changed, *arguments, "--output", tmp_path / "again") == 0
    assert capfd.readouterr().err.count("The output cannot be written (No space left on device)") == 1
    numbers = json.loads((tmp_path / "again" / "signal.json").read_text())
    again = {(e["verdicts"], e["group_size"], e["scaling"], e["estimator"]): e for e in numbers["signals"]}
    assert {key: entry["versus"]["signal"] for key, entry in again.items()} == before


def test_a_run_and_what_is_refused(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lampo(monkeypatch, "train", recipe, "--set", "training.steps=1") == 0
    capfd.readouterr()
    run = tmp_path / "runs" / "small"
    assert lampo(monkeypatch, "signal", run, "--groups", "16", "--clean") == 0
    output = capfd.readouterr().out
    assert f"Policy: {run / 'model'}" in output
    assert "warm start" not in output
    assert "made-up errors" not in output
    (tmp_path / "study.yaml").write_text("recipe: recipe.yaml\nmethods: [lampo, grpo]\n")
    for arguments, told in (
        ((tmp_path,), "is no run directory"),
        (("quickstrat",), "Did you mean quickstart?"),
        ((recipe, "--method", "lampoo"), "Did you mean lampo?"),
        ((recipe, "--method", "python:evenness.nothing"), "has no function 'nothing'"),
        ((recipe, "--false-positives", "20"), "20 is no share of wrong verdicts"),
        ((recipe, "--clean", "--false-positives", "0.2"), "give one of them"),
        ((recipe, "--groups", "100000"), "Lower --groups to 4,096"),
        ((recipe, "--set", "sampling.group_size=2000"), "Lower sampling.group_size to 1,024 or less"),
        ((recipe, "--method", "gspo"), "The method gspo has the advantage of grpo, which is measured."),
        ((recipe, "--method", "lampo_dapo"), "has the advantage of lampo, which is measured"),
        ((recipe, "--method", "cot"), "The method cot has no advantage"),
        ((recipe, "--method", "prime"), "learns a reward model beside the policy"),
        (("study.yaml",), "study.yaml is a study and no recipe. Run it with: lampo compare study.yaml"),
        ((recipe, "--output", "recipe.yaml/answer"), "Cannot make the folder of the answer"),
    ):
        assert lampo(monkeypatch, "signal", *arguments) == 1
        assert told in capfd.readouterr().err
    assert sorted(each.name for each in (tmp_path / "runs").iterdir()) == ["small", "small-signal"]  # no empty folders
    # what is never right cannot be learned from
    (tmp_path / "evenness.py").write_text("def verify(completion, answer):\n    return completion == answer\n")
    never = ("--set", "verifier.name=exact", "--set", "warmstart.steps=0", "--set", "advantage.name=prime")
    assert lampo(monkeypatch, "signal", recipe, "--groups", "16", *never) == 1
    told = capfd.readouterr()
    assert "had responses with different rewards, which is too few to learn from" in told.err
    assert "The recipe's own method learns a reward model beside the policy. It has no row." in told.out


@pytest.mark.parametrize(
    ("options", "positives", "negatives"),
    [
        ((), [0.2, 0.4], [0.2]),
        (("--false-positives", "0.3"), [0.3], []),
        (("--false-negatives", "0.1", "--false-negatives", "0.3"), [], [0.1, 0.3]),
        (("--clean",), [], []),
    ],
)
def test_errors_that_are_named_are_the_only_ones(
    options: tuple[str, ...],
    positives: list[float],
    negatives: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {}
    monkeypatch.setattr(command, "measure_signal", lambda recipe, settings, **options: asked.update(options))
    assert lampo(monkeypatch, "signal", "quickstart", *options) == 0
    assert (asked["false_positives"], asked["false_negatives"]) == (positives, negatives)


def test_help_says_which_errors_are_made_up(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert lampo(monkeypatch, "signal", "--help") == 0
    assert "0.2 and 0.4 if no errors are named" in " ".join(re.findall(r"[\w.]+", capfd.readouterr().out))


@pytest.mark.parametrize("after", ["warm start 1/", "signal 18/"])
def test_ctrl_c_tells_what_is_known(recipe: Path, tmp_path: Path, after: str) -> None:
    settings = ["--set", "warmstart.steps=1000"] if "warm" in after else []
    program = [*warm.python(), "-m", "lampo", "signal", str(recipe), "--groups", "360", *settings]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    with subprocess.Popen(program, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if after in line:
                process.send_signal(signal.SIGINT)
                break
        output = process.stdout.read()
    assert process.returncode == 130
    page = tmp_path / "runs" / "small-signal" / "signal.html"
    if "warm" in after:
        assert output.splitlines()[-1] == "Stopped before anything could be said."
        assert not page.parent.exists()
    else:
        assert "of 360 groups: the answer is of these." in output.splitlines()[-1]
        assert page.exists()
