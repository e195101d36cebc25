"""Runs, studies, evaluations and verifiers under all that can go wrong, at random, until the time is up.

    PYTHONPATH=. python benchmarks/torture.py --minutes 15 --seed 0

One line for each kind: how often it was tried, and how often it survived. What did not survive is shown, with the seed that tries it again
(`--only KIND --first SEED --tries 1`). The exit status is 1 on any traceback, silent change or lost step.
"""
# ruff: noqa: E501  pieces and attacks, many on a line

import argparse
import dataclasses
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lampo.compare.results import read_results
from lampo.config.explain import dump_config
from lampo.config.load import load_config
from lampo.types import LampoError
from lampo.verify import verifier
from lampo.verify.code.sandbox import Limits, find_sandbox
from tests.helpers import warm
from tests.helpers.small_run import curve, small_config
from tests.integration.test_compare import write_study as small_study

PATIENCE_S = 600
"""Seconds after which a command hangs; a busy machine makes a study of a minute take five."""


class Lost(Exception):
    """Something did not survive."""


def need(holds: object, why: str) -> None:
    if not holds:
        raise Lost(why)


def command(*words: str, file_size: int | None = None) -> list[str]:
    """A `lampo` command in a warm process; with a file size, as on a disk that is full."""
    if file_size is None:
        return [*warm.python(), "-m", "lampo", *words]
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({file_size}, {file_size})); "
        "sys.argv = ['lampo', *sys.argv[1:]]; runpy.run_module('lampo', run_name='__main__')"
    )
    return [*warm.python(), "-c", code, *words]


def ended(words: list[str], folder: Path, allowed: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=PATIENCE_S, check=False)
    said = done.stdout + done.stderr
    need("Traceback" not in said and "Exception ignored" not in said, f"a traceback:\n{said[-1500:]}")
    need(done.returncode in allowed, f"exit status {done.returncode}:\n{said[-1500:]}")
    return said


def killed(words: list[str], folder: Path, chance: random.Random, longest_s: float) -> tuple[int, str]:
    """Start a command and send it a signal at a random moment; its exit status and what it said."""
    number = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, cwd=folder, text=True)
        try:
            process.wait(chance.uniform(0.02, longest_s))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        status = process.wait(PATIENCE_S)
        time.sleep(0.3)  # until what a killed client stood for is gone too
        said.seek(0)
        text = said.read()
    if (
        "Traceback" in text and "src/lampo" not in text
    ):  # of the client, which stands for the command and was still starting
        return status, text
    need("Traceback" not in text, f"a traceback after {number.name}:\n{text[-1500:]}")
    need(
        status in (0, 130, 143, -signal.SIGKILL, -signal.SIGTERM),
        f"exit status {status} after {number.name}:\n{text[-1500:]}",
    )
    return status, text


# Runs


@cache
def whole_run() -> Path:
    """The run that nothing happens to."""
    folder = Path(tempfile.mkdtemp(dir=ROOT))
    ended(command("train", str(recipe(folder))), folder)
    return folder / "small"


def recipe(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(dump_config(small_config(folder)))
    return path


def same_run(path: Path) -> None:
    need(curve(path) == curve(whole_run()), "other metrics than the run that nothing happened to")
    for name in ("model.safetensors", "training/optimizer.safetensors"):
        ours, theirs = (load_file(run / "checkpoints" / "train-000006" / name) for run in (path, whole_run()))
        need(ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours), f"another {name}")
    for shard in (whole_run() / "rollouts").glob("*.jsonl.gz"):
        need((path / "rollouts" / shard.name).read_bytes() == shard.read_bytes(), f"other rollouts in {shard.name}")
    need((path / "report.html").exists(), "no report")
    need(not list(path.rglob("*.partial")), "half a checkpoint is left")


