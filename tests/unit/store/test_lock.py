import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lampo.store.lock import LOCK, lock
from lampo.types import LampoError

HOLD = """
import sys, time
from pathlib import Path
from lampo.store.lock import lock
held = lock(Path(sys.argv[1]), "It")
print("held", flush=True)
time.sleep(60)
"""


def holding(file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_name_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / LOCK
    with holding(file) as process:
        with pytest.raises(LampoError) as refusal:
            lock(file, "The run X")
        assert str(refusal.value).startswith(
            f"The run X is under way in process {process.pid} on {socket.gethostname()} since 2"
        )
        process.send_signal(signal.SIGKILL)
    with lock(file, "The run X"):
        assert json.loads(file.read_text())["process"] == os.getpid()


def test_released_by_hand_by_with_or_by_being_forgotten(tmp_path: Path) -> None:
    file = tmp_path / LOCK
    held = lock(file, "It")
    held.release()
    held.release()
    with lock(file, "It"), pytest.raises(LampoError, match="It is under way in process"):
        lock(file, "It")
    lock(file, "It")
    lock(file, "It").release()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b'{"process": 1}', b"[" * 9_000])
def test_what_is_in_the_file_is_never_an_obstacle(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / LOCK
    file.write_bytes(content)
    held = lock(file, "It")
    file.write_bytes(content)
    with pytest.raises(LampoError, match="It is under way in another process"):
        lock(file, "It")
    held.release()


def test_it_can_be_waited_for(tmp_path: Path) -> None:
    told: list[str] = []
    with holding(tmp_path / LOCK) as process:

        def wait() -> None:
            told.append("waiting")
            process.kill()

        lock(tmp_path / LOCK, "It", wait=wait).release()
    assert told == ["waiting"]
