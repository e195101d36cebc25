"""Folders that hold no model: a message each, and what transformers would replace in silence is refused too."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lampo.config.schema import ModelOptions, PromptOptions
from lampo.model.policy import Policy
from lampo.model.prompts import encode_prompts
from lampo.types import LampoError, Problem

from ...conftest import tiny_options

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    Policy.load(tiny_options(), seed=1).save(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def says(**values: object) -> Damage:
    return puts("config.json", **values)


def puts(name: str, **values: object) -> Damage:
    def damage(folder: Path) -> None:
        before = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(before | values))

    return damage


def writes(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def with_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


DAMAGES: dict[str, tuple[Damage, str]] = {
    "weights of another shape": (says(hidden_size=64), r"model.* has the shape \(.*32\), and its config.json says \(.*64\)"),
    "another vocabulary": (says(vocab_size=10), r"embed_tokens.weight has the shape \(46, 32\)"),
    "a width that is text": (says(hidden_size="wide"), "hidden_size"),
    "layers in a list": (says(num_hidden_layers=[2]), "num_hidden_layers"),
    "no heads": (says(num_attention_heads=None), "num_attention_heads"),
    "layers below 0": (says(num_hidden_layers=-1), "num_hidden_layers"),
    "an epsilon that is text": (says(rms_norm_eps="small"), "rms_norm_eps"),
    "an unknown activation": (says(hidden_act="nope"), "nope"),
    "a model type that is a number": (says(model_type=7), "Cannot load the model"),
    "positions that are text": (says(rope_parameters="x"), "rope_parameters"),
    "a configuration that is a list": (writes("config.json", b"[]"), "Cannot load the model"),
    "a configuration of zeros": (writes("config.json", b"\0" * 9), "Cannot load the model"),
    "weights cut short": (writes("model.safetensors", b"\0" * 99), "Cannot load the model"),
    "a weight that is missing": (without_a_weight, "1 of its weights are in no file, for example .*q_proj"),
    "a weight that is not finite": (with_nan, "its weight model.norm.weight holds values that are not finite"),
    "no tokenizer": (without_tokenizer, "its tokenizer knows no word"),
    "a tokenizer without its parts": (writes("tokenizer.json", b'{"model": {"type": "BPE"}}'), "Cannot load the tokenizer"),
    "a tokenizer that is a list": (writes("tokenizer.json", b"[]"), "Cannot load the tokenizer"),
    "a tokenizer cut short": (writes("tokenizer.json", b'{"version": "1.'), "Cannot load the tokenizer"),
    "a tokenizer's settings in a list": (writes("tokenizer_config.json", b"[]"), "Cannot load the tokenizer"),
    "a tokenizer's class that is a number": (puts("tokenizer_config.json", tokenizer_class=5), "Cannot load the tokenizer"),
    "an end that is text": (writes("generation_config.json", b'{"eos_token_id": "end"}'), "names 'end' as an end-of-sequence"),
    "an end beyond the vocabulary": (writes("generation_config.json", b'{"eos_token_id": 9999}'), "names 9999 as an end-of-sequence"),
}  # fmt: skip


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_folder_is_one_message(folder: Path, damage: str) -> None:
    apply, message = DAMAGES[damage]
    apply(folder)
    with pytest.raises(LampoError, match=message):
        Policy.load(ModelOptions(path=str(folder)))


def test_an_end_that_only_the_generation_config_names_ends_demonstrations_too(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    policy = Policy.load(ModelOptions(path=str(folder)))
    assert policy.tokenizer.eos_token_id == policy.end_ids[0]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no') }}", "refuses the prompt: no. Change"),
        ("{{ 1 / 0 }}", "refuses the prompt: ZeroDivisionError: division by zero. Change"),
        ("{% if %}", "refuses the prompt: Expected an expression"),
        ("", "becomes no token at all"),
    ],
)
def test_a_chat_template_that_fails_or_says_nothing(folder: Path, template: str, message: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    policy = Policy.load(ModelOptions(path=str(folder)))
    with pytest.raises(LampoError, match=message):
        encode_prompts([Problem("a", "1+1=", "2")], policy, PromptOptions())


def test_the_device_of_models_without_numbers_is_refused() -> None:
    with pytest.raises(LampoError, match="model.device is 'meta'.*it holds shapes and no numbers"):
        Policy.load(tiny_options(device="meta"))
