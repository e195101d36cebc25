"""Temperature sampling with the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model.policy import Policy
from ..types import NotFinite, Rollout
from .decoder import Decoder
from .sampler import OnRollout

POSITIONS_BETWEEN_REPORTS = 16


class NativeSampler:
    """Samples from the policy at a temperature, in one process.

    Rows that have ended leave the batch, see `Decoder`. The log-probability of every token comes from the pass that drew it. Each row
    draws from its own column of uniform numbers, so what it becomes does not depend on `rows_at_once` or on when its neighbours end
    (up to float rounding).
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
            decoder = Decoder(policy, prompts_P, group_size)
            rows = torch.arange(N, device=device)  # those still in the batch
            is_open, num_open = torch.ones(N, dtype=torch.bool, device=device), N
            for t in range(T):
                count(num_open, tell=t % POSITIONS_BETWEEN_REPORTS == 0)
                logits = policy.logits(decoder.hidden)
                logprobs = torch.log_softmax(logits if self._temperature == 1 else logits / self._temperature, dim=-1)
                tokens = draw(logprobs, uniforms_NT[rows, t])
                tokens_NT[rows, t] = tokens
                logprobs_NT[rows, t] = logprobs.gather(-1, tokens[:, None]).squeeze(-1)
                ended = torch.isin(tokens, end_ids) & is_open
                if num_ended := int(ended.sum()):
                    end(rows[ended], t + 1, finished=True)
                    is_open, num_open = is_open & ~ended, num_open - num_ended
                    if num_open and decoder.should_drop(num_open):
                        stay = fill_up(is_open, num_open)
                        rows, tokens, is_open = rows[stay], tokens[stay], is_open[stay]
                        decoder.keep(stay)
                if t == T - 1 or num_open == 0:
                    break
                decoder.step(tokens)

        end(rows[is_open], T, finished=False)
        count(0, tell=True)
        return [[rollouts[row] for row in range(start, start + group_size)] for start in range(0, N, group_size)]


def fill_up(is_open: Tensor, num_open: int) -> Tensor:
    """(num_open,) rows that stay: the last of them take the places of those that have ended, and the others keep theirs."""
    stay = torch.arange(num_open, device=is_open.device)
    stay[~is_open[:num_open]] = is_open[num_open:].nonzero().squeeze(-1) + num_open
    return stay


def draw(logprobs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
    """(N,) tokens by inversion of the cumulative distribution: token v where cdf(v - 1) <= u < cdf(v).

    Sums run in the precision of `uniforms_N` (float64, so that 150,000 terms lose nothing); a token of probability 0 is never drawn.
    """
    # in place after the copy: large vocabularies make large tensors
    cumulative_NV = logprobs_NV.to(uniforms_N.dtype, copy=True).exp_().cumsum_(-1)
    thresholds_N1 = (uniforms_N * cumulative_NV[:, -1]).unsqueeze(-1)
    last = logprobs_NV.shape[-1] - 1
    return torch.searchsorted(cumulative_NV, thresholds_N1, right=True).squeeze(-1).clamp(max=last)
