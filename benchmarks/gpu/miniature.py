"""A study of this folder with two seeds, two steps and few rollouts, on the CPU: whether it runs from its first line to its page.

python benchmarks/gpu/miniature.py benchmarks/gpu/word_arithmetic.yaml
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

SMALL = {
    "task.num_train": 32,
    "task.num_heldout": 16,
    "sampling.problems_per_step": 2,
    "sampling.group_size": 4,
    "sampling.rows_at_once": 16,
    "sampling.max_new_tokens": 24,
    "warmstart.steps": 1,
    "warmstart.rows_per_step": 2,
    "training.steps": 2,
    "evaluation.every": 2,
    "evaluation.problems": 4,
    "evaluation.final_problems": 4,
    "evaluation.final_samples": 1,
}


def known(key: str, settings: dict[str, Any]) -> bool:
    """Whether a study has to do with this setting: one without a warm start gets none."""
    return not key.startswith("warmstart.") or key in settings


def main(study: Path) -> int:
    values = yaml.safe_load(study.read_text())
    values |= {
        "recipe": str((study.parent / values["recipe"]).resolve()),
        "settings": values["settings"] | {key: value for key, value in SMALL.items() if known(key, values["settings"])},
        "seeds": 2,
        "workers": 1,
        "threads": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        values["folder"] = folder
        small = Path(folder) / "study.yaml"
        small.write_text(yaml.safe_dump(values))
        return subprocess.run([sys.executable, "-m", "lampo", "compare", str(small)]).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
