"""Temperature sampling with the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..policy import Policy
from ..types import NotFinite, Rollout
from .base import OnRollout

POSITIONS_BETWEEN_REPORTS = 16


class NativeSampler:
    """Samples from the policy at a temperature, in one process.

    The prompt runs through the model once per problem, and its cache is repeated for the G rollouts. Rows that have ended leave the
    batch. The log-probability of every token comes from the pass that drew it. Each row draws from its own column of uniform
    numbers, so what it becomes does not depend on `rows_at_once` or on when its neighbours end (up to float rounding).
    """

    def __init__(self, policy: Policy, *, temperature: float, max_new_tokens: int, rows_at_once: int) -> None:
        self._policy = policy
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._rows_at_once = rows_at_once

    @torch.no_grad()
    def sample(
        self,
        prompts_P: Sequence[Tensor],
        group_size: int,
        *,
        seed: int | Sequence[int],
        on_progress: Callable[[int], None] | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[list[Rollout]]:
        """See `Sampler.sample`."""
        self._policy.model.eval()
        num_rows = len(prompts_P) * group_size
        seeds, num_rows_each = ([seed], num_rows) if isinstance(seed, int) else (seed, group_size)
        uniforms_NT = torch.cat([self._uniforms(num_rows_each, each) for each in seeds])
        problems_at_once = max(1, self._rows_at_once // group_size)
        rollouts_PG: list[list[Rollout]] = []
        num_tokens = 0

        def count(drawn: int, *, tell: bool) -> None:
            nonlocal num_tokens
            num_tokens += drawn
            if tell and on_progress is not None:
                on_progress(num_tokens)

        for start in range(0, len(prompts_P), problems_at_once):
            prompts = prompts_P[start : start + problems_at_once]
            rows = slice(start * group_size, (start + len(prompts)) * group_size)

            def tell(row: int, rollout: Rollout, first: int = start) -> None:
                if on_rollout is not None:
                    on_rollout(first + row // group_size, row % group_size, rollout)

            rollouts_PG += self._sample_together(prompts, group_size, uniforms_NT[rows], count, tell)
        return rollouts_PG

    def _uniforms(self, num_rows: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(num_rows, self._max_new_tokens, generator=generator, dtype=torch.float64)

    def _sample_together(
        self,
        prompts_P: Sequence[Tensor],
        group_size: int,
        uniforms_NT: Tensor,
        count: Callable[..., None],
        tell: Callable[[int, Rollout], None],
    ) -> list[list[Rollout]]:
        policy, device = self._policy, self._policy.device
        uniforms_NT = uniforms_NT.to(device) if device.type != "mps" else uniforms_NT.float().to(device)
        end_ids = torch.tensor(policy.end_ids, device=device)
        N, T = uniforms_NT.shape
        tokens_NT = torch.zeros(N, T, dtype=torch.int64, device=device)
        logprobs_NT = torch.zeros(N, T, device=device)
        rollouts: dict[int, Rollout] = {}

        def end(rows: Tensor, length: int, *, finished: bool) -> None:
            """These rows end with this length."""
            ids, logprobs = tokens_NT[rows, :length].cpu(), logprobs_NT[rows, :length].cpu()
            if not logprobs.isfinite().all():
                raise NotFinite(
                    "The policy's log-probabilities are not finite: its weights have diverged. Try a lower learning rate."
                )
            for index, row in enumerate(rows.tolist()):
                text = policy.decode(ids[index].tolist())
                prompt_ids = prompts_P[row // group_size]
                rollouts[row] = Rollout(prompt_ids, ids[index].clone(), logprobs[index].clone(), finished, text)
                tell(row, rollouts[row])

        with policy.precision():
            input_ids, mask = (tensor.to(device) for tensor in left_pad(prompts_P, policy.tokenizer.pad_token_id))
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            cache = growing_cache(policy.core.config)
            hidden = policy.hidden_states(input_ids, attention_mask=mask, position_ids=positions, cache=cache)[:, -1]
            cache.batch_repeat_interleave(group_size)
            hidden, mask = hidden.repeat_interleave(group_size, 0), mask.repeat_interleave(group_size, 0)
            position = positions[:, -1:].repeat_interleave(group_size, 0)

            live = torch.arange(N, device=device)  # the rows still in the batch
            for t in range(T):
                count(len(live), tell=t % POSITIONS_BETWEEN_REPORTS == 0)
                logprobs = torch.log_softmax(policy.logits(hidden) / self._temperature, dim=-1)
                tokens = draw(logprobs, uniforms_NT[live, t])
                tokens_NT[live, t] = tokens
                logprobs_NT[live, t] = logprobs.gather(-1, tokens[:, None]).squeeze(-1)
                ended = torch.isin(tokens, end_ids)
                if ended.any():
                    end(live[ended], t + 1, finished=True)
                    stay = (~ended).nonzero().squeeze(-1)
                    live, tokens, mask, position = live[stay], tokens[stay], mask[stay], position[stay]
                    cache.batch_select_indices(stay)
                if t == T - 1 or len(live) == 0:
                    break
                mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
                position = position + 1
                hidden = policy.hidden_states(tokens[:, None], attention_mask=mask, position_ids=position, cache=cache)[
                    :, -1
                ]

        end(live, T, finished=False)
        count(0, tell=True)
        return [[rollouts[row] for row in range(start, start + group_size)] for start in range(0, N, group_size)]


def draw(logprobs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
    """(N,) tokens by inversion of the cumulative distribution: token v where cdf(v - 1) <= u < cdf(v).

    Sums run in the precision of `uniforms_N` (float64, so that 150,000 terms lose nothing); a token of probability 0 is never drawn.
    """
    cumulative_NV = logprobs_NV.to(uniforms_N.dtype).exp().cumsum(-1)
    thresholds_N1 = (uniforms_N * cumulative_NV[:, -1]).unsqueeze(-1)
    last = logprobs_NV.shape[-1] - 1
    return torch.searchsorted(cumulative_NV, thresholds_N1, right=True).squeeze(-1).clamp(max=last)


def left_pad(prompts_P: Sequence[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """(P, L) token ids padded on the left, and their mask, 1 on real tokens."""
    longest = max(len(prompt) for prompt in prompts_P)
    input_ids = torch.full((len(prompts_P), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts_P):
        input_ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return input_ids, mask


def growing_cache(config: Any) -> DynamicCache:
    """transformers' cache for this model, with full-attention layers that append in place."""
    cache = DynamicCache(config=config)
    cache.layers = [_GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _GrowingLayer(DynamicLayer):
    """Keys and values in storage with room to spare; transformers' own layer copies all of them for every new token."""

    _storage: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._storage is None or self._storage[0].shape[-2] < new:
            room = max(64, new + new // 2)
            self._storage = _roomy(self.keys, key_states, room), _roomy(self.values, value_states, room)
        keys, values = self._storage
        keys[..., old:new, :] = key_states
        values[..., old:new, :] = value_states
        self.keys, self.values = keys[..., :new, :], values[..., :new, :]
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._storage = None

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._storage = None


def _roomy(held: Tensor | None, states: Tensor, room: int) -> Tensor:
    """Storage like the states with this many positions, what is held so far at its beginning."""
    storage = states.new_empty(*states.shape[:-2], room, states.shape[-1])
    if held is not None and held.numel():
        storage[..., : held.shape[-2], :] = held
    return storage
