"""`lampo tasks check` from the shell's side."""

import json
from pathlib import Path

from typer.testing import CliRunner

from lampo.cli import app


def test_a_recipe_is_checked(tmp_path: Path) -> None:
    rows = [
        {"problem": f"Take {n} apples and add two more to them, how many?", "answer": str(n + 2)} for n in range(20)
    ]
    rows[4]["answer"] = "many of }"
    file = tmp_path / "math.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    aime = tmp_path / "aime.jsonl"
    aime.write_text(json.dumps({"problem": "apples and add two more to them, how? many!", "answer": 5}) + "\n")
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text(json.dumps({"problem": "1 + 1?", "answer": 2}) + "\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"run: {{name: x}}\nmodel: {{path: nowhere}}\ntask: {{name: math, train: {file}, heldout: {heldout}}}\n"
    )
    result = CliRunner().invoke(
        app, ["tasks", "check", str(recipe), "--benchmarks", "aime24", "--data", f"aime24={aime}"]
    )
    assert result.exit_code == 0, result.output
    assert "20 problems to train on, 1 to measure on" in result.output
    assert "1 of 21 answers do not verify against themselves" in result.output
    assert "math/train/5" in result.output
    assert (
        "aime24: 20 training problems share 8 words in a row with its 1 problems. 20 hold more than half"
        in result.output
    )
    assert "holds 100% of aime24/1: 'apples and add two more to them how many'" in result.output
    assert "add aime24 to decontamination.benchmarks" in result.output
    recipe.write_text(
        recipe.read_text() + f"decontamination: {{benchmarks: [aime24], data: {{aime24: {aime}}}, ngram: 99}}\n"
    )
    named_by_recipe = CliRunner().invoke(app, ["tasks", "check", str(recipe)])
    assert "aime24: 0 training problems share 99 words in a row" in named_by_recipe.output
    nothing = CliRunner().invoke(app, ["tasks", "check", str(recipe), "--benchmarks", ""])
    assert "aime24" not in nothing.output
    listed = CliRunner().invoke(app, ["tasks"], env={"COLUMNS": "200"})
    assert "gpqa_diamond" in listed.output
