import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lampo.model.policy import Policy
from lampo.model.token_spans import TokenSpans

TEXTS = [
    "Natalia sold 48 clips, so 48/2 = 24.",
    "  leading and trailing blanks  ",
    "naïve café – “quoted” €5, 数学の問題, 👍🏽👩‍👩‍👧 and 𝔸",
    "�",
    "",
]


def byte_level() -> PreTrainedTokenizerFast:
    """Every byte a token and a few merges, as in GPT, Qwen and Phi."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<end>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """A blank is part of the word after it and is dropped at the beginning; unknown characters fall back to bytes."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for piece in ("<end>", "▁", "▁a", "a", "b", "▁ab", "c"):
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def pieces_of(tokenizer: PreTrainedTokenizerFast) -> tuple[TokenSpans, Policy]:
    policy = object.__new__(Policy)
    policy.tokenizer = tokenizer
    return TokenSpans(policy.decode, len(tokenizer)), policy


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_pieces_join_to_the_text(text: str) -> None:
    tokenizer = byte_level()
    pieces, policy = pieces_of(tokenizer)
    ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    lengths = pieces.lengths(ids, text)
    assert lengths is not None
    assert len(lengths) == len(ids)
    assert sum(lengths) == len(text)
    assert lengths[-1] == 0  # <end> is not part of the text
    assert policy.decode(ids) == text


def test_a_character_over_several_tokens_belongs_to_the_last_of_them() -> None:
    tokenizer = byte_level()
    pieces, policy = pieces_of(tokenizer)
    ids = [id_ for byte in "x𝔸👍y".encode() for id_ in [tokenizer.convert_tokens_to_ids(byte_token(byte))]]
    assert policy.decode(ids) == "x𝔸👍y"
    assert pieces.lengths(ids, "x𝔸👍y") == [1, 0, 0, 0, 1, 0, 0, 0, 1, 1]


def byte_token(byte: int) -> str:
    encoded = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    for character in map(chr, range(0x250)):
        if character.encode() == bytes([byte]):
            return encoded(character)[0][0]
    # bytes of no ASCII character: the byte in place, 0xC2 0x80 and so on, as GPT-2's table has them
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


@pytest.mark.parametrize("make", [byte_level, sentence_pieces])
def test_random_tokens_join_to_whatever_they_decode_to(make) -> None:
    tokenizer = make()
    pieces, policy = pieces_of(tokenizer)
    numbers, placed = random.Random(0), 0
    for _ in range(300):
        kind = [range(256, len(tokenizer)), range(128, 256)]
        ids = [numbers.choice(kind[numbers.random() < 0.05]) for _ in range(numbers.randrange(40))]
        text = policy.decode(ids)
        lengths = pieces.lengths(ids, text)
        assert lengths is None or (sum(lengths) == len(text) and len(lengths) == len(ids))
        placed += lengths is not None
    assert placed >= 270  # nonsense bytes with special tokens amid them may defeat it; text does not


def test_a_blank_that_is_dropped_at_the_beginning() -> None:
    tokenizer = sentence_pieces()
    pieces, policy = pieces_of(tokenizer)
    ids = tokenizer.convert_tokens_to_ids(["▁ab", "▁a", "<0xE2>", "<0x82>", "<0xAC>", "c", "<end>"])
    assert policy.decode(ids) == "ab a€c"
    assert pieces.lengths(ids, "ab a€c") == [2, 2, 0, 0, 1, 1, 0]


def test_a_text_of_another_making_has_no_pieces() -> None:
    tokenizer = byte_level()
    pieces, _ = pieces_of(tokenizer)
    assert pieces.lengths(tokenizer("one").input_ids, "two") is None


def test_a_character_tokenizer(policy: Policy) -> None:
    ids = policy.encode("12+3=15")
    assert policy.token_spans.lengths([*ids, policy.end_ids[0]], policy.decode([*ids, policy.end_ids[0]])) is not None
    assert policy.token_spans.lengths(ids, "12+3=15") == [1] * 7
