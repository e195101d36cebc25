"""Presets: what `method: NAME` puts under a recipe, what wins over it, and what goes when another takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lampo.config import LossOptions, TrainConfig, describe_config, dump_config, load_config, parse_config
from lampo.estimate import PairwiseOptions
from lampo.methods import METHODS, OWN_SECTIONS, method_settings, under, with_method
from lampo.types import LampoError

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
every_method = pytest.mark.parametrize("method", list(METHODS))


def plain(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


@every_method
def test_every_method_loads_over_the_quickstart(method: str, tmp_path: Path) -> None:
    config = load_config(QUICKSTART, [f"method={method}"])
    assert config.method == method
    values = plain(config)
    for section, settings in METHODS[method].settings.items():
        assert values[section] | settings == values[section]
    if "loss" in METHODS[method].settings:  # whole: what the recipe said of the clip range went with its own method
        assert config.loss == LossOptions(**METHODS[method].settings["loss"])

    described = yaml.safe_load(describe_config(config))
    for section, settings in METHODS[method].settings.items():
        for key, value in settings.items():
            assert described[section][key] == value, f"{section}.{key} of {method} does not show"

    for write in (dump_config, describe_config):
        copy = tmp_path / f"{write.__name__}.yaml"
        copy.write_text(write(config))
        assert load_config(copy) == config


@pytest.mark.parametrize("method", [name for name in METHODS if name != "cot"])
def test_a_method_is_the_same_in_a_recipe_and_as_a_setting(method: str) -> None:
    recipe = yaml.safe_load(QUICKSTART.read_text())
    for section in (*OWN_SECTIONS, "method"):
        recipe.pop(section, None)
    assert parse_config(recipe | {"method": method}, "the recipe") == load_config(QUICKSTART, [f"method={method}"])


def test_cot_does_not_train() -> None:
    assert load_config(QUICKSTART, ["method=dapo"]).training.steps == 120
    assert load_config(QUICKSTART, ["method=cot"]).training.steps == 0
    recipe = yaml.safe_load(QUICKSTART.read_text()) | {"method": "cot"}
    with pytest.raises(
        LampoError, match=r"the method cot trains nothing, but training\.steps is 120: .*--set method=cot"
    ):
        parse_config(recipe, "the recipe")


def test_an_unknown_method_is_refused_with_the_known_names() -> None:
    known = ", ".join(METHODS)
    with pytest.raises(LampoError, match=f"There is no method 'gppo'; known are {known}"):
        load_config(QUICKSTART, ["method=gppo"])
    with pytest.raises(LampoError, match="There is no method 3; known are lampo, grpo"):
        parse_config(yaml.safe_load(QUICKSTART.read_text()) | {"method": 3}, "the recipe")


def test_a_setting_after_the_method_wins() -> None:
    loss = load_config(QUICKSTART, ["method=dapo", "loss.clip_high=0.3"]).loss
    assert (loss.clip_low, loss.clip_high, loss.aggregation) == (0.2, 0.3, "token")
    before = load_config(QUICKSTART, ["loss.clip_high=0.3", "method=dapo"]).loss  # the method's own loss is whole
    assert before.clip_high == 0.28


def test_the_recipe_wins_over_the_method_it_names() -> None:
    recipe = yaml.safe_load(QUICKSTART.read_text())
    assert recipe["method"] == "lampo"
    config = load_config(QUICKSTART)
    assert (config.loss.clip_high, config.loss.aggregation) == (0.28, "sequence")
    assert config.advantage == PairwiseOptions(name="pairwise", scale="group_std")


def test_switching_drops_what_belonged_to_the_old_method() -> None:
    dapo = load_config(QUICKSTART, ["method=dapo"])
    assert dapo.sampling.resample > 0
    assert dapo.rewards.overlong_penalty > 0
    lampo = parse_config(plain(dapo), "a dumped recipe", ["method=lampo"])
    assert (lampo.sampling.resample, lampo.rewards.overlong_penalty) == (0, 0.0)
    assert lampo.loss == LossOptions()
    assert lampo.sampling.group_size == 8  # what belongs to the recipe stays


# cot sets what belongs to recipes too: how many steps there were before is not known any more
@pytest.mark.parametrize("old", [name for name in METHODS if name != "cot"])
@pytest.mark.parametrize("new", ["lampo", "grpo", "gvpo"])
def test_nothing_of_the_old_method_is_left(old: str, new: str) -> None:
    expected = load_config(QUICKSTART, [f"method={new}"])
    assert load_config(QUICKSTART, [f"method={old}", f"method={new}"]) == expected
    assert parse_config(plain(load_config(QUICKSTART, [f"method={old}"])), "dumped", [f"method={new}"]) == expected


def test_no_method_keeps_the_settings() -> None:
    config = load_config(QUICKSTART, ["method=null", "advantage.name=rloo"])
    assert config.method is None
    assert config.loss.clip_high == 0.28


@pytest.mark.parametrize(
    ("method", "estimator", "its_own"), [("lampo", "grpo", "pairwise"), ("dapo", "pairwise", "grpo")]
)
def test_a_method_with_another_estimator_is_refused(method: str, estimator: str, its_own: str) -> None:
    message = rf"the method {method} has the estimator {its_own}, and not {estimator}.*name another method, or none"
    with pytest.raises(LampoError, match=message):
        load_config(QUICKSTART, [f"method={method}", f"advantage.name={estimator}"])
    recipe = yaml.safe_load(QUICKSTART.read_text()) | {"method": method, "advantage": {"name": estimator}}
    with pytest.raises(LampoError, match=message):
        parse_config(recipe, "the recipe")


def test_lampo_with_the_ideas_of_the_others() -> None:
    clip_higher = load_config(QUICKSTART, ["method=lampo", "loss.clip_high=0.28"])
    assert clip_higher.loss == LossOptions(clip_low=0.2, clip_high=0.28)
    settings = [
        "method=lampo", "loss.aggregation=token", "loss.surrogate=sequence", "loss.clip_low=3e-4", "loss.clip_high=4e-4",
        "sampling.resample=3", "rewards.overlong_penalty=0.5", "advantage.weight=better", "loss.kl_coefficient=1e-3",
    ]  # fmt: skip
    config = load_config(QUICKSTART, settings)
    assert config.advantage == PairwiseOptions(name="pairwise", scale="group_std", weight="better")
    assert config.loss == LossOptions(
        surrogate="sequence", clip_low=3e-4, clip_high=4e-4, aggregation="token", kl_coefficient=1e-3
    )
    assert (config.sampling.resample, config.rewards.overlong_penalty) == (3, 0.5)
    for surrogate in ("geometric", "cispo", "gvpo"):
        assert load_config(QUICKSTART, [f"loss.surrogate={surrogate}"]).method == "lampo"


# The two rules of merging


def test_under_goes_section_by_section() -> None:
    settings = {"loss": {"clip_low": 0.1, "clip_high": 0.2}, "advantage": {"name": "grpo", "std": True}}
    values = {"loss": {"clip_high": 0.3}, "run": {"name": "a"}}
    assert under(settings, values) == {
        "loss": {"clip_low": 0.1, "clip_high": 0.3},
        "advantage": {"name": "grpo", "std": True},
        "run": {"name": "a"},
    }
    assert under(settings, {"advantage": {"name": "rloo"}})["advantage"] == {"name": "rloo"}
    assert under(settings, {"advantage": {"std": False}})["advantage"] == {"name": "grpo", "std": False}


def test_with_method_takes_away_what_methods_own() -> None:
    values: dict[str, Any] = {
        "advantage": {"name": "pairwise", "weight": "better"},
        "loss": {"clip_high": 9.0},
        "sampling": {"resample": 7, "group_size": 4},
        "rewards": {"overlong_penalty": 2.0, "overlong_share": 0.5, "rouge_l": 0.1},
    }
    changed = with_method(values, "rloo")
    assert changed["advantage"] == {"name": "rloo"}
    assert changed["loss"] == METHODS["rloo"].settings["loss"]
    assert (changed["sampling"], changed["rewards"]) == ({"group_size": 4}, {"rouge_l": 0.1})
    assert changed["method"] == "rloo"
    assert values["sampling"] == {"resample": 7, "group_size": 4}  # the argument is as it was


@every_method
def test_settings_are_a_copy(method: str) -> None:
    settings = method_settings(method)
    for section in settings.values():
        section["changed"] = True
    assert all("changed" not in section for section in METHODS[method].settings.values())
