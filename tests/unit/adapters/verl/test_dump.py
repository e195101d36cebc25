"""What is added to verl's dumps, and how LamPO waits for verl's modules beside others. No verl needed."""

from __future__ import annotations

import sys
import types
from concurrent.futures import Future
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch

from lampo.adapters.verl.dump import STOP, add_columns, columns
from lampo.adapters.verl.plugin import _AfterImport
from lampo.adapters.verl.unknown import UNKNOWN


def nested(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


DATA = {
    "responses": nested([7, 8, 9], [5, 6]),
    "loss_mask": nested([1, 0, 1], [1, 1]),
    "old_log_probs": nested([-0.5, -9.0, -0.25], [-1.0, -2.0]),
    "advantages": nested([1.5, 0.0, 1.5], [UNKNOWN, UNKNOWN]),
    "extra_fields": [{"reward_extra_info": {"acc": 1.0}}, {"reward_extra_info": {"acc": 0.0}}],
}
TAGS: list[dict[str, Any]] = [{}, {"is_padding": True}]


def test_columns_are_of_the_tokens_that_the_policy_wrote_and_the_mark_of_unknown_is_0() -> None:
    assert [*columns(DATA, TAGS)] == [
        {
            "acc": 1.0,
            "padding": False,
            "token_ids": [7, 9],
            "old_log_probs": [-0.5, -0.25],
            "advantage": 1.5,
            "advantages": None,
        },
        {
            "acc": 0.0,
            "padding": True,
            "token_ids": [5, 6],
            "old_log_probs": [-1.0, -2.0],
            "advantage": 0.0,
            "advantages": None,
        },
    ]


def trainer_of(estimator: str) -> tuple[Any, list[dict[str, Any]]]:
    """verl's trainer as far as it writes dumps, and what it wrote."""
    written: list[dict[str, Any]] = []

    class PPOTrainer:
        def __init__(self) -> None:
            trainer = types.SimpleNamespace(save_freq=5)
            self.config = types.SimpleNamespace(
                algorithm=types.SimpleNamespace(adv_estimator=estimator), trainer=trainer
            )
            self.global_steps, self.total_training_steps, self.saved = 2, 9, 0
            self._dump_futures: list[Future[None]] = []

        def _save_checkpoint(self) -> None:
            self.saved += 1

        def _dump_generations(self, *, inputs: Any, reward_extra_infos_dict: Any) -> None:
            written.append(reward_extra_infos_dict)

        def _log_rollout_data(self, batch: Any, timing_raw: Any, rollout_data_dir: str) -> None:
            self._dump_generations(inputs=[], reward_extra_infos_dict={"uid": ["b_0_0", "a_0_0"]})

    tq = types.SimpleNamespace(kv_batch_get=lambda keys, partition_id, select_fields: DATA)
    module: Any = types.SimpleNamespace(PPOTrainer=PPOTrainer, tq=tq)
    add_columns(module, "lampo")
    return PPOTrainer(), written


BATCH = types.SimpleNamespace(keys=["a_0_0", "b_0_0"], partition_id="train", tags=TAGS)


def test_a_dump_of_lampo_has_the_columns_in_its_own_order_and_one_of_another_estimator_has_none(tmp_path: Path) -> None:
    trainer, written = trainer_of("lampo")
    trainer._log_rollout_data(BATCH, {}, str(tmp_path))
    assert written[0]["uid"] == ["b_0_0", "a_0_0"]
    assert written[0]["token_ids"] == [[5, 6], [7, 9]]
    assert trainer.total_training_steps == 9
    trainer, written = trainer_of("grpo")
    trainer._log_rollout_data(BATCH, {}, str(tmp_path))
    assert written == [{"uid": ["b_0_0", "a_0_0"]}]


@pytest.mark.parametrize(("step", "saves"), [(2, 1), (5, 0)])
def test_a_file_ends_the_run_after_its_step_with_a_checkpoint(step: int, saves: int, tmp_path: Path) -> None:
    trainer, _ = trainer_of("lampo")
    trainer.global_steps = step
    (tmp_path / STOP).touch()
    trainer._log_rollout_data(BATCH, {}, str(tmp_path))
    assert (trainer.total_training_steps, trainer.saved) == (step, saves)


def test_others_that_wait_for_the_same_module_are_asked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Other:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            if name == "waited_for":
                seen.append("other")
            return None

    (tmp_path / "waited_for.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        sys, "meta_path", [_AfterImport({"waited_for": lambda module: seen.append("ours")}), Other(), *sys.meta_path]
    )
    monkeypatch.delitem(sys.modules, "waited_for", raising=False)
    __import__("waited_for")
    assert seen == ["other", "ours"]
