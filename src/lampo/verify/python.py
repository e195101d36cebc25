"""The user's own verifier: a Python function, named by where it is imported from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..options import OWN_PATH, call_own, load_function, refuse_unnamed_options
from ..types import LampoError, Verdict
from .verifier_options import UnboundedVerifier


class PythonOptions(UnboundedVerifier):
    """Your own function (completion, answer, **options) -> Verdict, True, False, a score from 0 to 1, or None for unknown.

    A score is the reward of the response. It counts as right where it is 1.
    """

    name: Literal["python"] = "python"
    """Selects this verifier. "python:module.function" is short for it and its `function`."""
    function: str = Field(pattern=OWN_PATH)
    """Where the function is imported from: module.function."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function. Other keys of the section are put here too."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """What the function says.

        Raises:
            LampoError: it cannot be imported, raises, or returns something else.

        >>> PythonOptions(function="operator.eq").verify("4", "4").status
        'right'
        """
        given = {"completion": completion, "answer": answer}
        match call_own(self.load(), f"The verifier {self.function}", given, self.options):
            case Verdict() as verdict:
                return verdict
            case bool() as right:
                return Verdict("right" if right else "wrong")
            case int() | float() as score if 0 <= score <= 1:
                return Verdict("right" if score == 1 else "wrong", score=float(score), graded=True)
            case int() | float() as score:
                raise LampoError(f"{self.function} returned {score}. A score must be from 0 to 1.")
            case None:
                return Verdict("unknown", detail=f"{self.function} could not tell")
            case other:
                raise LampoError(
                    f"{self.function} returned a {type(other).__name__}. It must return a Verdict, True, False, a number or None."
                )

    def load(self) -> Any:
        """The function itself.

        Raises:
            LampoError: it cannot be imported.
        """
        return load_function(self.function, "the verifier")

    def prepare(self) -> None:
        """See `VerifierOptions.prepare`."""
        refuse_unnamed_options(self.load(), self.options, f"The verifier {self.function}")

    def warm_up(self) -> None:
        """See `VerifierOptions.warm_up`: importing the function's module is not part of a verification's time."""
        self.load()

    def answer_text(self, answer: str) -> None:
        """See `VerifierOptions.answer_text`. How a response has to look is known to the function alone."""
        return
