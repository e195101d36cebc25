"""(completion, answer) -> Verdict, one verifier per file.

A verifier is a frozen group of options with a pure method `verify`. `judge` runs it in this process, times it, and turns
its failure into the verdict "unknown".
"""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ..types import LampoError, Verdict, Verifier
from .base import THOUGHT_BEGIN, THOUGHT_END, UnboundedVerifier, VerifierOptions, committed_text
from .exact import ExactOptions
from .numeric import NumericOptions

AnyVerifier = Annotated[NumericOptions | ExactOptions, Field(discriminator="name")]
"""The section `verifier` of a recipe: a name, and the options of that verifier."""

VERIFIERS: dict[str, type[VerifierOptions]] = {"numeric": NumericOptions, "exact": ExactOptions}
"""All verifiers by name."""

_ADAPTER: TypeAdapter[NumericOptions | ExactOptions] = TypeAdapter(AnyVerifier)

__all__ = [
    "THOUGHT_BEGIN",
    "THOUGHT_END",
    "VERIFIERS",
    "AnyVerifier",
    "ExactOptions",
    "NumericOptions",
    "UnboundedVerifier",
    "Verdict",
    "Verifier",
    "VerifierOptions",
    "committed_text",
    "judge",
    "verifier",
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
        verdict = verifier.verify(completion, answer)
    except Exception as error:
        verdict = Verdict("unknown", detail=f"{type(error).__name__}: {error}")
    return dataclasses.replace(verdict, seconds=time.perf_counter() - begin)
