"""Answers in mathematics: read from LaTeX and compared by value."""

from .verifier import MathOptions

__all__ = ["MathOptions"]
