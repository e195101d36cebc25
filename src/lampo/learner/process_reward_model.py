"""PRIME's implicit process reward model: it learns from outcomes alone and gives every token a reward (arXiv 2502.01456)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..algo.registry import ProcessRewardOptions
from ..model.policy import Policy
from ..types import Group, NotFinite
from .batch import Batch, Row, row_logprobs
from .optimizer import Optimizer, load_optimizer, save_optimizer


class ProcessRewards:
    r"""The model pi_phi, the weights of its frozen reference, and its optimiser.

        r_phi(y_t) = beta log(pi_phi(y_t | q, y_<t) / pi_ref(y_t | q, y_<t))
        loss       = mean_i CE(sigmoid(sum_t r_phi(y_it)), correctness_i)

    PRIME, arXiv 2502.01456. That a sequence model trained so has token rewards inside is arXiv 2412.01981. Both models begin as the
    policy that reinforcement learning starts from. Their probabilities are those at temperature 1.
    """

    def __init__(
        self,
        model: Policy,
        reference: Mapping[str, Tensor],
        optimizer: Optimizer,
        options: ProcessRewardOptions,
        tokens_per_microbatch: int,
    ) -> None:
        self._model = model
        self._reference = reference
        self._optimizer = optimizer
        self._options = options
        self._tokens_per_microbatch = tokens_per_microbatch

    def learn(self, groups_P: Sequence[Group], step: int) -> tuple[list[Tensor], dict[str, float]]:
        """One optimiser step on the outcomes, and the token rewards.

        Args:
            groups_P: the groups of the step; a rollout with an unknown verdict is neither learned from nor rewarded.
            step: counts from 1 and sets the learning rate.

        Returns:
            (T,) rewards of each rollout in the order of the groups, zeros where the verdict is unknown, of the model before the step.
            And what to log: the cross-entropy and the share of outcomes foretold, both before the
            step.

        Raises:
            NotFinite: before the weights are touched.
        """
        rollouts = [
            (rollout, verdict.correctness, number)
            for number, group in enumerate(groups_P)
            for rollout, verdict in zip(group.rollouts_G, group.verdicts_G, strict=True)
        ]
        rewards_N = [torch.zeros(len(rollout.completion_ids)) for rollout, _, _ in rollouts]
        known = [
            index
            for index, (rollout, correctness, _) in enumerate(rollouts)
            if correctness is not None and len(rollout.completion_ids)
        ]
        if not known:
            return rewards_N, {}
        rows = [
            Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 0.0, group)
            for rollout, _, group in (rollouts[index] for index in known)
        ]
        labels_N = torch.tensor([rollouts[index][1] for index in known])
        with self._model.holding(self._reference):
            ref_logprobs = row_logprobs(self._model, rows, self._tokens_per_microbatch)
        logprobs, record = self._update(rows, ref_logprobs, labels_N, step)
        for index, logprobs_T, ref_logprobs_T in zip(known, logprobs, ref_logprobs, strict=True):
            rewards_N[index] = self._options.beta * (logprobs_T - ref_logprobs_T)
        return rewards_N, record

    def save(self, folder: Path) -> None:
        """Write the weights that are trained and the optimiser's state. The reference lies in the run directory."""
        weights = {name: weight.detach().contiguous() for name, weight in self._model.trainable_parameters().items()}
        safetensors.torch.save_file(weights, folder / "weights.safetensors")
        save_optimizer(folder, self._optimizer)

    def load(self, folder: Path) -> None:
        """Go on with what `save` wrote."""
        weights = safetensors.torch.load_file(folder / "weights.safetensors")
        with torch.no_grad():
            for name, weight in self._model.trainable_parameters().items():
                weight.copy_(weights[name])
        load_optimizer(folder, self._optimizer)

    def _update(
        self, rows: Sequence[Row], ref_logprobs: Sequence[Tensor], labels_N: Tensor, step: int
    ) -> tuple[list[Tensor], dict[str, float]]:
        """Move the model by one step. Returns its log-probabilities before it, and what to log."""
        logprobs: dict[int, Tensor] = {}
        loss, num_foretold = 0.0, 0
        layout = self._model.layout
        for microbatch in Batch.numbered(rows).split(self._tokens_per_microbatch, layout=layout):
            microbatch = microbatch.to(self._model.device)
            logprobs_NT, _ = self._model.token_logprobs(microbatch, temperature=1.0)
            numbers = microbatch.row_ids_N.tolist()
            ref_N = torch.stack([ref_logprobs[number].sum() for number in numbers]).to(logprobs_NT)
            targets_N = labels_N[numbers].to(logprobs_NT)
            logits_N = self._options.beta * (logprobs_NT.sum(1) - ref_N)  # zeros on padding
            part = binary_cross_entropy_with_logits(logits_N, targets_N, reduction="sum") / len(rows)
            part.backward()
            loss += float(part.detach())
            num_foretold += int(((logits_N > 0) == (targets_N > 0.5)).sum())
            logprobs |= microbatch.by_row(logprobs_NT.detach())
        try:
            record = self._optimizer.step(step)
        except NotFinite as error:
            raise NotFinite(f"Stopped at step {step}. In the process reward model: {error}") from None
        return [logprobs[number] for number in range(len(rows))], {
            "process/cross_entropy": loss,
            "process/accuracy": num_foretold / len(rows),
            "process/gradient_norm": record["optimizer/gradient_norm"],
        }
