"""Files that are YAML in name only: a message each, at once."""

import time
from pathlib import Path

import pytest

from lampo.config.load import load_config, parse_setting
from lampo.types import LampoError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {k: 1}\n" + "".join(
    f"{after}: &{after} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("training: {steps: !!int foo}", "not valid YAML", id="int"),
        pytest.param("training:\n  steps: !!int \n", "not valid YAML", id="int of nothing"),
        pytest.param("training: {steps: !!float foo}", "not valid YAML", id="float"),
        pytest.param("training: {steps: !!bool foo}", "not valid YAML: a value is not of the type", id="bool"),
        pytest.param("training: {steps: !!timestamp foo}", "not valid YAML: a value is not of the type", id="timestamp"),
        pytest.param("training: {steps: !!timestamp 2024-13-45}", "not valid YAML: month must be", id="date"),
        pytest.param("training: {steps: !!python/object:os.system x}", "not valid YAML", id="object"),
        pytest.param(f"training: {{steps: {'9' * 5000}}}", "not valid YAML: Exceeds the limit", id="5,000 digits"),
        pytest.param(f"training: {{steps: {10**30}}}", r"training.steps: the number is too large, it has 100 bits", id="10**30"),
        pytest.param(f"run: {{seed: {-(2**70)}}}", r"run.seed: the number is too large", id="-2**70"),
        pytest.param("[" * 5_000, "not valid YAML: it is nested too deeply", id="deep"),
        pytest.param("a: " + "[" * 60 + "]" * 60, "not valid YAML: it is nested more than 50 deep", id="60 deep"),
        pytest.param("model: &a {config: *a}", "not valid YAML: it refers to itself", id="itself"),
        pytest.param("model: &a [*a]", "not valid YAML: it refers to itself", id="itself, a list"),
        pytest.param("run: {name: a\0b}", "not valid YAML: unacceptable character", id="NUL"),
        pytest.param('run: {name: "\\ud83d"}', "run.name: the text holds half a character", id="surrogate"),
        pytest.param(BOMB, "not valid YAML: it has more than 100,000 values, aliases written out", id="bomb"),
        pytest.param(MERGED, "not valid YAML: it has more than 100,000 values, aliases written out", id="bomb of merges"),
        pytest.param("".join(f"k{n}: 1\n" for n in range(60_000)), "not valid YAML: it has more than", id="60,000 keys"),
        pytest.param("? [a]\n: 1", "not valid YAML", id="a list as a key"),
        pytest.param("1: 2", "has settings that do not hold", id="a number as a key"),
        pytest.param("--- a\n--- b", "not valid YAML", id="two documents"),
        pytest.param("", "is empty or no mapping", id="empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_message_at_once(tmp_path: Path, text: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    began = time.process_time()
    with pytest.raises(LampoError, match=message) as refusal:
        load_config(recipe)
    assert time.process_time() - began < 10
    assert len(str(refusal.value)) < 3_000


def test_a_date_is_text_and_anchors_are_allowed(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "run: {name: 2024-13-45}\nmodel: {path: somewhere}\ntask: {name: arithmetic}\n"
        "optimizer: &o {learning_rate: 1e-3}\nwarmstart: {steps: 1, optimizer: {<<: *o, warmup_steps: 2}}\n"
    )
    config = load_config(recipe)
    assert config.run.name == "2024-13-45"
    assert config.warmstart.optimizer.learning_rate == 1e-3
    assert config.warmstart.optimizer.warmup_steps == 2


@pytest.mark.parametrize("text", ["2024-13-45", "9" * 5_000, "!!int foo", "&a [*a]", "[" * 3_000, "a\0b"])
def test_a_setting_that_is_no_yaml_is_text(text: str) -> None:
    assert parse_setting(f"run.name={text}") == ("run.name", text)
