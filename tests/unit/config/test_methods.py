"""Methods as presets: what they set, what wins over what, and the sampling and the length penalty of DAPO."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lampo.algo.advantages import grpo_advantages
from lampo.config.explain import describe_config, dump_config
from lampo.config.load import load_config, parse_config
from lampo.config.methods import METHODS, flat, method_settings, overridden
from lampo.config.reward_list import rewards_by_title
from lampo.config.schema import LossOptions, TrainConfig
from lampo.rewards import OverlongReward, VerifierReward, overlong, score
from lampo.types import LampoError, Problem, Rollout, Verdict

RECIPE = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"
every_method = pytest.mark.parametrize("name", METHODS)


# Every method


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its key; rewards by their titles."""
    return flat(
        config.model_dump(mode="json") | {"rewards": {reward.title: reward.model_dump() for reward in config.rewards}}
    )


@every_method
def test_every_method_loads_over_a_recipe_and_its_settings_hold(name: str) -> None:
    config = load_config(RECIPE, [f"method={name}"])
    assert config.method == name
    values = settings_of(config)
    assert {key: values[key] for key in flat(METHODS[name].settings)} == flat(METHODS[name].settings)
    assert values["sampling.group_size"] == 8  # what is not the method's stays the recipe's
    assert values["warmstart.steps"] == 550
    assert overridden(config.model_dump(mode="json"), name) == []


@every_method
def test_every_setting_is_visible_and_what_is_shown_loads_as_the_same(name: str, tmp_path: Path) -> None:
    config = load_config(RECIPE, [f"method={name}"])
    for text in (describe_config(config), dump_config(config)):
        assert yaml.safe_load(text)["method"] == name
        copy = tmp_path / "copy.yaml"
        copy.write_text(text)
        assert load_config(copy) == config


@every_method
def test_the_presets_name_what_there_is(name: str) -> None:
    method = METHODS[name]
    assert method.paper
    assert set(method.settings) <= set(TrainConfig.model_fields)
    assert (method.arxiv is None) == (name in ("cot", "lampo_dapo", "lampo_ob", "lampo_cal"))
    if "loss" in method.settings:
        LossOptions(**method.settings["loss"])


@every_method
def test_every_method_is_in_the_documentation(name: str) -> None:
    text = (RECIPE.parents[1] / "docs" / "methods.md").read_text()
    assert f"| [`{name}`](#" in text
    assert re.search(rf"^## .*\b{name}\b", text, re.MULTILINE)
    assert METHODS[name].arxiv is None or f"arXiv {METHODS[name].arxiv}" in text


def test_lampo_in_dapo_is_dapo_but_for_the_advantage() -> None:
    both, lampo, dapo = (METHODS[name].settings for name in ("lampo_dapo", "lampo", "dapo"))
    assert both == {**dapo, "advantage": lampo["advantage"]}


def test_the_settings_of_a_method_cannot_be_changed_from_outside() -> None:
    method_settings("dapo")["loss"]["clip_high"] = 9.0
    assert method_settings("dapo")["loss"]["clip_high"] == 0.28


def test_the_numbers_of_the_papers() -> None:
    assert METHODS["dapo"].settings["loss"] == {"clip_low": 0.2, "clip_high": 0.28, "aggregation": "token"}
    assert METHODS["gspo"].settings["loss"]["clip_low"] == 3e-4
    assert METHODS["gspo"].settings["loss"]["clip_high"] == 4e-4
    assert METHODS["gmpo"].settings["loss"]["clip_low"] == METHODS["gmpo"].settings["loss"]["clip_high"] == 0.4
    cispo = METHODS["cispo"].settings["loss"]
    assert (1 - cispo["clip_low"], 1 + cispo["clip_high"]) == (0, 5)
    assert METHODS["gvpo"].settings["loss"]["beta"] == 0.1
    assert METHODS["simplerl_zoo"].settings["loss"]["kl_coefficient"] == 1e-4


# What wins


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("grop", "grpo"),
        ("gpro", "grpo"),
        ("GRPO", "grpo"),
        ("dpo", "dapo"),
        (["grpo"], "grpo"),
        ("ppo", None),
        (1, None),
        (True, None),
    ],
)
def test_an_unknown_method_is_refused_with_the_nearest_and_the_known_names(name: Any, guess: str | None) -> None:
    told = rf" Did you mean {guess}\?" if guess else ""
    message = rf"There is no method [^ ]*\.{told} Known are lampo, lampo_ob, lampo_cal, grpo, dr_grpo, rloo, .*cot"
    with pytest.raises(LampoError, match=message):
        load_config(RECIPE, [f"method={yaml.safe_dump(name).splitlines()[0]}"])
    with pytest.raises(LampoError, match=message):
        parse_config({**yaml.safe_load(RECIPE.read_text()), "method": name}, "a recipe")