def carried_on(path: Path, folder: Path) -> None:
    """Begin a run, or resume what is left of it, and compare it with the whole one."""
    if (path / "config.yaml").exists():
        ended(command("train", str(path), "--resume"), folder)
    else:  # killed before anything was done
        shutil.rmtree(path, ignore_errors=True)
        ended(command("train", str(recipe(folder))), folder)
    same_run(path)


def kills_of_runs(folder: Path, chance: random.Random) -> None:
    path = folder / "small"
    words = command("train", str(recipe(folder)))
    for _ in range(chance.randint(1, 3)):
        killed(words, folder, chance, 6)
        if (path / "config.yaml").exists():
            words = command("train", str(path), "--resume")
        else:
            shutil.rmtree(path, ignore_errors=True)
    carried_on(path, folder)


def broken_outputs(folder: Path, chance: random.Random) -> None:
    words = shlex.join(command("train", str(recipe(folder))))
    where = chance.choice(
        (f"| head -{chance.randint(1, 5)}", "> /dev/full", "2> /dev/full", f"| head -c {chance.randint(1, 400)}")
    )
    ended(["bash", "-c", f"set -o pipefail; {words} {where}"], folder)
    same_run(folder / "small")


def full_disks(folder: Path, chance: random.Random) -> None:
    """No file may grow beyond a size: a write fails in the middle of the run, then there is room again."""
    ended(command("train", str(recipe(folder)), file_size=int(10 ** chance.uniform(2, 5.5))), folder, (0, 1, 130))
    carried_on(folder / "small", folder)


