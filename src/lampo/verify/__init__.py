"""(completion, answer) -> Verdict, one verifier per file.

A verifier is a frozen group of options with a pure method `verify`. `VerifierPool` runs it in killable workers; `judge`
and `verify` run it in this process, without limits. A failure inside it is the verdict "unknown".
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from ..options import own_function_options
from ..types import LampoError, Problem, Verdict, Verifier
from .answers import committed_answer
from .choice import ChoiceOptions, lettered
from .code.verifier import CodeOptions
from .exact import ExactOptions
from .math.verifier import MathOptions
from .numeric import NumericOptions
from .pool.pool import VerifierPool
from .python import PythonOptions
from .reasoning_gym import ReasoningGymOptions
from .verifier_options import THOUGHT_BEGIN, THOUGHT_END, UnboundedVerifier, VerifierOptions, committed_text

AnyVerifier = Annotated[
    NumericOptions | ExactOptions | ChoiceOptions | MathOptions | CodeOptions | ReasoningGymOptions | PythonOptions,
    Field(discriminator="name"),
    BeforeValidator(partial(own_function_options, known=("timeout_s", "memory_mib"))),
]
"""The section `verifier` of a recipe: a name, and the options of that verifier."""

VERIFIERS: dict[str, type[VerifierOptions]] = {
    "numeric": NumericOptions,
    "exact": ExactOptions,
    "choice": ChoiceOptions,
    "math": MathOptions,
    "code": CodeOptions,
    "reasoning_gym": ReasoningGymOptions,
    "python": PythonOptions,
}
"""All verifiers by name."""

_ADAPTER: TypeAdapter[VerifierOptions] = TypeAdapter(AnyVerifier)

__all__ = [
    "THOUGHT_BEGIN",
    "THOUGHT_END",
    "VERIFIERS",
    "AnyVerifier",
    "ChoiceOptions",
    "CodeOptions",
    "ExactOptions",
    "MathOptions",
    "NumericOptions",
    "PythonOptions",
    "ReasoningGymOptions",
    "UnboundedVerifier",
    "Verdict",
    "Verifier",
    "VerifierOptions",
    "VerifierPool",
    "committed_answer",
    "committed_text",
    "judge",
    "lettered",
    "prepare_verifiers",
    "verifier",
    "verifier_for",
    "verify",
]


def verifier(name: str, **options: Any) -> VerifierOptions:
    """The verifier of that name, with these options.

    Raises:
        LampoError: there is no verifier of that name, or it has no such option.
    """
    try:
        return _ADAPTER.validate_python({"name": name, **options})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'name'}: {detail['msg']}" for detail in error.errors()
        )
        raise LampoError(
            f"The verifier {name!r} cannot be set up: {problems}. Known: {', '.join(VERIFIERS)}."
        ) from None


def verifier_for(problem: Problem, chosen: VerifierOptions | None) -> VerifierOptions:
    """Who decides on a problem: the verifier that was chosen for all, else the problem's own, else `numeric`."""
    own = problem.verifier
    return chosen or (own if isinstance(own, VerifierOptions) else NumericOptions())


def prepare_verifiers(problems: Iterable[Problem], chosen: VerifierOptions | None) -> list[VerifierOptions]:
    """Refuse before the first problem is sampled what could not work later.

    Returns:
        The verifiers of these problems, each once.

    Raises:
        LampoError: something that a verifier of these problems needs is missing.
    """
    prepared: list[VerifierOptions] = []
    for problem in problems:
        verifier = verifier_for(problem, chosen)
        if verifier not in prepared:
            verifier.prepare()
            prepared.append(verifier)
    return prepared


def verify(name: str, completion: str, answer: str, **options: Any) -> Verdict:
    """Whether a completion gives the right answer, in the eyes of the verifier of that name.

    It runs in this process and without limits: for what a model wrote, `VerifierPool` is the safe way.

    Raises:
        LampoError: there is no verifier of that name, or it has no such option.

    >>> verify("numeric", "7 + 12 = 19", "19").status
    'right'
    >>> verify("exact", "east", "East", ignore_case=True).status
    'right'
    """
    return judge(verifier(name, **options), completion, answer)


def judge(verifier: Verifier, completion: str, answer: str) -> Verdict:
    """Run a verifier in this process, without limits. An exception inside it becomes "unknown", never a wrong answer.

    >>> judge(NumericOptions(), "It is 19.", "nineteen").status
    'unknown'
    """
    begin = time.perf_counter()
    try:
        said = verifier.verify(completion, answer)
        verdict = Verdict(
            said.status, said.extracted, said.detail, score=said.score, graded=said.graded
        )  # of a subclass only this
    except LampoError as error:
        verdict = Verdict("unknown", detail=str(error))
    except Exception as error:
        verdict = Verdict("unknown", detail=f"{type(error).__name__}: {error}")
    return dataclasses.replace(verdict, seconds=time.perf_counter() - begin)
