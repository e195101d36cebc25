"""Methods by name: presets as data, and how they lie under and over a recipe."""

from pathlib import Path

import pytest
import yaml

from lampo.config import describe_config, dump_config, load_config, parse_config
from lampo.methods import METHODS
from lampo.types import LampoError

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_stands_in_any_recipe_with_all_its_settings_visible(name: str) -> None:
    config = load_config(QUICKSTART, [f"method={name}"])
    assert config.method == name
    for text in (dump_config(config), describe_config(config)):
        assert parse_config(yaml.safe_load(text), "dumped") == config
    shown = yaml.safe_load(describe_config(config))
    for section, settings in METHODS[name].settings.items():
        for key, value in settings.items():
            assert shown[section][key] == (list(value) if isinstance(value, tuple) else value)


def test_a_recipe_lies_over_its_method_and_settings_over_both() -> None:
    assert load_config(QUICKSTART).loss.clip_high == 0.28  # the recipe's
    config = load_config(QUICKSTART, ["method=gspo"])
    assert (config.loss.clip_low, config.loss.clip_high) == (3e-4, 4e-4)  # asked for later than the recipe's
    assert load_config(QUICKSTART, ["method=gspo", "loss.clip_high=0.3"]).loss.clip_high == 0.3
    assert load_config(QUICKSTART, ["loss.clip_high=0.3", "method=gspo"]).loss.clip_high == 4e-4


def test_another_method_leaves_nothing_of_the_one_before() -> None:
    direct = load_config(QUICKSTART, ["method=grpo"])
    for other in METHODS:
        if other != "cot":  # it only sets the number of steps, which is the recipe's to say
            assert load_config(QUICKSTART, [f"method={other}", "method=grpo"]) == direct, other


def test_the_recipes_own_steps_stay_but_for_the_untrained_model() -> None:
    assert load_config(QUICKSTART, ["method=dapo"]).training.steps == 120
    assert load_config(QUICKSTART, ["method=cot"]).training.steps == 0


def test_lampo_goes_with_the_ideas_of_others() -> None:
    config = load_config(
        QUICKSTART,
        [
            "method=lampo",
            "loss.clip_high=0.28",
            "loss.aggregation=token",
            "loss.surrogate=sequence",
            "sampling.resample=3",
            "rewards.overlong_penalty=1",
        ],
    )
    assert config.advantage.name == "pairwise"
    assert (config.loss.surrogate, config.loss.aggregation, config.sampling.resample) == ("sequence", "token", 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method=ppo"], r"no method 'ppo'; known are lampo, grpo, dr_grpo"),
        (["advantage.name=rloo"], r"the method lampo has the estimator pairwise, and not rloo: name another method"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(LampoError, match=message):
        load_config(QUICKSTART, settings)


def test_without_a_method_any_estimator_may_be_named() -> None:
    assert load_config(QUICKSTART, ["method=null", "advantage.name=rloo"]).advantage.name == "rloo"