def damaged_files(folder: Path, chance: random.Random) -> None:
    """One file of a run that is nearly done is damaged. It is mended and told, refused in words, or was of no use."""
    path = Path(shutil.copytree(whole_run(), folder / "small"))
    shutil.rmtree(path / "checkpoints" / "train-000006")
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    file = chance.choice(files)
    data = file.read_bytes()
    kinds = ["cut", "empty", "zeros", "gone", "folder", "longer"]
    kind = chance.choice(kinds if file.name == "metrics.jsonl" else [*kinds, "flipped"])  # see docs/reliability.md
    file.unlink()
    match kind:
        case "cut":
            file.write_bytes(data[: chance.randrange(max(1, len(data)))])
        case "empty":
            file.write_bytes(b"")
        case "zeros":
            file.write_bytes(bytes(len(data)))
        case "folder":
            file.mkdir()
        case "longer":
            file.write_bytes(data + chance.randbytes(20))
        case "flipped":
            place = chance.randrange(max(1, len(data)))
            file.write_bytes(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
        case _:
            pass
    what = f"{file.relative_to(path)} {kind}"
    config, found = path / "config.yaml", list[Any]()
    try:
        said = ended(command("train", str(path), "--resume"), folder, (0, 1))
        with suppress(LampoError):  # refused: there are no metrics to read, or none that can be read
            found = curve(path)
        if "Traceback" not in said and (path / "report.html").is_file() and found[-1:] == curve(whole_run())[-1:]:
            need(found == curve(whole_run()), "other metrics")
        else:
            need(len(said.strip()) > 20, "nothing is said")
            need(said.strip() and config.parent.exists(), "the run is gone")
    except Lost as lost:
        raise Lost(f"{what}: {lost}") from None


# Studies and evaluations


def write_study(folder: Path) -> Path:
    return small_study(folder, seeds=1, workers=1)


def study_results(folder: Path) -> list[Any]:
    found = sorted(read_results(next(folder.rglob("results.parquet"))), key=lambda result: (result.method, result.seed))
    return [[(point.step, point.accuracy, point.rollouts) for point in result.points] for result in found]


@cache
def whole_study() -> list[Any]:
    folder = Path(tempfile.mkdtemp(dir=ROOT))
    ended(command("compare", str(write_study(folder))), folder)
    return study_results(folder)


def kills_of_studies(folder: Path, chance: random.Random) -> None:
    words = command("compare", str(write_study(folder)))
    expected = whole_study()
    for _ in range(chance.randint(1, 2)):
        killed(words, folder, chance, 12)
    time.sleep(1)  # until the runs of a study that was killed have seen it
    ended(words, folder)
    need(study_results(folder) == expected, "other results than the study that nothing happened to")


def evaluation(folder: Path) -> list[str]:
    words = ["eval", str(whole_run()), "--benchmarks", "word_arithmetic", "--problems", "12", "--samples", "2"]
    return command(*words, "--output", str(folder / "out"), "--set", "sampling.rows_at_once=4")


def records(folder: Path) -> list[Any]:
    found = []
    for file in folder.glob("out/*/records.jsonl"):
        for record in map(json.loads, file.read_text().splitlines()):
            for response in record["responses"]:
                response.pop("seconds", None)
            found.append(record)
    return sorted(found, key=lambda record: record["id"])


@cache
def whole_evaluation() -> list[Any]:
    folder = Path(tempfile.mkdtemp(dir=ROOT))
    ended(evaluation(folder), folder)
    return records(folder)


def kills_of_evaluations(folder: Path, chance: random.Random) -> None:
    expected = whole_evaluation()
    need(len(expected) == 12, f"{len(expected)} records instead of 12")
    for _ in range(chance.randint(1, 3)):
        killed(evaluation(folder), folder, chance, 3)
    ended(evaluation(folder), folder)
    need(records(folder) == expected, "other records than the evaluation that nothing happened to")


# Bad input


def bad_recipes(folder: Path, chance: random.Random) -> None:
    """Twenty recipes with a few characters or values changed: each is read or refused in words."""
    text = (Path(__file__).parents[1] / "recipes" / "quickstart.yaml").read_text()
    junk = [
        "[",
        "{",
        "}",
        ": ",
        "&a ",
        "*a",
        "!!int ",
        "\t",
        "\0",
        "-",
        "null",
        "1e400",
        "-1",
        "9" * 400,
        "nan",
        ".inf",
        "🙂",
        '"\\ud83d"',
        "~",
        "[]",
        "{}",
    ]
    for _ in range(20):
        lines = text.splitlines()
        for _ in range(chance.randint(1, 4)):
            number = chance.randrange(len(lines))
            line = lines[number]
            match chance.randrange(5):
                case 0:
                    lines[number] = line.partition(":")[0] + ": " + chance.choice(junk)
                case 1:
                    place = chance.randint(0, len(line))
                    lines[number] = line[:place] + chance.choice(junk) + line[place:]
                case 2:
                    lines.insert(number, chance.choice(lines))
                case 3:
                    lines[number] = " " * chance.randint(0, 8) + line.strip()
                case _:
                    del lines[number]
                    lines = lines or [""]
        file = folder / "recipe.yaml"
        file.write_text("\n".join(lines), errors="surrogatepass")
        began = time.process_time()
        try:
            load_config(file)
        except LampoError as error:
            need(str(error).strip(), "a refusal without a word")
        except Exception as error:
            raise Lost(f"{type(error).__name__}: {error} on\n{file.read_text()}") from error
        need(time.process_time() - began < 10, "more than 10 s for a recipe")


def failing_servers(folder: Path, chance: random.Random) -> None:
    """A server that drops, cuts, refuses and lies. The evaluation ends in words, and its records are whole."""
    good = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "5"}}
    bodies: list[bytes] = [
        json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m", **more}).encode()
        for more in ({"choices": [good]}, {"choices": [good]}, {"choices": []}, {"choices": None}, {"choices": [good | {"message": {"content": [1]}}]},
                     {"choices": [good], "usage": {"completion_tokens": "many"}}, {"choices": [good | {"finish_reason": 7}]})
    ] + [b"", b"<html>busy</html>", b"[]", b"null", b'{"choices":', b"\xff\xfe", b"[" * 3000]  # fmt: skip
    always_good = chance.random() < 0.3
    private = random.Random(chance.random())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = (
                200 if always_good or private.random() < 0.7 else private.choice((400, 401, 404, 429, 500, 503, 302))
            )
            body = bodies[0] if always_good or private.random() < 0.5 else private.choice(bodies)
            if not always_good and private.random() < 0.1:
                return  # drops the connection
            self.send_response(status)
            self.send_header("Content-Type", private.choice(("application/json", "text/html")))
            self.send_header(
                "Content-Length", str(len(body) + (private.choice((0, 0, 0, 500)) if not always_good else 0))
            )
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        words = ["eval", "m", "--benchmarks", "word_arithmetic", "--backend", url, "--problems", "4", "--samples", "1"]
        words += ["--output", str(folder / "out"), *SERVER_OPTIONS]
        said = ended(command(*words), folder, (0,) if always_good else (0, 1))
        need(len(said.strip()) > 20, "nothing is said")
        for record in records(folder):
            need(record["responses"], "a record without a response")
    finally:
        server.shutdown()
        server.server_close()


