"""The vllm backend against a stand-in for the module, with the signatures of vLLM 0.33 as far as they are used."""

import json
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lampo.cli import app
from lampo.config.schema import LoraOptions, ModelOptions, PromptOptions, SamplingOptions
from lampo.evaluation.benchmarks import BENCHMARKS, Benchmark
from lampo.evaluation.records import read_records
from lampo.evaluation.respond import Asked, Failed
from lampo.evaluation.respond.vllm import VllmResponder
from lampo.model.policy import Policy
from lampo.model.prompts import encode_prompts
from lampo.types import LampoError, Problem, Response

from ...conftest import CHARACTERS, tiny_options

ALPHABET = CHARACTERS + "</>"
THOUGHT = "<think>#### 3</think>#### 2"
CHAT = "{% for message in messages %}#{{ message.content }}\n{% endfor %}{% if add_generation_prompt %}={% endif %}"


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None
    detokenize: bool = True

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"n must be 1 when using greedy sampling, got {self.n}.")


class LLM:
    """Answers each prompt with a thought; the responses' tokens tell their number."""

    made: list["LLM"] = []  # noqa: RUF012
    reasons: tuple[str, ...] = ("stop",)

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        seed: int = 0,
        max_model_len: int | None = None,
    ) -> None:
        if not Path(model).is_dir():
            raise ValueError(f"no model architecture in {model}")
        self.model, self.tokenizer, self.dtype, self.max_model_len = model, tokenizer, dtype, max_model_len
        self.calls: list[tuple[list[list[int]], list[SamplingParams]]] = []
        self.text_ids = Policy.load(tiny_options(device="cpu").model_copy(update={"characters": ALPHABET})).encode(
            THOUGHT
        )
        LLM.made.append(self)

    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool = True,
    ) -> list[Any]:
        assert not use_tqdm
        self.calls.append(([each["prompt_token_ids"] for each in prompts], list(sampling_params)))
        end = 1  # <eos>, which vLLM counts among the tokens
        return [
            types.SimpleNamespace(
                outputs=[
                    types.SimpleNamespace(
                        index=number,
                        text="",
                        token_ids=tuple([*self.text_ids, end] if reason == "stop" else self.text_ids[:9]),
                        finish_reason=reason,
                    )
                    for number in range(params.n)
                    for reason in [LLM.reasons[number % len(LLM.reasons)]]
                ]
            )
            for params in sampling_params
        ]


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("vllm")
    stand_in.LLM, stand_in.SamplingParams = LLM, SamplingParams  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setattr(LLM, "made", [])
    monkeypatch.setattr(LLM, "reasons", ("stop",))


@pytest.fixture(scope="module")
def policy() -> Policy:
    policy = Policy.load(tiny_options(device="cpu").model_copy(update={"characters": ALPHABET}))
    policy.tokenizer.chat_template = CHAT
    return policy


@pytest.fixture(scope="module")
def folder(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "checkpoint"
    policy.save(path)
    return path


def asked(*texts: str) -> list[Asked]:
    return [Asked(Problem(id=text, prompt="unused", answer="2"), text, 2**63 - 1 - n) for n, text in enumerate(texts)]


def responder(folder: Path, prompt: PromptOptions | None = None, **changes: Any) -> VllmResponder:
    options = ModelOptions(path=str(folder), **changes.pop("model", {}))
    values = {"temperature": 0.6, "max_new_tokens": 50} | changes
    return VllmResponder(options, prompt or PromptOptions(), **values)


def test_prompts_are_those_of_the_native_backend(folder: Path, policy: Policy) -> None:
    prompt = PromptOptions(system="add", template="not used: {prompt}")
    list(responder(folder, prompt).respond(asked("1+1=", "2+2="), samples=2))
    problems = [Problem(id=text, prompt=text, answer="") for text in ("1+1=", "2+2=")]
    native = encode_prompts(problems, policy, PromptOptions(system="add"))
    ((prompts, _),) = LLM.made[0].calls
    assert prompts == [ids.tolist() for ids in native]
    assert policy.decode(prompts[0]) == "#add\n#1+1=\n="


def test_a_thought_stays_in_the_text_and_tokens_are_counted_with_the_end(folder: Path) -> None:
    LLM.reasons = ("stop", "length")
    ((_, responses),) = responder(folder).respond(asked("1+1="), samples=2)
    cut = THOUGHT[:9]
    assert responses == [Response(THOUGHT, len(THOUGHT) + 1, True), Response(cut, len(cut), False)]


def test_sampling_is_ours_and_each_problem_has_its_seed(folder: Path) -> None:
    list(responder(folder, temperature=0.7, max_new_tokens=33).respond(asked("1", "2"), samples=3))
    ((_, sampling),) = LLM.made[0].calls
    seeds = [(2**63 - 1) % 2**62, (2**63 - 2) % 2**62]
    assert sampling == [
        SamplingParams(n=3, temperature=0.7, top_p=1.0, max_tokens=33, seed=seed, detokenize=False) for seed in seeds
    ]
    assert max(seeds) + 3 < 2**63  # vLLM adds the number of the response


def test_problems_are_asked_in_chunks(folder: Path) -> None:
    answers = responder(folder, rows_at_once=7).respond(asked("1", "2", "3", "4"), samples=3)
    next(answers)
    engine = LLM.made[0]
    assert len(engine.calls) == 1  # the first responses are there before the second chunk is asked
    list(answers)
    assert [len(prompts) for prompts, _ in engine.calls] == [2, 2]  # 7 // 3 problems
    list(responder(folder, rows_at_once=2).respond(asked("1", "2"), samples=3))
    assert [len(prompts) for prompts, _ in LLM.made[1].calls] == [1, 1]


@pytest.mark.parametrize(
    ("dtype", "engine"), [("auto", "bfloat16"), ("mixed", "bfloat16"), ("bfloat16", "bfloat16"), ("float32", "float32")]
)
def test_the_engine_gets_model_tokenizer_and_dtype(folder: Path, tmp_path: Path, dtype: str, engine: str) -> None:
    responder(folder, model={"dtype": dtype})
    assert (LLM.made[0].model, LLM.made[0].tokenizer) == (str(folder), str(folder))
    assert (LLM.made[0].dtype, LLM.made[0].max_model_len) == (engine, 128)
    VllmResponder(ModelOptions(path="elsewhere"), PromptOptions(), weights=folder, temperature=1.0, max_new_tokens=9)
    assert LLM.made[1].model == LLM.made[1].tokenizer == str(folder)


LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(("max_new_tokens", "length"), [(20, 64), (63, 64), (64, 128), (100, 128)])
def test_longrope_is_given_the_factors_of_training_where_they_suffice(
    tmp_path: Path, max_new_tokens: int, length: int
) -> None:
    options = tiny_options("phi3", device="cpu")
    assert options.config is not None
    config = options.config | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64}
    Policy.load(options.model_copy(update={"config": config})).save(tmp_path / "phi")
    responder(tmp_path / "phi", max_new_tokens=max_new_tokens)
    assert LLM.made[0].max_model_len == length


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_asked(folder: Path) -> None:
    answers = responder(folder).respond(asked("1", "1" * 100), samples=1)
    with pytest.raises(LampoError, match=f"problem '{'1' * 100}' has 103 tokens, .*exceed its context of 128"):
        next(answers)
    assert LLM.made[0].calls == []


