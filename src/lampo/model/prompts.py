"""Problems -> prompt tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from jinja2 import TemplateError
from torch import Tensor

from ..config.schema import PromptOptions
from ..types import LampoError, Problem
from .context import Context
from .pretrained import encode_beginning


class Reader(Protocol):
    """What prompts need of a model: a `Policy`, or the tokenizer of one that another engine runs."""

    tokenizer: Any

    @property
    def context(self) -> Context:
        """Its longest row."""
        ...


def encode_prompts(problems_P: Sequence[Problem], policy: Reader, options: PromptOptions) -> list[Tensor]:
    """(L_prompt,) token ids of every problem: the template, then the chat template if the model has one and it is wanted."""
    return [torch.tensor(_encode(problem, policy, options)) for problem in problems_P]


def refuse_long_prompts(
    problems: Sequence[Problem],
    policy: Reader,
    options: PromptOptions,
    max_new_tokens: int,
    *,
    context: Context | None = None,
) -> None:
    """Check every problem before the run starts, not in its tenth hour.

    Args:
        problems: the problems.
        policy: whose tokens they become.
        options: of the prompt.
        max_new_tokens: of a completion.
        context: the longest row, if it is not the policy's.

    Raises:
        LampoError: a prompt and `max_new_tokens` do not fit into the model's context; names the longest.
    """
    context = context or policy.context
    room = context.length - max_new_tokens
    if room < 1:
        raise LampoError(
            f"sampling.max_new_tokens is {max_new_tokens}, but the model's context holds only {context.length} tokens. "
            f"{context.note}".strip()
        )
    too_long = longer_prompts(problems, policy, options, room)
    if too_long:
        name = max(too_long, key=lambda key: too_long[key])
        raise LampoError(
            f"{len(too_long)} prompts are too long for the model: problem {name!r} has {too_long[name]} tokens, and with "
            f"sampling.max_new_tokens={max_new_tokens} they exceed its context of {context.length}. "
            "Remove these problems from the task, lower sampling.max_new_tokens, or take a model with a longer context. "
            f"{context.note}".strip()
        )


def refuse_unknown_characters(
    problems: Sequence[Problem], options: PromptOptions, characters: str, *, solutions: bool
) -> None:
    """Check that a tokenizer of single characters can write every prompt, and every solution where they are imitated or compared with.

    Raises:
        LampoError: it lacks some.
    """
    frame = options.template.replace("{prompt}", "") + (f"{options.system}\n\n" if options.system is not None else "")
    for problem in problems:
        text = frame + problem.prompt
        if solutions:
            text += (problem.demonstration or "") + (problem.reference or "")
        missing = "".join(sorted(set(text) - set(characters)))
        if missing:
            raise LampoError(
                f"model.characters lacks {missing!r}, which problem {problem.id!r} has in its prompt or solution. Add them to it."
            )


def measured_less_exactly(
    problems: Sequence[Problem], policy: Reader, options: PromptOptions, max_new_tokens: int
) -> str:
    """What to say of problems that a longrope model may answer past the length at which its factors change; "" if there are none.

    Raises:
        LampoError: a problem is too long for all positions of the model.
    """
    context = policy.context
    refuse_long_prompts(problems, policy, options, max_new_tokens, context=context.beyond())
    beyond = longer_prompts(problems, policy, options, context.length - max_new_tokens)
    if not beyond:
        return ""
    return (
        f"Of the benchmarks' problems {len(beyond)} may be answered past {context.length} tokens, and are measured less "
        f"exactly, with those sampled beside them. {context.note}"
    )


def longer_prompts(
    problems: Sequence[Problem], policy: Reader, options: PromptOptions, num_tokens: int
) -> dict[str, int]:
    """Tokens of the prompts that have more than so many, by the problem's id. Only problems that might have more are tokenised."""
    bound = _bound(policy, options)
    suspects = [problem for problem in problems if bound(problem) > num_tokens]
    lengths = {problem.id: len(_encode(problem, policy, options)) for problem in suspects}
    return {name: length for name, length in lengths.items() if length > num_tokens}


def most_tokens(problems: Sequence[Problem], policy: Reader, options: PromptOptions) -> int:
    """No prompt of these has more tokens; some have a quarter of it, because nothing is tokenised."""
    return max(map(_bound(policy, options), problems), default=0)


def _bound(policy: Reader, options: PromptOptions) -> Callable[[Problem], int]:
    """Most tokens of a problem's prompt: a token is at least one byte."""
    frame = len(_encode(Problem(id="frame", prompt="x", answer=""), policy, options))
    repeats = options.template.count("{prompt}")
    return lambda problem: len(problem.prompt.encode()) * repeats + frame


def _encode(problem: Problem, policy: Reader, options: PromptOptions) -> list[int]:
    text = options.template.replace("{prompt}", problem.prompt)
    has_template = getattr(policy.tokenizer, "chat_template", None) is not None
    if options.chat and not has_template:
        raise LampoError("prompt.chat is true, but the tokenizer has no chat template. Leave prompt.chat out.")
    if options.chat is False or not has_template:
        return _some(
            encode_beginning(policy.tokenizer, text if options.system is None else f"{options.system}\n\n{text}"),
            problem,
        )
    messages = [{"role": "user", "content": text}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    try:
        ids = policy.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, **options.chat_options
        )["input_ids"]
    except Exception as error:  # a template is a program
        told = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise LampoError(
            f"The model's chat template refuses the prompt: {told}. Change prompt.system or prompt.chat_options, or set prompt.chat "
            "to false."
        ) from None
    return _some(ids, problem)


def _some(ids: list[int], problem: Problem) -> list[int]:
    if not ids:
        raise LampoError(
            f"The prompt of problem {problem.id!r} becomes no token at all: see the template and the tokenizer."
        )
    return ids
