"""The plan beside the engine that it plans for: parameters, and what a dry run counts."""

from pathlib import Path

import pytest

from lampo.learner import batch, budget
from lampo.model import memory as memory_of_rows
from lampo.model.pretrained import empty_model
from lampo.plan import cost
from lampo.plan.cards import CARDS, rates
from lampo.plan.cost import Machine, Work, memory_parts
from lampo.plan.plan import plan
from lampo.plan.shape import shape_of
from lampo.rollout import slabs
from lampo.rollout.decoder import room_for
from lampo.train.dry_run import memory

from ...conftest import ARCHITECTURES, tiny_options
from ...helpers.small_run import small_config


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_are_those_of_the_model(architecture: str) -> None:
    options = tiny_options(architecture)
    model, tokenizer = empty_model(options)
    assert len(tokenizer) == len(options.characters or "") + 3
    assert shape_of(options).parameters == sum(each.numel() for each in model.parameters())


def test_qwen3_has_wide_heads_unless_told_otherwise() -> None:
    options = tiny_options("qwen3-tied")
    config = {key: value for key, value in (options.config or {}).items() if key != "head_dim"}
    model, _ = empty_model(bare := options.model_copy(update={"config": config}))
    assert shape_of(bare).parameters == sum(each.numel() for each in model.parameters())


def test_a_saved_model_is_read_from_its_configuration(tmp_path: Path) -> None:
    model, _ = empty_model(tiny_options())
    model.config.save_pretrained(tmp_path / "model")
    of_run = tiny_options().model_copy(update={"path": str(tmp_path), "config": None, "characters": None})
    assert shape_of(of_run).parameters == sum(each.numel() for each in model.parameters())


def test_constants_of_the_engine() -> None:
    assert (cost.TOKENS_ON_GPU, cost.TOKENS_ON_CPU) == (budget.MOST, budget.FEWEST_ON_CPU)
    assert cost.SHARE_OF_MEMORY == budget.SHARE_OF_MEMORY
    assert (cost.LITTLE_PADDING, cost.SHARE_OF_PADDING) == (batch.LITTLE_PADDING, batch.SHARE_OF_PADDING)
    assert (cost.SHARE_FOR_ROWS, cost.ROWS_AT_FULL_LENGTH) == (
        memory_of_rows.SHARE_FOR_ROWS,
        slabs.ROWS_AT_FULL_LENGTH,
    )


def test_where_vllm_draws_for_the_native_engine_rollouts_are_vllms_and_the_update_is_ours(tmp_path: Path) -> None:
    rows = {"sampling__rows_at_once": 256}
    native = plan(small_config(tmp_path, **rows), "native")
    verl = plan(small_config(tmp_path, **rows), "verl")
    mixed = plan(small_config(tmp_path, sampling__engine="vllm", **rows), "native")
    assert mixed.rollouts == verl.rollouts != native.rollouts
    assert (mixed.update, mixed.transfer) == (native.update, native.transfer)
    assert mixed.parts["sampling: vLLM"] == 0.5 * CARDS["h100"].memory
    assert "sampling: keys and values" not in mixed.parts
    told = plan(small_config(tmp_path, sampling__engine="vllm", sampling__vllm={"cache_gib": 4}), "native")
    assert 4 * 2**30 < told.parts["sampling: vLLM"] < 7 * 2**30
    on_cpu = plan(small_config(tmp_path, sampling__engine="vllm"), "native", gpu="cpu")
    assert "vLLM, which never sleeps" in on_cpu.parts


def test_memory_is_what_a_dry_run_counts(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, sampling__max_new_tokens=50, model__dtype="mixed", training__tokens_per_microbatch=100
    )
    model, _ = empty_model(config.model)
    counted = {need.part: need.num_bytes for need in memory(config, model, 6)}
    work = Work(shape_of(config.model), config, 6, 6, on_cpu=True)
    planned = memory_parts(work, Machine(CARDS["cpu"], 1, "native", rates("native", "cpu")[1]))
    assert room_for(56, 56) == 72
    assert planned["sampling: keys and values"] == counted["keys and values, in sampling"]
    assert planned["update: activations"] == counted["activations, in an update"]
    for part in ("weights", "gradients", "AdamW's moments"):
        assert planned[part] == counted[part]
