"""What a resume relies on, checked before its first step: what can be mended is, and the rest is refused or told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..store.checkpoints import Position, latest_checkpoint, read_position
from ..store.metrics import find_metrics_damage
from ..store.rollouts import find_shard_damage, rollout_steps
from ..types import LampoError


def sound_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The latest checkpoint that is whole and whose metrics are there; None where a run has to begin anew.

    Returns:
        it, and a line for every one passed over.

    Raises:
        LampoError: there are whole checkpoints, and the metrics of none of them are there.
    """
    metrics = run / "metrics.jsonl"

    def unfit(checkpoint: Path) -> str | None:
        return find_metrics_damage(metrics, read_position(checkpoint).metrics_bytes)

    checkpoint, notes = latest_checkpoint(run / "checkpoints", unfit)
    if checkpoint is None and latest_checkpoint(run / "checkpoints")[0] is not None:
        raise LampoError(
            " ".join(
                [
                    f"The run {run} cannot be resumed: of what it measured before its checkpoints something is lost.",
                    *notes,
                    f"Put {metrics} back from a copy, or start a new run from this one's model: --set model.path={run}",
                ]
            )
        )
    return checkpoint, notes


def shard_notes(run: Path, position: Position) -> list[str]:
    """A line for the rollouts of earlier steps that are missing or damaged: a resume goes on without them."""
    if position.stage != "train":
        return []
    kept = set(rollout_steps(run))
    lost = [
        f"step {step} ({damage})"
        for step in range(1, position.step + 1)
        if (damage := "missing" if step not in kept else find_shard_damage(run, step)) is not None
    ]
    if not lost:
        return []
    named = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    return [f"Rollouts that cannot be read: {named}. Training does not need them, but report and viewer lack them."]


def read_manifest(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The manifest, or None and a line that says why it is written anew."""
    file = run / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(manifest, dict) and isinstance(manifest.get("resumed", []), list):
            return manifest, []
        why = "damaged"
    except FileNotFoundError:
        why = "missing"
    except (OSError, ValueError, RecursionError):
        why = "damaged"
    return None, [f"{file} is {why} and is written anew. With what versions the run began is not known."]


def version_notes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for versions that are not those that the run went on with before."""
    then = ([before, *before.get("resumed", [])])[-1]
    first, second = _versions(then), _versions(now)
    changed = [
        f"{name} {first.get(name, 'missing')} then, {second.get(name, 'missing')} now"
        for name in first | second
        if first.get(name) != second.get(name)
    ]
    if not first or not changed:
        return []
    return [f"Other versions than before: {'; '.join(changed)}. The run may differ from one without a break."]


def data_changes(before: Any, now: dict[str, dict[str, Any]]) -> list[str]:
    """What differs between the problems of a run's start and those of today. Nothing where they were not recorded."""
    if not isinstance(before, dict):
        return []
    return [
        f"{name}: {_told(before.get(name))} then, {_told(now.get(name))} now"
        for name in before | now
        if before.get(name) != now.get(name)
    ]


def _told(facts: dict[str, Any] | None) -> str:
    return "none" if facts is None else f"{facts['problems']:,} problems with the hash {facts['sha256'][:12]}"


def _versions(entry: dict[str, Any]) -> dict[str, str]:
    facts = {name: entry[name] for name in ("python", "git_commit") if entry.get(name)}
    return {
        "Python" if name == "python" else "commit" if name == "git_commit" else name: str(value)
        for name, value in facts.items()
    } | dict(entry.get("versions") or {})
