"""Answers that do not verify against themselves: their rollouts could never be right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..types import Problem, Verdict
from ..verify import VerifierOptions, verifier_for

Triples = list[tuple[VerifierOptions, str, str]]
MOST_IN_WORKERS = 1000


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """What came of checking answers against themselves.

    Attributes:
        num_checked: how many were judged.
        num_uncheckable: how many have a verifier for which no right response can be written down, such as tests of programs.
        num_spared: how many were not judged because each takes a worker, and others stand for them.
        failing: those that are not right by their verifier, with what it says.
        remedy: what to do, where that is all of them, else "".
    """

    num_checked: int
    num_uncheckable: int
    num_spared: int
    failing: tuple[tuple[Problem, Verdict], ...]
    remedy: str = ""

    def __str__(self) -> str:
        notes = "".join(
            f"; {count:,} {what}"
            for count, what in (
                (self.num_spared, "more were not drawn for this check"),
                (self.num_uncheckable, "cannot be checked in this way"),
            )
            if count
        )
        if not self.failing:
            return f"{self.num_checked:,} answers verify against themselves{notes}"
        shown = "; ".join(
            f"{problem.id}: {problem.answer[:40]!r} is {verdict.status}"
            + (f" ({verdict.detail})" if verdict.detail else "")
            for problem, verdict in self.failing[:3]
        )
        return (
            f"{len(self.failing):,} of {self.num_checked:,} answers do not verify against themselves, so no response to "
            f"these problems can be right: {shown}{notes}{self.remedy and f'. {self.remedy}'}"
        )


def check_answers(
    problems: Sequence[Problem], chosen: VerifierOptions | None, verify_all: Callable[[Triples], list[Verdict]]
) -> AnswerCheck:
    """Have every problem's verifier judge a response that commits to the problem's own answer.

    Args:
        problems: what a run needs.
        chosen: the recipe's verifier, if it names one.
        verify_all: judges (verifier, completion, answer), such as `VerifierPool.verify_all`. Of those that need a worker,
            at most a thousand are judged, evenly spread.
    """
    quick: list[Problem] = []
    slow: list[Problem] = []
    triples: dict[str, tuple[VerifierOptions, str, str]] = {}
    for problem in problems:
        verifier = verifier_for(problem, chosen)
        response = verifier.answer_text(problem.answer)
        if response is None:
            continue
        triples[problem.id] = (verifier, response, problem.answer)
        (slow if verifier.at_once(response, problem.answer) is None else quick).append(problem)
    stride = max(1, -(-len(slow) // MOST_IN_WORKERS))
    checked = quick + slow[::stride]
    verdicts = verify_all([triples[problem.id] for problem in checked])
    failing = [pair for pair in zip(checked, verdicts, strict=True) if pair[1].status != "right"]
    num_spared = len(triples) - len(checked)
    remedy = _remedy(problems[0], chosen) if failing and len(failing) == len(checked) else ""
    return AnswerCheck(len(checked), len(problems) - len(triples), num_spared, tuple(failing), remedy)


def _remedy(problem: Problem, chosen: VerifierOptions | None) -> str:
    """What to do where a verifier can make nothing of any answer, such as this problem's."""
    judge, own = (verifier_for(problem, verifier).model_dump()["name"] for verifier in (chosen, None))
    if judge != own and problem.verifier is not None:
        return f"The recipe's verifier {judge!r} stands in for the task's own: leave verifier out, or set verifier.name={own}"
    return f"They were judged by the verifier {judge!r}: set verifier.name to one that fits them, see docs/verifiers.md"