@pytest.mark.parametrize("reason", ["abort", "error", "repetition"])
def test_a_response_that_the_engine_gave_up_is_no_response(folder: Path, reason: str) -> None:
    LLM.reasons = ("stop", reason)
    ((_, failed),) = responder(folder).respond(asked("1"), samples=2)
    assert isinstance(failed, Failed)
    assert reason in failed.reason


def test_without_the_package_it_is_said_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LampoError, match=r"pip install 'lampo\[vllm\]'"):
        responder(folder)


def test_models_that_it_cannot_load_are_explained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = {"temperature": 1.0, "max_new_tokens": 9}
    with pytest.raises(LampoError, match=r"makes its model from scratch \(model.config\)"):
        VllmResponder(tiny_options(), PromptOptions(), **sampling)
    with pytest.raises(LampoError, match=r"an adapter on another \(model.lora\): use --backend native"):
        VllmResponder(ModelOptions(path=str(folder), lora=LoraOptions()), PromptOptions(), weights=folder, **sampling)
    with pytest.raises(LampoError, match="There is no GGUF file"):
        responder(tmp_path / "none.gguf")
    with pytest.raises(LampoError, match="Cannot load the model"):
        responder(tmp_path)

    def broken(**_: Any) -> None:
        raise RuntimeError("Engine core initialization failed.")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", broken)
    with pytest.raises(
        LampoError, match="vLLM cannot run the model .*: RuntimeError: Engine core initialization failed"
    ):
        responder(folder)


def test_a_gguf_file_is_converted_as_for_the_native_backend(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lampo.model.pretrained._converted", lambda _: folder)
    (tmp_path / "model.gguf").touch()
    responder(tmp_path / "model.gguf")
    assert LLM.made[0].model == str(folder)


def test_what_vllm_refuses_is_told(folder: Path) -> None:
    with pytest.raises(LampoError, match="vLLM refuses the request: n must be 1 when using greedy sampling"):
        list(responder(folder, temperature=0.0).respond(asked("1"), samples=2))


def test_lampo_eval_writes_records(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "aime24", Benchmark())
    data = tmp_path / "aime.jsonl"
    data.write_text("".join(json.dumps({"problem": f"{n}+1=", "answer": n + 1}) + "\n" for n in range(3)))
    words = f"eval {folder} --backend vllm --benchmarks aime24 --data aime24={data} --output {tmp_path / 'out'}"
    result = CliRunner().invoke(app, [*words.split(), "--samples", "2", "--max-new-tokens", "40"])
    assert result.exception is None, result.exception
    assert "| aime24 | avg@2 | 33.3 |" in result.output  # all say 2, which is right for 1+1=, and 3 only in the thought
    (record, *others) = read_records(tmp_path / "out" / "aime24")
    assert len(others) == 2
    assert record.responses == (Response(THOUGHT, len(THOUGHT) + 1, True),) * 2
    assert "backend: vllm" in (tmp_path / "out" / "aime24" / "settings.yaml").read_text()
    assert LLM.made[0].calls[0][1][0].temperature == 0.6 != SamplingOptions().temperature
    with pytest.raises(LampoError, match="--backend has no effect on the held-out problems"):
        CliRunner().invoke(app, ["eval", str(folder), "--backend", "vllm"], catch_exceptions=False)
