import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.config.schema import ModelOptions
from lampo.learner.batch import Row, pad
from lampo.model import policy as policy_module
from lampo.model.packing import Packing, attend
from lampo.model.policy import Policy
from lampo.types import MicroBatch

from ...conftest import ARCHITECTURES, CHARACTERS, TINY, tiny_options

SHAPES = [(9, [3, 5, 1]), (4, [1, 4, 5]), (12, [2]), (1, [30, 2]), (20, [1, 1])]
"""Prompts, and the completions behind each."""


def make_batch(shapes: Sequence[tuple[int, list[int]]] = SHAPES) -> MicroBatch:
    generator = torch.Generator().manual_seed(5)

    def tokens(length: int) -> Tensor:
        return torch.randint(3, 3 + len(CHARACTERS), (length,), generator=generator)

    rows = []
    for group, (prompt, completions) in enumerate(shapes):
        prompt_ids = tokens(prompt)
        rows += [Row(prompt_ids, tokens(length), torch.zeros(length), 1.0, group) for length in completions]
    order = torch.randperm(len(rows), generator=generator).tolist()
    return pad([rows[place] for place in order])


def test_every_token_is_there_once_and_in_its_place() -> None:
    batch = make_batch()
    packing = Packing.of(batch)
    # the last token of each completion is only predicted
    assert len(packing.ids) == sum(prompt + sum(completions) - len(completions) for prompt, completions in SHAPES)
    for row, column in batch.mask_NT.nonzero().tolist():
        before = int(packing.before_NT[row, column])
        place = int(batch.prompt_lengths[row]) + column - 1
        assert packing.ids[before] == batch.input_ids[row, place]
        assert packing.positions[before] == place
    assert packing.longest == 30
    assert sorted(int(token) for bucket in packing.buckets for token in bucket.tokens) == list(range(len(packing.ids)))


def plain_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, window: int | None) -> Tensor:
    """(M, H, D) by one matrix of who sees whom, made token by token."""
    M, H, D = query.shape
    sees = torch.zeros(M, M, dtype=torch.bool)
    for begin, end in packing.segments:
        sees[begin:end, begin:end] = torch.ones(end - begin, end - begin).tril().bool()
    for (begin, end), completions in packing.families:
        for first, last in completions:
            sees[first:last, begin:end] = True
    if window is not None:
        sees &= packing.positions[:, None] - packing.positions < window
    key, value = (each.repeat_interleave(H // each.shape[1], 1) for each in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(D)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~sees, -math.inf).softmax(-1), value)


@pytest.mark.parametrize("window", [None, 1, 2, 5, 13, 29, 30, 100])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
def test_attention_is_that_of_one_matrix_of_who_sees_whom(window: int | None, heads: tuple[int, int]) -> None:
    packing = Packing.of(make_batch())
    generator = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(len(packing.ids), number, 8, dtype=torch.float64, generator=generator, requires_grad=True)
        for number in (heads[0], heads[1], heads[1])
    ]
    upstream = torch.randn(tensors[0].shape, dtype=torch.float64, generator=generator)
    query, key, value = (each.transpose(0, 1)[None] for each in tensors)
    out, _ = attend(None, query, key, value, None, packing=packing, sliding_window=window)
    expected = plain_attention(tensors[0], tensors[1], tensors[2], packing, window)
    torch.testing.assert_close(out[0], expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad((out[0] * upstream).sum(), tensors)
    for gradient, wanted in zip(got, torch.autograd.grad((expected * upstream).sum(), tensors), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("window", [None, 4, 16])
def test_gradients_of_a_model_are_those_of_padded_rows(window: int | None, checkpointing: bool) -> None:
    sliding = {"sliding_window": window, "use_sliding_window": window is not None, "max_window_layers": 1}
    config = TINY | ARCHITECTURES["qwen3-tied"] | sliding
    options = ModelOptions(config=config, characters=CHARACTERS, device="cpu", gradient_checkpointing=checkpointing)
    policy, batch, gradients = Policy.load(options, seed=3), make_batch(), []
    policy.model.double()
    for layout in ("packed", "rows"):
        assert layout == "rows" or policy.layout == "packed"
        policy.layout = layout
        logprobs_NT, _ = policy.token_logprobs(batch, temperature=0.9)
        policy.model.zero_grad()
        (logprobs_NT * torch.arange(1.0, 1 + logprobs_NT.shape[1])).sum().backward()
        gradients.append({name: each.grad for name, each in policy.trainable_parameters().items()})
    for name, gradient in gradients[1].items():
        # norms round to float32 in a double model too
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


def test_the_model_attends_as_before_outside_of_learning() -> None:
    policy = Policy.load(ModelOptions(config=TINY | ARCHITECTURES["phi3"], characters=CHARACTERS, device="cpu"))
    before = policy.core.config._attn_implementation
    policy.token_logprobs(make_batch(), temperature=1.0)[0].sum().backward()
    assert policy.layout == "packed"
    assert policy.core.config._attn_implementation == before


@pytest.mark.parametrize("wrong", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}])
def test_a_model_with_an_attention_of_its_own_is_not_packed(wrong: dict[str, Any], monkeypatch: Any) -> None:
    """It is tried with two short rows; a soft cap and sinks are refused."""

    def model_of(*_: Any, **__: Any) -> None:
        query = torch.zeros(1, 4, 2, 8)
        attend(None, query, query, query, None, packing=Packing.example(torch.device("cpu"))[0], **wrong)

    policy = Policy.load(ModelOptions(config=TINY | ARCHITECTURES["qwen3"], characters=CHARACTERS, device="cpu"))
    monkeypatch.setattr(policy, "hidden_states", model_of)
    assert policy.layout == "shared"
    policy = Policy.load(ModelOptions(config=TINY | ARCHITECTURES["qwen3"], characters=CHARACTERS, device="cpu"))
    monkeypatch.setattr(policy_module.Packing, "example", classmethod(lambda *_: (_twisted(), [torch.arange(5)])))
    assert policy.layout == "shared"


def _twisted() -> Packing:
    """Two rows that a model without our attention would take for one."""
    packing, _ = Packing.example(torch.device("cpu"))
    packing.segments[:] = [(0, 6)]
    packing.families.clear()
    return Packing(packing.ids.flip(0), packing.positions, packing.before_NT, packing.segments, [], 5)


def test_a_model_is_tried_with_words_from_the_middle_of_its_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """With special ones SmolLM2 in bfloat16 came out too far from itself to be packed."""
    policy, seen = Policy.load(tiny_options(device="cpu"), seed=3), list[Tensor]()
    there = Packing.example

    def example(device: torch.device, first: int) -> tuple[Packing, list[Tensor]]:
        packing, rows = there(device, first)
        seen.append(packing.ids)
        return packing, rows

    monkeypatch.setattr(Packing, "example", example)
    assert policy.layout == "packed"
    assert seen[0].tolist() == [policy.head.out_features // 2 + word for word in (0, 1, 2, 2, 1, 0)]
