import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lampo.config.explain import dump_config
from lampo.model.policy import Policy
from lampo.model.pretrained import empty_model
from lampo.train import dry_run as dry_run_module
from lampo.train.dry_run import dry_run, memory
from lampo.types import LampoError

from ...conftest import ARCHITECTURES, tiny_options
from ...helpers.small_run import small_config


def needs_of(config: Any) -> dict[str, float]:
    model, _ = empty_model(config.model)
    return {need.part: need.num_bytes for need in memory(config, model, 6)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_empty_model_has_the_parameters_of_a_loaded_one(architecture: str) -> None:
    options = tiny_options(architecture)
    model, tokenizer = empty_model(options)
    policy = Policy.load(options)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in policy.core.parameters())
    assert len(tokenizer) == len(policy.tokenizer)


def test_of_a_saved_model_only_the_configuration_is_read(tmp_path: Path) -> None:
    Policy.load(tiny_options()).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model, _ = empty_model(
        tiny_options().model_copy(update={"path": str(tmp_path), "config": None, "characters": None})
    )
    assert sum(p.numel() for p in model.parameters()) > 0


def test_memory_by_hand(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    policy = Policy.load(config.model)
    total = sum(p.numel() for p in policy.core.parameters())
    needs = needs_of(config)
    assert needs["weights"] == needs["gradients"] == 4 * total
    assert needs["AdamW's moments"] == 2 * 4 * total
    # 3 problems x 4 rollouts sampled together, 6 + 12 tokens and 16 to spare, keys and values of 2 layers, one head of 16
    assert needs["keys and values, in sampling"] == 12 * 34 * 2 * 2 * 16 * 4
    assert "reference, for the KL term" not in needs


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"loss__kl_coefficient": 0.1}, 1),  # the reference
        ({"advantage": {"name": "prime"}}, 2 + 3),  # a model with gradient and two moments, and its reference
    ],
)
def test_more_models_need_more(changes: dict[str, Any], more: int, tmp_path: Path) -> None:
    plain, other = needs_of(small_config(tmp_path)), needs_of(small_config(tmp_path, **changes))
    assert sum(other.values()) - sum(plain.values()) == pytest.approx(more * plain["weights"], abs=2**24)


def test_a_reference_beside_adapters_is_adapters(tmp_path: Path) -> None:
    plain, lora = (
        needs_of(small_config(tmp_path, loss__kl_coefficient=0.1, **changes))
        for changes in ({}, {"model__lora": {"rank": 2}})
    )
    assert plain["reference, for the KL term"] == plain["gradients"]
    assert lora["reference, for the KL term"] == lora["gradients"]


def test_low_rank_adapters_train_less(tmp_path: Path) -> None:
    plain, lora = needs_of(small_config(tmp_path)), needs_of(small_config(tmp_path, model__lora={"rank": 2}))
    assert lora["gradients"] < plain["gradients"] / 2
    assert lora["weights"] > plain["weights"]


def test_bfloat16_halves(tmp_path: Path) -> None:
    plain, half = needs_of(small_config(tmp_path)), needs_of(small_config(tmp_path, model__dtype="bfloat16"))
    for part in (
        "weights",
        "gradients",
        "AdamW's moments",
        "keys and values, in sampling",
        "activations, in an update",
    ):
        assert half[part] == plain[part] / 2
    mixed = needs_of(small_config(tmp_path, model__dtype="mixed"))
    assert mixed["weights"] == plain["weights"]
    assert mixed["keys and values, in sampling"] == half["keys and values, in sampling"]


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        ({}, True),
        ({"model__lora": {"rank": 2}}, True),
        ({"model__dtype": "float32"}, False),
        ({"model__attention": "eager"}, False),
    ],
)
def test_on_a_gpu_quick_steps_hold_what_rows_need(
    changes: dict[str, Any], own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a model as large as the GPU's memory but for 1,000 bytes a row of 18 tokens: 14 rows begin where 4 are whole."""
    config = small_config(tmp_path, sampling__rows_at_once=64, sampling__problems_per_step=16, **changes)
    each = 2 * 2 * 16 * (2 if config.model.dtype != "float32" else 4)
    monkeypatch.setattr(dry_run_module, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(dry_run_module, "memory_of", lambda _: 2**30)
    monkeypatch.setattr(dry_run_module, "tokens_per_microbatch", lambda *_: 64)
    monkeypatch.setattr(dry_run_module, "rows_that_fit", lambda *arguments: 210 * each // arguments[-1])
    model, _ = empty_model(config.model)
    needs = memory(config, model, 6)
    need = next(need for need in needs if need.part == "keys and values, in sampling")
    copied = [each.num_bytes for each in needs if each.part == "copies of weights, in sampling"]
    assert bool(copied) == (config.model.dtype != "float32")  # where products are in bfloat16
    # 6 + 12 tokens are one slab, 14 to begin a row with; else 34 positions a row
    told = (
        f"228 tokens x {each} bytes, of 14 rows, as many as fit"
        if own
        else f"6 rows x 34 positions x {each} bytes, as many as fit"
    )
    assert need.arithmetic == told
    assert need.num_bytes == (228 if own else 6 * 34) * each


def test_it_says_what_would_run_and_runs_nothing(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    dry_run(small_config(tmp_path / "runs"), console)
    text = console.export_text()
    assert "problems: 64 to train on, 16 held out. 80 answers were verified against themselves" in text
    assert "training: 6 steps x 3 problems x 4 rollouts = 72 rollouts, at most 864 sampled tokens" in text
    assert "evaluation: 3 times, 24 responses" in text
    assert "Nothing was trained." in text
    assert not (tmp_path / "runs").exists()


def test_rewards_without_the_verifier_are_told(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    dry_run(small_config(tmp_path, rewards=[{"name": "format", "pattern": "x"}]), console)
    assert "the rewards have no verifier: a right answer adds nothing to them" in console.export_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling__max_new_tokens": 64}, "context"),
        ({"model__characters": "0123456789+"}, "model.characters lacks"),
        ({"model__config__hidden_size": "many"}, "Cannot build a model"),
        ({"run__trackers": ["tensorbord"]}, "Did you mean tensorboard"),
        ({"evaluation__skip": 16}, "evaluation.skip is 16"),
        ({"verifier": {"name": "choice"}}, "set verifier.name"),
    ],
)
def test_it_refuses_what_a_run_would(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LampoError, match=message):
        dry_run(small_config(tmp_path, **changes), Console(quiet=True))


def test_the_peak_is_near_the_measured_one(tmp_path: Path) -> None:
    """In a process of its own, whose peak is its own; on a CPU most of it is the libraries."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_config(small_config(tmp_path / "runs")))
    program = (
        "import sys; from pathlib import Path; from lampo.config.load import load_config; "
        "from lampo.train.dry_run import dry_run, peak; print(peak(dry_run(load_config(Path(sys.argv[1]))))); "
        "from lampo.cli import app; app(['train', sys.argv[1]])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(recipe)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stream:
        told = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    said = next(float(line) for line in told.splitlines() if line.replace(".", "", 1).isdigit())
    measured = usage.ru_maxrss * 1024
    assert said == pytest.approx(measured, rel=0.3)
