from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lampo.config.load import parse_config
from lampo.config.schema import TrainConfig
from lampo.evaluation.heldout import evaluate
from lampo.evaluation.scores import wilson_interval
from lampo.model.policy import Policy
from lampo.rollout.sampler import OnRollout
from lampo.types import LampoError, Problem, Rollout, Status, Verdict
from lampo.verify import NumericOptions, PythonOptions, VerifierPool
from lampo.verify.pool.workers import HOPELESS_AFTER

from ...conftest import CHARACTERS, tiny_options

Z = 1.96


def test_interval_at_known_points() -> None:
    low, high = wilson_interval(0.0, 10)
    assert low == 0.0
    assert high == pytest.approx(Z**2 / (10 + Z**2))  # of 0 out of n: z^2 / (n + z^2)
    low, high = wilson_interval(1.0, 10)
    assert low == pytest.approx(10 / (10 + Z**2))
    assert high == 1.0
    low, high = wilson_interval(0.5, 96)
    assert (low, high) == pytest.approx((0.5 - 0.5 * Z / (96 + Z**2) ** 0.5, 0.5 + 0.5 * Z / (96 + Z**2) ** 0.5))
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 1 of 29
    for right, number, expected in (
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (1, 29, (0.0061, 0.1718)),
    ):
        assert wilson_interval(right / number, number) == pytest.approx(expected, abs=5e-5)


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_ends_are_where_the_score_test_is_at_its_limit(share: float, number: int) -> None:
    low, high = wilson_interval(share, number)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for end in (low, high):  # (share - end)^2 = z^2 end (1 - end) / n, which is what defines them
        assert (share - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / number, rel=1e-6, abs=1e-12)


