"""Every study in docs/results resolves to the configurations that its runs were made with: `tests/data/studies.json`, recorded then."""

import json
from pathlib import Path
from typing import Any

import pytest

from lampo.compare.study import load_study
from lampo.config.methods import flat
from lampo.config.schema import TrainConfig

ROOT = Path(__file__).parents[3]
RECORDED = json.loads((ROOT / "tests" / "data" / "studies.json").read_text())
STUDIES = sorted(path.parent.name for path in (ROOT / "docs" / "results").glob("*/study.yaml"))

LATER = {
    "engine": "native",
    "run.processes": 1,
    "run.nodes": 1,
    "run.engine_options": [],
    "run.imports": [],
    "advantage.peer_weight": "equal",
    "advantage.centred": False,
    "advantage.negative": 1.0,
    "verifier.partial_credit": False,
    "sampling.engine": "native",
    "sampling.vllm.memory_share": 0.5,
    "sampling.vllm.cache_gib": None,
    "sampling.vllm.max_mismatch": 0.1,
    "sampling.vllm.scores_from": "sampler",
    "optimizer.eight_bit_moments": False,
    "warmstart.optimizer.eight_bit_moments": False,
    "loss.sampler_correction": "off",
    "loss.sampler_cap": 2.0,
}
"""Settings that came after the runs, and the value that changes nothing of them."""
GONE = {"advantage.double_forward": False, "advantage.gamma": 1.0, "task.config": "main"}
"""Settings that went, and the value that every run had."""
ALPHABET = {"model.characters": ("0123456789+=\n", "0123456789+*=\n")}
"""Runs of products had a model whose alphabet lacks the sign; such a recipe is refused now, so the studies name it."""
PRODUCTS = ("diversity", "dropped_carries_mul", "multiplication")
LEFT_OPEN = {"training.tokens_per_microbatch": (16384, "auto")}
"""Settings that are now chosen from the machine, and what they were: they change sums in their last digits, and nothing else."""
UNTRAINED = "cot"
"""It makes no update, so that nothing follows from its advantage."""


def rewards_as_they_were(config: TrainConfig) -> dict[str, Any]:
    """The rewards in the words of the recorded settings, when they were no list."""
    parts = {reward.title: reward for reward in config.rewards}
    rouge, overlong, likelihood = (parts.get(title) for title in ("rouge_l", "overlong", "likelihood"))
    assert set(parts) <= {"verifier", "rouge_l", "overlong", "likelihood"}
    assert parts["verifier"].weight == (0 if likelihood else 1)
    return {
        "rewards.source": "likelihood" if likelihood else "verifier",
        "rewards.likelihood_credit": likelihood.credit if likelihood else "response",  # pyright: ignore
        "rewards.rouge_l": rouge.weight if rouge else 0.0,
        "rewards.rouge_scope": rouge.scope if rouge else "response",  # pyright: ignore
        "rewards.overlong_penalty": overlong.weight if overlong else 0.0,
        "rewards.overlong_share": overlong.share if overlong else 0.2,  # pyright: ignore
    }


def test_every_committed_study_is_recorded() -> None:
    assert set(RECORDED["studies"]) <= set(STUDIES)


@pytest.mark.parametrize("name", RECORDED["studies"])
def test_a_committed_study_means_what_it_meant(name: str) -> None:
    plan = load_study(ROOT / "docs" / "results" / name / "study.yaml")
    study = RECORDED["studies"][name]
    seen = set()
    for run in plan.test({}):
        key = f"{run.task}/{run.method}"
        if key in seen:
            continue
        seen.add(key)
        entry = next(entry for entry in plan.study.methods if entry.name == run.method)
        config = plan.config_of(run.task, entry)
        recorded = RECORDED["all"] | study["shared"] | study["runs"][key]
        now = flat(config.model_dump(mode="json", exclude={"rewards"})) | rewards_as_they_were(config)
        assert {key: value for key, value in recorded.items() if key not in now} == {
            key: value for key, value in GONE.items() if key in recorded
        }
        differing = {key: (value, now[key]) for key, value in recorded.items() if key in now and now[key] != value}
        differing = {key: values for key, values in differing.items() if LEFT_OPEN.get(key) != values}
        expected = ALPHABET if name in PRODUCTS else {}
        assert differing == expected | (
            {"advantage.scale": ("none", "group_std")} if run.method == UNTRAINED else {}
        ), key
        later = {key: value for key, value in now.items() if key not in recorded}
        assert later == {key: value for key, value in LATER.items() if key in now and key not in recorded}, key
    assert seen == set(study["runs"])