def test_an_own_advantage_in_the_place_of_a_method_is_told_where_it_belongs() -> None:
    with pytest.raises(
        LampoError, match=r"For an advantage of your own: method: null, advantage\.name: python:mine\.f\."
    ):
        load_config(RECIPE, ["method=python:mine.f"])
    load_config(RECIPE, ["method=null", "advantage.name=python:mine.f"])


def test_what_is_written_wins_over_the_method_and_settings_win_over_both() -> None:
    values = yaml.safe_load(RECIPE.read_text()) | {"method": "dapo", "loss": {"clip_high": 0.5}}
    config = parse_config(values, "a recipe")
    assert (config.loss.clip_high, config.loss.aggregation, config.sampling.resample) == (0.5, "token", 3)
    assert overridden(config.model_dump(mode="json"), "dapo") == ["loss.clip_high is 0.5 (its own: 0.28)"]
    config = parse_config(values, "a recipe", ["loss.clip_high=0.7", "sampling.resample=0"])
    assert (config.loss.clip_high, config.loss.aggregation, config.sampling.resample) == (0.7, "token", 0)


@pytest.mark.parametrize("settings", [["method=dapo", "loss.clip_high=0.3"], ["loss.clip_high=0.3", "method=dapo"]])
def test_the_order_of_method_and_setting_does_not_matter(settings: list[str]) -> None:
    assert load_config(RECIPE, settings).loss.clip_high == 0.3


def test_another_method_changes_nothing_that_is_written() -> None:
    """The comparison that the paper makes: LamPO and GRPO under the same KL term, clip range and rewards."""
    values = yaml.safe_load(RECIPE.read_text()) | {"loss": {"kl_coefficient": 0.1, "clip_high": 0.25}}
    values["rewards"] = [{"name": "verifier"}, {"name": "rouge_l", "weight": 0.4}]
    lampo, grpo = (settings_of(parse_config(values, "a recipe", [f"method={name}"])) for name in ("lampo", "grpo"))
    differing = {key for key in {**lampo, **grpo} if lampo.get(key) != grpo.get(key)}
    assert {key.partition(".")[0] for key in differing} == {"method", "advantage"}
    assert (grpo["loss.kl_coefficient"], grpo["loss.clip_high"], grpo["rewards.rouge_l.weight"]) == (0.1, 0.25, 0.4)


@every_method
def test_a_method_put_in_leaves_nothing_of_the_one_before(name: str) -> None:
    assert load_config(RECIPE, [f"method={name}", "method=grpo"]) == load_config(RECIPE, ["method=grpo"])


ALSO_A_RECIPES_OWN = {"loss.kl_coefficient"}
"""A KL term is part of the paper's setting. Of the methods simplerl_zoo has one of its own, and a run says when it is not that."""


