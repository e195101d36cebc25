"""The user's own verifier: a Python function, named by where it is imported from."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from pydantic import Field

from ..types import LampoError, Verdict
from .base import UnboundedVerifier


class PythonOptions(UnboundedVerifier):
    """Your own function (completion, answer, **options) -> Verdict, True, False, or None for unknown."""

    name: Literal["python"] = "python"
    """Selects this verifier; "python:module.function" is short for it and its `function`."""
    function: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    """Where the function is imported from: module.function."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """What the function says.

        Raises:
            LampoError: it cannot be imported, or returns something else.

        >>> PythonOptions(function="operator.eq").verify("4", "4").status
        'right'
        """
        match self.load()(completion, answer, **self.options):
            case Verdict() as verdict:
                return verdict
            case bool() as right:
                return Verdict("right" if right else "wrong")
            case None:
                return Verdict("unknown", detail=f"{self.function} could not tell")
            case other:
                raise LampoError(
                    f"{self.function} returned a {type(other).__name__}; it must return a Verdict, True, False or None."
                )

    def load(self) -> Any:
        """The function itself.

        Raises:
            LampoError: it cannot be imported.
        """
        module, _, name = self.function.rpartition(".")
        try:
            return getattr(import_module(module), name)
        except Exception as error:
            raise LampoError(
                f"The verifier {self.function} cannot be imported: {type(error).__name__}: {error}. "
                "Its module must be importable from where lampo runs, for example a file in this folder."
            ) from None

    def prepare(self) -> None:
        """See `VerifierOptions.prepare`."""
        self.load()

    def warm_up(self) -> None:
        """See `VerifierOptions.warm_up`: importing the function's module is not part of a verification's time."""
        self.load()

    def commit(self, answer: str) -> None:
        """See `VerifierOptions.commit`; how a response has to look is known to the function alone."""
        return
