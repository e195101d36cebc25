"""What we rely on is there in the installed TRL, and a TRL without it is refused in a sentence."""
# ruff: noqa: E402

from __future__ import annotations

from typing import Any

import pytest

for package in ("trl", "accelerate", "datasets", "pandas", "jinja2"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lampo[trl]'")

from trl.trainer.grpo_trainer import GRPOTrainer

from lampo import LampoError
from lampo.adapters.trl import contract
from lampo.adapters.trl.contract import broken_promises, check_contract

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_installed_trl_keeps_all_we_rely_on() -> None:
    assert list(broken_promises()) == []


class Moved(GRPOTrainer):
    def _compute_loss(self, model: Any, batch: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.loss_of(batch, batch["weights"])

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        return self._make_completions(generation_batch)


def test_what_has_moved_is_said_in_sentences() -> None:
    said = list(broken_promises(Moved))
    assert "GRPOTrainer._compute_loss no longer takes inputs." in said
    assert 'GRPOTrainer._compute_loss no longer reads the advantages from the batch (inputs["advantages"]).' in said
    assert any(sentence.startswith("GRPOTrainer._prepare_inputs no longer gets its batches") for sentence in said)
    assert next(broken_promises(type("Bare", (), {}))) == "GRPOTrainer has no method _generate_and_score_completions."


def test_a_trl_that_has_moved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "broken_promises", lambda: iter(["GRPOTrainer has no method _compute_loss."]))
    check_contract.cache_clear()
    try:
        with pytest.raises(
            LampoError, match=r"has moved what LamPOTrainer relies on\. GRPOTrainer has no method _compute_loss\."
        ):
            check_contract()
    finally:
        check_contract.cache_clear()
