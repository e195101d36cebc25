"""Problems that reasoning-gym generated, judged by the scorer of their own data set. Needs the extra `reasoning-gym`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Literal

from ..types import LampoError, Verdict
from .verifier_options import UnboundedVerifier, committed_text

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class ReasoningGymOptions(UnboundedVerifier):
    """The scorer of reasoning-gym's own data set. Right is its full score, and a smaller one is kept beside the verdict."""

    name: Literal["reasoning_gym"] = "reasoning_gym"
    """Selects this verifier."""
    marker: str | None = None
    """Take what follows the last of these marks, instead of what stands in the last <answer> tags."""
    partial_credit: bool = False
    """The reward is the score, which a data set may give an answer that is wrong. Off: 1 for the full score, else 0."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """Right if the scorer gives what the response commits to a full 1.

        Args:
            completion: the response; its answer stands, after the thought, in the last <answer>...</answer> or after
                the marker.
            answer: what `dump_entry` gives.

        Returns:
            unknown if the answer is something else.

        Raises:
            LampoError: the library is missing.
        """
        try:
            name, entry = read_entry(answer)
        except (ValueError, SyntaxError, TypeError, KeyError):
            return Verdict("unknown", detail="the answer is not an entry of reasoning-gym")
        text = committed_text(completion, self.marker)
        found = [text] if self.marker else _TAGGED.findall(text)
        given = found[-1].strip() if found else ""
        if not given:
            return Verdict("wrong", detail="no answer given", score=0.0, graded=self.partial_credit)
        score = min(1.0, max(0.0, float(_scorer(name)(given, entry))))
        return Verdict("right" if score == 1 else "wrong", given[:200], score=score, graded=self.partial_credit)

    def answer_text(self, answer: str) -> str | None:
        """See `VerifierOptions.answer_text`. None where the data set gives no answer, but only scores them."""
        try:
            gold = read_entry(answer)[1].get("answer")
        except (ValueError, SyntaxError, TypeError, KeyError):
            return f"<answer>{answer}</answer>"
        return None if gold is None else f"{self.marker} {gold}" if self.marker else f"<answer>{gold}</answer>"

    def prepare(self) -> None:
        """See `VerifierOptions.prepare`."""
        library()

    def warm_up(self) -> None:
        """See `VerifierOptions.warm_up`."""
        library()


def library() -> Any:
    """reasoning-gym, imported only where it is used.

    Raises:
        LampoError: it is not installed.
    """
    try:
        return import_module("reasoning_gym")
    except ImportError as error:
        raise LampoError(
            f"reasoning-gym cannot be imported ({error}). Install it with: pip install 'lampo[reasoning-gym]'"
        ) from None


@cache
def _scorer(name: str) -> Callable[[str, dict[str, Any]], float]:
    """The scorer of a data set. The library makes the whole data set for it, which takes 30 ms for some."""
    return library().get_score_answer_fn(name)


def dump_entry(name: str, entry: dict[str, Any]) -> str:
    """All that the scorer of a data set needs, as the answer of a problem: a Python literal, for JSON knows no tuples.

    Raises:
        ValueError: the entry holds more than plain values, so that it cannot be read back.

    >>> read_entry(dump_entry("chess", {"answer": "e4", "metadata": {"at": (1, 2)}}))
    ('chess', {'answer': 'e4', 'metadata': {'at': (1, 2)}})
    """
    text = repr({"dataset": name, "entry": _plain(entry)})
    try:
        same = read_entry(text) == (name, entry)
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise ValueError(f"an entry of {name} cannot be written down")
    return text


def _plain(value: Any) -> Any:
    """The same value without NumPy's own kinds of text and numbers, whose repr is no literal."""
    match value:
        case dict():
            return {_plain(key): _plain(entry) for key, entry in value.items()}
        case list() | tuple() | set():
            return type(value)(map(_plain, value))
        case _:
            return value.item() if hasattr(value, "item") else value


def read_entry(answer: str) -> tuple[str, dict[str, Any]]:
    """What `dump_entry` wrote: the name of the data set, and the entry."""
    fields = ast.literal_eval(answer)
    return fields["dataset"], fields["entry"]
