import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lampo import __version__, cli
from lampo.config.explain import dump_config
from lampo.model.policy import Policy

from ..conftest import TINY, tiny_options
from ..helpers import warm
from ..helpers.small_run import small_config

RECIPES = Path(__file__).parents[2] / "recipes"


def lampo(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["lampo", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_config(small_config(tmp_path / "runs")))
    return path


def test_train_then_eval(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lampo(monkeypatch, "train", recipe, "--set", "training.steps=2") == 0
    run = tmp_path / "runs" / "small"
    output = capfd.readouterr().out
    assert "held-out accuracy" in output
    lines = output.splitlines()[-5:]
    assert lines == [
        f"model:    {run / 'model'}",
        f"report:   {run / 'report.html'}",
        f"rollouts: lampo inspect {run}",
        f"measure:  lampo eval {run}",
        f"train on: lampo train {run} --resume --set training.steps=4",
    ]
    assert lampo(monkeypatch, *lines[-1].split()[3:]) == 0  # as it is copied
    output = capfd.readouterr().out
    assert "training goes on from step 2 to step 4, not 2" in output
    assert output.splitlines()[-1] == f"train on: lampo train {run} --resume --set training.steps=8"
    assert (run / "report.html").stat().st_size > 10_000
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["command"] == f"lampo train {recipe} --set training.steps=2"
    assert {"torch", "transformers", "lampo"} <= manifest["versions"].keys()

    assert lampo(monkeypatch, "eval", run, "--problems", "8") == 0
    assert lampo(monkeypatch, "eval", recipe, "--set", "evaluation.samples=2") == 0
    first, second = [line for line in capfd.readouterr().out.splitlines() if line.startswith("accuracy")]
    assert "8 problems x 1 samples at temperature 1" in first
    assert "16 problems x 2 samples" in second


def test_a_second_run_gets_a_directory_of_its_own_and_resume_takes_the_newest(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert lampo(monkeypatch, "train", recipe, "--set", "training.steps=1") == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["small", "small-2"]
    (tmp_path / "runs" / "small-2" / "report.html").unlink()
    assert "differs" not in capfd.readouterr().out
    assert lampo(monkeypatch, "train", recipe, "--resume") == 0
    assert (tmp_path / "runs" / "small-2" / "report.html").exists()
    named = ("--set", "run.name=other", "--set", f"run.folder={tmp_path / 'there'}")
    assert lampo(monkeypatch, "train", recipe, *named, "--set", "training.steps=1") == 0
    assert lampo(monkeypatch, "train", recipe, "--resume", *named, "--set", "training.steps=2") == 0
    assert "training goes on from step 1 to step 2" in (said := capfd.readouterr().out)
    differs = "The recipe differs from the run, which goes on with its own settings: training.steps (1 in the run, 6 in the recipe)"
    assert differs in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "{folder}/recpe.yaml"], "recpe.yaml: no such file. Did you mean recipe.yaml?"),
        (["train", "missing.yaml"], "Cannot read the recipe missing.yaml: no such file."),
        (["train", "recipes/quickstrat.yaml"], "no such file. Did you mean quickstart?"),
        (["train", "elsewhere/quickstart.yaml"], "no such file. The package has one of that name: quickstart."),
        (["train", "quickstrat"], "There is no recipe 'quickstrat'. Did you mean quickstart?"),
        (["config", "nothing-like-it"], "one of the package: phi-4-mini-mot"),
        (["train", "{recipe}", "--resume", "--dry-run"], "give one of them"),
        (["train", "{recipe}", "--set", "optimizer.lr=1"], "optimizer.lr is not a setting"),
        (["train", "{recipe}", "--resume"], "There is no run 'small'"),
        (["train", "{recipe}", "--resume", "--set", "run.seed=1"], "There is no run 'small'"),
        (["train", "{folder}"], "To go on with a run: lampo train {folder} --resume"),
        (["config", "{foreign}"], "is not UTF-8 text"),
        (["train", "\x1b[2J.yaml"], "Cannot read the recipe \\x1b[2J.yaml"),
        (["verify", "{answers}", "--verifier", "exact", "--output", "no/folder/a.jsonl"], "error: No such file or directory"),
        (["eval", "{folder}"], "Cannot read the recipe"),
        (["train", "{recipe}", "--set", "task.name=gsm8k", "--set", "task.train=no.jsonl", "--set", "task.heldout=no.jsonl"],
         "no.jsonl"),
    ],
)  # fmt: skip
def test_mistakes_are_one_message_and_no_traceback(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    foreign, answers = recipe.with_name("foreign.yaml"), recipe.with_name("answers.jsonl")
    foreign.write_text("run: {name: fremd}", encoding="utf-16")
    answers.write_text('{"response": "4", "answer": "4"}\n')
    names = {"recipe": recipe, "folder": recipe.parent, "foreign": foreign, "answers": answers}
    assert lampo(monkeypatch, *(argument.format(**names) for argument in arguments)) == 1
    captured = capfd.readouterr()
    assert captured.err.startswith("error: ")
    assert message.format(**names) in captured.err
    assert "Traceback" not in captured.err


def test_a_full_memory_is_no_traceback(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("lampo.train.loop.warm_start", full)
    assert lampo(monkeypatch, "train", recipe) == 1
    error = capfd.readouterr().err
    assert "error: CUDA out of memory. If it was in sampling, lower sampling.rows_at_once" in error
    assert "Traceback" not in error


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from lampo.cli import main
main()
"""


def light(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line where nothing of the extra `train` is installed."""
    program = BLOCKED.format(names=cli.ENGINE | cli.READERS)
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)


def test_a_light_install_names_the_extra(recipe: Path) -> None:
    run = recipe.parent / "no-run"
    run.mkdir()
    (run / "config.yaml").write_text(recipe.read_text())
    for command, *arguments in (
        ("train", recipe),
        ("train", recipe, "--dry-run"),
        ("train", run, "--resume"),
        ("eval", recipe),
        ("inspect", run),
    ):
        result = light(command, *arguments)
        wanted = f"error: lampo {command} needs the native engine. Install it with: pip install 'lampo[train]'\n"
        assert (result.returncode, result.stderr) == (1, wanted)
    table = recipe.with_name("answers.parquet")
    table.write_bytes(b"")
    result = light("verify", table, "--verifier", "exact")
    wanted = "error: Reading this data needs pyarrow. Install it with: pip install 'lampo[train]'\n"
    assert (result.returncode, result.stderr) == (1, wanted)


def test_a_light_install_reads_recipes_and_verifies(recipe: Path) -> None:
    answers = recipe.with_name("answers.jsonl")
    answers.write_text('{"response": "The answer is \\\\boxed{1/2}.", "answer": "0.5"}\n')
    for arguments, shows in (
        (("config", recipe), "learning_rate: 0.001"),
        (("methods",), "lampo"),
        (("tasks",), "word_arithmetic"),
        (("tasks", "check", recipe), "80 answers verify against themselves"),
        (("verify", answers, "--verifier", "math"), "right 1, wrong 0, unknown 0"),
    ):
        result = light(*arguments)
        assert result.returncode == 0, result.stderr
        assert shows in result.stdout


def test_a_recipe_of_the_package_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lampo(monkeypatch, "config", "quickstart") == 0
    by_name = capfd.readouterr().out
    assert lampo(monkeypatch, "config", RECIPES / "quickstart.yaml") == 0
    assert capfd.readouterr().out == by_name


def test_version_and_completion(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert lampo(monkeypatch, "--version") == 0
    assert capfd.readouterr().out == f"lampo {__version__}\n"
    monkeypatch.setenv("_LAMPO_COMPLETE", "source_bash")  # what --install-completion has the shell ask
    assert lampo(monkeypatch) == 0
    assert "complete -o default -F _lampo_completion lampo" in capfd.readouterr().out


ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "COLUMNS": "80"}


@pytest.mark.parametrize(
    "arguments", [["methods"], ["tasks"], ["config", "quickstart"], ["eval", "--help"], ["eval", "\u03c0"]]
)
def test_a_terminal_that_knows_ascii_only_gets_escapes(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "lampo", *arguments]
    result = subprocess.run(command, capture_output=True, env=os.environ | ASCII, timeout=120)
    assert b"Traceback" not in result.stderr, result.stderr
    assert (result.stdout + result.stderr).isascii()
    assert result.returncode == (arguments[-1] == "\u03c0")


@pytest.mark.parametrize("command", [["eval", "x"], ["tasks", "check", "quickstart"]])
@pytest.mark.parametrize("names", ["", ",", " , "])
def test_no_names_at_all_are_refused(
    command: list[str], names: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lampo(monkeypatch, *command, "--benchmarks", names) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: --benchmarks '{names}' names none. Known: arithmetic, ")


def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path: Path) -> None:
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "lampo", "eval", "no/such", "--benchmarks", "aime24"]
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | unreachable
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 1
    assert result.stderr == (
        "error: Cannot load HuggingFaceH4/aime_2024 (train) from the Hugging Face hub: it cannot be reached (Connection refused).\n"
        "Without a network, point it to a local file: --data aime24=FILE, or `file` of the task aime24.\n"
    )


