"""Where a model's files come from: hub, folder, run directory, GGUF file, Python package, or nowhere (from scratch)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import transformers
from packaging.version import Version
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..config.schema import ModelOptions
from ..messages import did_you_mean
from ..store.checkpoints import is_run, model_of_run
from ..store.files import write_folder
from ..store.lock import lock
from ..store.text import writable
from ..tasks.hub import hub_failure
from ..types import LampoError

logger = logging.getLogger("lampo")

ADAPTERS = "adapter_config.json"
"""What PEFT writes into a folder of adapters."""


def load_pretrained(options: ModelOptions, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Weights and tokenizer by path, hub name or GGUF.

    Raises:
        LampoError: nothing is there, the hub cannot be reached, or the model needs code of its own.
    """
    assert options.path is not None
    path = resolve_path(options.path)
    model = _load_model(options, path, dtype)
    return model, load_tokenizer(
        options, resolve_path(options.tokenizer, "model.tokenizer") if options.tokenizer else path
    )


def _load_model(options: ModelOptions, path: str, dtype: torch.dtype) -> PreTrainedModel:
    attention = {} if options.attention == "auto" else {"attn_implementation": options.attention}
    remedy = "Give a folder with config.json and safetensors, a .gguf file, or a hub name this machine can reach (model.path)."
    with _telling(f"load the model {options.path!r}", remedy):
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            trust_remote_code=options.allow_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **attention,
        )
    if wrong := _find_wrong_weights(model, report):
        raise LampoError(f"Cannot load the model {options.path!r}: {wrong} (model.path).")
    return model


def _find_wrong_weights(model: PreTrainedModel, report: Mapping[str, Any]) -> str | None:
    """What transformers would replace by random weights, or what no step could mend."""
    for name, there, expected in sorted(report["mismatched_keys"]):
        return f"its weight {name} has the shape {tuple(there)}, and its config.json says {tuple(expected)}"
    if missing := sorted(map(str, report["missing_keys"])):
        return f"{len(missing)} of its weights are in no file, for example {missing[0]}"
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not torch.isfinite(torch.stack(weight.detach().aminmax())).all():
            return f"its weight {name} holds values that are not finite"
    return None


