"""The quickstart made so small that a study of it takes seconds."""

from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
SMALL: dict[str, Any] = {
    "model.config.hidden_size": 32,
    "model.config.intermediate_size": 64,
    "model.config.num_hidden_layers": 1,
    "task.digits": 2,
    "task.num_train": 200,  # each run checks the answers of all
    "sampling.problems_per_step": 4,
    "sampling.group_size": 4,
    "evaluation.problems": 4,
}
