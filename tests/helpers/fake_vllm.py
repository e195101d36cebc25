"""A stand-in for the module vllm, with the signatures of vLLM 0.32 as far as they are used: it samples with a model of its own, slowly."""

import copy
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM


class RequestOutputKind(Enum):
    DELTA = 1


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    logprobs: int
    ignore_eos: bool
    stop_token_ids: list[int]
    detokenize: bool
    output_kind: RequestOutputKind
    stream_interval: int


@dataclass
class Request:
    prompt: list[int]
    params: SamplingParams
    ids: list[int] = field(default_factory=list)


class Engine:
    """One token further for every request in a step; what it draws is told in deltas."""

    def __init__(self, llm: "LLM") -> None:
        self.llm, self.requests = llm, dict[str, Request]()
        self.aborted: list[str] = []
        self.engine_core = types.SimpleNamespace(shutdown=lambda: llm.did.append("shutdown"))

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: SamplingParams) -> str:
        assert params.ignore_eos
        assert params.logprobs == 0
        assert not params.detokenize
        assert params.output_kind is RequestOutputKind.DELTA
        if len(prompt["prompt_token_ids"]) + params.max_tokens > self.llm.settings["max_model_len"]:
            raise ValueError("too long")
        self.requests[request_id] = Request(prompt["prompt_token_ids"], params)
        self.llm.asked.append(params)
        return request_id

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids
        for name in request_ids:
            self.requests.pop(name, None)

    @torch.no_grad()
    def step(self) -> list[Any]:
        assert not self.llm.asleep, "asked while it sleeps"
        outputs = []
        for name, request in list(self.requests.items()):
            params = request.params
            logits = self.llm.model(torch.tensor([request.prompt + request.ids])).logits[0, -1]
            logprobs = (logits / (params.temperature or 1.0)).log_softmax(-1) + self.llm.shift
            generator = torch.Generator().manual_seed(params.seed + len(request.ids))
            token = (
                int(torch.multinomial(logprobs.exp(), 1, generator=generator))
                if params.temperature
                else int(logits.argmax())
            )
            request.ids.append(token)
            stopped = token in params.stop_token_ids
            reason = "stop" if stopped else "length" if len(request.ids) == params.max_tokens else None
            reason = self.llm.reason or reason
            outputs.append(
                types.SimpleNamespace(
                    request_id=name,
                    finished=reason is not None,
                    outputs=[
                        types.SimpleNamespace(
                            token_ids=[token],
                            logprobs=[{token: types.SimpleNamespace(logprob=float(logprobs[token]))}],
                            finish_reason=reason,
                        )
                    ],
                )
            )
            if reason is not None:
                del self.requests[name]
        return outputs


class LLM:
    """Its weights are nobody's until `reload_weights` brings some."""

    made: list["LLM"] = []  # noqa: RUF012
    forgets: str = ""
    """A tensor that `reload_weights` does not take over."""
    shift: float = 0.0
    """By how much its log-probs are wrong."""
    reason: str | None = None
    """Why it ends every rollout, if not for a token."""

    def __init__(self, model: str, **settings: Any) -> None:
        self.settings, self.did, self.asleep = settings, list[str](), False
        self.asked: list[SamplingParams] = []
        config = AutoConfig.from_pretrained(model)
        assert config.architectures
        assert not list(Path(model).glob("*.safetensors"))  # no weights are written for it
        assert settings["load_format"] == "dummy"
        assert settings["logprobs_mode"] == "processed_logprobs"
        self.model = AutoModelForCausalLM.from_config(config).eval()
        self.llm_engine = Engine(self)
        LLM.made.append(self)

    def collective_rpc(self, method: str, *, kwargs: dict[str, Iterable[tuple[str, Tensor]]]) -> list[None]:
        assert method == "reload_weights"
        self.did.append("weights")
        held = self.model.state_dict()
        for name, tensor in kwargs["weights_iterator"]:
            if name != LLM.forgets:
                held[name].copy_(tensor)
        return [None]

    def apply_model(self, function: Callable[[Any], Any]) -> list[Any]:
        return [function(self.model)]

    def reset_prefix_cache(self) -> bool:
        self.did.append("prefix cache")
        return True

    def sleep(self, level: int) -> None:
        assert level == 2
        self.asleep = True
        self.did.append("sleep")

    def wake_up(self, tags: list[str]) -> None:
        self.asleep = False
        self.did.append(f"wake {tags[0]}")


def install(monkeypatch: pytest.MonkeyPatch, *, device: str = "cpu", sleeps: bool = False) -> type[LLM]:
    """Put it where `import vllm` finds it; the class of its engines, with the list `made`."""
    platform = types.SimpleNamespace(device_type=device, is_sleep_mode_available=lambda: sleeps)
    params = types.SimpleNamespace(RequestOutputKind=RequestOutputKind)
    parts: dict[str, dict[str, Any]] = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams, "sampling_params": params, "__version__": "0.32.0"},
        "vllm.platforms": {"current_platform": platform},
        "vllm.distributed": {"cleanup_dist_env_and_memory": lambda: None},
    }
    for name, attributes in parts.items():
        module = types.ModuleType(name)
        module.__spec__ = copy.copy(sys.__spec__)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    for name, value in {"made": [], "forgets": "", "shift": 0.0, "reason": None}.items():
        monkeypatch.setattr(LLM, name, value)
    return LLM
