"""The policy: a causal language model, its tokenizer, and the log-probabilities of tokens under it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..config.schema import LoraOptions, ModelOptions, TrainConfig
from ..seeds import derive_seed
from ..types import LampoError, MicroBatch
from . import trials
from .context import Context, context_of
from .decode_step import DecodeStep
from .flash_step import FlashStep
from .lean_layer import make_lean, takes
from .logprobs import linear_logprobs
from .packing import Packing, checkpoint_contexts, packed_attention
from .pretrained import decode, encode, find_unfit, from_scratch, load_pretrained
from .token_spans import TokenSpans

Layout = Literal["packed", "shared", "rows"]
"""What a model computes for a micro-batch, see `Policy.layout`."""

ALIGNMENT = 64
"""Bytes: where torch lets the tensors begin that it allocates on the CPU."""


class Policy:
    """A causal language model that can be sampled from, trained and saved.

    Attributes:
        model: the transformers model, or PEFT's wrapper of it.
        tokenizer: its tokenizer.
        device: where it lives.
        end_ids: token ids that end a completion.
        head: the linear layer from hidden states to logits.
        pieces: which token is which part of a decoded text.
        slower: what takes a slower way than was tried, and why, see `tell_slower`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        device: torch.device,
        autocast: bool = False,
    ) -> None:
        self.slower: list[str] = []
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # Triton's kernels run there, whatever they are given
        self.model: Any = model.to(device)  # pyright: ignore[reportArgumentType]
        self.tokenizer: Any = tokenizer
        self.device = device
        self._autocast = autocast
        # bfloat16 logits near 20 are 1/8 apart: that alone doubles how far sampling and learning disagree (docs/log.md). On CUDA
        # float32 products are many times slower than bfloat16 ones, elsewhere not.
        self._head_autocast = autocast and device.type == "cuda"
        self._refuse_recurrence()
        _align(model)
        _remove_dropout(model)
        _avoid_cudnn_attention(device)
        self.model.eval()
        self.end_ids = _end_ids(model, tokenizer)
        if tokenizer.eos_token_id is None:  # only generation_config.json names one; a demonstration ends with it
            tokenizer.eos_token_id = self.end_ids[0]
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = self.end_ids[0]
        # the second is its name before transformers 5.24, and in models that still have it
        parameters = inspect.signature(self.backbone.forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        if device.type == "cpu" and not autocast and takes(self.backbone):
            make_lean(self.backbone)
        self.head = self._plain_head()
        self.token_spans = TokenSpans(self.decode, len(tokenizer))

    @classmethod
    def load(cls, options: ModelOptions, *, seed: int = 0, weights: Path | None = None) -> Policy:
        """The policy that a recipe's `model` section describes, with the weights of a checkpoint folder where one is given.

        Raises:
            LampoError: the model cannot be loaded or the device is not there.
        """
        device = choose_device(options.device)
        dtype, autocast = choose_dtype(options, device)
        if weights is not None and options.lora is None:
            model, tokenizer = load_pretrained(
                options.model_copy(update={"path": str(weights), "tokenizer": None}), dtype
            )
        elif options.path is not None:
            model, tokenizer = load_pretrained(options, dtype)
        else:
            model, tokenizer = from_scratch(options, dtype, seed)
        if options.gradient_checkpointing:
            # the second is its name in older releases of transformers
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False, "context_fn": partial(checkpoint_contexts, model)})
        if unfit := find_unfit(model, tokenizer):
            raise LampoError(
                f"Cannot use the model {options.path or 'of model.config'}: {unfit} (model.path, model.tokenizer)."
            )
        if options.lora is not None:
            model = with_lora(model, options.lora, seed, weights)
        try:
            return cls(model, tokenizer, device=device, autocast=autocast)
        except (LampoError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a configuration that makes a model, and one that does not run
            told = shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
            raise LampoError(f"The model {options.path or 'of model.config'} cannot be run: {told}") from error

    @property
    def core(self) -> PreTrainedModel:
        """The transformers model itself, under PEFT's wrapper if there is one."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def backbone(self) -> Any:
        """The model without its head."""
        return getattr(self.core, self.core.base_model_prefix)

    @property
    def context(self) -> Context:
        """Most tokens of prompt and completion together, such that sampling and learning see the same model."""
        return context_of(self.core.config)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that the optimiser moves, by name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def copy_weights(self) -> dict[str, Tensor]:
        """What the trainable parameters hold now, in main memory."""
        return {name: weight.detach().to("cpu", copy=True) for name, weight in self.trainable_parameters().items()}

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the trainable parameters hold these weights: another policy on the same model, and under LoRA on the same base.

        On a GPU they lie there only as long. A backward pass inside would be that of the other policy.
        """
        parameters = self.trainable_parameters()
        own = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = weights[name].to(self.device)
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = own[name]

    @property
    def in_bfloat16(self) -> bool:
        """Whether matrix products are in bfloat16, whatever the weights are in."""
        return self._autocast or self.head.weight.dtype == torch.bfloat16

    def precision(self, *, cached: bool = True) -> AbstractContextManager[Any]:
        """Arithmetic of forward passes: bfloat16 autocast under dtype `mixed`, as the weights are otherwise.

        Args:
            cached: keep the bfloat16 copy of each weight to the end, all of them together.
        """
        if not self._autocast:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=cached)

    def hidden_states(self, input_ids: Tensor, *, cache: Cache | None = None, **arguments: Any) -> Tensor:
        """(N, L, D) states before the language-model head. The cache takes the new keys and values in.

        Other keyword arguments go to the transformers model.
        """
        if cache is not None:
            arguments[self._cache_name] = cache
        return self.backbone(input_ids=input_ids, use_cache=cache is not None, **arguments).last_hidden_state

    def empty_cache(self, longest: int | None = None) -> DynamicCache:
        """transformers' cache for rows of at most so many tokens, or as many as the context holds.

        A sliding window that no row passes is none: its layers keep all keys and values.
        """
        cache, longest = DynamicCache(config=self.core.config), longest or self.context.length
        for index, layer in enumerate(cache.layers):
            if type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= longest:
                cache.layers[index] = DynamicLayer()
        return cache

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., V) float32 logits of (..., D) hidden states."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._head_autocast):
            return self.head(hidden if self._head_autocast else hidden.to(self.head.weight.dtype)).float()

    def token_logprobs(self, batch: MicroBatch, *, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the completion tokens under the sampling distribution softmax(logits / temperature).

        The logits of all tokens never exist together, see `linear_logprobs`.

        Args:
            batch: rows with prompts and completions.
            temperature: that of the sampling distribution.

        Returns:
            logprobs_NT with gradient, entropy_NT without, both 0 on padding; float64 for a float64 model, else float32.
        """
        self.model.train(torch.is_grad_enabled())  # transformers checkpoints activations in training mode only
        rows, columns = batch.mask_NT.nonzero(as_tuple=True)
        targets = batch.target_ids[rows, columns]
        with self.precision():
            logprobs, entropy = linear_logprobs(
                self._states_before(batch, rows, columns),
                self.head.weight,
                self.head.bias,
                targets,
                temperature=temperature,
                dtype=torch.bfloat16 if self._head_autocast else self.head.weight.dtype,
                kernels=self._kernels_of_scores,
            )
        self.model.eval()
        shape = batch.mask_NT.shape
        return (
            logprobs.new_zeros(shape).index_put((rows, columns), logprobs),
            entropy.new_zeros(shape).index_put((rows, columns), entropy),
        )

    def _states_before(self, batch: MicroBatch, rows: Tensor, columns: Tensor) -> Tensor:
        """(M, D) hidden states from which the completion tokens at (rows, columns) are predicted."""
        if self.layout == "packed":
            packing = Packing.of(batch)
            return self.packed_states(packing).index_select(0, packing.before_NT[rows, columns])
        first_ids, prompt_of_N = batch.first_ids_N.unique(return_inverse=True)
        lengths_P, (N, T) = batch.prompt_lengths[first_ids], batch.mask_NT.shape
        L = int(lengths_P.max())
        if self.layout == "rows" or len(first_ids) * L + N * T >= batch.input_ids.numel():
            hidden = self.hidden_states(batch.input_ids, attention_mask=batch.attention_mask)
            return hidden[rows, batch.prompt_lengths[rows] + columns - 1]
        # each prompt once, padded on the left; then all completions behind its keys and values
        sources = torch.arange(L, device=self.device) - (L - lengths_P)[:, None]
        mask = sources >= 0
        ids = batch.input_ids[first_ids].gather(1, sources.clamp(min=0))
        cache = self.empty_cache()
        hidden = self.hidden_states(ids, attention_mask=mask, position_ids=sources.clamp(min=0), cache=cache)
        states = hidden[prompt_of_N, -1:]
        if T > 1:
            cache.batch_select_indices(prompt_of_N)
            positions = batch.prompt_lengths[:, None] + torch.arange(T - 1, device=self.device)
            mask = torch.cat([mask[prompt_of_N], batch.mask_NT[:, :-1]], 1)
            ids = batch.target_ids[:, :-1].masked_fill(~batch.mask_NT[:, :-1], 0)
            behind = self.hidden_states(ids, attention_mask=mask, position_ids=positions, cache=cache)
            states = torch.cat([states, behind], 1)
        return states[rows, columns]

    def packed_states(self, packing: Packing) -> Tensor:
        """(M, D) hidden states of all tokens of a packing."""
        with packed_attention(self.core):
            return self.hidden_states(packing.ids[None], position_ids=packing.positions[None], packing=packing)[0]

    @cached_property
    def layout(self) -> Layout:
        """What is computed for a micro-batch.

        packed: no padding, and each prompt once. For models whose attention is transformers' sdpa or is sdpa's equal: on the CPU, and on
            CUDA where products are in bfloat16 and no row can pass a sliding window.
        shared: each prompt once, its rows go on from its keys and values. Not where a layer keeps something else (a sliding window that
            a row can pass), nor under gradient checkpointing, which computes layers a second time and keeps nothing.
        rows: all rows, padded to the longest.
        """
        has_kernel = self.device.type == "cpu" or self._has_kernels
        if has_kernel and self.core.config._attn_implementation == "sdpa" and trials.packs(self):
            if self.device.type == "cuda":
                trials.learns_by_flash(self)
            return "packed"
        plain = not self._recomputes and all(type(layer) is DynamicLayer for layer in self.empty_cache().layers)
        return "shared" if plain else "rows"

    @property
    def _recomputes(self) -> bool:
        """Whether layers are computed a second time in the backward pass."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.core.modules())

    def decode_step(self, longest: int) -> DecodeStep | None:
        """One token further in fewer operations, with the weights as they are; None where the model's own pass has to do.

        No row may have more tokens than `longest`.
        """
        quickly = longest <= self.context.length and self._steps_quickly
        return DecodeStep(self.backbone, longest=longest) if quickly else None

    def flash_step(self, longest: int) -> FlashStep:
        """One token further in few kernels, with the weights as they are, where `steps_by_flash`.

        No row may have more tokens than `longest`.
        """
        return FlashStep(self.backbone, longest=longest)

    def steps_by_flash(self, longest: int) -> bool:
        """Whether there is a `flash_step` of rows of so many tokens: no window slides, and no frequency changes."""
        if longest > self.context.length or not self._steps_by_flash:
            return False
        return all(type(layer) is DynamicLayer for layer in self.empty_cache(longest).layers)

    @cached_property
    def _steps_by_flash(self) -> bool:
        return self._has_kernels and trials.steps_by_flash(self)

    @cached_property
    def _steps_quickly(self) -> bool:
        """On a GPU steps are recorded, and in bfloat16 norms round otherwise."""
        plain = self.device.type == "cpu" and self.head.weight.dtype == torch.float32 and not self._autocast
        return plain and trials.steps_quickly(self)

    @cached_property
    def _kernels_of_scores(self) -> Any:
        """Those by which the head's logits stay in bfloat16; None where torch's operations have to do."""
        if not self._has_kernels or not trials.scores_by_kernels(self):
            return None
        from . import update_kernels  # triton is there only where CUDA is

        return update_kernels

    @property
    def _has_kernels(self) -> bool:
        """Whether those for CUDA may do: they compute in bfloat16."""
        return self.device.type == "cuda" and self.in_bfloat16

    def tell_slower(self, tell: Callable[[str], None]) -> None:
        """Tell once what takes a slower way than was tried, and why."""
        while self.slower:
            tell(self.slower.pop(0))

    @torch.no_grad()
    def frozen_logprobs(self, batch: MicroBatch, *, temperature: float) -> Tensor:
        """`token_logprobs` without gradient or entropies, for a policy that is not trained."""
        return self.token_logprobs(batch, temperature=temperature)[0]

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder: weights as safetensors, configuration and tokenizer (PEFT's adapter format under LoRA)."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        return encode(self.tokenizer, text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return decode(self.tokenizer, token_ids)

    def _refuse_recurrence(self) -> None:
        """Sampling copies what a prompt left behind for each of its rollouts, and drops that of rows that ended."""
        layers = self.empty_cache().layers
        needed = ("batch_repeat_interleave", "batch_select_indices")
        if unfit := next((layer for layer in layers if not all(hasattr(layer, name) for name in needed)), None):
            raise LampoError(
                f"{type(self.core).__name__} has layers with a state ({type(unfit).__name__}), not keys and values alone, which is not "
                "supported. Take a model whose layers are all attention (model.path)."
            )

    @torch.no_grad()
    def _plain_head(self) -> nn.Linear:
        """The language-model head. A model whose logits are more than its output would be trained on the wrong ones."""
        head = self.core.get_output_embeddings()
        if type(head) is not nn.Linear:
            raise LampoError(
                f"The language-model head of {type(self.core).__name__} is not a plain linear layer, which is not supported "
                "(model.lora.target_modules must not name it)."
            )
        probe = torch.tensor([[self.end_ids[0]] * 2], device=self.device)
        ours, seen = self.hidden_states(probe), []
        # An output this large shows a cap that the small logits of fresh weights would not.
        ramp = torch.linspace(-1e3, 1e3, head.out_features, device=self.device, dtype=head.weight.dtype).expand(
            1, 2, -1
        )
        watch = head.register_forward_hook(lambda _module, inputs, _output: (seen.append(inputs[0]), ramp)[1])
        try:
            logits = self.model(input_ids=probe, use_cache=False).logits
        finally:
            watch.remove()
        plain = torch.equal(logits.float(), ramp.float()) and torch.allclose(seen[0], ours, rtol=1e-2, atol=1e-2)
        if not plain:
            raise LampoError(
                f"{type(self.core).__name__} changes its logits after the language-model head (a soft cap or a scale). "
                "That is not supported. Choose a model whose logits are the head's output."
            )
        return head


def choose_device(name: str) -> torch.device:
    """The device of a recipe's `model.device`. Auto is CUDA, then MPS, then CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
    except (RuntimeError, AssertionError) as error:
        raise LampoError(
            f"model.device is {name!r}, which this machine or this build of torch does not have: {error}"
        ) from None
    return device


def choose_dtype(options: ModelOptions, device: torch.device) -> tuple[torch.dtype, bool]:
    """The dtype of the weights, and whether arithmetic is bfloat16 beside float32 weights (`mixed`)."""
    precision = options.dtype if options.dtype != "auto" else ("mixed" if device.type == "cuda" else "float32")
    return torch.bfloat16 if precision == "bfloat16" else torch.float32, precision == "mixed"


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    def flat(value: Any) -> Iterator[int]:
        if value is not None:
            yield from value if isinstance(value, list) else [value]

    generation = getattr(model, "generation_config", None)
    named = [*flat(tokenizer.eos_token_id), *flat(generation.eos_token_id if generation is not None else None)]
    num_words = model.get_input_embeddings().weight.shape[0]
    if unfit := [each for each in named if type(each) is not int or not 0 <= each < num_words]:
        raise LampoError(
            f"The model names {unfit[0]!r} as an end-of-sequence token, and its tokens are numbered from 0 to {num_words - 1}. Mend "
            "eos_token_id in its generation_config.json, or the end token of its tokenizer (model.path)."
        )
    ids = {*named}
    if not ids:
        raise LampoError("The tokenizer names no end-of-sequence token, so no completion could ever end.")
    return sorted(ids)


def _align(model: nn.Module) -> None:
    """Weights mapped from a file lie where its header ends, and on the CPU products round by where their factors lie.

    A copy lies as weights that were never on disk do: a resumed run computes to the bit what it would have without the break.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()


def _remove_dropout(model: nn.Module) -> None:
    """Old and new log-probabilities must be of one function, so that the ratio is 1 at the first update."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):  # attention_dropout, OPT's dropout and layerdrop, ...
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _avoid_cudnn_attention(device: torch.device) -> None:
    """On CUDA leave attention to torch's other kernels, in the whole process: gradient checkpointing chooses anew in the backward pass.

    On H100 and H200, from torch 2.11 on, cuDNN's gradient is NaN where a mask leaves a row nothing to attend to, as padding on the left
    does, and there are 64, 192, 320, ... columns (pytorch/pytorch issue 196678; docs/log.md, 2026-11-26).
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def with_lora(model: PreTrainedModel, options: LoraOptions, seed: int, weights: Path | None) -> Any:
    """The model behind PEFT's wrapper, with fresh adapters or those of a checkpoint folder.

    Raises:
        LampoError: PEFT is not installed, or cannot put adapters on this model.
    """
    try:
        from peft import LoraConfig, PeftModel, get_peft_model
    except ImportError:
        raise LampoError("model.lora needs PEFT. Install it with: pip install 'lampo[lora]'") from None
    if weights is not None:
        return PeftModel.from_pretrained(model, str(weights), is_trainable=True)  # pyright: ignore[reportArgumentType]
    adapter = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=options.target_modules,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, adapter)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            raise LampoError(f"PEFT cannot put adapters on the model (model.lora): {error}") from None


def load_policy(config: TrainConfig, weights: Path | None) -> Policy:
    """The recipe's policy, with the weights of a checkpoint folder where one is given."""
    return Policy.load(config.model, seed=derive_seed(config.run.seed, "model"), weights=weights)


def load_weights(config: TrainConfig, policy: Policy, folder: Path) -> dict[str, Tensor]:
    """What the recipe's policy would hold with the weights of a checkpoint folder, in main memory. See `Policy.holding`."""
    if config.model.lora is None:
        on_cpu = config.model.model_copy(update={"device": "cpu"})
        return dict(load_policy(config.model_copy(update={"model": on_cpu}), folder).trainable_parameters())
    from peft.utils import load_peft_weights  # the adapter alone: its base is there

    saved = load_peft_weights(str(folder), device="cpu")
    return {name: saved[name.replace(".default.", ".")].clone() for name in policy.trainable_parameters()}
