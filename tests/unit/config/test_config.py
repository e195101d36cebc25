from pathlib import Path

import pytest
import yaml

from lampo.config.explain import describe_config, dump_config
from lampo.config.load import load_config
from lampo.config.schema import TrainConfig
from lampo.types import LampoError

RECIPE = """
run: {name: test}
model:
  config: {model_type: qwen3, hidden_size: 32}
  characters: "0123456789+="
task: {name: arithmetic, digits: 2}
optimizer: {learning_rate: 1e-6}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_1e_minus_6_is_a_number(recipe: Path) -> None:
    assert load_config(recipe).optimizer.learning_rate == 1e-6
    assert load_config(recipe, ["optimizer.learning_rate=3E+2"]).optimizer.learning_rate == 300.0
    assert load_config(recipe, ["model.config.rope_theta=1e4"]).model.config == {
        "model_type": "qwen3",
        "hidden_size": 32,
        "rope_theta": 10000.0,
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.learning_ratee=1", r"optimizer\.learning_ratee is not a setting\. Did you mean optimizer\.learning_rate\?"),
        ("optimiser.learning_rate=1", r"optimiser is not a setting\. Did you mean optimizer\?"),
        ("task.digit=1", r"task\.digit is not a setting\. Did you mean task\.digits\?"),
        ("advantage.temprature=1", r"advantage\.temprature is not a setting\. Did you mean advantage\.temperature\?"),
        ("advantage.name=ppo", r"advantage\.name is 'ppo', but known are pairwise, grpo, rloo"),
        ("advantage.name=own.plan", r"and python:own\.plan for a function of your own"),
        ("verifier.name=maths", r"known are .*, and python:module\.function for a function of your own\. Did you mean math\?"),
        ("verifier=math", r"verifier is a section: write verifier: \{name: math\}"),
        ("rewards=verifier", r"rewards is a list: write rewards: \[\{name: verifier\}\]"),
        ("optimizer=adam", r"optimizer: .*given: 'adam'"),
        ("optimizer.betas=[0.9, 1.0]", r"optimizer\.betas\[1\]: .*less than 1.*given: 1"),
        ("sampling.accuracy_range=[20, 80]", r"sampling\.accuracy_range: .*two shares from 0 to 1"),
        ("sampling.accuracy_range=[0.8, 0.2]", r"sampling\.accuracy_range: .*the smaller one first"),
        ("training.tokens_per_microbatch=x", r"\n  training\.tokens_per_microbatch: Input should be 'auto' \(given: 'x'\)"),
        ("sampling.group_size=1", r"sampling\.group_size: .*greater than 1.*given: 1"),
        ("sampling.temperature=.nan", r"sampling\.temperature: .*finite number.*given: nan"),
        ("sampling.temperature=warm", r"sampling\.temperature: .*number.*given: 'warm'"),
        ("model.path=x", None),
        ("run.name=../x", r"run\.name: it names a folder: give letters without accents, digits, .* inside \(given: '\.\./x'\)"),
        ("optimizer", r"write it as section\.key=value"),
        ("optimizer.learning_rate.x=1", r"is a value, not a section"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_plain_words(recipe: Path, setting: str, message: str | None) -> None:
    if message is None:
        load_config(recipe, [setting])
        return
    settings = [setting] if not setting.startswith("advantage.temp") else ["advantage.name=pairwise", setting]
    with pytest.raises(LampoError, match=message):
        load_config(recipe, settings)


def test_all_mistakes_at_once(recipe: Path) -> None:
    with pytest.raises(LampoError) as caught:
        load_config(recipe, ["loss.clip=1", "sampling.group_size=0", "training.steps=many"])
    assert all(name in str(caught.value) for name in ("loss.clip", "sampling.group_size", "training.steps"))


def test_changing_a_name_replaces_the_section(recipe: Path) -> None:
    config = load_config(recipe, ["advantage.name=pairwise", "advantage.scale=group_std", "advantage.name=grpo"])
    assert config.advantage.model_dump() == {"name": "grpo", "std": True, "negative": 1.0}
    assert load_config(recipe, ["task.name=arithmetic"]).task.digits == 2  # pyright: ignore


def test_a_pretrained_model_takes_the_place_of_one_from_scratch(recipe: Path) -> None:
    model = load_config(recipe, ["model.path=some/model"]).model
    assert (model.path, model.config, model.characters) == ("some/model", None, None)


@pytest.mark.parametrize("write", [dump_config, describe_config])
def test_what_is_printed_is_a_recipe_that_gives_the_same_configuration(
    recipe: Path, tmp_path: Path, write: object
) -> None:
    config = load_config(recipe, ["model.lora.rank=4", "run.trackers=[tensorboard]", "rewards.rouge_l.weight=0.2"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(write(config))  # pyright: ignore
    assert load_config(copy) == config


def test_description_has_help_type_and_default_of_every_setting(recipe: Path) -> None:
    text = describe_config(load_config(recipe))
    for section, field in TrainConfig.model_fields.items():
        assert field.description
        assert f"\n{section}:" in text
    assert "# Peak learning rate. (number, > 0, default 1e-06)" in text
    assert "(one of numeric, exact, choice, math, code, reasoning_gym, python, default unset)" in text
    assert "(list of verifier, rouge_l, format, overlong, likelihood, python, default" in text
    assert "lampo." not in text  # no type of Python's
    assert "Optional" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "empty or no mapping: it needs keys such as `model:`"),
        ("run: {name: a}\nrun: {name: b}", "given twice"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(LampoError, match=message):
        load_config(path)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LampoError, match=r"Cannot read the recipe .*none\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_every_setting_explains_itself() -> None:
    def missing(model: type, path: str = "") -> list[str]:
        return [f"{path}{name}" for name, field in model.model_fields.items() if not field.description]  # pyright: ignore

    from lampo.config import schema as module
    from lampo.options import Options

    sections = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Options)]
    assert [name for section in sections for name in missing(section, f"{section.__name__}.")] == []


def test_recipes_load() -> None:
    recipes = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
    assert len(recipes) >= 4
    for path in recipes:
        assert load_config(path).run.name == yaml.safe_load(path.read_text())["run"]["name"] == path.stem