def find_unfit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why a tokenizer cannot be that of the model, or None."""
    if not encode(tokenizer, "0 a"):
        return "its tokenizer knows no word: are its files, tokenizer.json above all, in the folder?"
    num_words, num_rows = tokenizer.vocab_size, model.get_input_embeddings().weight.shape[0]
    if num_words > num_rows:
        return f"its tokenizer has {num_words:,} words and the model {num_rows:,}: they do not belong together"
    return None


@contextmanager
def _telling(what: str, remedy: str) -> Iterator[None]:
    """Inside, what goes wrong is the file's fault: transformers lets through whatever its readers make of a damaged one."""
    try:
        yield
    except (LampoError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise LampoError(f"Cannot {what}: {_reason(error, remedy)}") from error


def load_model_config(options: ModelOptions, path: str) -> PreTrainedConfig:
    """The transformers configuration of a folder or hub name.

    Raises:
        LampoError: nothing is there, the hub cannot be reached, or it needs code of its own.
    """
    remedy = "Give a folder with config.json, a .gguf file, or a hub name this machine can reach (model.path)."
    with _telling(f"load the model {path!r}", remedy):
        return AutoConfig.from_pretrained(path, trust_remote_code=options.allow_remote_code)


def load_tokenizer(options: ModelOptions, path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name.

    Raises:
        LampoError: nothing is there, the hub cannot be reached, or it needs code of its own.
    """
    remedy = "Give a folder with tokenizer.json, or a hub name this machine can reach (model.tokenizer)."
    with _telling(f"load the tokenizer {path!r}", remedy):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=options.allow_remote_code)


def _reason(error: Exception, remedy: str) -> str:
    if "trust_remote_code" in str(error):
        return "it needs code that comes with it. Read that code, then allow it with model.allow_remote_code: true."
    lines = [line.strip() for line in str(error).strip().splitlines()]
    told = " ".join(lines[:2]) if lines[:1] and lines[0].endswith(":") else next(iter(lines), "")
    if not isinstance(error, OSError | ValueError | ImportError):  # a KeyError says no more than the key
        told = f"{type(error).__name__}: {told}"
    return f"{shorten(told, 400, placeholder=' ...').rstrip('.,:')}. {remedy}"


def from_scratch(
    options: ModelOptions, dtype: torch.dtype, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model with random weights from `model.config`. The vocabulary size and special tokens follow the tokenizer.

    Raises:
        LampoError: the tokenizer cannot be loaded, or the configuration makes no model that runs.
    """
    tokenizer = _own_tokenizer(options)
    try:
        config = _own_config(options, tokenizer)
        attention = {} if options.attention == "auto" else {"attn_implementation": options.attention}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **attention)
        with (
            torch.no_grad()
        ):  # some configurations can be built but not run; the last token shows whether the vocabulary fits
            model.eval()(torch.tensor([[len(tokenizer) - 1]]))
    except Exception as error:  # transformers lets through whatever its classes make of the numbers
        raise _no_model(error) from error
    return model, tokenizer


def empty_model(options: ModelOptions) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model without weights, on the meta device, and its tokenizer: what a dry run counts with.

    Raises:
        LampoError: the configuration or the tokenizer cannot be had, or they make no model.
    """
    tokenizer = config = None
    if options.path is not None:
        path = resolve_path(options.path)
        config = load_model_config(options, path)
        tokenizer = load_tokenizer(
            options, resolve_path(options.tokenizer, "model.tokenizer") if options.tokenizer else path
        )
    tokenizer = tokenizer or _own_tokenizer(options)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config or _own_config(options, tokenizer), trust_remote_code=options.allow_remote_code
            )
    except Exception as error:
        raise _no_model(error) from error
    return model, tokenizer


def _own_tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    if options.characters is not None:
        return character_tokenizer(options.characters)
    return load_tokenizer(options, resolve_path(str(options.tokenizer), "model.tokenizer"))


def _own_config(options: ModelOptions, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """`model.config` as a configuration. The vocabulary size and special tokens follow the tokenizer."""
    assert options.config is not None
    special = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return AutoConfig.for_model(**{**special, **options.config})


def _no_model(error: Exception) -> LampoError:
    reason = shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
    return LampoError(f"Cannot build a model from model.config: {reason}")


def character_tokenizer(characters: str) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a character, and <pad>, <eos>, <unk>.

    >>> tokenizer = character_tokenizer("0123456789+=")
    >>> tokenizer.decode(tokenizer("1+2=3").input_ids)
    '1+2=3'
    """
    special = ["<pad>", "<eos>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate([*special, *dict.fromkeys(characters)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, nothing added."""
    return tokenizer(text, add_special_tokens=False).input_ids


def encode_beginning(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that begins a row: behind the beginning-of-sequence token where the tokenizer adds one, as Llama's and
    Gemma's do, and without the end that some add."""
    ids, begin = encode(tokenizer, text), [tokenizer.bos_token_id]
    adds = ids[:1] != begin and tokenizer(text).input_ids[:1] == begin
    return begin + ids if adds else ids


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Text of token ids, special tokens left out."""
    return writable(tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def resolve_path(path: str, setting: str = "model.path") -> str:
    """A path that transformers can open: hub names pass through. It is what this setting says.

    A run directory stands for the model that it kept, else for its latest whole checkpoint. A GGUF file is turned into a
    checkpoint folder once, and so are LoRA adapters, merged into their base.

    Raises:
        LampoError: the run has no model yet, the folder, file or package is not there, or it cannot be read.
    """
    if path.startswith("package:"):
        return str(_converted(_file_in_package(path)))
    if path.endswith(".gguf"):
        file = Path(path).expanduser()
        if not file.is_file():
            raise LampoError(f"There is no GGUF file {file.absolute()} (model.path).")
        return str(_converted(file))
    folder = Path(path).expanduser()
    if folder.is_file():  # the hub would be asked for half a minute
        raise LampoError(
            f"model.path is the file {path}. Give a folder with config.json and safetensors, or a .gguf file."
        )
    if not folder.exists() and folder.parent != Path() and folder.parent.is_dir():
        beside = [str(each) for each in folder.parent.iterdir() if is_run(each)]
        if beside:  # no name on the hub, which would be asked for half a minute
            raise LampoError(f"There is no run or model {path} (model.path).{did_you_mean(path, beside)}")
    if not folder.exists():
        if path.startswith((".", "/", "~")) or path.count("/") > 1:  # a name on the hub is NAME or OWNER/NAME
            raise LampoError(f"There is no folder {folder.absolute()} ({setting}).")
        hub_failure()
    if is_run(folder):
        model = model_of_run(folder)
        logger.info("%s is a run: taking its %s", path, model.relative_to(folder))
        folder = model
    return str(_merged(folder) if (folder / ADAPTERS).is_file() else folder)


def _file_in_package(path: str) -> Path:
    module, _, name = path.removeprefix("package:").partition("/")
    root, *inner = module.split(".")
    spec = importlib.util.find_spec(root) if root else None  # finds a top-level module without running its code
    if spec is None or not spec.submodule_search_locations:
        package = root.replace("_", "-")
        raise LampoError(
            f"The Python package {package} is not installed. Install it with: pip install --no-deps {package}"
        )
    for location in spec.submodule_search_locations:
        file = Path(location, *inner, name)
        if file.is_file():
            return file
    raise LampoError(f"The Python package {module} holds no file {name} (model.path: {path}).")


def cache_folder() -> Path:
    """Where converted checkpoints live: $XDG_CACHE_HOME/lampo, or ~/.cache/lampo."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lampo"


def _converted(file: Path) -> Path:
    """A bfloat16 checkpoint folder with the weights of a GGUF file, made once and named by the file's content."""
    target = cache_folder() / f"{file.stem}-{_digest(file)}"
    if target.is_dir():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise LampoError("Reading a GGUF file needs the package gguf. Install it with: pip install 'lampo[gguf]'")
    if Version(transformers.__version__) < Version("5.18"):
        raise LampoError(
            f"transformers {transformers.__version__} takes a GGUF file's beginning-of-sequence token for its end. "
            "Update it: pip install 'transformers>=5.18'"
        )
    return _made_once(target, f"Converting {file.name} to a bfloat16 checkpoint", lambda folder: _convert(file, folder))


def _merged(adapters: Path) -> Path:
    """A float32 checkpoint folder of adapters added to their base, made once and named by the adapters' content.

    Lower precision would round away what they add. Neither transformers nor vLLM loads adapters of adapters, so these must go.
    """
    try:
        base = json.loads((adapters / ADAPTERS).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise LampoError(f"Cannot read {adapters / ADAPTERS}: {error} (model.path).") from None
    if not base:
        raise LampoError(
            f"{adapters} holds LoRA adapters of a model from scratch, whose weights are in no folder (model.path). "
            "Go on with its own run instead: lampo train RUN --resume --set training.steps=N."
        )
    if importlib.util.find_spec("peft") is None:
        raise LampoError(f"{adapters} holds LoRA adapters, which need PEFT. Install it with: pip install 'lampo[lora]'")
    target = cache_folder() / f"merged-{_digest(adapters / 'adapter_model.safetensors', resolve_path(base))}"
    return _made_once(target, f"Merging the LoRA adapters of {adapters}", lambda folder: _merge(base, adapters, folder))


def _merge(base: str, adapters: Path, folder: Path) -> None:
    from peft import PeftModel

    model = _load_model(ModelOptions(path=base), resolve_path(base), torch.float32)
    with _telling(f"put the LoRA adapters of {adapters} on {base}", "Give adapters of this base model (model.path)."):
        merged = PeftModel.from_pretrained(model, str(adapters)).merge_and_unload()  # pyright: ignore[reportCallIssue]
    merged.save_pretrained(folder)
    load_tokenizer(ModelOptions(path=base), str(adapters)).save_pretrained(folder)


def _digest(file: Path, *more: str) -> str:
    """What names a folder in the cache: the content of a file, and what else decides."""
    with file.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256")
    for text in more:
        content.update(text.encode())
    return content.hexdigest()[:16]


def _made_once(target: Path, what: str, fill: Callable[[Path], None]) -> Path:
    """The folder of the cache, filled now if it is not there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        wait = partial(logger.info, "Waiting for another process that makes %s.", target)
        with lock(target.parent / f".{target.name}.lock", what, wait=wait):  # a second one finds the work done
            if not target.is_dir():
                logger.info("%s in %s (once).", what, target)
                write_folder(target, fill)
    except OSError as error:
        raise LampoError(
            f"Cannot write the converted checkpoint {target}: {error}. Set XDG_CACHE_HOME to a folder with room."
        ) from error
    return target


def _convert(file: Path, folder: Path) -> None:
    from transformers import GgufConfig

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except Exception as error:  # what is not a GGUF file fails anywhere in its reader
        raise LampoError(
            f"Cannot read the GGUF file {file}: {type(error).__name__}: {error}. It may be damaged or cut short, or of an "
            "architecture that transformers does not read from GGUF (model.path)."
        ) from error
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
