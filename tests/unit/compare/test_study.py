"""Study files: what runs they come to, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lampo.compare.study import TUNING_SEED, Plan, load_study
from lampo.types import LampoError

RECIPE = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"


def plan(folder: Path, **changes: Any) -> Plan:
    values = {"name": "s", "recipe": str(RECIPE), "methods": ["lampo", "grpo"], "folder": str(folder), **changes}
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return load_study(folder / "study.yaml")


def test_runs_of_a_seed_share_weights_problems_and_everything_but_the_method(tmp_path: Path) -> None:
    runs = plan(tmp_path, seeds=2).test({})
    assert [(run.seed, run.method) for run in runs] == [(0, "lampo"), (0, "grpo"), (1, "lampo"), (1, "grpo")]
    ours, theirs = (run.config.model_dump() for run in runs[:2])
    assert {section for section in ours if ours[section] != theirs[section]} == {"run", "method", "advantage"}
    assert ours["run"] | {"name": theirs["run"]["name"]} == theirs["run"]
    assert ours["model"]["path"] == str(tmp_path / "s/runs/task/start-seed0/checkpoints/warmstart-000550")
    assert ours["warmstart"]["steps"] == 0
    assert runs[0].config.model.path != runs[2].config.model.path


def test_a_warm_start_is_made_once_a_seed_and_measures_next_to_nothing(tmp_path: Path) -> None:
    starts = plan(tmp_path, seeds=2, learning_rates=[1e-4, 1e-3], tuning={"seeds": 1}).starts()
    assert [run.seed for run in starts] == [TUNING_SEED, 0, 1]
    assert all(run.config.warmstart.steps == 550 and run.config.training.steps == 0 for run in starts)
    assert starts[0].config.evaluation.final_problems == 1
    assert plan(tmp_path, settings={"warmstart.steps": 0}).starts() == []


def test_tasks_that_warm_up_alike_share_the_warm_start(tmp_path: Path) -> None:
    tasks = {"eight": {}, "sixteen": {"sampling.group_size": 16}, "later": {"task.digits": 4}}
    study = plan(tmp_path, seeds=2, tasks=tasks)
    assert [(run.task, run.seed) for run in study.starts()] == [("eight", 0), ("eight", 1), ("later", 0), ("later", 1)]
    begins = {(run.task, run.seed): run.config.model.path for run in study.test({})}
    assert begins["sixteen", 1] == begins["eight", 1] != begins["eight", 0]
    assert begins["later", 1] != begins["eight", 1]


def test_tuning_sees_the_first_heldout_problems_and_the_comparison_the_others(tmp_path: Path) -> None:
    study = plan(
        tmp_path,
        methods=["lampo", "grpo", "cot"],
        seeds=1,
        learning_rates=[1e-4, 1e-3],
        tuning={"seeds": 2, "problems": 50},
    )
    tuning = study.tuning()
    assert len(tuning) == 2 * 2 * 2  # seeds, methods that train, learning rates
    assert {run.config.evaluation.final_problems for run in tuning} == {50}
    assert {run.config.evaluation.skip for run in tuning} == {0}
    test = study.test({("task", "lampo"): 1e-3, ("task", "grpo"): 1e-4})
    assert {run.config.evaluation.skip for run in test} == {50}
    assert [run.config.optimizer.learning_rate for run in test[:2]] == [1e-3, 1e-4]
    assert test[2].config.training.steps == 0
    assert all(run.seed < TUNING_SEED for run in test)


def test_problems_that_the_study_skips_are_tuned_on_as_little_as_compared_on(tmp_path: Path) -> None:
    changes = {"learning_rates": [1e-4, 1e-3], "tuning": {"problems": 50}, "settings": {"evaluation.skip": 30}}
    study = plan(tmp_path, **changes)
    assert {run.config.evaluation.skip for run in study.tuning()} == {30}
    assert {run.config.evaluation.skip for run in study.test({})} == {30 + 50}


def test_tuning_that_leaves_no_problems_is_refused_before_it_begins(tmp_path: Path) -> None:
    changes = {"learning_rates": [1e-4, 1e-3], "tuning": {"problems": 500}}
    with pytest.raises(LampoError, match="has 500 held-out problems, and tuning uses 500"):
        plan(tmp_path, **changes).check()
    plan(tmp_path, **changes, settings={"task.num_heldout": 501}).check()
    plan(tmp_path, **{**changes, "learning_rates": [1e-4]}).check()  # nothing is tuned


def test_a_primary_measure_that_would_not_be_measured_is_refused_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(LampoError, match="which task would not measure. Set evaluation.greedy: true"):
        plan(tmp_path, primary="most_likely_response").check()
    plan(tmp_path, primary="most_likely_response", settings={"evaluation.greedy": True}).check()
    plan(tmp_path, primary="over_training").check()
    with pytest.raises(LampoError, match=r"primary: .*'over_training'"):
        plan(tmp_path, primary="accuracy")


@pytest.mark.parametrize("key", ["model.config.hidden_size", "warmstart.steps", "evaluation.skip", "task.digits"])
def test_a_method_has_no_start_and_no_problems_of_its_own(tmp_path: Path, key: str) -> None:
    entry = {"name": "other", "method": "lampo", "settings": {key: 4}}
    with pytest.raises(
        LampoError, match=f"other .* has settings of its own in {key.split('.')[0]}, which all methods share"
    ):
        plan(tmp_path, methods=["grpo", entry]).check()  # before the first run


def test_settings_of_study_task_and_method_lie_over_each_other(tmp_path: Path) -> None:
    variant = {"name": "sharp", "method": "lampo", "settings": {"advantage.temperature": 0.1, "training.steps": 7}}
    study = plan(
        tmp_path,
        methods=["grpo", variant],
        seeds={"grpo": 2, "default": 1},
        settings={"training.steps": 5, "loss.clip_high": 0.5},
        tasks={"short": {"task.digits": 2}, "long": {"task.digits": 4}},
    )
    runs = {(run.task, run.method, run.seed): run.config for run in study.test({})}
    assert len(runs) == 2 * 3
    assert runs["short", "grpo", 1].training.steps == 5
    assert runs["short", "sharp", 0].training.steps == 7
    assert runs["short", "sharp", 0].advantage.temperature == 0.1  # pyright: ignore
    assert runs["long", "grpo", 0].task.digits == 4  # pyright: ignore
    assert runs["long", "grpo", 0].loss.clip_high == 0.5  # what the study says for all wins over the method's own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "dapo"}, r"the baseline 'dapo' is not among the methods lampo, grpo"),
        ({"methods": ["grpo", "grpo"]}, "two methods have the same name"),
        ({"sedes": 3}, r"sedes is not a setting\. Did you mean seeds\?"),
        (
            {"methods": [{"name": "a", "method": "grpo", "setings": {}}]},
            r"methods\[0\]\.setings .* methods\[0\]\.settings\?",
        ),
        ({"methods": None}, r"methods: Input should be a valid list \(given: None\)"),
        ({"seeds": {"grop": 3}}, "seeds names grop"),
        ({"tasks": {"a/b": {}}}, "fit for folders"),
        ({"seeds": 0}, r"\n  seeds: Input should be greater than 0 \(given: 0\)"),
        ({"seeds": {"lampo": -1}}, r"\n  seeds\.lampo: Input should be greater than 0"),
        ({"learning_rates": [1e-4, 1.0000001e-4]}, "learning rates of lampo are not six digits apart"),
        ({"methods": ["grpo", {"name": "start", "method": "lampo"}]}, "no method can be called start"),
        ({"methods": ["grpo", "ppo"]}, "method ppo .*There is no method 'ppo'. Known are lampo"),
        ({"settings": {"training.stepz": 3}}, "Did you mean training.steps"),
        ({"recipe": "missing.yaml"}, "Cannot read the recipe"),
    ],
)
def test_mistakes_are_told_in_plain_words(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LampoError, match=message):
        plan(tmp_path, **changes).test({})


def test_a_recipe_in_the_place_of_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        LampoError, match=r"quickstart\.yaml is a recipe and no study\. A study names it: .*recipe: quickstart\.yaml"
    ):
        load_study(RECIPE)


def test_a_recipe_of_the_package_by_name_with_a_function_beside_the_study(tmp_path: Path) -> None:
    own = {"name": "mine", "method": None, "settings": {"advantage.name": "python:beside.mine"}}
    runs = plan(tmp_path, recipe="quickstart", methods=["grpo", own], seeds=1).test({})
    assert runs[0].config.task.name == "arithmetic"
    assert runs[0].config.run.imports == []
    assert str(tmp_path) in runs[1].config.run.imports


def test_an_advantage_of_ones_own_needs_no_method(tmp_path: Path) -> None:
    longer = {"name": "mine", "settings": {"advantage.name": "python:beside.mine", "advantage.power": 2}}
    runs = plan(tmp_path, recipe="quickstart", methods=["grpo", "python:beside.plain", longer], seeds=1).test({})
    assert [run.method for run in runs] == ["grpo", "plain", "mine"]
    assert [run.config.method for run in runs] == ["grpo", None, None]
    assert runs[2].config.advantage.settings() == {"power": 2}
    with pytest.raises(LampoError, match="method"):
        plan(tmp_path, methods=["grpo", {"name": "sharp", "settings": {"advantage.temperature": 0.1}}])
