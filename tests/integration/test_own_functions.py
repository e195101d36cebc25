"""A user's own reward, verifier, advantage and loss in `lampo train` and `lampo compare`, from a file beside the recipe."""

import subprocess
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lampo.compare.command import compare_study
from lampo.compare.study import load_study
from lampo.store.metrics import read_metrics
from lampo.store.rollouts import read_groups
from lampo.types import LampoError

from ..helpers import warm
from ..helpers.small_run import small_config

MINE = """
import torch

def centred(rewards_N, group_ids_N, *, valid_N, scores_N, factor=1.0):
    advantages_N = torch.zeros_like(rewards_N)
    for group in group_ids_N.unique():
        rows = (group_ids_N == group) & valid_N
        advantages_N[rows] = factor * (rewards_N[rows] - rewards_N[rows].mean())
    return advantages_N

def plain(tokens):
    return -tokens.advantages_NT * tokens.log_ratio_NT.exp()

def shortness(completion, answer, *, num_tokens, prompt, limit):
    return max(0.0, 1 - num_tokens / limit)

def closeness(completion, answer):
    digits = "".join(filter(str.isdigit, completion)) or "0"
    return 1 / (1 + abs(int(digits[-6:]) - int(answer)))

def broken(completion, answer):
    return answer / 2

def never_empty(completion, answer):
    return 1 / len(completion)
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "own_mine.py").write_text(MINE)
    values = small_config(tmp_path).model_dump(mode="json", exclude={"advantage", "loss", "rewards", "verifier"})
    values |= {
        "advantage": {"name": "python:own_mine.centred", "factor": 2.0},
        "loss": {"surrogate": "python:own_mine.plain"},
        "verifier": {"name": "python:own_mine.closeness"},
        "rewards": [
            {"name": "verifier"},
            {"name": "format", "pattern": "[0-9]+.*", "weight": 0.1},
            {"name": "python:own_mine.shortness", "limit": 12, "weight": 0.5},
        ],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    return folder / "mine.yaml"


def lampo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*warm.python(), "-m", "lampo", *arguments], cwd=folder, capture_output=True, text=True)


def test_all_of_it_trains_from_another_folder_and_is_logged_by_name(recipe: Path, tmp_path: Path) -> None:
    done = lampo("train", str(recipe), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "own_mine.centred 6/6" in done.stdout
    steps = [record for record in read_metrics(tmp_path / "small") if record["stage"] == "train"]
    for record in steps:
        parts = {key: record[f"reward/{key}"] for key in ("verifier", "format", "shortness")}
        total = parts["verifier"] + 0.1 * parts["format"] + 0.5 * parts["shortness"]
        assert record["reward/total"] == pytest.approx(total)
    assert any(0 < record["reward/verifier"] < 1 for record in steps)
    rollouts = [rollout for group in read_groups(tmp_path / "small", 6) for rollout in group["rollouts"]]
    assert all(set(rollout["rewards"]) == {"verifier", "format", "shortness"} for rollout in rollouts)
    assert lampo("train", "small", "--resume", folder=tmp_path).returncode == 0  # the file is found again


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("verifier.name=python:own_mine.broken", "The verifier own_mine.broken failed. TypeError: unsupported operand"),
        ("advantage.name=python:own_mine.centered", "own_mine.py has no function 'centered'"),
        ("loss.surrogate=python:own_mine.nothing", "own_mine.py has no function 'nothing'"),
        (
            "rewards=[{name: verifier}, {name: 'python:own_mine.never_empty'}]",
            "ZeroDivisionError: division by zero",
        ),
        (
            "rewards.shortness.wieght=1",
            "is given 'wieght', which its function does not name. It names: completion, answer",
        ),
        (
            "verifier.tolerance=1",
            "is given 'tolerance', which its function does not name. It names: completion, answer.",
        ),
        ("advantage.facter=2", "is given 'facter', which its function does not name. It names: rewards_N"),
        (
            "rewards=[{name: verifier}, {name: 'python:own_mine.broken'}]",
            "The reward own_mine.broken failed. TypeError",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_before_the_warm_start(
    recipe: Path, tmp_path: Path, setting: str, message: str
) -> None:
    done = lampo("train", str(recipe), "--set", setting, folder=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "warm start" not in done.stdout
    assert not (tmp_path / "small").exists()
    if "broken" in setting:
        assert "own_mine.py, line 22: return answer / 2" in done.stderr


def test_a_study_finds_functions_beside_it_and_a_recipe_of_the_package(recipe: Path, tmp_path: Path) -> None:
    entry = {"name": "mine", "method": None, "settings": {"advantage.name": "python:own_mine.centred"}}
    file = recipe.parent / "study.yaml"
    file.write_text(yaml.safe_dump({"name": "own", "recipe": "quickstart", "methods": ["grpo", entry], "seeds": 1}))
    plan = load_study(file)
    ours = next(run for run in plan.test({}) if run.method == "mine")
    assert ours.config.task.name == "arithmetic"  # pyright: ignore
    assert ours.config.run.imports[0] == str(recipe.parent)
    file.write_text(yaml.safe_dump({"name": "own", "recipe": "quickstrat", "methods": ["grpo"]}))
    with pytest.raises(LampoError, match="There is no recipe 'quickstrat'. Did you mean quickstart"):
        load_study(file)


def test_an_own_advantage_competes_in_a_study(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = yaml.safe_load(recipe.read_text())
    values.pop("advantage"), values.pop("loss")
    recipe.write_text(yaml.safe_dump(values))
    study = {
        "name": "own",
        "recipe": recipe.name,
        "folder": str(tmp_path / "studies"),
        "methods": [
            "grpo",
            {"name": "mine", "method": None, "settings": {"advantage.name": "python:own_mine.centred"}},
        ],
        "seeds": 1,
    }
    (recipe.parent / "study.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)  # the recipe's folder is found from another one
    compare_study(recipe.parent / "study.yaml", Console(quiet=True))
    assert "mine (" in (tmp_path / "studies" / "own" / "comparison.md").read_text()
