"""Which token of a completion is which part of its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoders put for bytes that are not yet, or never, a character."""

MOST_TOKENS_OF_A_CHARACTER = 16
"""UTF-8 needs four; special tokens may stand between them."""


class TokenSpans:
    """Splits a decoded text into the pieces that its tokens are, for any tokenizer that can decode.

    What a token adds depends on its neighbours: some tokenizers drop a blank at the beginning of a text, and a character of
    several bytes may be spread over tokens. So each token is decoded once after another one, the text is walked through
    with these pieces, and only tokens that end amid a character are decoded together. The last of them gets the character.

    Args:
        decode: token ids to text, special tokens left out; a Policy's `decode`.
        num_tokens: size of the vocabulary.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], num_tokens: int) -> None:
        self._decode = decode
        self._num_tokens = num_tokens
        self._pieces: dict[int, str] = {}

    def lengths(self, token_ids: Sequence[int], text: str) -> list[int] | None:
        """How many characters of the text each token is. They sum to the length of the text.

        Args:
            token_ids: the completion.
            text: what it decodes to.

        Returns:
            One number a token, 0 for a special token and for one whose character a later token ends; None if the
            pieces do not add up to the text, which no tokenizer of a model we know does.
        """
        ids = list(token_ids)
        pieces = [self._piece(token_id) for token_id in ids]
        if "".join(pieces) == text:  # nearly always
            return [len(piece) for piece in pieces]
        lengths = [0] * len(ids)
        position = start = 0  # of the text; of the tokens that are not placed yet
        bytes_go_on = _bytes_go_on(pieces)
        for index in range(len(ids)):
            is_last = index + 1 == len(ids)
            if not is_last and index - start >= MOST_TOKENS_OF_A_CHARACTER:
                continue  # bytes of no character: what is left is placed together
            piece = pieces[index] if start == index else self._after_anchor(ids[start : index + 1])
            if position == 0 and not text.startswith(piece):
                piece = piece.removeprefix(" ")
            if text.startswith(piece, position) and not (piece.endswith(UNFINISHED) and bytes_go_on[index]):
                lengths[index] = len(piece)
                position, start = position + len(piece), index + 1
        return lengths if position == len(text) else None

    def _piece(self, token_id: int) -> str:
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = self._after_anchor([token_id])
        return piece

    def _after_anchor(self, token_ids: Sequence[int]) -> str:
        anchor_ids, anchor = self._anchor
        return self._decode([*anchor_ids, *token_ids])[len(anchor) :]

    @cached_property
    def _anchor(self) -> tuple[list[int], str]:
        """The first token that is plain text."""
        for token_id in range(self._num_tokens):
            text = self._decode([token_id])
            if text.strip() and UNFINISHED not in text:
                return [token_id], text
        return [], ""


def _bytes_go_on(pieces: Sequence[str]) -> list[bool]:
    """Of every token, whether the next one that is any text could belong to the same character."""
    answers, answer = [False] * len(pieces), False
    for index in range(len(pieces) - 1, -1, -1):
        answers[index] = answer
        if pieces[index]:
            answer = UNFINISHED in pieces[index]
    return answers
