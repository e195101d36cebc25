"""What stays out of a process that only reads recipes or judges answers; the imports as written are `lint-imports`' (pyproject.toml)."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "pyarrow",
    "plotly",
    "jinja2",
    "scipy",
    "numpy",
)

LIGHT = (
    "lampo",
    "lampo.cli",
    "lampo.config.load",
    "lampo.plan.command",
    "lampo.tasks",
    "lampo.verify",
    "lampo.rewards.score",
    "lampo.store.rollouts",
    "lampo.store.checkpoints",
    "lampo.seeds",
)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_leave_the_engine_out(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
