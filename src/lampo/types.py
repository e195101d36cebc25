"""The stages of the data, one frozen type each: Problem -> Rollout -> Group -> Batch.

Shape legend, used as suffixes on tensors and nested lists everywhere in this package:

    P   problems of one training step
    G   rollouts of one problem (the group)
    N   rows: all rollouts of the step, N = P * G where every group is full
    T   target positions (completion tokens), padded to the longest row
    L   input positions (prompt and completion), padded to the longest row
    V   vocabulary
    D   width of the hidden state

Group membership is always an explicit id, never "contiguous blocks of G".
A later stage builds the next type and never edits an earlier one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # verifiers run in processes of their own, which have no use for torch
    import torch
    from torch import Tensor

Status = Literal["right", "wrong", "unknown"]

# The choices of options that both a recipe (without torch) and the functions of `algo` name.
Reduce = Literal["mean", "sum"]
Weight = Literal["policy", "winner", "lambdarank", "better", "uniform"]
Normalizer = Literal["peers", "weights"]
Scale = Literal["none", "group_std", "group_mean"]
PeerWeight = Literal["equal", "length", "score_norm"]
LogprobSource = Literal["trainer", "sampler"]
Aggregation = Literal["sequence", "token", "constant"]
SamplerCorrection = Literal["off", "token", "sequence"]


class LampoError(Exception):
    """A failure that the user can act on: its text says what was wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 1.
    """


class NotFinite(LampoError):
    """A loss or gradient is NaN or infinite. The weights are as they were before the step."""

    rollouts = "not-finite"
    """What the file is called that keeps the rollouts of the step."""


class SamplerMismatch(LampoError):
    """Sampler and learner disagree on the log-probs of a step; the weights are as they were before it."""

    rollouts = "mismatch"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one completion.

    `unknown` means that the verifier could not tell (it failed, or the gold answer makes no sense to it).
    It is never a reward of 0: the rollout is left out of the update and counted.

    Attributes:
        status: right, wrong or unknown.
        extracted: the answer the completion was taken to give; None if it gives none.
        detail: why, in a few words, where that is not obvious.
        seconds: how long the verification took.
        score: share of the parts that are right, where the answer has parts (the tests of a program); None: it has none.
        graded: the score itself is the reward, and not 1 for right and 0 for wrong.
    """

    status: Status
    extracted: str | None = None
    detail: str = ""
    seconds: float = 0.0
    score: float | None = None
    graded: bool = False

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"Verdict.score must be from 0 to 1, not {self.score!r}")
        if self.status not in ("right", "wrong", "unknown"):
            raise ValueError(f"Verdict.status must be right, wrong or unknown, not {self.status!r}")

    @property
    def correctness(self) -> float | None:
        """1 for right, 0 for wrong, None for unknown."""
        return {"right": 1.0, "wrong": 0.0, "unknown": None}[self.status]

    @property
    def value(self) -> float | None:
        """The reward that it is worth: the score where it is graded, else the correctness."""
        return self.score if self.graded and self.status != "unknown" else self.correctness


class Verifier(Protocol):
    """Who decides what is right. Those of this package are in `lampo.verify`."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """Compare what the completion gives with the answer. It is pure, may be slow, and may raise."""
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """A question whose answer can be checked.

    Attributes:
        id: unique inside its task.
        prompt: the question in plain text, before any template.
        answer: what a verifier compares a completion with.
        reference: a worked solution, for the ROUGE-L reward; None where there is none.
        demonstration: what the warm start imitates; None means the reference.
        verifier: who decides what is right, where the problem has a verifier of its own; None leaves it to the recipe.
        fields: the other columns of its row, by name, which your own reward function is given.
    """

    id: str
    prompt: str
    answer: str
    reference: str | None = None
    demonstration: str | None = None
    verifier: Verifier | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError(f"Problem.prompt is empty (problem {self.id!r})")


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One sampled response, with the log-probabilities it was drawn with.

    Attributes:
        prompt_ids: (L_prompt,) int64 token ids.
        completion_ids: (T,) int64 token ids, the end-of-sequence token included if it was drawn.
        logprobs: (T,) float32, log pi_old(o_t | q, o_<t) under the sampling distribution (temperature applied).
        finished: it ended by itself; False means that it was cut at the length limit.
        text: the completion decoded, special tokens left out.
    """

    prompt_ids: Tensor
    completion_ids: Tensor
    logprobs: Tensor
    finished: bool
    text: str

    def __post_init__(self) -> None:
        if self.logprobs.shape != self.completion_ids.shape:
            raise ValueError(
                f"Rollout.logprobs has shape {tuple(self.logprobs.shape)}, "
                f"but completion_ids has {tuple(self.completion_ids.shape)}"
            )
        if self.prompt_ids.numel() == 0:
            raise ValueError(
                "Rollout.prompt_ids is empty: a causal model needs at least one token before the completion"
            )


