from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lampo.learner.batch import Row, pad
from lampo.model import memory
from lampo.model.policy import Policy
from lampo.rollout import decoder, native
from lampo.rollout.decoder import growing_cache
from lampo.rollout.native import NativeSampler, draw, fill_up
from lampo.types import Rollout

from ...conftest import ARCHITECTURES, sharpen, tiny_options

WINDOW = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
DYNAMIC = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}


def prompts(policy: Policy) -> list[Tensor]:
    return [torch.tensor(policy.encode(text)) for text in ("12+3=", "what is 7 plus 8?", "9")]


def sampler(policy: Policy, **changes: object) -> NativeSampler:
    settings = {"temperature": 0.9, "max_new_tokens": 20, "rows_at_once": 64} | changes
    return NativeSampler(policy, **settings)  # pyright: ignore


def flat(groups: list[list[Rollout]]) -> list[Rollout]:
    return [rollout for group in groups for rollout in group]


def test_logprobs_equal_those_of_a_full_forward(any_policy: Policy) -> None:
    """Cache, left padding, rows that leave and temperature change nothing: 1e-4 in float32, and the ratio is 1."""
    rollouts = flat(sampler(any_policy).sample(prompts(any_policy), 8, seed=0))
    assert {rollout.finished for rollout in rollouts} == {True, False}
    batch = pad([Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 1.0) for rollout in rollouts])
    with torch.no_grad():
        logprobs_NT, _ = any_policy.token_logprobs(batch, temperature=0.9)
    torch.testing.assert_close(logprobs_NT[batch.mask_NT], batch.old_logprobs_NT[batch.mask_NT], rtol=0, atol=1e-4)

    for rollout in rollouts:  # and those of the model called plainly, one sequence at a time
        ids = torch.cat([rollout.prompt_ids, rollout.completion_ids])
        with torch.no_grad():
            logprobs_TV = (any_policy.model(ids[None]).logits[0] / 0.9).log_softmax(-1)
        start = len(rollout.prompt_ids) - 1
        expected = logprobs_TV[start:-1].gather(-1, rollout.completion_ids[:, None]).squeeze(-1)
        torch.testing.assert_close(rollout.logprobs, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("max_new_tokens", "passes"), [(11, False), (40, True)])
def test_a_sliding_window_that_no_row_passes_is_none(max_new_tokens: int, passes: bool) -> None:
    options = tiny_options(device="cpu")
    policy = Policy.load(options.model_copy(update={"config": {**options.config, **WINDOW}}), seed=3)
    policy.end_ids = [len(policy.tokenizer) - 1]
    assert decoder.takes_ready_masks(policy, growing_cache(policy, 5 + max_new_tokens)) is not passes
    prompts_P = [torch.tensor(policy.encode(text)) for text in ("12+3=", "9")]
    for rollout in flat(sampler(policy, temperature=1.0, max_new_tokens=max_new_tokens).sample(prompts_P, 2, seed=0)):
        ids = torch.cat([rollout.prompt_ids, rollout.completion_ids])
        with torch.no_grad():
            logprobs_TV = policy.model(ids[None]).logits[0].log_softmax(-1)
        expected = logprobs_TV[len(rollout.prompt_ids) - 1 : -1].gather(-1, rollout.completion_ids[:, None]).squeeze(-1)
        torch.testing.assert_close(rollout.logprobs, expected, rtol=0, atol=1e-5)


def test_same_seed_same_rollouts_however_many_rows_at_once(policy: Policy) -> None:
    together = flat(sampler(policy).sample(prompts(policy), 4, seed=5))
    apart = flat(sampler(policy, rows_at_once=4).sample(prompts(policy), 4, seed=5))
    other = flat(sampler(policy).sample(prompts(policy), 4, seed=6))
    assert [rollout.completion_ids.tolist() for rollout in together] == [
        rollout.completion_ids.tolist() for rollout in apart
    ]
    assert [rollout.text for rollout in together] != [rollout.text for rollout in other]


