"""The recipes that come with the project: all of them hold, and the paper's run in miniature."""

import json
import string
from pathlib import Path
from typing import Any

import pytest

from lampo.config.load import load_config
from lampo.model.policy import Policy
from lampo.store.metrics import read_metrics
from lampo.tasks.load import load_task

from ..conftest import ARCHITECTURES, TINY, tiny_options
from ..helpers.small_run import run_to_end

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = {"qwen3-1.7b-mot": "qwen3-tied", "qwen3-4b-mot": "qwen3-tied", "phi-4-mini-mot": "phi-4-mini"}
BENCHMARKS = ("aime24", "aime25", "math500", "gpqa_diamond")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_holds(path: Path) -> None:
    config = load_config(path)
    assert path.read_text().startswith("# ")
    assert "Needs: " in path.read_text()
    assert path.stem.startswith(config.run.name)


@pytest.mark.parametrize("name", PAPER)
def test_lampo_and_its_baseline_differ_in_the_advantage_alone(name: str) -> None:
    ours, baseline = (
        load_config(RECIPES / f"{name}.yaml", settings).model_dump() for settings in ([], ["method=grpo"])
    )
    assert {section for section in ours if ours[section] != baseline[section]} == {"method", "advantage"}
    assert (ours["advantage"]["name"], baseline["advantage"]["name"]) == ("pairwise", "grpo")
    assert baseline["loss"]["kl_coefficient"] == 1e-3
    assert [ours["run"]["name"], ours["decontamination"]["benchmarks"]] == [name, list(BENCHMARKS)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def in_miniature(tmp_path: Path) -> list[str]:
    """Settings that put invented problems in the data sets' formats in the place of the hub."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Add {n} and {n}."},
                {"role": "assistant", "content": f"<think>twice {n}</think>It is \\boxed{{{2 * n}}}."},
            ],
            "num_tokens": 9,
            "source": "invented",
        }
        for n in range(60)
    ]
    rows[0]["messages"][0]["content"] = "If three ants meet two more ants, how many ants are there?"
    task = write(tmp_path / "mot.jsonl", rows)
    maths = write(
        tmp_path / "maths.jsonl",
        [{"problem": "Three ants meet two more ants, how many ants are there?", "answer": "5"}],
    )
    gpqa = tmp_path / "gpqa_diamond.csv"
    gpqa.write_text(
        "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Record ID,Canary String\n"
        "Invented: which is a metal?,iron,air,wood,glass,rec1,invented-canary\n"
    )
    settings = [f"task.file={task}", f"run.folder={tmp_path / 'runs'}"]
    for section in ("decontamination", "evaluation"):
        settings += [f"{section}.data.{name}={gpqa if name == 'gpqa_diamond' else maths}" for name in BENCHMARKS]
    return settings


@pytest.mark.parametrize("method", ["lampo", "grpo"])
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_run_with_a_tiny_model_put_in(
    name: str, method: str, tmp_path: Path, in_miniature: list[str]
) -> None:
    architecture = TINY | ARCHITECTURES[PAPER[name]]
    longer = {key: 512 for key in architecture if key.endswith("max_position_embeddings")}
    tiny = tiny_options().model_copy(update={"config": architecture | longer, "characters": string.printable})
    Policy.load(tiny).save(tmp_path / "tiny")
    small = {
        "model.path": tmp_path / "tiny",
        "sampling.problems_per_step": 2,
        "sampling.group_size": 3,
        "sampling.max_new_tokens": 12,
        "training.steps": 2,
        "evaluation.problems": 2,
        "evaluation.final_problems": 2,
        "evaluation.samples": 1,
    }
    config = load_config(
        RECIPES / f"{name}.yaml",
        [f"method={method}", *in_miniature, *(f"{key}={value}" for key, value in small.items())],
    )
    records = read_metrics(run_to_end(config))
    assert [record["step"] for record in records if record["stage"] == "train"] == [1, 2]
    assert any(record.get("loss/value") is not None for record in records)  # ROUGE-L sets even wrong responses apart
    assert all(f"evaluation/{name}/accuracy" in records[-1] for name in BENCHMARKS)
    task = load_task(config.task, config.decontamination)
    assert "ants" not in " ".join(problem.prompt for problem in task.train)
