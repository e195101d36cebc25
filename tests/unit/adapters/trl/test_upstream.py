"""The patch that lies ready for TRL applies to the TRL that it names, and gives GRPOTrainer the method that it promises."""

import ast
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

trainer = pytest.importorskip("trl.trainer.grpo_trainer")
PATCH = Path(__file__).parents[4] / "docs" / "upstream" / "trl-1.16.0-advantages.patch"


@pytest.mark.skipif(metadata.version("trl") != "1.16.0", reason="the patch is for TRL 1.16.0")
def test_the_patch_applies_and_calls_what_it_adds(tmp_path: Path) -> None:
    target = tmp_path / "trl" / "trainer" / "grpo_trainer.py"
    target.parent.mkdir(parents=True)
    target.write_text(Path(trainer.__file__).read_text())
    subprocess.run(["git", "apply", str(PATCH)], cwd=tmp_path, check=True)
    (made,) = (
        node
        for node in ast.walk(ast.parse(target.read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "GRPOTrainer"
    )
    methods = {node.name: node for node in made.body if isinstance(node, ast.FunctionDef)}
    calls = [
        node
        for node in ast.walk(methods["_generate_and_score_completions"])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._compute_advantages"
    ]
    assert len(calls) == 1
    given = {keyword.arg for keyword in calls[0].keywords}
    assert given == {argument.arg for argument in methods["_compute_advantages"].args.kwonlyargs}
