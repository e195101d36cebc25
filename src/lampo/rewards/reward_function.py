"""A verifier, a reward, or a recipe's list of rewards as reward functions in TRL's form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..types import LampoError, Problem
from ..verify import VERIFIERS, VerifierOptions, VerifierPool, verifier
from ..verify.answers import committed_answer
from .likelihood import LikelihoodReward
from .overlong import OverlongReward
from .python import PythonReward
from .reward import Responses, RewardOptions
from .rouge_l import RougeLReward

logger = logging.getLogger("lampo")

RewardFunction = Callable[..., list[float | None]]
ANSWER_COLUMNS = ("answer", "solution")
"""The usual columns of the answers: ours, and TRL's."""
TRL_GIVES = {"prompts", "completion_ids", "trainer_state", "log_extra", "log_metric"}
"""What TRL calls a reward function with beside the data set's columns."""
TEXT_REWARDS = ("format", "rouge_l")
"""Rewards that texts and columns are enough for."""


def reward_function(
    name: str, *, column: str | None = None, workers: int | None = None, **options: Any
) -> RewardFunction:
    """A reward function for TRL's trainers (`GRPOTrainer(reward_funcs=[reward_function("math")])`).

    Of a verifier: 1.0 for right, 0.0 for wrong, the score where an own verifier returns one, None for unknown: TRL leaves a None out
    of the sum of the rewards. Of a reward (`format`, `rouge_l`): its value, unweighted, for TRL has `reward_weights`.

    A batch in which no completion commits to an answer is told in the log, once: most often the verifier does not see the
    form that the model uses. Under `math` the option `last_number=True` takes the last number of a response where it commits to
    nothing else.

    Args:
        name: a verifier, format or rouge_l.
        column: the data set's column with the answers; answer or solution if not given. Of a worked solution the answer that it commits
            to counts. For rouge_l: of the references, and reference if not given.
        workers: as in `VerifierPool`.
        options: of the verifier or the reward.

    Raises:
        LampoError: there is no verifier of that name, it has no such option, or what it needs is missing.

    >>> reward = reward_function("numeric")
    >>> reward(prompts=["7+5=", "7+5="], completions=["12", [{"role": "assistant", "content": "13"}]], answer=["12", 12])
    [1.0, 0.0]
    >>> reward_function("format", pattern="[0-9]+")(completions=["12", "twelve"])
    [1.0, 0.0]
    """
    if name in TEXT_REWARDS:
        return _of_reward(name, column, options)
    if name not in VERIFIERS and not name.startswith("python:"):
        raise LampoError(
            f"There is no verifier or reward {name!r}. Known: {', '.join([*VERIFIERS, *TEXT_REWARDS])}, and python:module.function."
        )
    return _of_verifier(verifier(name, **options), name, column, workers)


def reward_functions(
    rewards: Sequence[Mapping[str, Any]],
    *,
    verifier: str | Mapping[str, Any] | None = None,
    max_completion_length: int | None = None,
    column: str | None = None,
    workers: int | None = None,
) -> tuple[list[RewardFunction], list[float]]:
    """The list `rewards` of a recipe for TRL: its reward functions, and their weights for `reward_weights`.

    A function whose None means unknown, that of a verifier or of your own, has the attribute `none_is_unknown`. With `LamPOTrainer` such
    a row is left out of its group, as in `lampo train`. TRL's own trainer leaves only that one reward out of the row's sum.

    Args:
        rewards: as in a recipe, such as [{"name": "verifier"}, {"name": "rouge_l", "weight": 0.2}].
        verifier: its name, or its section with settings; for the entry `verifier`.
        max_completion_length: TRL's setting of that name; for the entry `overlong`.
        column: the data set's column with the answers, see `reward_function`.
        workers: as in `VerifierPool`.

    Raises:
        LampoError: an entry cannot be set up, or TRL has not what it needs.

    >>> rewards = [{"name": "verifier"}, {"name": "format", "pattern": "[0-9]+", "weight": 0.2}]
    >>> functions, weights = reward_functions(rewards, verifier="numeric")
    >>> [function(completions=["12", "twelve"], answer=["12", "12"]) for function in functions], weights
    ([[1.0, 0.0], [1.0, 0.0]], [1.0, 0.2])
    """
    functions, weights = [], []
    for entry in rewards:
        chosen = _validated(dict(entry))
        if chosen.weight == 0:
            continue
        if isinstance(chosen, LikelihoodReward):
            raise LampoError(
                "The reward likelihood is computed by the policy itself, which TRL does not do. Use `lampo train` for it."
            )
        if isinstance(chosen, PythonReward) and chosen.batch:
            raise LampoError(
                f"The reward {chosen.title} has batch: true, but TRL may part a group over processes. Leave batch out, or give "
                "the function to reward_funcs itself."
            )
        if isinstance(chosen, OverlongReward) and max_completion_length is None:
            raise LampoError("The reward overlong needs max_completion_length, as in TRL's configuration.")
        if chosen.name == "verifier":
            if verifier is None:
                raise LampoError("The reward verifier needs to know which: reward_functions(..., verifier='math').")
            settings = {"name": verifier} if isinstance(verifier, str) else dict(verifier)
            function = reward_function(settings.pop("name"), column=column, workers=workers, **settings)
        else:
            function = _of_options(chosen, column if chosen.name == "python" else None, max_completion_length or 0)
        function.__name__ = chosen.title  # what TRL calls it in its log
        functions.append(function)
        weights.append(chosen.weight)
    return functions, weights


