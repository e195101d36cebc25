import pytest
import torch

from lampo.learner.batch import Batch, Row, collate, pad
from lampo.model.packing import Packing
from lampo.model.policy import Layout
from lampo.types import Group, Problem, Reward, Rollout, Verdict


def rollout(prompt: int, completion: int, logprob: float = -1.0) -> Rollout:
    return Rollout(
        prompt_ids=torch.arange(1, prompt + 1),
        completion_ids=torch.arange(100, 100 + completion),
        logprobs=torch.full((completion,), logprob),
        finished=True,
        text="",
    )


def group(rollouts: list[Rollout], valid: list[bool]) -> Group:
    return Group(
        problem=Problem(id="p", prompt="?", answer="1"),
        rollouts_G=tuple(rollouts),
        verdicts_G=tuple(Verdict("right" if ok else "unknown") for ok in valid),
        rewards_G=tuple(Reward({}, 1.0) if ok else Reward({}, float("nan")) for ok in valid),
    )


def test_collate_leaves_out_rows_without_gradient_but_counts_them() -> None:
    groups = [group([rollout(2, 3), rollout(2, 4)], [True, True]), group([rollout(3, 5), rollout(3, 6)], [False, True])]
    batch = collate(groups, torch.tensor([0.5, 0.0, 0.7, -0.2]), keep_all=False)
    assert [row.advantage for row in batch.rows] == pytest.approx(
        [0.5, -0.2]
    )  # the zero, and the unknown one, are gone
    assert batch.num_rows == 3  # the unknown one does not count
    assert batch.num_tokens == 3 + 4 + 6
    assert batch.denominator("sequence", 10) == 3
    assert batch.denominator("token", 10) == 13
    assert batch.denominator("constant", 10) == 3 * 10


def test_collate_keeps_zero_advantages_where_a_kl_term_needs_them() -> None:
    groups = [group([rollout(2, 3), rollout(2, 4)], [True, False])]
    assert len(collate(groups, torch.tensor([0.0, 0.0]), keep_all=True).rows) == 1


def test_collate_wants_one_advantage_a_rollout() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        collate([group([rollout(2, 3)], [True])], torch.tensor([0.5, 0.1]), keep_all=False)


def test_pad_puts_every_token_in_its_place() -> None:
    batch = pad([Row(torch.tensor([1, 2]), torch.tensor([7, 8, 9]), torch.tensor([-1.0, -2.0, -3.0]), 0.5),
                 Row(torch.tensor([3]), torch.tensor([4]), torch.tensor([-4.0]), -1.0)])  # fmt: skip
    assert batch.input_ids.tolist() == [[1, 2, 7, 8, 9], [3, 4, 0, 0, 0]]
    assert batch.attention_mask.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch.target_ids.tolist() == [[7, 8, 9], [4, 0, 0]]
    assert batch.mask_NT.int().tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.old_logprobs_NT.tolist() == [[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]]
    assert batch.prompt_lengths.tolist() == [2, 1]


@pytest.mark.parametrize("budget", [1, 20, 50, 10_000])
def test_split_respects_the_budget_and_loses_nothing(budget: int) -> None:
    rows = [rollout(3, length) for length in (9, 1, 4, 12, 4, 7, 2, 30)]
    batch = collate([group(rows, [True] * 8)], torch.arange(1.0, 9.0), keep_all=False)
    parts = batch.split(budget)
    for part in parts:
        assert part.input_ids.numel() <= budget or len(part.input_ids) == 1
        assert part.attention_mask.any(0).all()  # no padding beyond its own longest row
    assert sorted(advantage for part in parts for advantage in part.advantages_NT[:, 0].tolist()) == list(range(1, 9))
    assert sum(int(part.mask_NT.sum()) for part in parts) == batch.num_tokens


def numbered_groups(num_groups: int, group_size: int, prompt: int, completions: tuple[int, ...]) -> Batch:
    prompts = [torch.full((prompt + group,), group) for group in range(num_groups)]
    rows = [
        Row(prompts[group], torch.arange(length), torch.zeros(length), 1.0, group)
        for group in range(num_groups)
        for length in completions[:group_size]
    ]
    return Batch.numbered(rows)


