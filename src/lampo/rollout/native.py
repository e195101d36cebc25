"""Temperature sampling with the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model.memory import cached_bytes, rows_that_fit
from ..model.policy import Policy
from ..types import NotFinite, Rollout
from .decoder import Decoder, Prefill, room_for
from .flash_decoder import FlashDecoder
from .sampler import OnRollout
from .slabs import places_for, places_to_begin, rows_at_once

STEPS_BETWEEN_REPORTS = 16
LONG_AT_ONCE = 8
"""Rows that run through the model together when they go on after what they had drawn."""


class NativeSampler:
    """Samples from the policy at a temperature, in one process.

    A row that has ended gives its place to the next rollout, of whatever problem. When none waits, rows that have ended leave the batch,
    see `Decoder`. The log-probability of every token comes from the pass that drew it. Each row draws from its own column of uniform
    numbers, so what it becomes does not depend on `rows_at_once` or on when its neighbours end (up to float rounding).
    """

    def __init__(
        self,
        policy: Policy,
        *,
        temperature: float,
        max_new_tokens: int,
        rows_at_once: int,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """A sampler of this policy.

        Args:
            policy: what is sampled from, as it is when it is asked.
            temperature: of the sampling distribution.
            max_new_tokens: of the longest completion.
            rows_at_once: most rows that have a place at once; fewer where memory does not hold their keys and values.
            tell: hears once that there are fewer.
        """
        self._policy = policy
        self._tell = tell
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
        policy, T = self._policy, self._max_new_tokens
        policy.model.eval()
        uniforms_NT = self._uniforms(len(prompts_P) * group_size, group_size, seed)
        end_ids = torch.tensor(policy.end_ids, device=policy.device)
        drawn = _Drawn(policy, prompts_P, group_size, T, on_rollout)
        uniforms_NT = torch.nn.functional.pad(uniforms_NT, (0, 0, 0, 1))  # of nobody
        progress = _Progress(on_progress)
        with policy.precision():
            longest = max(map(len, prompts_P), default=0) + T
            waiting = _Waiting(policy, prompts_P, group_size, longest)
            while waiting:
                rows, ages, is_open, decoder = self._begin(waiting, longest, drawn.nobody)
                num_open = int(is_open.sum())
                while num_open:
                    progress.count(num_open)
                    tokens, logprobs_N = self._draw(decoder, uniforms_NT[rows, ages])
                    drawn.put(rows, ages, tokens, logprobs_N)
                    finished = torch.isin(tokens, end_ids)
                    ended = (finished | (ages == T - 1)) & is_open
                    if num_ended := int(ended.sum()):
                        drawn.end(rows[ended], ages[ended] + 1, finished[ended])
                        decoder.end(ended.nonzero().squeeze(-1).tolist())
                        is_open, num_open = is_open & ~ended, num_open - num_ended
                    for place in decoder.grow():
                        waiting.put_back(int(rows[place]), drawn.tokens(rows[place], ages[place] + 1))
                        rows[place], is_open[place], num_open = drawn.nobody, False, num_open - 1
                    gives_places = waiting and decoder.takes_in
                    if num_open and not gives_places and decoder.should_drop(num_open):
                        stay = fill_up(is_open, num_open)
                        rows, ages, tokens, is_open = rows[stay], ages[stay], tokens[stay], is_open[stay]
                        decoder.keep(stay)
                    if num_open:
                        decoder.step(tokens)
                        ages = (ages + 1).clamp_(max=T - 1)  # rows that have ended may still be in the batch
                        num_open = fill(decoder, waiting, rows, ages, is_open, num_open)
        progress.tell()
        return drawn.rollouts_PG()

    def _begin(
        self, waiting: _Waiting, longest: int, nobody: int
    ) -> tuple[Tensor, Tensor, Tensor, Decoder | FlashDecoder]:
        """The first rows (N,), how many tokens each has drawn, which of them are open, and what takes them further."""
        policy = self._policy
        if not policy.steps_by_flash(longest):
            if self._tell is not None:
                policy.tell_slower(self._tell)
            rows, ages, prompts, which = waiting.take(self._num_rows(longest), together=True)
            return rows, ages, torch.ones_like(rows, dtype=torch.bool), Decoder(policy, prompts, which)
        num_rows, num_places = self._num_places(waiting, longest)
        decoder = FlashDecoder(policy, num_rows, longest=longest, num_places=num_places)
        rows = torch.full((num_rows,), nobody, device=policy.device)
        ages, is_open = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
        fill(decoder, waiting, rows, ages, is_open, 0, together=True)
        return rows, ages, is_open, decoder

    def _draw(self, decoder: Decoder | FlashDecoder, uniforms_N: Tensor) -> tuple[Tensor, Tensor]:
        """The next token of every row (N,), and its log-probability."""
        logits = self._policy.logits(decoder.hidden)
        if isinstance(decoder, FlashDecoder):
            return decoder.draw(logits, uniforms_N, self._temperature)
        logprobs_NV = torch.log_softmax(logits if self._temperature == 1 else logits / self._temperature, dim=-1)
        tokens = draw(logprobs_NV, uniforms_N)
        return tokens, logprobs_NV.gather(-1, tokens[:, None]).squeeze(-1)

    def _num_rows(self, longest: int) -> int:
        """Rows that have a place at once, of which the longest has so many tokens."""
        return self._told(self._that_fit(room_for(longest, longest)), longest)

    def _num_places(self, waiting: _Waiting, longest: int) -> tuple[int, int]:
        """Rows that have a place at once, and the tokens of them all whose keys and values are held."""
        fitting, prompt = self._that_fit(1), waiting.longest_next
        told = self._told(rows_at_once(fitting, prompt, longest), places_to_begin(prompt, longest))
        num_rows = min(told, len(waiting))
        return num_rows, places_for(num_rows, fitting, longest)

    def _that_fit(self, tokens: int) -> int:
        """Rows of so many tokens whose keys and values memory holds."""
        policy, size = self._policy, self._policy.head.weight.dtype.itemsize
        each = cached_bytes(
            policy.core.config.get_text_config(), torch.bfloat16.itemsize if policy.in_bfloat16 else size
        )
        return rows_that_fit(policy.device, policy.model, size, tokens * each)

    def _told(self, fitting: int, tokens: int) -> int:
        """As many rows at once as were asked for, or as memory holds with so many tokens each, which is told the first time."""
        if fitting < self._rows_at_once and self._tell is not None:
            self._tell(f"{fitting:,} rows are sampled at once: memory holds no more of {tokens:,} tokens")
            self._tell = None
        return min(fitting, self._rows_at_once)

    def _uniforms(self, num_rows: int, group_size: int, seed: int | Sequence[int]) -> Tensor:
        """(N, T) numbers between 0 and 1, in float64 where the device has it. A prompt with a seed of its own has those of the seed."""
        seeds, num_rows_each = ([seed], num_rows) if isinstance(seed, int) else (seed, group_size)
        shape = num_rows_each, self._max_new_tokens
        generators = [torch.Generator().manual_seed(each) for each in seeds]
        uniforms_NT = torch.cat([torch.rand(shape, generator=each, dtype=torch.float64) for each in generators])
        device = self._policy.device
        return uniforms_NT.to(device) if device.type != "mps" else uniforms_NT.float().to(device)


class _Drawn:
    """The tokens of all rollouts, and the rollouts that have ended.

    Attributes:
        nobody: the row of places that no rollout has.
    """

    def __init__(
        self,
        policy: Policy,
        prompts_P: Sequence[Tensor],
        group_size: int,
        max_new_tokens: int,
        on_rollout: OnRollout | None,
    ) -> None:
        self._policy = policy
        self._prompts_P = prompts_P
        self._group_size = group_size
        self._on_rollout = on_rollout
        self.nobody = len(prompts_P) * group_size
        shape = self.nobody + 1, max_new_tokens
        self._tokens_NT = torch.zeros(shape, dtype=torch.int64, device=policy.device)
        self._logprobs_NT = torch.zeros(shape, device=policy.device)
        self._rollouts: dict[int, Rollout] = {}

    def put(self, rows: Tensor, ages: Tensor, tokens: Tensor, logprobs_N: Tensor) -> None:
        """The next token of these rows, which have drawn `ages` before, and its log-probability."""
        self._tokens_NT[rows, ages] = tokens
        self._logprobs_NT[rows, ages] = logprobs_N

    def tokens(self, row: Tensor, age: Tensor) -> Tensor:
        """What a row has drawn so far."""
        return self._tokens_NT[row, : int(age)].cpu()

    def end(self, rows: Tensor, lengths: Tensor, finished: Tensor) -> None:
        """These rows end with these lengths.

        Raises:
            NotFinite: a log-probability is not finite.
        """
        ids, logprobs = (each[rows, : int(lengths.max())].cpu() for each in (self._tokens_NT, self._logprobs_NT))
        if not logprobs.isfinite().all():
            raise NotFinite(
                "The policy's log-probabilities are not finite: its weights have diverged. Try a lower learning rate."
            )
        ends = zip(rows.tolist(), lengths.tolist(), finished.tolist(), strict=True)
        for index, (row, length, is_finished) in enumerate(ends):
            own_ids, own_logprobs = ids[index, :length].clone(), logprobs[index, :length].clone()
            problem, text = row // self._group_size, self._policy.decode(own_ids.tolist())
            self._rollouts[row] = Rollout(self._prompts_P[problem], own_ids, own_logprobs, is_finished, text)
            if self._on_rollout is not None:
                self._on_rollout(problem, row % self._group_size, self._rollouts[row])

    def rollouts_PG(self) -> list[list[Rollout]]:
        """All of them, when all have ended."""
        rows = range(len(self._rollouts))
        return [
            [self._rollouts[row] for row in rows[start:][: self._group_size]] for start in rows[:: self._group_size]
        ]


class _Waiting:
    """Rollouts that have no place, in the order of the prompts, then those that have given theirs up.

    Prompts run through the model some at a time.
    """

    def __init__(self, policy: Policy, prompts_P: Sequence[Tensor], group_size: int, longest: int) -> None:
        self._policy = policy
        self._prompts_P = prompts_P
        self._group_size = group_size
        self._longest = longest
        self._next = 0
        self._prompts: Prefill | None = None
        self._first, self._end, self._at_once = 0, 0, 1  # prompts that have run; as many run the next time
        self._put_back: list[tuple[int, Tensor]] = []  # rows, and what they have drawn

    def __len__(self) -> int:
        return self._num_new + len(self._put_back)

    @property
    def _num_new(self) -> int:
        return len(self._prompts_P) * self._group_size - self._next

    def put_back(self, row: int, drawn: Tensor) -> None:
        """A row waits again, for a place in which it goes on after what it has drawn."""
        self._put_back.append((row, drawn))

    @property
    def longest_next(self) -> int:
        """Tokens of the longest of those that are taken next."""
        if self._num_new:
            return max(map(len, self._prompts_P))
        return max(
            len(self._prompts_P[row // self._group_size]) + len(drawn) for row, drawn in self._put_back[:LONG_AT_ONCE]
        )

    def take(self, count: int, *, together: bool = False) -> tuple[Tensor, Tensor, Prefill, Tensor]:
        """The next ones, at most so many.

        Args:
            count: of places.
            together: all that have a place and wait. Otherwise there may be fewer, those whose prompts ran together.

        Returns:
            their rows (n,), how many tokens each has drawn (n,), prompts that have run through the model, and which of them each begins
            with (n,).
        """
        if not self._num_new:
            return self._take_again(min(count, LONG_AT_ONCE))
        count = min(count, self._num_new)
        first, end = self._next // self._group_size, (self._next + count - 1) // self._group_size + 1
        if together:
            self._at_once = end - first
        if self._prompts is None or first >= self._end or (together and end > self._end):
            self._prompts = None  # its memory goes first
            self._first, self._end = first, min(first + self._at_once, len(self._prompts_P))
            self._prompts = Prefill(self._policy, self._prompts_P[first : self._end], longest=self._longest)
        last = min(self._next + count, self._end * self._group_size)
        rows = torch.arange(self._next, last, device=self._policy.device)
        self._next = last
        return rows, torch.zeros_like(rows), self._prompts, rows // self._group_size - self._first

    def _take_again(self, count: int) -> tuple[Tensor, Tensor, Prefill, Tensor]:
        self._prompts = None
        taken, self._put_back = self._put_back[:count], self._put_back[count:]
        begun = [torch.cat([self._prompts_P[row // self._group_size], drawn]) for row, drawn in taken]
        rows, ages = torch.tensor([[row, len(drawn)] for row, drawn in taken], device=self._policy.device).T
        return (
            rows,
            ages,
            Prefill(self._policy, begun, longest=self._longest),
            torch.arange(len(taken), device=rows.device),
        )


class _Progress:
    """Tokens drawn so far, told every few steps."""

    def __init__(self, on_progress: Callable[[int], None] | None) -> None:
        self._on_progress = on_progress
        self._steps, self._tokens = 0, 0

    def count(self, tokens: int) -> None:
        """One step."""
        self._tokens += tokens
        if self._steps % STEPS_BETWEEN_REPORTS == 0:
            self.tell()
        self._steps += 1

    def tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._tokens)


def fill(
    decoder: Decoder | FlashDecoder,
    waiting: _Waiting,
    rows: Tensor,
    ages: Tensor,
    is_open: Tensor,
    num_open: int,
    *,
    together: bool = False,
) -> int:
    """Give free places to those that wait, as far as there is room. Returns how many rows are open then."""
    while num_open < len(rows) and waiting and decoder.takes_in:
        count = min(len(rows) - num_open, decoder.room_for(waiting.longest_next))
        if not count:
            break
        new, drawn, prompts, which = waiting.take(count, together=together)
        places = (~is_open).nonzero().squeeze(-1)[: len(new)]
        decoder.take_in(places, prompts, which)
        rows[places], ages[places], is_open[places] = new, drawn, True
        num_open += len(new)
    return num_open


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
