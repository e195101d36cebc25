"""LamPOTrainer against the native engine's functions: the same advantages and gradients from the same rollouts, in real runs of TRL."""
# ruff: noqa: E402

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

for package in ("trl", "accelerate", "datasets", "pandas", "jinja2"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lampo[trl]'")

import pandas
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM

from lampo import (
    LampoError,
    grpo_advantages,
    loss_denominator,
    pairwise_advantages,
    policy_loss,
    reinforce_pp_advantages,
    rloo_advantages,
    sequence_scores,
)
from lampo.adapters.trl import LamPOTrainer

from ....helpers import warm
from ....helpers.trl_run import GROUP_SIZE, MODULES, Watched, digits, letters, make_trainer, save_model, train

# TRL calls transformers and torch by names that they have since deprecated; the adapter itself warns in the log only.
pytestmark = pytest.mark.filterwarnings("ignore")

AGGREGATIONS = {"grpo": "sequence", "dapo": "token", "dr_grpo": "constant", "cispo": "token"}
MAX_COMPLETION, TEMPERATURE = 40, 0.8


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What accelerate remembers for the whole process goes with these tests."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


class Rows:
    """The rows of one generation batch of all processes, and what they are worth, computed without the adapter."""

    def __init__(self, batches: list[dict[str, Any]], *, mask_truncated: bool = False) -> None:
        self.texts = [text for batch in batches for text in batch["texts"]]
        self.prompts = [
            ids[mask.bool()]
            for batch in batches
            for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
        ]
        # The emptied rows of the batch are gone from its mask: their tokens end where the padding begins, after the first end token.
        self.completions, self.finished = [], []
        for batch in batches:
            for ids in batch["completion_ids"].tolist():
                end = ids.index(END) + 1 if END in ids else len(ids)
                self.completions.append(torch.tensor(ids[:end]))
                self.finished.append(END in ids)
        totals = [
            math.nan if first is None else first + 0.5 * (second or 0.0)
            for first, second in zip(digits(self.texts), letters(self.texts), strict=True)
        ]
        self.totals_N = torch.tensor(totals)
        self.valid_N = ~self.totals_N.isnan()
        if mask_truncated:
            self.valid_N &= torch.tensor(self.finished)
        self.group_ids_N = torch.arange(len(totals)) // GROUP_SIZE
        T = max(map(len, self.completions))
        self.mask_NT = torch.arange(T) < torch.tensor([len(ids) for ids in self.completions])[:, None]

    def logprobs(self, weights: dict[str, Tensor], model: Path) -> Tensor:
        """(N, T) by a plain forward pass of transformers, row by row, without padding."""
        network = AutoModelForCausalLM.from_pretrained(model)
        rows = []
        self.network = network
        network.load_state_dict(weights, strict=False)
        for prompt, completion in zip(self.prompts, self.completions, strict=True):
            logits = network(input_ids=torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1]
            logprobs = (logits / TEMPERATURE).log_softmax(-1).gather(1, completion[:, None])[:, 0]
            rows.append(torch.cat([logprobs, logprobs.new_zeros(self.mask_NT.shape[1] - len(completion))]))
        return torch.stack(rows)


END = 1  # the character tokenizer's


def rows_of(runs: list[dict[str, Any]], index: int, **kwargs: Any) -> Rows:
    return Rows([run["batches"][index] for run in runs], **kwargs)


def gradient_of_ours(
    rows: Rows,
    model: Path,
    weights: list[dict[str, Tensor]],
    step: int,
    loss_type: str,
    beta: float = 0.0,
    **surrogate: Any,
) -> dict[str, Tensor]:
    """Of `policy_loss`, on the rollouts of the first step, with the weights before the given one."""
    old_NT = rows.logprobs(weights[0], model).detach()
    advantages_N = pairwise_advantages(
        rows.totals_N, sequence_scores(old_NT, rows.mask_NT), rows.group_ids_N, valid_N=rows.valid_N, temperature=1.0
    )
    now_NT = rows.logprobs(weights[step], model)
    network, mask_NT = rows.network, rows.mask_NT & rows.valid_N[:, None]
    aggregation: Any = AGGREGATIONS[loss_type]
    loss = policy_loss(
        now_NT,
        old_NT,
        advantages_N,
        mask_NT,
        denominator=loss_denominator(int(rows.valid_N.sum()), int(mask_NT.sum()), MAX_COMPLETION, aggregation),
        aggregation=aggregation,
        kl_coefficient=beta,
        ref_logprobs_NT=old_NT if beta else None,  # the run begins at the reference
        **surrogate,
    )
    network.zero_grad()
    loss.value.backward()
    return {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


def assert_same_gradient(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-6 of the gradient's length."""
    assert actual.keys() == expected.keys()
    size = math.sqrt(sum(float(value.square().sum()) for value in expected.values()))
    difference = math.sqrt(sum(float((actual[name] - value).square().sum()) for name, value in expected.items()))
    assert size > 1e-3
    assert difference < 1e-6 * size


def assert_mixed(rows: Rows) -> None:
    """The case has something to tell: known and unknown rows in one group, and rewards that differ."""
    by_group = rows.valid_N.view(-1, GROUP_SIZE).sum(1)
    assert ((by_group > 1) & (by_group < GROUP_SIZE)).any()
    assert rows.totals_N[rows.valid_N].unique().numel() > 2


CASES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "accumulation": {"loss_type": "grpo", "per_device_train_batch_size": 8, "gradient_accumulation_steps": 3},
    "accumulation-dapo": {"loss_type": "dapo", "per_device_train_batch_size": 12, "gradient_accumulation_steps": 2},
    "truncated": {"loss_type": "grpo", "mask_truncated_completions": True},
    "truncated-dapo": {"loss_type": "dapo", "mask_truncated_completions": True},
    "kl": {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": False},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.01},
    "kl-dr_grpo": {"loss_type": "dr_grpo", "beta": 0.3, "use_bias_correction_kl": False},
}


SURROGATES: dict[str, dict[str, Any]] = {
    "gspo": {"surrogate": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    "cispo": {"surrogate": "cispo", "clip_low": 1.0, "clip_high": 0.01},
}
"""The settings of `lampo train` that the engine `trl` translates into those above."""


# A fixed temperature: the automatic one is small here, and would make ten times as much of the rounding of two forward passes.
BASE: dict[str, Any] = {"num_iterations": 2, "reward_weights": [1.0, 0.5], "advantage_options": {"temperature": 1.0}}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_native_loss(case: str, model: Path, tmp_path: Path) -> None:
    """Two steps on the same rollouts: the second has ratios that are not 1, and a KL term that is not 0."""
    settings = CASES[case]
    run = train(model, tmp_path, max_steps=2, **BASE, **settings)
    rows = rows_of([run], 0, mask_truncated=settings.get("mask_truncated_completions", False))
    assert_mixed(rows)
    for step in range(2):
        expected = gradient_of_ours(
            *(rows, model, run["weights"], step, settings["loss_type"], settings.get("beta", 0.0)),
            **SURROGATES.get(case, {}),
        )
        assert_same_gradient(run["gradients"][step], expected)


# Advantages


def advantages_of(name: str, rows: Rows, scores_N: Tensor) -> Tensor:
    rewards_N, group_ids_N, valid_N = rows.totals_N, rows.group_ids_N, rows.valid_N
    return {
        "pairwise": lambda: pairwise_advantages(rewards_N, scores_N, group_ids_N, valid_N=valid_N),
        "grpo": lambda: grpo_advantages(rewards_N, group_ids_N, valid_N=valid_N),
        "rloo": lambda: rloo_advantages(rewards_N, group_ids_N, valid_N=valid_N),
        "reinforce_pp": lambda: reinforce_pp_advantages(rewards_N, group_ids_N, valid_N=valid_N),
    }[name]()


@pytest.mark.parametrize("name", ["pairwise", "grpo", "rloo", "reinforce_pp"])
def test_advantages_are_those_of_the_estimator_and_are_the_ones_logged(name: str, model: Path, tmp_path: Path) -> None:
    run = train(model, tmp_path, advantage=name, reward_weights=[1.0, 0.5], log_completions=True)
    rows = rows_of([run], 0)
    assert_mixed(rows)
    scores_N = sequence_scores(rows.logprobs(run["weights"][0], model), rows.mask_NT)
    expected_N = advantages_of(name, rows, scores_N)
    torch.testing.assert_close(run["batches"][0]["advantages"], expected_N, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.tensor(run["logged_advantages"]), expected_N, rtol=1e-4, atol=1e-6)
    (table,) = (tmp_path / "completions").glob("*.parquet")
    assert pandas.read_parquet(table)["advantage"].tolist() == run["logged_advantages"]
    logged = run["log"][0]
    assert logged["advantage/rows_without_reward"] == int((~rows.valid_N).sum())
    assert ("advantage/concordance" in logged) == (name == "pairwise")  # nobody asked for the others' log-probs


@pytest.mark.parametrize("tokens", [False, True])
def test_an_advantage_of_ones_own(tokens: bool, model: Path, tmp_path: Path) -> None:
    """It gets texts and log-probs of the rollouts, and may give each token its own advantage."""
    path = f"python:{__name__}.{'later_tokens_more' if tokens else 'longer_texts'}"
    run = train(model, tmp_path, advantage=path, advantage_options={"factor": 0.5}, reward_weights=[1.0, 0.5])
    rows, (batch,) = rows_of([run], 0), run["batches"]
    lengths = torch.tensor([len(text) for text in rows.texts])
    if tokens:
        places_T = 0.5 * torch.arange(rows.mask_NT.shape[1])
        torch.testing.assert_close(
            batch["advantages"], torch.where(rows.mask_NT & rows.valid_N[:, None], places_T, 0.0)
        )
    else:
        torch.testing.assert_close(batch["advantages"], torch.where(rows.valid_N, 0.5 * lengths, 0.0))


def longer_texts(rewards_N: Tensor, group_ids_N: Tensor, *, rollouts_N: list[Any], factor: float) -> Tensor:
    assert all(
        len(rollout.logprobs) == len(rollout.completion_ids) and rollout.logprobs.max() < 0 for rollout in rollouts_N
    )
    return factor * torch.tensor([float(len(rollout.text)) for rollout in rollouts_N])


def later_tokens_more(rewards_N: Tensor, group_ids_N: Tensor, *, rollouts_N: list[Any], factor: float) -> Tensor:
    T = max(len(rollout.completion_ids) for rollout in rollouts_N)
    return factor * torch.arange(T).float().expand(len(rollouts_N), T)


def test_an_unknown_row_changes_nothing(model: Path, tmp_path: Path) -> None:
    """All unknown: no gradient but zeros. None from a reward that does not apply leaves the row in."""
    run = train(model, tmp_path, rewards=[nobody_knows, letters], loss_type="dapo", **BASE)
    assert all(not gradient.any() for gradient in run["gradients"][0].values())
    rows = rows_of([run], 0)
    assert None in letters(rows.texts)
    run = train(model, tmp_path, rewards=[letters, lengths], advantage="grpo")
    totals_N = torch.tensor(
        [(one or 0.0) + two for one, two in zip(letters(rows.texts), lengths(rows.texts), strict=True)]
    )
    torch.testing.assert_close(run["batches"][0]["advantages"], grpo_advantages(totals_N, rows.group_ids_N))


def nobody_knows(completions: list[str], **_: Any) -> list[None]:
    return [None] * len(completions)


nobody_knows.none_is_unknown = True  # pyright: ignore[reportFunctionMemberAccess]


def lengths(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


# Whose log-probs


class WithSampler(Watched):
    """As if an inference engine had sampled, whose log-probs are the trainer's plus an error."""

    error = 0.0

    def _generate(self, prompts: list[Any]) -> Any:
        said = list(super()._generate(prompts))
        generator = torch.Generator().manual_seed(0)
        index = (
            5 if isinstance(said[4], Tensor) else 4
        )  # the log-probs; older ones return the number of tokens before them
        said[index] = [(-3.0 + self.error * torch.randn(len(ids), generator=generator)).tolist() for ids in said[1]]
        said[index][0][0] = math.nan  # vLLM cannot tell some
        self._drew_itself = False
        return tuple(said)


def test_scores_come_from_the_sampler_where_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    class Sharp(WithSampler):
        error = 1.0

    run = train(model, tmp_path, trainer=Sharp, scores_from="sampler", reward_weights=[1.0, 0.5])
    rows = rows_of([run], 0)
    generator = torch.Generator().manual_seed(0)
    scores = [-3.0 + torch.randn(len(ids), generator=generator) for ids in rows.completions]
    scores_N = torch.stack([values[1 if row == 0 else 0 :].mean() for row, values in enumerate(scores)])
    expected_N = pairwise_advantages(rows.totals_N, scores_N, rows.group_ids_N, valid_N=rows.valid_N)
    torch.testing.assert_close(run["batches"][0]["advantages"], expected_N, rtol=1e-4, atol=1e-6)
    with pytest.raises(LampoError, match=r"scores_from='sampler' needs a sampler that returns log-probs"):
        train(model, tmp_path, trainer=OneDraws, scores_from="sampler")


def test_a_mismatch_of_trainer_and_sampler_is_logged_and_warned_of(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Sharp(WithSampler):
        error = 1.0

    with caplog.at_level(logging.WARNING, logger="lampo"):
        log = train(model, tmp_path, trainer=Sharp, max_steps=2)["log"]
    assert log[0]["mismatch/advantages"] > 0.1
    assert log[0]["mismatch/scores"] > 0.1
    assert sum("log-probs of trainer and sampler disagree" in record.message for record in caplog.records) == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="lampo"):
        train(model, tmp_path, trainer=Sharp, mismatch_tolerance=10.0)
    assert not any("disagree" in record.message for record in caplog.records)


class OneDraws(Watched):
    """As if something had sampled that tells no log-probs, as transformers' continuous batching does."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        said = super()._generate_single_turn(*args, **kwargs)
        self._drew_itself = False
        return said[0], None


def test_the_extra_forward_pass_is_told_once_and_made_only_where_it_is_needed(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for settings, times in (
        ({}, 0),
        ({"trainer": OneDraws}, 1),
        ({"trainer": OneDraws, "num_iterations": 2}, 0),
        ({"trainer": OneDraws, "advantage": "grpo"}, 0),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="lampo"):
            train(model, tmp_path, max_steps=2, **settings)
        assert sum("costs one more forward pass" in record.message for record in caplog.records) == times


def test_what_generate_tells_is_what_a_forward_pass_tells(model: Path, tmp_path: Path) -> None:
    """TRL computes log-probs of its own with two iterations: then both are there, and are compared."""
    log = train(model, tmp_path, max_steps=2, num_iterations=2)["log"]
    assert 0 <= log[0]["mismatch/scores"] < 1e-5
    assert log[0]["mismatch/advantages"] < 1e-3


# Around it


def test_two_processes_with_a_group_over_both_have_the_gradient_of_one(model: Path, tmp_path: Path) -> None:
    """Of two times ten rows in groups of four, the third group is half on each rank."""
    settings = {**BASE, "loss_type": "dapo", "max_steps": 2, "per_device_train_batch_size": 10}
    launcher = [*warm.python(*MODULES), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    program = [*launcher, "-m", "tests.helpers.trl_run", str(model), str(tmp_path), json.dumps(settings)]
    environment = os.environ | warm.executable(*MODULES)
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    rows = rows_of(runs, 0)
    assert len(rows.texts) == 20
    assert rows.valid_N[8:12].sum() > 1  # the group over both
    for step in range(2):
        expected = gradient_of_ours(rows, model, runs[0]["weights"], step, "dapo")
        for run in runs:
            assert_same_gradient(strip_module(run["gradients"][step]), expected)
    assert runs[0]["log"][0]["advantage/rows_without_reward"] == int((~rows.valid_N).sum())


def strip_module(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in values.items()}


def test_lora_learns_the_adapter_alone(model: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    run = train(model, tmp_path, peft=adapter, reward_weights=[1.0, 0.5], beta=0.1)
    gradients = run["gradients"][0]
    assert gradients
    assert all("lora_" in name and gradient.any() for name, gradient in gradients.items())
    assert run["batches"][0]["advantages"].any()


def test_a_checkpoint_has_a_card_that_names_lampo(model: Path, tmp_path: Path) -> None:
    train(model, tmp_path, save_strategy="steps", save_steps=1)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "trained with LamPO" in card
    assert "DeepSeekMath" not in card


def test_evaluation_goes_through_the_same_advantages(model: Path, tmp_path: Path) -> None:
    trainer = make_trainer(model, tmp_path, per_device_eval_batch_size=8, num_generations_eval=2)
    trainer.evaluate(trainer.train_dataset)
    said = trainer.state.log_history[-1]
    assert said["eval_advantage/rows_without_reward"] >= 0
    assert math.isfinite(said["eval_loss"])


def test_it_takes_our_configuration_only(tmp_path: Path) -> None:
    from trl import GRPOConfig

    settings = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[])
    for args in (settings, None):
        with pytest.raises(LampoError, match="LamPOTrainer needs args=LamPOConfig"):
            LamPOTrainer("no/model", [letters], args)
