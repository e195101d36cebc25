"""`engine: trl`: real runs of TRL on a tiny model, and their run directories beside those of the native engine."""
# ruff: noqa: E402

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import torch
import yaml

for package in ("trl", "accelerate", "datasets", "pandas", "jinja2"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lampo[trl]'")

from accelerate.state import AcceleratorState
from rich.console import Console

from lampo import LampoError
from lampo.adapters.trl import LamPOConfig
from lampo.adapters.trl.translate import budget, refuse, settings
from lampo.compare.command import compare_study
from lampo.compare.results import read_results
from lampo.config.explain import dump_config
from lampo.config.schema import EngineName, TrainConfig
from lampo.evaluation.command import evaluate_model
from lampo.learner.optimizer import learning_rate
from lampo.model.pretrained import empty_model
from lampo.store.metrics import read_metrics
from lampo.store.rollouts import read_groups, rollout_steps
from lampo.train.engines import ENGINES, engine_of
from lampo.train.finish import finish
from lampo.train.run import Run
from lampo.view.console import Progress
from lampo.view.inspect.command import inspect
from lampo.view.inspect.pairs import pairs

from ....helpers import warm
from ....helpers.small_run import curve, small_config
from ....helpers.trl_run import MODULES

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 3
TRACKERS = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What accelerate remembers for the whole process goes with these tests."""
    with warm.fork_servers(*MODULES):
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


def config_of(folder: Path, *more: str, **changes: Any) -> TrainConfig:
    changes = {"training__steps": STEPS, "evaluation__every": 2, "sampling__problems_per_step": 4} | changes
    return small_config(folder, *more, **({"engine": "trl"} | changes))


def run_to_end(config: TrainConfig) -> Path:
    run = Run.create(config)
    with Progress(run.path.name) as progress:
        engine_of(config).train(run, progress)
    finish(run)
    return run.path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on the native engine."""
    return run_to_end(config_of(tmp_path_factory.mktemp("native"), engine="native"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run through TRL."""
    return run_to_end(config_of(tmp_path_factory.mktemp("trl")))


def records(run: Path, stage: str) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run) if record["stage"] == stage]


def test_the_registry_has_the_engines_that_a_recipe_may_name() -> None:
    assert tuple(ENGINES) == get_args(EngineName)


# The run directory


def test_the_run_directory_has_all_that_a_native_one_has(run: Path, ours: Path) -> None:
    names, native = ({file.name for file in path.iterdir()} for path in (run, ours))
    assert names == native
    assert {file.name for file in (run / "model").iterdir()} == {file.name for file in (ours / "model").iterdir()}
    assert yaml.safe_load((run / "config.yaml").read_text())["engine"] == "trl"
    assert "trl" in yaml.safe_load((run / "manifest.json").read_text())["versions"]


def test_metrics_have_our_names_and_lack_only_what_trl_does_not_tell(run: Path, ours: Path) -> None:
    trl, native = records(run, "train"), records(ours, "train")
    assert [record["step"] for record in trl] == [1, 2, 3]
    lacking = {"loss/kl_old", "loss/ratio_min", "loss/ratio_max", "loss/num_tokens"}
    assert native[0].keys() - trl[0].keys() == lacking
    assert trl[0].keys() <= native[0].keys()
    assert [record["step"] for record in records(run, "evaluation")] == [0, 2, 3]


def test_warm_start_and_first_evaluation_are_those_of_the_native_engine(run: Path, ours: Path) -> None:
    """Who trains then does not matter: the same weights, measured with the same random numbers."""
    before = [
        [each for each in curve(path) if each["stage"] == "warmstart" or each["step"] == 0] for path in (run, ours)
    ]
    assert before[0] == before[1]
    assert len(before[0]) == 5


def test_the_order_of_the_problems_and_the_learning_rate_are_the_recipe_s(run: Path, ours: Path) -> None:
    assert rollout_steps(run) == rollout_steps(ours) == [1, 2, 3]
    for step in (1, 2, 3):
        asked, native = ([group["problem"] for group in read_groups(path, step)] for path in (run, ours))
        assert asked == native
    options = config_of(run).optimizer
    rates = [record["optimizer/learning_rate"] for record in records(run, "train")]
    assert rates == [learning_rate(step, STEPS, options) for step in (1, 2, 3)]


def test_rollouts_carry_the_advantages_that_were_used(run: Path) -> None:
    spread = 0
    for step in (1, 2, 3):
        for group in read_groups(run, step):
            apart = pairs(group, {"name": "pairwise"})
            assert apart is not None
            advantages = [rollout["advantage"] for rollout in group["rollouts"]]
            assert advantages == pytest.approx(apart.pairwise_G, abs=1e-5)
            spread += any(advantages)
            for rollout in group["rollouts"]:
                assert len(rollout["logprobs"]) == len(rollout["pieces"]) == rollout["length"] <= 12
                assert sum(rollout["logprobs"]) / rollout["length"] == pytest.approx(rollout["score"], abs=1e-3)
                assert rollout["total"] == rollout["rewards"]["verifier"] + 0.5 * rollout["rewards"]["rouge_l"]
    assert spread > 6


def test_the_viewer_and_lampo_eval_read_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    inspect(run, step=None, export=page, groups=4, port=0, open_browser=False)
    assert "4 groups in" in capsys.readouterr().out
    assert page.stat().st_size > 10_000
    table = evaluate_model(
        str(run),
        ["num_problems", "samples"],
        benchmarks=None,
        settings=[],
        num_problems=4,
        samples=1,
        temperature=None,
        max_new_tokens=None,
        backend=None,
        data=[],
        output=None,
        seed=None,
    )
    assert "accuracy" in table


def test_going_on_is_as_if_there_had_been_no_break(run: Path, tmp_path: Path) -> None:
    """The weights, the optimiser's state, the order of problems and the random numbers."""
    whole = run_to_end(config_of(tmp_path, run__name="whole", training__steps=4))
    broken = run_to_end(config_of(tmp_path, run__name="broken", training__steps=2))
    again, _ = Run.resume(broken, ["training.steps=4"])
    with Progress("again") as progress:
        engine_of(again.config).train(again, progress)

    def told(path: Path) -> list[dict[str, Any]]:
        return [record for record in curve(path) if record["stage"] == "train"]

    assert told(broken) == told(whole)
    assert len(told(whole)) == 4


def test_an_advantage_that_reads_no_log_probs_leaves_them_out(tmp_path: Path) -> None:
    path = run_to_end(config_of(tmp_path, training__steps=1, method="grpo"))
    for group in read_groups(path, 1):
        assert all(rollout["score"] is None and "logprobs" not in rollout for rollout in group["rollouts"])
        assert pairs(group, {"name": "grpo"}) is None
    assert "advantage/concordance" not in records(path, "train")[0]


def test_a_step_without_an_advantage_leaves_the_weights_alone(tmp_path: Path) -> None:
    """AdamW would move them by its momentum."""
    path = run_to_end(config_of(tmp_path, training__steps=2, rewards=[{"name": "format", "pattern": "never"}]))
    before, after = (
        safetensors.torch.load_file(path / "checkpoints" / name / "model.safetensors")
        for name in ("warmstart-000004", "train-000002")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "optimizer/gradient_norm" not in records(path, "train")[0]


def unclear(completion: str, answer: str) -> float | None:
    """How many figures a response has; of one that ends with + or = it cannot tell."""
    return None if completion.endswith(("+", "=")) else float(sum(map(str.isdigit, completion)))


def test_a_response_of_which_nobody_can_tell_is_in_no_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewards = [{"name": f"python:{__name__}.unclear"}]
    path = run_to_end(config_of(tmp_path, training__steps=1, rewards=rewards))
    rollouts = [rollout for group in read_groups(path, 1) for rollout in group["rollouts"]]
    unknown = [rollout for rollout in rollouts if rollout["total"] is None]
    assert 0 < len(unknown) < len(rollouts)
    assert all(rollout["text"].endswith(("+", "=")) and rollout["advantage"] == 0 for rollout in unknown)
    assert records(path, "train")[0]["rollouts/unknown"] == len(unknown) / len(rollouts)
    assert "All reward functions returned None" not in caplog.text
    for group in read_groups(path, 1):
        apart = pairs(group, {"name": "pairwise"})
        assert apart is not None
        assert [each["advantage"] for each in group["rollouts"]] == pytest.approx(apart.pairwise_G, abs=1e-5)


def test_several_updates_of_a_step_are_one_step(tmp_path: Path) -> None:
    path = run_to_end(config_of(tmp_path, training__steps=2, training__updates_per_batch=2, loss__kl_coefficient=0.1))
    trl = records(path, "train")
    assert [record["step"] for record in trl] == [1, 2]
    assert trl[0]["loss/kl_ref"] > 0  # of its second update


# Several processes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in two processes."""
    folder = tmp_path_factory.mktemp("two")
    recipe = folder / "recipe.yaml"
    config = config_of(folder, training__tokens_per_microbatch="auto", run__trackers=TRACKERS)
    recipe.write_text(dump_config(config), encoding="utf-8")
    command = [*warm.python(*MODULES), "-m", "lampo", "train", str(recipe), "--processes", "2"]
    environment = os.environ | warm.executable(*MODULES)
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert result.returncode == 0, result.stderr
    return folder / "small"


@pytest.mark.skipif(not TRACKERS, reason="tensorboard is not installed")
def test_trackers_are_opened_once_and_hear_of_the_warm_start_too(two: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len([*two.glob("tensorboard/events*")]) == 1
    told = EventAccumulator(str(two / "tensorboard"))
    told.Reload()
    for name, steps in (("warmstart/loss/value", [1, 2, 3, 4]), ("reward/total", [1, 2, 3])):
        assert [event.step for event in told.Scalars(name)] == steps


def test_two_processes_write_one_run(run: Path, two: Path) -> None:
    assert [record["step"] for record in records(two, "train")] == [1, 2, 3]
    assert [record["step"] for record in records(two, "evaluation")] == [0, 2, 3]
    for step in (1, 2, 3):
        groups, alone = read_groups(two, step), read_groups(run, step)
        assert [group["problem"] for group in groups] == [group["problem"] for group in alone]
        for group in groups:
            apart = pairs(group, {"name": "pairwise"})
            assert apart is not None
            assert [each["advantage"] for each in group["rollouts"]] == pytest.approx(apart.pairwise_G, abs=1e-5)
    assert (two / "model").is_dir()
    assert (two / "report.html").is_file()


def test_two_processes_go_on_and_stop_with_a_checkpoint(two: Path) -> None:
    command = [*warm.python(*MODULES), "-m", "lampo", "train", str(two), "--resume", "--set", "training.steps=10000"]
    environment = os.environ | warm.executable(*MODULES)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if "4/10000" in line:
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130, told
    assert "with a checkpoint" in told[-1]
    last = records(two, "train")[-1]["step"]
    assert last >= 4
    assert (two / "checkpoints" / f"train-{last:06d}").is_dir()


# Settings


REFUSED: dict[str, dict[str, Any]] = {
    "loss.surrogate is geometric": {"loss__surrogate": "geometric"},
    "loss.aggregation is sequence": {"loss__surrogate": "cispo", "loss__clip_low": 1.0},
    "loss.clip_low is 0.2": {"loss__surrogate": "cispo", "loss__aggregation": "token"},
    "loss.kl_coefficient with model.lora": {"loss__kl_coefficient": 0.1, "model__lora": {"rank": 4}},
    "loss.kl_coefficient with model.allow_remote_code": {
        "loss__kl_coefficient": 0.1,
        "model__allow_remote_code": True,
    },
    "sampling.resample is 3": {"sampling__resample": 3},
    "sampling.engine is vllm": {"sampling__engine": "vllm"},
    "loss.sampler_correction is token": {"loss__sampler_correction": "token"},
    "spread_filter": {"spread_filter": {"share": 0.5}},
    "optimizer.eight_bit_moments": {"optimizer": {"eight_bit_moments": True}},
    "advantage.name is prime": {"advantage": {"name": "prime"}},
    "the reward likelihood": {"rewards": [{"name": "likelihood"}]},
    "run.processes is 3": {"run__processes": 3},
    "sampling.rows_at_once is 8": {"sampling__rows_at_once": 8},
    "model.device is mps": {"model__device": "mps"},
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_trl_cannot_honour_is_refused_by_name(named: str, tmp_path: Path) -> None:
    with pytest.raises(LampoError, match=f"The engine trl cannot honour these settings:\n  {re.escape(named)}"):
        refuse(config_of(tmp_path, **REFUSED[named]))


def test_all_refusals_are_told_at_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, sampling__resample=3, spread_filter={"share": 0.5})
    with pytest.raises(LampoError, match=r"(?s)sampling.resample.*spread_filter"):
        refuse(config)


def test_the_native_engine_has_one_process(tmp_path: Path) -> None:
    config = config_of(tmp_path, engine="native", run__processes=2)
    with pytest.raises(LampoError, match="run.processes is 2, and the native engine has one process"):
        engine_of(config).refuse(config)


def test_micro_batches_divide_the_rollouts_of_a_process_and_hold_no_more_tokens(tmp_path: Path) -> None:
    config = config_of(tmp_path, training__tokens_per_microbatch=100)
    found = settings(config, longest_prompt=6, tokens=100)
    assert found["per_device_train_batch_size"] == 4  # 100 // (6 + 12) = 5 rows, and 16 rollouts
    assert found["gradient_accumulation_steps"] == 4
    config = config_of(tmp_path, training__tokens_per_microbatch=100, run__processes=2)
    found = settings(config, longest_prompt=6, tokens=100)
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 8


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("lampo", {"loss_type": "grpo", "advantage": "pairwise", "epsilon_high": 0.2}),
        (
            "dr_grpo",
            {"loss_type": "dr_grpo", "advantage": "grpo", "advantage_options": {"std": False, "negative": 1.0}},
        ),
        ("gspo", {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4}),
        ("cispo", {"loss_type": "cispo", "epsilon_high": 5.0}),
        ("simplerl_zoo", {"loss_type": "dapo", "beta": 1e-4}),
        ("reinforce_pp", {"loss_type": "dapo", "advantage": "reinforce_pp"}),
    ],
)
def test_methods_become_settings_of_trl(method: str, expected: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(tmp_path, method=method)
    refuse(config)
    found = settings(config, longest_prompt=6, tokens=100)
    assert {key: found[key] for key in expected} == expected
    made = LamPOConfig(output_dir=str(tmp_path), **found)
    assert made.estimator() == config.advantage


def test_an_advantage_of_one_s_own_keeps_its_options(tmp_path: Path) -> None:
    config = config_of(tmp_path, advantage={"name": "python:mine.own", "factor": 2})
    found = settings(config, longest_prompt=6, tokens=100)
    assert (found["advantage"], found["advantage_options"]) == ("python:mine.own", {"factor": 2})


def test_a_dry_run_prints_the_engine_s_own_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, run__processes=2)
    engine_of(config).dry_run(config)
    printed = capsys.readouterr().out
    assert "engine: TRL, torchrun starts 2 processes" in printed
    assert "  num_generations: 4" in printed
    assert "Nothing was trained." in printed
    assert not (tmp_path / "small").exists()


def test_where_the_machine_chooses_there_is_room_for_the_logits(tmp_path: Path) -> None:
    config = config_of(tmp_path, training__tokens_per_microbatch="auto")
    model, _ = empty_model(config.model)
    assert budget(config, model, 10**9) < 10**9
    assert budget(config, model, 7) == 7
    assert budget(config_of(tmp_path), model, 10**9) == 10**9  # what a person writes wins


# Studies


def write_recipe(folder: Path) -> None:
    """As a person writes one: nothing that a method brings."""
    values = config_of(folder).model_dump(mode="json")
    values["sampling"].pop("resample")
    written = {key: value for key, value in values.items() if key not in ("advantage", "loss", "spread_filter")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")


def test_a_study_compares_methods_on_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    study = {
        "name": "engines",
        "recipe": "recipe.yaml",
        "settings": {"training.steps": 2},
        "methods": ["grpo", "lampo", {"name": "native", "method": "lampo", "settings": {"engine": "native"}}],
        "seeds": 1,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    compare_study(tmp_path / "study.yaml", Console(quiet=True))
    results = read_results(tmp_path / "runs" / "engines" / "results.parquet")
    assert {result.method: result.status for result in results} == dict.fromkeys(
        ["grpo", "lampo", "native"], "finished"
    )
    first = {result.points[0].accuracy for result in results}
    assert len(first) == 1  # all begin at the same weights
    assert all([point.step for point in result.points] == [0, 2] for result in results)


def test_a_study_refuses_what_its_engine_cannot_do_before_the_first_run(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    study = {"name": "refused", "recipe": "recipe.yaml", "methods": ["grpo", "dapo"], "folder": str(tmp_path / "runs")}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    with pytest.raises(LampoError, match=r"(?s)The method dapo of the study cannot be run.*sampling.resample is 3"):
        compare_study(tmp_path / "study.yaml", Console(quiet=True))
    assert not (tmp_path / "runs" / "refused" / "runs").exists()