@dataclass(frozen=True, slots=True)
class Response:
    """One answer of any model to a problem, where there is no update to make of it.

    Attributes:
        text: the whole response, a thought in <think> tags included.
        num_tokens: its length; None where it is not told.
        finished: it ended by itself; False means that it was cut at the length limit.
    """

    text: str
    num_tokens: int | None
    finished: bool


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How much likelier a response makes the reference answer, and how many of its first tokens that depends on."""

    value: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Reward:
    """The reward of one rollout, every part on its own.

    Attributes:
        parts: the value of each reward of the recipe, unweighted, by its title; None where it does not apply or could not tell.
        total: the weighted sum; NaN where a reward could not tell: then the row is masked out, not scored 0.
        num_credited: the number of first tokens that the update credits with it; None means all.
    """

    parts: Mapping[str, float | None]
    total: float
    num_credited: int | None = None

    @property
    def valid(self) -> bool:
        """Whether the rollout takes part in the update."""
        return not math.isnan(self.total)


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one problem, verified and rewarded."""

    problem: Problem
    rollouts_G: tuple[Rollout, ...]
    verdicts_G: tuple[Verdict, ...]
    rewards_G: tuple[Reward, ...]

    def __post_init__(self) -> None:
        for field in ("verdicts_G", "rewards_G"):
            if len(getattr(self, field)) != len(self.rollouts_G):
                raise ValueError(
                    f"Group.{field} has {len(getattr(self, field))} entries for {len(self.rollouts_G)} rollouts "
                    f"(problem {self.problem.id!r})"
                )

    @property
    def is_mixed(self) -> bool:
        """Whether some responses are right and some wrong."""
        return self.accuracy not in (None, 0.0, 1.0)

    @property
    def is_told_apart(self) -> bool:
        """Whether the verdicts are not all worth the same: right and wrong, or different scores where the verifier grades."""
        return len({verdict.value for verdict in self.verdicts_G} - {None}) > 1

    @property
    def accuracy(self) -> float | None:
        """Share of right responses among those with a verdict; None if there is none."""
        known = [verdict.status == "right" for verdict in self.verdicts_G if verdict.status != "unknown"]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows that go through the model together, right-padded to their own longest.

    Attributes:
        input_ids: (N, L) int64, prompt then completion then padding.
        attention_mask: (N, L) bool, True on real tokens.
        mask_NT: (N, T) bool, the tokens of the loss: column t holds completion token t of its row.
        target_ids: (N, T) int64, the completion tokens.
        prompt_lengths: (N,) int64, so that target t of a row is predicted at input position prompt_length + t - 1.
        old_logprobs_NT: (N, T) float32, zero on padding.
        advantages_NT: (N, T) float32, zero on padding; the same for all tokens of a row where the method gives one a rollout.
        group_ids_N: (N,) int64, rows of one problem share it.
        row_ids_N: (N,) int64, which row of the step each is.
        first_ids_N: (N,) int64, the first row here that has the same prompt, by its place in the micro-batch.
    """

    input_ids: Tensor
    attention_mask: Tensor
    mask_NT: Tensor
    target_ids: Tensor
    prompt_lengths: Tensor
    old_logprobs_NT: Tensor
    advantages_NT: Tensor
    group_ids_N: Tensor
    row_ids_N: Tensor
    first_ids_N: Tensor

    def __post_init__(self) -> None:
        N, T = self.mask_NT.shape
        for field, shape in (
            ("input_ids", self.attention_mask.shape),
            ("target_ids", (N, T)),
            ("old_logprobs_NT", (N, T)),
            ("prompt_lengths", (N,)),
            ("advantages_NT", (N, T)),
            ("group_ids_N", (N,)),
            ("row_ids_N", (N,)),
            ("first_ids_N", (N,)),
        ):
            if tuple(getattr(self, field).shape) != tuple(shape):
                raise ValueError(
                    f"MicroBatch.{field} has shape {tuple(getattr(self, field).shape)}, expected {tuple(shape)}"
                )

    def to(self, device: torch.device) -> MicroBatch:
        """The same rows on a device."""
        return MicroBatch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    def by_row(self, values_NT: Tensor) -> dict[int, Tensor]:
        """(T,) values of each row's own tokens, on the CPU, by the number of the row."""
        lengths, values = self.mask_NT.sum(1).tolist(), values_NT.cpu()
        return {row: values[n, : lengths[n]] for n, row in enumerate(self.row_ids_N.tolist())}