# Attacks

CANARY = "the canary is unharmed"
ATTACKS = [
    "import os\nfor root in ('/', {folder!r}, '/tmp', os.path.expanduser('~')):\n  os.system(f'rm -rf {{root}}/canary* 2>/dev/null')",
    "open({canary!r}, 'w').write('gone')",
    "import os, time\nif os.fork() == 0:\n  os.setsid(); os.execvp('sleep', ['sleep', {mark!r}])\nprint('left')",
    "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "import socket\nsocket.create_connection(('127.0.0.1', 22), timeout=2)\nprint('connected')",
    "import os, signal\nfor pid in range(1, 40000):\n  try: os.kill(pid, signal.SIGKILL)\n  except OSError: pass",
    "import os\nos.kill(os.getppid(), 9); os.kill(1, 9)",
    "x = bytearray(10**11)",
    "while True: print('x' * 10000)",
    "import ctypes; ctypes.string_at(0)",
    "import os\nfor fd in range(3, 200):\n  try: os.write(fd, b'pass')\n  except OSError: pass",
    "import sys; sys.exit(0)",
    "import os; os.symlink({canary!r}, 'link'); open('link', 'a').write('gone')",
    "import os; os.system('mount -t tmpfs none /usr; chroot /proc/1/root; unshare -r sh -c id')",
    "import os\nfor i in range(10**6): os.makedirs('a/' * 50, exist_ok=True); open(f'f{{i}}', 'w').write('x' * 10**6)",
]  # fmt: skip


def attacks_on_the_sandbox(folder: Path, chance: random.Random) -> None:
    sandbox = find_sandbox()
    canary, mark = folder / "canary", str(10**6 + chance.randrange(10**6)) + ".25"
    canary.write_text(CANARY)
    parts = [chance.choice(ATTACKS) for _ in range(chance.randint(1, 2))]
    code = "\n".join(
        "try:\n"
        + "\n".join(f"  {line}" for line in part.format(folder=str(folder), canary=str(canary), mark=mark).splitlines())
        + "\nexcept OSError: pass"
        for part in parts
    )
    outcome = sandbox.run(
        {"attack.py": code.encode()}, [sandbox.python, "-I", "-S", "attack.py"], b"",
        dataclasses.replace(Limits(), wall_s=4.0, processes=16),
    )  # fmt: skip
    need(canary.read_text() == CANARY, "the canary was touched")
    need(b"connected" not in outcome.stdout, "the network was reached")
    time.sleep(0.2)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        need(mark.encode() not in line.split(b"\0"), "a process outlives its run")


