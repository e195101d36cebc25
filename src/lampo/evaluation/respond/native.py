"""Responses of a policy in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ...config.schema import PromptOptions
from ...model.policy import Policy
from ...model.prompts import encode_prompts, refuse_long_prompts
from ...rollout.sampler import Sampler
from ...types import Response
from .responder import Asked


class NativeResponder:
    """The policy's own sampler, some problems at a time, so that there are responses to write down soon."""

    def __init__(
        self, policy: Policy, sampler: Sampler, prompt: PromptOptions, *, rows_at_once: int, max_new_tokens: int
    ):
        self._policy = policy
        self._sampler = sampler
        self._prompt = prompt.model_copy(update={"template": "{prompt}"})  # the text that is asked is whole
        self._rows_at_once = rows_at_once
        self._max_new_tokens = max_new_tokens

    def probe(self) -> None:
        """See `Responder.probe`."""

    def respond(self, asked: Sequence[Asked], samples: int) -> Iterator[tuple[Asked, list[Response]]]:
        """See `Responder.respond`. What is sampled for a problem depends on its seed, and not on the others.

        Raises:
            LampoError: a problem is too long for the model.
        """
        problems = [dataclasses.replace(each.problem, prompt=each.text) for each in asked]
        refuse_long_prompts(problems, self._policy, self._prompt, self._max_new_tokens)
        at_once = max(1, self._rows_at_once // samples)
        for start in range(0, len(asked), at_once):
            chunk = asked[start : start + at_once]
            prompts_P = encode_prompts(problems[start : start + at_once], self._policy, self._prompt)
            rollouts_PG = self._sampler.sample(prompts_P, samples, seed=[each.seed for each in chunk])
            for each, rollouts_G in zip(chunk, rollouts_PG, strict=True):
                yield each, [Response(r.text, len(r.completion_ids), r.finished) for r in rollouts_G]