def test_rows_of_a_group_go_together_where_their_prompt_is_computed_once() -> None:
    batch = numbered_groups(4, 4, 50, (3, 9, 5, 7))
    whole, shared = batch.split(235), batch.split(235, layout="shared")
    assert len(whole) > 4  # not four rows of 53 to 62 tokens
    assert len(shared) == 2  # but eight completions of 9 at most, behind two prompts of 53
    assert [sorted(set(part.group_ids_N.tolist())) for part in shared] == [[2, 3], [0, 1]]
    assert [len(set(part.first_ids_N.tolist())) for part in shared] == [2, 2]
    assert sorted(row for part in shared for row in part.row_ids_N.tolist()) == list(range(16))


def test_rows_of_like_length_go_together_where_completions_are_long() -> None:
    batch = numbered_groups(4, 4, 2, (10, 90, 30, 60))
    shared = batch.split(400, layout="shared")
    assert [part.mask_NT.sum(1).tolist() for part in shared] == [[90] * 4, [60] * 4 + [30] * 2, [30] * 2 + [10] * 4]


@pytest.mark.parametrize("layout", ["rows", "shared", "packed"])
@pytest.mark.parametrize("budget", [600, 2048, 16_384])
def test_long_tails_are_split_with_little_padding(budget: int, layout: Layout) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = (40 * torch.randn(256, generator=generator).exp()).clamp(1, 512).int().tolist()
    prompts = [torch.full((10 + number,), 3) for number in range(32)]
    rows = [Row(prompts[n // 8], torch.full((T,), 3), torch.zeros(T), 1.0, n // 8) for n, T in enumerate(lengths)]
    batch = Batch.numbered(rows)
    parts = batch.split(budget, layout=layout)
    computed = 0
    for part in parts:
        prompt, completion = int(part.prompt_lengths.max()), part.mask_NT.shape[1]
        tokens = {"rows": part.input_ids.numel(), "packed": len(Packing.of(part).ids) + len(part.row_ids_N)}
        tokens["shared"] = min(tokens["rows"], len(part.first_ids_N.unique()) * prompt + part.mask_NT.numel())
        assert tokens[layout] <= budget or len(part.row_ids_N) == 1
        assert completion == part.mask_NT.sum(1).max()
        computed += tokens[layout]
    assert sorted(row for part in parts for row in part.row_ids_N.tolist()) == list(range(256))
    real = sum(lengths) + sum(map(len, prompts) if layout != "rows" else [len(prompts[n // 8]) for n in range(256)])
    if budget > 600:  # at 600 a micro-batch holds one or two of the longest rows
        assert computed / real < {"rows": 1.15, "shared": 1.6, "packed": 1.05}[layout]


def test_splitting_takes_time_linear_in_the_rows() -> None:
    """Counted, not timed: how often a row is looked at."""
    looks = [0, 0]

    class Watched(Row):
        def __len__(self) -> int:
            looks[0] += 1
            return 13

    prompt, ids = torch.zeros(3, dtype=torch.int64), torch.zeros(10, dtype=torch.int64)
    counts = []
    for number in (100, 1000):
        looks[0] = 0
        rows = tuple(Watched(prompt, ids, torch.zeros(10), 1.0, n, n) for n in range(number))
        Batch(rows, number, 10 * number).split(10**9, layout="packed")
        counts.append(looks[0])
    assert counts[1] <= 11 * counts[0]


def test_the_first_row_with_the_same_prompt_is_found_by_its_tokens() -> None:
    prompts = [[1, 2], [1, 3], [1, 2], [1], [1, 3]]
    batch = pad([Row(torch.tensor(prompt), torch.tensor([7]), torch.zeros(1), 1.0) for prompt in prompts])
    assert batch.first_ids_N.tolist() == [0, 1, 0, 3, 1]