PIECES = [
    "5", "6", "x", "^", "_", "{", "}", "(", ")", "[", "]", r"\frac", r"\sqrt", r"\sum", r"\int", r"\lim", r"\sum_{k=1}^{9} k", r"\int_0^1 x dx", "!", "/", "*",
    "10**10", "9^{9^9}", r"\pm", "=", "<", r"\le", ",", ";", " and ", " or ", r"\text{", "cm", "%", r"^\circ", r"\{", r"\}", "|", r"\boxed{", "</think>",
    "<think>", "####", "answer is", "\0", "\ud83d", "½", "√", "∞", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\mathbb{R}", r"\infty", r"\cup", "e", "i",
    r"\pi", ":", "0.333...", r"\overline{3}", r"\pmod 7", "Answer: B", "(B)", "not", "A", "print(5)", "```python\n", "```", "\n",
]  # fmt: skip


def attacks_on_verifiers(folder: Path, chance: random.Random) -> None:
    """A hundred texts of pieces that verifiers know. None raises, is slow, or is right where no 5 is in it."""
    judges: list[Any] = [verifier("math"), verifier("choice"), verifier("numeric"), verifier("exact")]
    for judge in judges[:1]:
        judge.warm_up()
    for _ in range(100):
        pieces = [chance.choice(PIECES) for _ in range(chance.randint(1, 12))]
        text = chance.choice(("", r"\boxed{", "The answer is ")) + "".join(pieces) + chance.choice(("", "}", "."))
        text = text * chance.choice((1, 1, 1, 50, 3000))
        for judge, gold in (
            (judges[0], "173/29"),
            (judges[0], r"\{\sqrt{17}, 171\}"),
            (judges[1], "D"),
            (judges[2], "173"),
            (judges[3], "173"),
        ):
            began = time.process_time()
            try:
                verdict = judge.verify(text, gold)
            except Exception as error:
                raise Lost(f"{judge.name}: {type(error).__name__}: {error} on {text[:300]!r}") from error
            need(verdict.status != "right", f"{judge.name} accepts {text[:300]!r} for {gold}")
            need(time.process_time() - began < 3, f"{judge.name} takes long on {text[:300]!r}")


SERVER_OPTIONS: list[str] = []
KINDS: dict[str, tuple[Callable[[Path, random.Random], None], int]] = {
    "kills of runs": (kills_of_runs, 4),
    "kills of studies": (kills_of_studies, 1),
    "kills of evaluations": (kills_of_evaluations, 2),
    "closed pipes, full output": (broken_outputs, 1),
    "full disks": (full_disks, 2),
    "damaged files": (damaged_files, 4),
    "bad recipes, 20 each": (bad_recipes, 3),
    "failing servers": (failing_servers, 2),
    "attacks on the sandbox": (attacks_on_the_sandbox, 3),
    "attacks on verifiers, 100 each": (attacks_on_verifiers, 3),
}
"""What is tried, and how many times in a round."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(KINDS), action="append", help="this kind alone; may be given again")
    parser.add_argument("--first", type=int, default=0, help="the number of the first try of each kind")
    parser.add_argument("--tries", type=int, default=10**9, help="at most so many tries of each kind")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    tried, survived, why = Counter[str](), Counter[str](), []
    warm.python()
    names = [name for name, (_, times) in KINDS.items() if name in (arguments.only or KINDS) for _ in range(times)]
    while time.monotonic() < end and any(tried[name] < arguments.tries for name in names):
        for name in names:
            if time.monotonic() > end or tried[name] >= arguments.tries:
                continue
            number = arguments.first + tried[name]
            folder = Path(tempfile.mkdtemp(dir=ROOT))
            tried[name] += 1
            try:
                KINDS[name][0](folder, random.Random(f"{arguments.seed} {name} {number}"))
                survived[name] += 1
            except Exception as error:
                why.append(
                    f"{name}, seed {arguments.seed}, try {number}: {error if isinstance(error, Lost) else repr(error)}"
                )
                print(why[-1], file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    print("| kind | tried | survived |\n| --- | ---: | ---: |")
    for name in KINDS:
        if tried[name]:
            print(f"| {name} | {tried[name]} | {survived[name]} |")
    return int(bool(why))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lampo-torture-") as ROOT:
        sys.exit(main())
