"""Responses of vLLM in this process: its offline engine, with our prompts, seeds and texts."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.schema import ModelOptions, PromptOptions
from ...model.context import UNBOUNDED, Context, context_of
from ...model.pretrained import decode, load_model_config, load_tokenizer, resolve_path
from ...model.prompts import encode_prompts, refuse_long_prompts
from ...types import LampoError, Response
from .responder import Asked, Failed

ROWS_AT_ONCE = 512
"""Responses asked of the engine at once: enough to keep it busy, few enough that records come while it works."""
DTYPES = {"auto": "bfloat16", "mixed": "bfloat16", "bfloat16": "bfloat16", "float32": "float32"}
"""A recipe's dtype -> the arithmetic of the engine, which is that of the native sampler on CUDA."""


@dataclass(slots=True)
class _Reader:
    """The tokenizer of the model that the engine runs."""

    tokenizer: Any
    context: Context


class VllmResponder:
    """vLLM's offline engine (arXiv 2309.06180), some problems at a time, so that there are responses to write down soon.

    Prompts are token ids that we make, and texts are made from token ids by us. So both are what the native backend has. A
    thought stays in the text. vLLM draws response j of a problem with the problem's seed + j, whatever is beside it, but
    says itself that other batches may round differently. Sampling settings that come with the model are not used.

    Args:
        model: what a recipe says of it: a hub name, a folder or a GGUF file, which is converted as for the native backend.
        weights: the checkpoint folder of a run, instead of `model.path`.
        prompt: of these, the template is not used: the text that is asked is whole.
        temperature, max_new_tokens: of the sampling, with all of the distribution (top_p 1).

    Raises:
        LampoError: vLLM is not installed or cannot load the model, or there are no weights that it could load.
    """

    def __init__(
        self,
        model: ModelOptions,
        prompt: PromptOptions,
        *,
        weights: Path | None = None,
        temperature: float,
        max_new_tokens: int,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        try:
            vllm: Any = importlib.import_module("vllm")
        except ImportError as error:
            raise LampoError(
                f"The backend vllm needs the package vllm, which cannot be imported here ({error}). "
                "Install the extra: pip install 'lampo[vllm]'."
            ) from None
        path = _folder(model, weights)
        tokenizer_path = (
            path if weights is not None or model.tokenizer is None else resolve_path(model.tokenizer, "model.tokenizer")
        )
        context = context_of(load_model_config(model, path))
        if max_new_tokens >= context.length:  # vLLM keeps to one set of longrope's factors, by its longest row
            context = context.beyond()
        self._reader = _Reader(load_tokenizer(model, tokenizer_path), context)
        self._prompt = prompt.model_copy(update={"template": "{prompt}"})
        self._rows_at_once = rows_at_once
        self._settings: dict[str, Any] = {
            "temperature": temperature,
            "top_p": 1.0,
            "max_tokens": max_new_tokens,
            "detokenize": False,
        }
        self._sampling_params = vllm.SamplingParams
        try:
            self._engine = vllm.LLM(
                model=path,
                tokenizer=tokenizer_path,
                dtype=DTYPES[model.dtype],
                seed=0,  # each request has its own
                max_model_len=None if context.length == UNBOUNDED else context.length,
                trust_remote_code=model.allow_remote_code,
            )
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise LampoError(f"vLLM cannot run the model {path}: {type(error).__name__}: {error}") from error

    def probe(self) -> None:
        """See `Responder.probe`."""

    def respond(self, asked: Sequence[Asked], samples: int) -> Iterator[tuple[Asked, list[Response] | Failed]]:
        """See `Responder.respond`.

        Raises:
            LampoError: a problem is too long for the model, or vLLM refuses the sampling.
        """
        problems = [dataclasses.replace(each.problem, prompt=each.text) for each in asked]
        refuse_long_prompts(problems, self._reader, self._prompt, self._settings["max_tokens"])
        at_once = max(1, self._rows_at_once // samples)
        for start in range(0, len(asked), at_once):
            chunk = asked[start : start + at_once]
            prompts_P = encode_prompts(problems[start : start + at_once], self._reader, self._prompt)
            try:
                sampling_P = [
                    self._sampling_params(n=samples, seed=each.seed % 2**62, **self._settings) for each in chunk
                ]
                outputs_P = self._engine.generate(
                    [{"prompt_token_ids": prompt.tolist()} for prompt in prompts_P],
                    sampling_params=sampling_P,
                    use_tqdm=False,
                )
            except ValueError as error:  # for instance several samples at temperature 0
                raise LampoError(f"vLLM refuses the request: {error}") from error
            for each, output in zip(chunk, outputs_P, strict=True):
                yield each, self._responses(output.outputs, samples)

    def _responses(self, completions: Sequence[Any], samples: int) -> list[Response] | Failed:
        reasons = [completion.finish_reason for completion in completions]
        if len(reasons) != samples or not set(reasons) <= {"stop", "length"}:
            return Failed(f"vLLM ended {len(reasons)} of {samples} responses, for the reasons {reasons}")
        return [
            Response(decode(self._reader.tokenizer, ids), len(ids), reason == "stop")
            for ids, reason in zip((list(completion.token_ids) for completion in completions), reasons, strict=True)
        ]


def _folder(model: ModelOptions, weights: Path | None) -> str:
    """The weights as vLLM takes them: a hub name, or a Hugging Face folder."""
    if model.lora is not None:
        raise LampoError(
            "The backend vllm takes whole models, and this one is an adapter on another (model.lora): use --backend native."
        )
    if weights is not None:
        return str(weights)
    if model.path is None:
        raise LampoError(
            "The backend vllm needs weights, and this recipe makes its model from scratch (model.config). "
            "Give a run of it that has a checkpoint, or use --backend native."
        )
    return resolve_path(model.path)
