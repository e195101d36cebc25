"""Rollouts -> verdicts, begun while other rollouts are still being sampled."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from ..types import Problem, Rollout, Verdict
from . import VerifierOptions, VerifierPool, verifier_for


class Verification:
    """The verification of all rollouts of some problems.

    A sampler may tell of each rollout as it ends (`on_rollout=verification.begin`). Then the time that verifiers take is hidden
    behind its own, even where some of them hang. A text that a group has twice is verified once: verifiers are pure.
    """

    def __init__(self, pool: VerifierPool, problems_P: Sequence[Problem], chosen: VerifierOptions | None) -> None:
        self._pool = pool
        self._problems_P = problems_P
        self._chosen = chosen
        self._futures: dict[tuple[int, int], Future[Verdict]] = {}
        self._of_text: dict[tuple[int, str], Future[Verdict]] = {}

    def begin(self, problem: int, member: int, rollout: Rollout) -> None:
        """Begin with one rollout: the index of its problem, and its index in the group."""
        asked = self._problems_P[problem]
        if (problem, rollout.text) not in self._of_text:
            self._of_text[problem, rollout.text] = self._pool.submit(
                verifier_for(asked, self._chosen), rollout.text, asked.answer
            )
        self._futures[problem, member] = self._of_text[problem, rollout.text]

    def verdicts(
        self, rollouts_PG: Sequence[Sequence[Rollout]], *, drop_stragglers: bool = False
    ) -> list[list[Verdict]]:
        """verdicts_PG, when all are there. What was not begun is begun now.

        Args:
            rollouts_PG: all rollouts.
            drop_stragglers: give up those that run far longer than the others did, see `VerifierPool.collect`.
        """
        for problem, rollouts_G in enumerate(rollouts_PG):
            for member, rollout in enumerate(rollouts_G):
                if (problem, member) not in self._futures:
                    self.begin(problem, member, rollout)
        if drop_stragglers:
            self._pool.collect(list(self._futures.values()))
        return [
            [self._futures[problem, member].result() for member in range(len(rollouts_G))]
            for problem, rollouts_G in enumerate(rollouts_PG)
        ]
