"""What a verifier has to offer, and the text that it may look at."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..options import Options
from ..types import Verdict

THOUGHT_BEGIN, THOUGHT_END = "<think>", "</think>"


class VerifierOptions(Options):
    """A verifier: its settings, and the pure function of (completion, answer) that they make.

    A verifier that derives from this class has time and memory bounded by the length of the texts. So it runs where
    it is called. One that may hang or eat memory derives from `UnboundedVerifier`.
    """

    def verify(self, completion: str, answer: str) -> Verdict:
        """Compare what the completion gives with the answer. It is pure, and may raise on what it cannot handle.

        Returns:
            right or wrong; unknown where the answer makes no sense to this verifier, or nothing can be said.
        """
        raise NotImplementedError

    def at_once(self, completion: str, answer: str) -> Verdict | None:
        """The verdict, if it takes bounded time and memory. None if it takes a worker."""
        return self.verify(completion, answer)

    def answer_text(self, answer: str) -> str | None:
        """A response that commits to this answer and is right: how a task's answers are checked against themselves.

        None where such a response cannot be written down.
        """
        return answer

    def prepare(self) -> None:
        """Refuse now what could not work later. Called once, before the first problem is sampled.

        Raises:
            LampoError: something that this verifier needs is missing; says how to get it.
        """

    def warm_up(self) -> None:
        """Import what verifying needs. Called once in the process that workers are forked from."""


class UnboundedVerifier(VerifierOptions):
    """A verifier that may be slow, hang, crash or eat memory: `VerifierPool` runs it in a worker, under these limits."""

    bounds_itself: ClassVar[bool] = False
    """Whether it ends and judges what takes long. Then `VerifierPool` gives none up before `timeout_s`."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Most seconds for one verification. Then it is killed and the verdict unknown. Waiting for a busy processor hardly counts."""
    memory_mib: int = Field(default=2048, ge=256)
    """Most memory of one verification in MiB (address space, Python and its libraries included). Then it is unknown."""

    def at_once(self, completion: str, answer: str) -> Verdict | None:
        """See `VerifierOptions.at_once`. None, unless a verifier knows cases that are cheap."""
        return None


def committed_text(completion: str, marker: str | None = None) -> str:
    """The part of a response in which its answer stands. Empty where there is none.

    It begins after the last `</think>`, and after the last marker where one is asked for. A thought that is still open
    at the end commits to nothing, and neither does a response without the marker.

    >>> committed_text("<think>3, no, 5</think>So it is 5.")
    'So it is 5.'
    >>> committed_text("<think>3, no, 5"), committed_text("#### 3, no, #### 5", marker="####")
    ('', ' 5')
    """
    text = completion.rpartition(THOUGHT_END)[2]
    if THOUGHT_BEGIN in text:
        return ""
    if marker is None:
        return text
    return text.rpartition(marker)[2] if marker in text else ""