def test_a_row_that_has_ended_gives_its_place_to_the_next(any_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five places for four groups of four. Prompts are longer and shorter than those before. Not where a window slides."""
    steps: list[int] = []
    step = decoder.Decoder.step
    monkeypatch.setattr(
        decoder.Decoder, "step", lambda self, tokens: (steps.append(len(tokens)), step(self, tokens))[1]
    )
    texts = ("9", "what is 7 plus 8, and what is 8 plus 7 plus 9 plus 1?", "12+3=", "1+2+3+4+5+6=")
    prompts_P = [torch.tensor(any_policy.encode(text)) for text in texts]
    seeds = [3, 1, 4, 1]
    together = flat(sampler(any_policy, max_new_tokens=60).sample(prompts_P, 4, seed=seeds))
    steps.clear()
    told: list[tuple[int, int]] = []
    in_turn = flat(
        sampler(any_policy, max_new_tokens=60, rows_at_once=5).sample(
            prompts_P, 4, seed=seeds, on_rollout=lambda problem, index, rollout: told.append((problem, index))
        )
    )
    assert sorted(told) == [(problem, index) for problem in range(4) for index in range(4)]
    assert max(steps) <= 5
    lengths = [len(rollout.completion_ids) for rollout in together]
    assert [rollout.completion_ids.tolist() for rollout in in_turn] == [r.completion_ids.tolist() for r in together]
    for one, other in zip(in_turn, together, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-4)
        assert torch.equal(one.prompt_ids, other.prompt_ids)
    rounds = sum(max(lengths[start : start + 5]) for start in range(0, 16, 5))
    assert sum(steps) < 1.2 * sum(lengths)  # rows that have ended are not stepped on
    takes_in = all(type(layer) is decoder._GrowingLayer for layer in growing_cache(any_policy, 128).layers)
    assert (len(steps) < 0.9 * rounds) == takes_in


def test_no_prompts_no_rollouts(policy: Policy) -> None:
    assert sampler(policy).sample([], 4, seed=0) == []


def test_no_more_rows_than_memory_holds(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest row has 17 + 20 tokens and 16 to spare, 2 layers of one head of 16 keep 256 bytes of each."""
    steps: list[int] = []
    step = decoder.Decoder.step
    monkeypatch.setattr(
        decoder.Decoder, "step", lambda self, tokens: (steps.append(len(tokens)), step(self, tokens))[1]
    )
    text = policy.core.config
    each = (17 + 20 + 16) * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 4
    trained = 4 * 4 * sum(parameter.numel() for parameter in policy.model.parameters())
    monkeypatch.setattr(memory, "memory_of", lambda device: trained + int(3.5 * each / 0.7))
    told: list[str] = []
    little = sampler(policy, tell=told.append)
    drawn = [little.sample(prompts(policy), 4, seed=5) for _ in range(2)]
    assert max(steps) == 3
    assert told == ["3 rows are sampled at once: memory holds no more of 37 tokens"]
    monkeypatch.undo()
    together = flat(sampler(policy).sample(prompts(policy), 4, seed=5))
    for groups in drawn:
        assert [each.completion_ids.tolist() for each in flat(groups)] == [r.completion_ids.tolist() for r in together]


def test_places_that_nobody_waits_for_are_given_up(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows in four places. Two end with their third token, one takes a place, and the other place is left."""
    steps: list[int] = []
    step = decoder.Decoder.step
    monkeypatch.setattr(
        decoder.Decoder, "step", lambda self, tokens: (steps.append(len(tokens)), step(self, tokens))[1]
    )
    drawn = [0]

    def two_end(logprobs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
        drawn[0] += 1
        tokens = torch.full((len(logprobs_NV),), 5)
        tokens[:2] = policy.end_ids[0] if drawn[0] == 3 else 5
        return tokens

    monkeypatch.setattr(native, "draw", two_end)
    rollouts = flat(sampler(policy, rows_at_once=4).sample(prompts(policy)[:1] * 5, 1, seed=0))
    assert [len(rollout.completion_ids) for rollout in rollouts] == [3, 3, 20, 20, 20]
    assert steps == [4] * 3 + [3] * 16 + [1] * 3


def test_columns_that_no_row_needs_are_dropped(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """So memory follows the longest row that is there, and not all that was ever drawn. With storage of fixed size too."""
    policy.end_ids = policy.end_ids[:1]
    dropped: list[int] = []
    widths: list[int] = []
    drop, step = decoder.Decoder._drop_columns, decoder.Decoder.step

    def counted(self: decoder.Decoder, tokens: Tensor) -> None:
        step(self, tokens)
        widths.append(self._num_columns)

    monkeypatch.setattr(decoder.Decoder, "step", counted)
    monkeypatch.setattr(
        decoder.Decoder, "_drop_columns", lambda self, count: (dropped.append(count), drop(self, count))[1]
    )
    prompts_P = prompts(policy) * 5
    drawn = [flat(sampler(policy, max_new_tokens=40, rows_at_once=6).sample(prompts_P, 4, seed=2))]
    assert max(dropped) >= 16
    longest = 40 + max(map(len, prompts_P))
    # at the last row that begins there are so many, and 40 come after it
    assert max(widths) < longest + 16 + 40
    monkeypatch.setattr(decoder, "recordable", lambda *_: True)
    widths.clear()
    drawn.append(flat(sampler(policy, max_new_tokens=40, rows_at_once=6).sample(prompts_P, 4, seed=2)))
    assert max(widths) < 2 * longest + 40
    monkeypatch.undo()
    drawn.append(flat(sampler(policy, max_new_tokens=40, rows_at_once=999).sample(prompts_P, 4, seed=2)))
    for rollouts in drawn[:2]:
        for one, other in zip(rollouts, drawn[2], strict=True):
            assert one.completion_ids.tolist() == other.completion_ids.tolist()
            torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_storage_of_fixed_size_holds_the_same(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where steps are recorded; here they run as they are. The batch shrinks by halves and storage grows."""
    policy = sharpen(Policy.load(tiny_options(dtype=dtype), seed=3))
    policy.end_ids = policy.end_ids[:1]
    growing = flat(sampler(policy, max_new_tokens=90).sample(prompts(policy), 16, seed=7))
    rooms, kept = [], []
    fix, keep = decoder._GrowingLayer.fix, decoder.Decoder.keep
    monkeypatch.setattr(decoder, "recordable", lambda *_: True)
    monkeypatch.setattr(
        decoder._GrowingLayer,
        "fix",
        lambda layer, held, dropped, room, column: (rooms.append(room), fix(layer, held, dropped, room, column)),
    )
    monkeypatch.setattr(decoder.Decoder, "keep", lambda self, rows: (kept.append(len(rows)), keep(self, rows)))
    fixed = flat(sampler(policy, max_new_tokens=90).sample(prompts(policy), 16, seed=7))
    assert max(rooms) > min(rooms)
    assert kept
    assert kept[0] <= 24
    assert all(later <= earlier // 2 for earlier, later in pairwise(kept))
    assert {rollout.finished for rollout in fixed} == {True, False}
    assert [rollout.completion_ids.tolist() for rollout in fixed] == [
        rollout.completion_ids.tolist() for rollout in growing
    ]
    for one, other in zip(fixed, growing, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-4 if dtype == "float32" else 1e-2)


@pytest.mark.parametrize(
    ("changes", "longest", "recorded"),
    [
        ({}, 128, True),
        ({"model_type": "llama"}, 128, True),
        (WINDOW, 17, False),
        (WINDOW, 16, True),
        (DYNAMIC, 129, False),
        (DYNAMIC, 128, True),
        (ARCHITECTURES["phi-4-mini"], 129, False),
        (ARCHITECTURES["phi-4-mini"], 128, True),
        ({"attn_implementation": "eager"}, 128, False),
    ],
)
def test_steps_are_recorded_where_they_do_not_depend_on_the_position(
    changes: dict[str, object], longest: int, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is recorded makes no tensor of numbers of the host, and asks for no tensor's."""
    options = tiny_options(device="cpu")
    policy = Policy.load(options.model_copy(update={"config": {**options.config, **changes}}), seed=3)
    cache = growing_cache(policy, longest)
    assert not decoder.recordable(policy, cache, longest)
    policy.device = torch.device("cuda")
    assert decoder.recordable(policy, cache, longest) is recorded
    if not recorded:
        return
    policy.device = torch.device("cpu")
    monkeypatch.setattr(decoder, "recordable", lambda *_: True)
    forward = decoder.Decoder._forward

    def watched(rows: decoder.Decoder, ids_N1: Tensor) -> Tensor:
        with NothingOfTheHost():
            return forward(rows, ids_N1)

    monkeypatch.setattr(decoder.Decoder, "_forward", watched)
    with torch.no_grad():
        rows = decoder.Decoder(policy, decoder.Prefill(policy, prompts(policy), longest=longest), torch.tensor([0, 2]))
        expected = policy.hidden_states(torch.cat([prompts(policy)[2], torch.tensor([7])])[None])[0, -1]
        rows.step(torch.tensor([5, 7]))
    torch.testing.assert_close(rows.hidden[1], expected, rtol=0, atol=1e-5)


class NothingOfTheHost(TorchDispatchMode):
    """Refuses what a CUDA graph cannot record."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.lift_fresh)
        return func(*args, **(kwargs or {}))


def test_a_finished_rollout_ends_with_its_end_token_and_a_cut_one_is_full(policy: Policy) -> None:
    for rollout in flat(sampler(policy).sample(prompts(policy), 8, seed=1)):
        ends = [token in policy.end_ids for token in rollout.completion_ids.tolist()]
        assert not any(ends[:-1])
        assert ends[-1] == rollout.finished
        assert rollout.finished or len(rollout.completion_ids) == 20
        assert "<" not in rollout.text


def test_groups_keep_the_order_of_the_prompts_and_report_tokens(policy: Policy) -> None:
    counts: list[int] = []
    groups = sampler(policy, rows_at_once=2).sample(prompts(policy), 2, seed=0, on_progress=counts.append)
    assert [group[0].prompt_ids.tolist() for group in groups] == [prompt.tolist() for prompt in prompts(policy)]
    assert counts[-1] == sum(len(rollout.completion_ids) for rollout in flat(groups))
    assert counts == sorted(counts)


def test_draw_follows_the_distribution() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    logprobs = probabilities.log().expand(20_000, -1)
    uniforms = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = Counter(draw(logprobs, uniforms).tolist())
    assert set(counts) == {1, 3, 4}
    for token, probability in ((1, 0.5), (3, 0.2), (4, 0.3)):
        four_sigma = 4 * (probability * (1 - probability) / 20_000) ** 0.5
        assert counts[token] / 20_000 == pytest.approx(probability, abs=four_sigma)


def test_draw_at_the_ends_of_the_unit_interval() -> None:
    logprobs = torch.tensor([[0.0, 0.25, 0.75, 0.0]]).log().expand(2, -1)
    almost_one = torch.tensor(1.0, dtype=torch.float64).nextafter(torch.tensor(0.0, dtype=torch.float64))
    assert draw(logprobs, torch.tensor([0.0, almost_one], dtype=torch.float64)).tolist() == [1, 2]


def test_growing_cache_holds_what_transformers_cache_holds(any_policy: Policy) -> None:
    from transformers import DynamicCache

    ours, theirs = growing_cache(any_policy, 128), DynamicCache(config=any_policy.core.config)
    generator = torch.Generator().manual_seed(0)
    for length, keep in ((5, None), (1, torch.tensor([0, 2, 3])), (100, None), (1, torch.tensor([1]))):
        rows = 4 if not ours.get_seq_length() else ours.layers[0].keys.shape[0]
        for layer in range(2):
            states = torch.randn(rows, 2, length, 8, generator=generator)
            got, expected = ours.update(states, -states, layer), theirs.update(states, -states, layer)
            assert torch.equal(got[0], expected[0])
            assert torch.equal(got[1], expected[1])
        if keep is not None:
            ours.batch_select_indices(keep)
            theirs.batch_select_indices(keep)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_the_last_rows_take_the_places_of_those_that_have_ended() -> None:
    open_rows = [[1, 1, 1], [0, 1, 1, 0, 1], [0, 0, 1, 1, 0], [1, 0, 0], [0, 0, 0, 1]]
    stay = [fill_up(torch.tensor(rows).bool(), sum(rows)).tolist() for rows in open_rows]
    assert stay == [[0, 1, 2], [4, 1, 2], [2, 3], [0], [3]]


def test_rows_that_stay_move_within_the_storage(policy: Policy) -> None:
    cache = growing_cache(policy, 128)
    states = torch.randn(5, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    cache.update(states, -states, 0)
    storage = cache.layers[0].keys.data_ptr()
    for rows in (torch.tensor([0, 4, 2, 3]), torch.tensor([1, 2, 3]), torch.tensor([1, 0])):
        states = states[rows]
        places = (rows != torch.arange(len(rows))).nonzero().squeeze(-1)
        cache.layers[0].keep(rows, places, rows[places])
        assert torch.equal(cache.layers[0].keys, states)
        assert torch.equal(cache.layers[0].values, -states)
        assert cache.layers[0].keys.data_ptr() == storage


@pytest.mark.parametrize("texts", [("12+3=", "what is 7 plus 8?", "9"), ("12+3=", "34+5=")])
def test_ready_masks_change_no_bit(policy: Policy, texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as rows are padded, and once those are left that are not. In the model's own steps: ours round otherwise."""
    monkeypatch.setattr(Policy, "decode_step", lambda self, longest: None)

    def drawn() -> list[tuple[list[int], list[float]]]:
        prompts_P = [torch.tensor(policy.encode(text)) for text in texts]
        rollouts = flat(sampler(policy).sample(prompts_P, 4, seed=3))
        return [(rollout.completion_ids.tolist(), rollout.logprobs.tolist()) for rollout in rollouts]

    ready = drawn()
    monkeypatch.setattr(decoder, "takes_ready_masks", lambda policy, cache: False)
    assert drawn() == ready


def test_drawing_changes_no_log_probability() -> None:
    logprobs = torch.rand(3, 7, dtype=torch.float64).log_softmax(-1)
    before = logprobs.clone()
    draw(logprobs, torch.rand(3, dtype=torch.float64))
    assert torch.equal(logprobs, before)
