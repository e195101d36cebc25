"""What a run of verl on the CPU needs: a tiny Qwen3 of random weights, 64 prompts, and the command that starts it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from lampo.model.pretrained import character_tokenizer

from .driver import ROOT

CHARACTERS = "0123456789+=\n abcdefghijklmnopqrstuvwxyz#.?"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
VERIFIER = {"name": "python:tests.verl.judge.figures", "timeout_s": 0.5}


def prepare(folder: Path) -> None:
    """Model, tokenizer and data."""
    tokenizer = character_tokenizer(CHARACTERS)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder / "model")
    rows = [
        {
            "data_source": "lampo/figures",
            "prompt": [{"role": "user", "content": f"{number}+{number + 1}="}],
            "ability": "figures",
            "reward_model": {"style": "rule", "ground_truth": "0"},
            "extra_info": {"index": number, "verifier": json.dumps(VERIFIER)},
        }
        for number in range(64)
    ]
    for name, some in (("train", rows), ("test", rows[:8])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(some), folder / f"{name}.parquet")


def run(folder: Path, *overrides: str, nodes: int = 1, limit_s: float = 480, expect: int = 0) -> str:
    """Start verl on what `prepare` made.

    Returns:
        What it printed.
    """
    records = folder / "records"
    records.mkdir(exist_ok=True)
    log = folder / f"log-{time.monotonic_ns()}.txt"
    with scratch() as environment:
        command = [sys.executable, "-m", "tests.verl.driver", str(folder), str(nodes), *overrides]
        return wait(started(command, environment | {"LAMPO_TEST_RECORD": str(records)}, log), log, limit_s, expect)


@contextlib.contextmanager
def scratch() -> Iterator[dict[str, str]]:
    """The environment of a run with a folder of Ray's own. What is left of the run at the end is ended: verl can hang where others fail."""
    folder = tempfile.mkdtemp(prefix="lampo-ray-", dir="/tmp")  # short, for Ray's sockets; else Ray joins the last run
    try:
        yield os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "RAY_TMPDIR": folder}
    finally:
        _end(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)


def started(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A program that writes its output into a file."""
    with log.open("w") as stream:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait(process: subprocess.Popen[bytes], log: Path, limit_s: float, expect: int) -> str:
    """What a program has printed at its end."""
    try:
        code: int | None = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        code = None
    text = log.read_text()
    assert code == expect, f"it ended with {code} (None: after {limit_s} s)\n{text[-6000:]}"
    return text


def _end(scratch: Path) -> None:
    """End what is left of a run: processes, Ray's among them, that carry its folder in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"RAY_TMPDIR={scratch}".encode() in environment.split(b"\0") and int(folder.name) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)
