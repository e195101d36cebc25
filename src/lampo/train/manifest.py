"""How and with what a process was started."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..types import Problem


def manifest() -> dict[str, Any]:
    """How and with what this process was started: the command, the versions, the commit."""
    packages = (
        "lampo",
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "datasets",
        "pydantic",
        "rapidfuzz",
        "accelerate",
        "peft",
        "torchao",
        "trl",
        "verl",
        "ray",
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": " ".join(["lampo", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def data_facts(problems: Mapping[str, Sequence[Problem]]) -> dict[str, dict[str, Any]]:
    """How many problems there are in each set, and a hash of all that is in them."""
    return {name: {"problems": len(each), "sha256": _digest(each)} for name, each in problems.items()}


def _digest(problems: Sequence[Problem]) -> str:
    content = hashlib.sha256()
    for problem in problems:
        texts = (
            problem.id,
            problem.prompt,
            problem.answer,
            problem.reference,
            problem.demonstration,
            repr(problem.verifier),
        )
        # what is no plain value may be written with its address, so only its type counts
        fields = json.dumps(dict(problem.fields), default=lambda value: type(value).__name__)
        content.update(json.dumps([*texts, fields]).encode())
    return content.hexdigest()


def _git_commit() -> str | None:
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "."], cwd=here, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if dirty else "")