def test_config_and_tasks(recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert lampo(monkeypatch, "config", recipe, "--set", "optimizer.learning_rate=2e-6") == 0
    assert "learning_rate: 2e-06" in capfd.readouterr().out
    assert lampo(monkeypatch, "tasks") == 0
    output = capfd.readouterr().out
    assert all(name in output for name in ("arithmetic", "gsm8k", "files", "word_arithmetic"))


def test_ctrl_c_in_the_shell(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_config(small_config(tmp_path / "runs", training__steps=10_000)))
    command = [*warm.python(), "-m", "lampo", "train", str(recipe)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rollouts = tmp_path / "runs" / "small" / "rollouts"
    deadline = time.monotonic() + 120
    while not (rollouts.is_dir() and len(list(rollouts.glob("*.gz"))) > 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert f"Go on with: lampo train {rollouts.parent} --resume" in output
    (step,) = re.findall(r"Stopped after step (\d+) of the train stage", output)
    assert (rollouts.parent / "checkpoints" / f"train-{int(step):06d}").is_dir()


def gsm8k_files(folder: Path) -> list[str]:
    """Local files in GSM8K's published format, with problems of our own."""
    settings = []
    for side, numbers in (("train", range(2, 40)), ("heldout", range(50, 58))):
        rows = [
            {
                "question": f"mia has {n} pens and buys 3. how many now?",
                "answer": f"{n}+3=<<{n}+3={n + 3}>>{n + 3}\n#### {n + 3}",
            }
            for n in numbers
        ]
        path = folder / f"{side}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings += ["--set", f"task.{side}={path}"]
    return settings


@pytest.mark.parametrize("recipe_name", ["qwen3-1.7b-gsm8k", "smollm2-135m-gsm8k"])
def test_gpu_recipes_run_with_a_tiny_model_put_in(
    recipe_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny = tiny_options().model_copy(
        update={"config": {**TINY, "model_type": "qwen3", "head_dim": 8, "max_position_embeddings": 256}}
    )
    Policy.load(tiny).save(tmp_path / "tiny")
    small = {
        "model.path": tmp_path / "tiny",
        "run.folder": tmp_path / "runs",
        "sampling.problems_per_step": 2,
        "sampling.max_new_tokens": 16,
        "training.steps": 2,
        "warmstart.steps": 1,
        "evaluation.problems": 4,
        "evaluation.final_problems": 4,
    }
    settings = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    assert lampo(monkeypatch, "train", RECIPES / f"{recipe_name}.yaml", *settings, *gsm8k_files(tmp_path)) == 0
    assert "report:   " in capfd.readouterr().out
