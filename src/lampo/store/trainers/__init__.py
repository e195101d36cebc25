"""Rollouts that other trainers wrote, from runs that never knew LamPO: TRL's completion tables and verl's dumps."""

from __future__ import annotations

from pathlib import Path

from .dump import Dump
from .trl import CompletionTables
from .verl import RolloutDump

LOOKS_LIKE = (
    "TRL's GRPOTrainer writes completions/completions_00001.parquet into its output_dir, with log_completions=True. "
    "verl writes 1.jsonl, 2.jsonl, ... into trainer.rollout_data_dir."
)
"""What a folder would have to hold."""


def find_dump(path: Path) -> Dump | None:
    """The rollouts in a folder, or in one file; None where they are of neither trainer."""
    return CompletionTables.find(path) or RolloutDump.find(path)
