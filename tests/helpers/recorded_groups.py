"""Groups as a run records them, for the viewer to read."""

from typing import Any

HOSTILE = "</script><script>alert('1 < 2')</script> & so on 数学"


def rollout(status: str, score: float, *, advantage: float = 0.25, text: str = HOSTILE, **changes: Any) -> dict:
    correctness = {"right": 1.0, "wrong": 0.0, "unknown": None}[status]
    values = {
        "text": text,
        "status": status,
        "extracted": "4",
        "detail": "",
        "rewards": {"verifier": correctness, "rouge_l": 0.5},
        "total": correctness,
        "score": score,
        "advantage": advantage,
        "length": 2,
        "finished": True,
        "pieces": [9, len(text) - 9],
        "logprobs": [-0.125, -2.0],
    }
    return values | changes


def group(step: int, name: str, *rollouts: dict) -> dict:
    problem = {"id": name, "prompt": f"{name} < 2 + 2?", "answer": "4", "reference": "It is 4."}
    return {"step": step, "problem": problem, "rollouts": list(rollouts)}


def groups_of(step: int) -> list[dict]:
    cut = rollout("wrong", -0.9, advantage=-1.5, finished=False)
    return [
        group(step, f"mixed-{step}", rollout("right", -0.1, advantage=2.0), cut, rollout("unknown", -0.4)),
        group(step, f"hard-{step}", rollout("wrong", -0.3, advantage=0.0), rollout("wrong", -0.2, advantage=0.0)),
    ]