def _of_verifier(chosen: VerifierOptions, name: str, column: str | None, workers: int | None) -> RewardFunction:
    chosen.prepare()
    pool = VerifierPool(workers)
    told = False

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        nonlocal told
        texts = [_text(completion) for completion in completions]
        verdicts = pool.verify(chosen, texts, _answers(columns, column))
        if not told and all(verdict.extracted is None and verdict.status == "wrong" for verdict in verdicts) and texts:
            told = True
            hint = (
                " last_number=True takes the last number of a response that commits to nothing else."
                if "last_number" in type(chosen).model_fields
                else ""
            )
            marker = getattr(chosen, "marker", None)
            hint += f" It looks behind the marker {marker!r}: ask for it in the prompt." if marker else ""
            logger.warning(
                "None of %d completions commits to an answer that the verifier %s can see. The first one ends with %r.%s",
                *(len(texts), name, texts[0][-80:], hint),
            )
        unclear = [verdict for verdict in verdicts if verdict.status == "unknown"]
        if len(unclear) == len(verdicts) and unclear:
            logger.warning("Every verdict of %d is unknown: %s", len(verdicts), unclear[0].detail)
        return [verdict.value for verdict in verdicts]

    reward.__name__ = f"lampo_{chosen.model_dump().get('name', name)}"
    reward.none_is_unknown = True  # pyright: ignore[reportFunctionMemberAccess]
    return reward


def _of_reward(name: str, column: str | None, options: dict[str, Any]) -> RewardFunction:
    function = _of_options(_validated({"name": name, **options}), column, 0)
    function.__name__ = f"lampo_{name}"
    return function


def _validated(entry: dict[str, Any]) -> RewardOptions:
    from . import AnyReward

    try:
        return TypeAdapter(AnyReward).validate_python(entry)
    except ValidationError as error:
        first = error.errors()[0]
        raise LampoError(
            f"The reward {entry.get('name')!r} cannot be set up: {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}."
        ) from None


def _of_options(chosen: RewardOptions, column: str | None, max_completion_length: int) -> RewardFunction:
    """A reward of single responses, each with the columns of its row."""
    is_own = isinstance(chosen, PythonReward)

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        texts = [_text(completion) for completion in completions]
        nothing: Sequence[Any] = [None] * len(texts)
        references = _column(columns, [column or "reference"]) if isinstance(chosen, RougeLReward) else nothing
        answers = _answers(columns, column) if is_own else [""] * len(texts)
        ids = columns.get("completion_ids", nothing)
        if isinstance(chosen, OverlongReward) and ids is nothing:
            raise KeyError("the reward overlong counts tokens: it needs completion_ids, which TRL gives")
        values = []
        for row, (text, reference, answer) in enumerate(zip(texts, references, answers, strict=True)):
            fields = _row(columns, row, len(texts)) if is_own else {}
            prompt = _text(fields.pop("prompts", "")) or "?"
            fields = {name: value for name, value in fields.items() if name not in ("answer", "completion_ids")}
            problem = Problem("", prompt, answer, fields.pop("reference", reference), fields=fields)
            num_tokens = [] if ids is nothing else [len(ids[row])]
            values.append(chosen.values(Responses(problem, [text], [], num_tokens, max_completion_length))[0])
        return values

    reward.none_is_unknown = chosen.none_is_unknown  # pyright: ignore[reportFunctionMemberAccess]
    return reward


def _row(columns: dict[str, Any], row: int, length: int) -> dict[str, Any]:
    """One value of each column. TRL also passes things that are no columns, such as its state."""
    lists = {
        name: value for name, value in columns.items() if isinstance(value, Sequence) and not isinstance(value, str)
    }
    return {name: value[row] for name, value in lists.items() if len(value) == length}


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _answers(columns: dict[str, Any], column: str | None) -> list[str]:
    answers = [str(answer) for answer in _column(columns, [column] if column else ANSWER_COLUMNS)]
    worked = column is None and "answer" not in columns
    return [(committed_answer(answer) if worked else None) or answer for answer in answers]


def _column(columns: dict[str, Any], usual: Sequence[str]) -> Sequence[Any]:
    for name in usual:
        if name in columns:
            return columns[name]
    own = sorted(set(columns) - TRL_GIVES)
    raise KeyError(
        f"the data set has no column {' or '.join(map(repr, usual))}. It has: {', '.join(own)}. "
        "Name the one with the answers: reward_function(..., column=NAME)"
    )
