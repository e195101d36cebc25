"""A reward as verl's users write it, which knows nothing of LamPO: verl loads this file by its path."""

from __future__ import annotations

from typing import Any


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, Any]:
    figures = sum(map(str.isdigit, solution_str))
    right = float(figures >= 4)
    return {"score": right + 0.01 * figures, "acc": right, "figures": figures, "pred": solution_str[:3]}