@pytest.mark.parametrize("recipe", sorted(RECIPE.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_set_no_key_that_a_method_owns(recipe: Path) -> None:
    values = yaml.safe_load(recipe.read_text())
    if isinstance(values.get("rewards"), list):
        values["rewards"] = rewards_by_title(values["rewards"])
    owned = {key for method in METHODS.values() for key in flat(method.settings)} | {"rewards.verifier.weight"}
    assert (set(flat(values)) & owned) - ALSO_A_RECIPES_OWN == set()


def test_without_a_method_a_recipe_is_lampo() -> None:
    values = yaml.safe_load(RECIPE.read_text())
    del values["method"]
    bare, lampo = parse_config(values, "a recipe"), load_config(RECIPE, ["method=lampo"])
    assert bare.model_copy(update={"method": "lampo"}) == lampo
    assert bare.advantage.scale == "group_std"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_method_with_another_estimator_is_refused() -> None:
    with pytest.raises(
        LampoError, match=r"lampo has the estimator pairwise, and not rloo: name another method, or none"
    ):
        load_config(RECIPE, ["advantage.name=rloo"])
    values = yaml.safe_load(RECIPE.read_text()) | {"advantage": {"name": "grpo", "std": False}}
    with pytest.raises(LampoError, match=r"lampo has the estimator pairwise, and not grpo.*method: null"):
        parse_config(values, "a recipe")
    config = load_config(RECIPE, ["method=null", "advantage.name=rloo"])
    assert (config.method, config.advantage.name) == (None, "rloo")
    assert load_config(RECIPE, ["method=rloo"]).advantage.name == "rloo"


def test_no_training_is_what_cot_means() -> None:
    assert load_config(RECIPE, ["method=cot"]).training.steps == 0
    values = yaml.safe_load(RECIPE.read_text()) | {"method": "cot"}
    assert values["training"]["steps"] == 120
    assert parse_config(values, "a recipe").training.steps == 0


def test_lampo_composes_with_the_ideas_of_the_others() -> None:
    config = load_config(
        RECIPE,
        [
            "method=lampo",
            "loss.clip_high=0.28",
            "loss.aggregation=token",
            "sampling.resample=3",
            "rewards.overlong.weight=1",
        ],
    )
    assert (config.method, config.advantage.name) == ("lampo", "pairwise")
    assert config.loss == LossOptions(clip_low=0.2, clip_high=0.28, aggregation="token")
    assert (config.sampling.resample, settings_of(config)["rewards.overlong.weight"]) == (3, 1.0)
    gspo = ["loss.surrogate=sequence", "loss.clip_low=3e-4", "loss.clip_high=4e-4"]
    config = load_config(RECIPE, ["method=lampo", *gspo])
    assert config.advantage.name == "pairwise"
    assert config.loss == load_config(RECIPE, ["method=gspo"]).loss


# DAPO's length penalty, arXiv 2503.14476, equation 13


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [
        (1, 0.0),
        (16_384, 0.0),  # L_max - L_cache = 20,480 - 4,096
        (16_385, 1 / 4_096),
        (18_432, 1 / 2),
        (20_479, 4_095 / 4_096),
        (20_480, 1.0),
    ],
)
def test_the_overlong_penalty_of_dapo(num_tokens: int, expected: float) -> None:
    assert overlong(num_tokens, 20_480, 0.2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_the_overlong_penalty_rises_from_0_to_1(share: float) -> None:
    values = [overlong(num_tokens, 50, share) for num_tokens in range(51)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0.0, pytest.approx(1.0))
    assert all(0 <= value <= 1 + 1e-12 for value in values)


def test_the_penalty_of_the_preset_is_that_of_the_paper_whose_rewards_are_1_and_minus_1() -> None:
    correctness_N = torch.tensor([1, 0, 0, 1, 1, 0], dtype=torch.float64)
    overlong_N = torch.tensor([0, 0, 0.25, 1, 0.5, 1], dtype=torch.float64)
    preset = METHODS["dapo"].settings["rewards"]["overlong"]["weight"]
    group_ids_N = torch.zeros(6, dtype=torch.int64)
    ours_N = grpo_advantages(correctness_N - preset * overlong_N, group_ids_N)
    papers_N = grpo_advantages((2 * correctness_N - 1) - overlong_N, group_ids_N)
    torch.testing.assert_close(ours_N, papers_N, rtol=1e-3, atol=0)  # but for the epsilon beside the std


def make_rollout(num_tokens: int, text: str = "") -> Rollout:
    ones = torch.ones(num_tokens)
    return Rollout(ones[:1].long(), ones.long(), -ones, finished=True, text=text)


def test_the_penalty_is_taken_from_the_reward() -> None:
    rollouts_G = [make_rollout(num_tokens) for num_tokens in (40, 90, 100, 100)]
    verdicts_G = [Verdict("right"), Verdict("right"), Verdict("wrong"), Verdict("unknown")]
    problem = Problem("0", "7+5=", "12")
    rewards = [VerifierReward(), OverlongReward(weight=0.5)]
    rewards_G = score(problem, rollouts_G, verdicts_G, rewards, 100).rewards_G
    assert [reward.total for reward in rewards_G[:3]] == pytest.approx([1 - 0.5 * 0, 1 - 0.5 * 0.5, 0 - 0.5 * 1])
    assert [reward.parts["overlong"] for reward in rewards_G] == pytest.approx([0, -0.5, -1, -1])
    assert not rewards_G[3].valid
    without = score(problem, rollouts_G, verdicts_G, [VerifierReward()], 100).rewards_G
    assert [reward.total for reward in without[:3]] == [1, 1, 0]
    assert all("overlong" not in reward.parts for reward in without)