def test_more_problems_make_it_narrower_and_it_is_symmetric() -> None:
    widths = [high - low for low, high in (wilson_interval(0.3, number) for number in (1, 10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)
    low, high = wilson_interval(0.3, 50)
    assert wilson_interval(0.7, 50) == pytest.approx((1 - high, 1 - low))


class Said:
    """A sampler that says what it is told to; a text that ends in "..." is cut."""

    def __init__(self, policy: Policy, texts_PG: Sequence[Sequence[str]]) -> None:
        self.policy, self.texts_PG = policy, texts_PG
        self.calls: list[tuple[list[str], int, int]] = []
        self.pool_calls: list[str] = []
        """Filled by a pool that is watched; `begun` is what it was when sampling ended."""

    def sample(
        self,
        prompts_P: Sequence[Tensor],
        group_size: int,
        *,
        seed: int,
        on_progress: Callable[[int], None] | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[list[Rollout]]:
        self.calls.append(([self.policy.decode(ids.tolist()) for ids in prompts_P], group_size, seed))
        if on_progress is not None:
            on_progress(5)
        rollouts_PG = [
            [
                Rollout(prompt, torch.arange(len(text)), torch.zeros(len(text)), not text.endswith("..."), text)
                for text in texts_G
            ]
            for prompt, texts_G in zip(prompts_P, self.texts_PG, strict=True)
        ]
        for problem, rollouts_G in enumerate(rollouts_PG):
            for member, rollout in enumerate(rollouts_G):
                if on_rollout is not None:
                    on_rollout(problem, member, rollout)
        self.begun = [*self.pool_calls]
        return rollouts_PG


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(tiny_options(device="cpu"))


def config(**changes: object) -> TrainConfig:
    values = {
        "run": {"name": "x", "seed": changes.pop("seed", 0)},
        "model": {"config": tiny_options().config, "characters": CHARACTERS},
        "task": {"name": "arithmetic"},
        "prompt": {"template": "{prompt}="},
        "verifier": changes.pop("verifier", None),
        "evaluation": changes,
    }
    return parse_config(values, "a test")


def problems(*answers: str) -> list[Problem]:
    return [Problem(id=str(index), prompt=f"{index}+1", answer=answer) for index, answer in enumerate(answers)]


def test_accuracy_is_the_share_of_right_answers(policy: Policy) -> None:
    sampler = Said(policy, [["1"], ["so 3"], ["4..."], ["5"]])
    record = evaluate(policy, sampler, problems("1", "2", "3", "5"), config(), VerifierPool())
    assert record["evaluation/accuracy"] == 2 / 4
    assert (record["evaluation/low"], record["evaluation/high"]) == wilson_interval(0.5, 4)
    assert record["evaluation/problems"] == 4
    assert record["evaluation/unknown"] == 0
    assert record["evaluation/truncated"] == 1 / 4
    assert record["evaluation/length_mean"] == (1 + 4 + 4 + 1) / 4
    assert sampler.calls[0][:2] == (["0+1=", "1+1=", "2+1=", "3+1="], 1)


def test_responses_are_verified_while_others_are_still_sampled(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, pool = Said(policy, [["1", "0"], ["so 3", "2"]]), VerifierPool()
    submit = pool.submit
    monkeypatch.setattr(
        pool, "submit", lambda chosen, text, answer: sampler.pool_calls.append(text) or submit(chosen, text, answer)
    )
    record = evaluate(policy, sampler, problems("1", "2"), config(samples=2), pool)
    assert sampler.begun == ["1", "0", "so 3", "2"] == sampler.pool_calls
    assert record["evaluation/accuracy"] == 0.5


def test_several_samples_a_problem_are_averaged_inside_it_first(policy: Policy) -> None:
    # the numeric verifier does not know a gold answer that is no number
    sampler = Said(policy, [["1", "1", "1", "0"], ["7", "2", "7", "7"], ["1", "2", "3", "4"]])
    counts: list[int] = []
    record = evaluate(
        policy, sampler, problems("1", "2", "three"), config(samples=4), VerifierPool(), on_progress=counts.append
    )
    assert record["evaluation/accuracy"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert record["evaluation/problems"] == 2
    assert record["evaluation/unknown"] == pytest.approx(4 / 12)
    assert (record["evaluation/low"], record["evaluation/high"]) == wilson_interval(0.5, 2)  # problems, not samples
    assert sampler.calls[0][1] == 4
    assert counts == [5]


def test_an_unknown_verdict_counts_neither_for_nor_against(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: dict[str, Status] = {"r": "right", "w": "wrong", "u": "unknown"}
    monkeypatch.setattr(NumericOptions, "verify", lambda _self, text, _answer: Verdict(statuses[text]))
    sampler = Said(policy, [["r", "u", "u", "w"], ["r", "r", "u", "r"], ["u", "u", "u", "u"]])
    record = evaluate(policy, sampler, problems("1", "2", "3"), config(samples=4), VerifierPool())
    assert record["evaluation/accuracy"] == (1 / 2 + 3 / 3) / 2
    assert record["evaluation/problems"] == 2
    assert record["evaluation/unknown"] == pytest.approx((2 + 1 + 4) / 12)


def test_nothing_but_unknown_verdicts_is_refused(policy: Policy) -> None:
    with pytest.raises(LampoError, match="Every verdict of the evaluation is unknown"):
        evaluate(policy, Said(policy, [["1"], ["2"]]), problems("one", "two"), config(), VerifierPool())


def test_an_evaluation_waits_for_all_also_for_those_that_training_would_give_up(policy: Policy) -> None:
    chosen = PythonOptions(function="tests.helpers.pathological.verify", timeout_s=600)
    with VerifierPool(workers=2) as pool:
        pool.verify(chosen, ["4"] * HOPELESS_AFTER, ["4"] * HOPELESS_AFTER)
        sampler = Said(policy, [["sleep 1"]])
        record = evaluate(policy, sampler, problems("1"), config(verifier=chosen.model_dump()), pool)
    assert (record["evaluation/accuracy"], record["evaluation/unknown"]) == (1, 0)


def test_every_evaluation_of_a_run_draws_the_same_numbers(policy: Policy) -> None:
    sampler = Said(policy, [["1"]])
    for seed in (0, 0, 1):
        evaluate(policy, sampler, problems("1"), config(seed=seed), VerifierPool())
    first, second, other = (seed for _, _, seed in sampler.calls)
    assert first == second != other
