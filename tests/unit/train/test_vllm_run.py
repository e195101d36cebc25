"""Whole small runs whose rollouts come from vLLM, of which a stand-in takes the place. `make test-vllm` has the same with vLLM itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lampo.store.rollouts import read_groups
from lampo.train.dry_run import IN_SAMPLING, peak
from lampo.train.native import dry_run
from lampo.types import LampoError, SamplerMismatch
from lampo.view.report.report_page import write_report

from ...helpers.fake_vllm import LLM, install
from ...helpers.small_run import curve, resume, run_to_end, small_config

SMALL = {
    "training__steps": 2,
    "warmstart__steps": 1,
    "evaluation__every": 2,
    "evaluation__problems": 2,
    "sampling__problems_per_step": 2,
    "sampling__max_new_tokens": 6,
}


@pytest.fixture(scope="module", autouse=True)
def _module() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_LOGGING_LEVEL"):
            monkeypatch.setenv(name, "")
        install(monkeypatch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, with checkpoints at two and four."""
    return run_to_end(config(tmp_path_factory.mktemp("whole"), training__steps=4, evaluation__greedy=True))


def config(tmp_path: Path, **changes: Any) -> Any:
    return small_config(tmp_path, **SMALL | {"sampling__engine": "vllm", "model__device": "cpu"} | changes)


def train_records(path: Path) -> list[dict[str, Any]]:
    return [record for record in curve(path) if record["stage"] == "train"]


def test_a_run_samples_and_evaluates_by_vllm_and_logs_the_mismatch(whole: Path) -> None:
    llm = next(llm for llm in LLM.made if {params.temperature for params in llm.asked} == {1.0, 0.0})
    assert (
        llm.did.count("weights") == 1 + 4 + 3 * 2
    )  # a probe, and one engine for sampling and evaluation, at both temperatures
    assert llm.did[-1] == "shutdown"
    for record in train_records(whole):
        assert 0 < record["sampler/mismatch_mean"] < 1e-5
        assert record["sampler/mismatch_mean"] <= record["sampler/mismatch_max"] < 1e-4
        assert "loss/importance_weight" not in record
    assert "Mismatch of sampler and learner" in write_report(whole).read_text()


def test_a_resumed_run_draws_the_same(whole: Path, tmp_path: Path) -> None:
    part = tmp_path / "small"
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints" / "train-000004")
    resume(part)
    assert curve(part) == curve(whole)


def test_the_native_engine_logs_none(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path, **SMALL))
    assert not [key for record in train_records(path) for key in record if key.startswith("sampler/")]


def test_under_a_correction_the_old_logprobs_are_the_learners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler says log-probs that are 0.05 too low: with weights the ratios are 1 before the first update, without e^0.05."""
    monkeypatch.setattr(LLM, "shift", -0.05)
    one = {"training__steps": 1}
    (off,) = train_records(run_to_end(config(tmp_path, **one)))
    assert off["loss/ratio_min"] == pytest.approx(1.0513, rel=1e-3)
    for level in ("token", "sequence"):
        (on,) = train_records(
            run_to_end(config(tmp_path, loss__sampler_correction=level, loss__sampler_cap=1e9, **one))
        )
        assert on["loss/ratio_min"] == on["loss/ratio_max"] == 1
        assert on["sampler/mismatch_mean"] == off["sampler/mismatch_mean"] == pytest.approx(0.05, rel=1e-3)
        assert on["sampler/kl"] == pytest.approx(0.05**2 / 2, rel=0.05)
        if level == "token":
            assert on["loss/importance_weight"] == pytest.approx(1.0513, rel=1e-3)
            assert on["optimizer/gradient_norm"] == pytest.approx(
                off["optimizer/gradient_norm"], rel=1e-3
            )  # both e^0.05
        else:
            assert on["loss/importance_weight"] > 1.1  # of several tokens


def test_the_old_logprobs_are_those_before_the_first_of_several_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LLM, "shift", -0.05)
    several = {"training__steps": 1, "training__updates_per_batch": 2, "loss__sampler_correction": "token"}
    (record,) = train_records(run_to_end(config(tmp_path, **several)))
    assert record["loss/ratio_min"] < 1 < record["loss/ratio_max"]  # of the second update
    assert record["loss/importance_weight"] == pytest.approx(1.0513, rel=1e-3)  # of both
    assert record["sampler/mismatch_mean"] == pytest.approx(0.05, rel=1e-3)  # of the first


def test_scores_may_be_of_the_learners_logprobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLM, "shift", -0.05)
    for source, higher in (("sampler", 0.0), ("trainer", 0.05)):
        path = run_to_end(config(tmp_path, training__steps=1, sampling__vllm={"scores_from": source}))
        for rollout in (rollout for group in read_groups(path, 1) for rollout in group["rollouts"]):
            drawn = rollout["logprobs"]  # of vLLM, whichever the scores are of
            assert rollout["score"] == pytest.approx(sum(drawn) / len(drawn) + higher, abs=2e-3)  # rounded to 1e-3
        (record,) = train_records(path)
        assert record["loss/ratio_min"] == pytest.approx(1.0513, rel=1e-3)  # the update's are vLLM's as before


def test_past_the_bound_the_run_stops_and_keeps_the_rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLM, "shift", -0.2)
    with pytest.raises(SamplerMismatch) as told:
        run_to_end(config(tmp_path))
    path = tmp_path / "small"
    kept = path / "mismatch-000001.jsonl.gz"
    assert kept.is_file()
    assert str(told.value) == (
        "Stopped at step 1. The log-probs of vLLM and of the learner differ by 0.2 nats a token on average, and "
        "sampling.vllm.max_mismatch is 0.1. They compute different models, or round differently. Try model.dtype=float32, or "
        f"sampling.engine=native. To go on all the same, raise the bound and set loss.sampler_correction=token. The rollouts of "
        f"the step are in {kept}."
    )
    assert not train_records(path)
    assert LLM.made[-1].did[-1] == "shutdown"
    wider = config(tmp_path, sampling__vllm={"max_mismatch": 0.5})
    assert train_records(run_to_end(wider))[0]["sampler/mismatch_mean"] == pytest.approx(0.2, rel=1e-3)


def test_a_dry_run_counts_vllm_and_is_refused_as_the_run_would_be(tmp_path: Path) -> None:
    needs = dry_run(config(tmp_path, sampling__vllm={"cache_gib": 2}))
    (vllm,) = [need for need in needs if "vLLM" in need.part]
    assert vllm.num_bytes > 2 * 2**30
    assert vllm.part == "vLLM, which never sleeps"
    assert not [need for need in needs if need.part.startswith("keys and values")]
    assert not [need for need in needs if need.part.endswith(IN_SAMPLING)]
    assert peak(needs) > vllm.num_bytes
    with pytest.raises(LampoError, match="sampling.temperature is 0.001"):
        dry_run(config(tmp_path, sampling__temperature=0.001))
