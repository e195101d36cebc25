"""LamPOTrainer against the native engine's functions: the same advantages and gradients from the same rollouts, in real runs of TRL."""
# ruff: noqa: E402

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

for package in ("trl", "accelerate", "datasets", "pandas", "jinja2"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lampo[trl]'")

from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM

from lampo import loss_denominator, pairwise_advantages, policy_loss, sequence_scores

from ....helpers.trl_run import GROUP_SIZE, digits, letters, save_model, train

# TRL calls transformers and torch by names that they have since deprecated; the adapter itself warns in the log only.
pytestmark = pytest.mark.filterwarnings("ignore")

AGGREGATIONS = {"grpo": "sequence", "dapo": "token", "dr_grpo": "constant"}
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
    rows: Rows, model: Path, weights: list[dict[str, Tensor]], step: int, loss_type: str, beta: float = 0.0
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
    "kl-dr_grpo": {"loss_type": "dr_grpo", "beta": 0.3, "use_bias_correction_kl": False},
}


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
        expected = gradient_of_ours(rows, model, run["weights"], step, settings["loss_type"], settings.get("beta", 0.0))
        assert_same_gradient(run["gradients"][step], expected)
