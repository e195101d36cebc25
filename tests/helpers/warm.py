"""Commands in a process that has imported the engine already, as most of what a short run costs is that import.

`python()` stands for `sys.executable` in a command: a small client hands its arguments, folder, environment and its three standard
streams to a server, which is started once for each process of pytest and forks. The fork runs the command, gets the signals that reach the
client, and ends with it; its exit status is the client's. What is about the start of a process itself needs the real thing.

Under the environment variable of `executable()` the Pythons that such a command starts are forks too.
"""

import array
import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

PYTHON = sys.executable
MOST_PASSED, ABOVE_ALL = 64, 512
"""File descriptors of one command at the most, and a number above those of any."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXECUTABLE = "PYTHON_EXEC"
"""torchrun starts its processes with what this environment variable names."""


@cache
def python(*modules: str) -> tuple[str, ...]:
    """What to write for `sys.executable` in a command of `-m MODULE`, `-c CODE` or a script.

    Args:
        modules: what the server imports besides the engine. Each choice has a server of its own.
    """
    folder = tempfile.TemporaryDirectory(prefix="lampo-warm-")
    address = Path(folder.name) / "socket"
    command = [PYTHON, "-m", __name__, "serve", address, *modules]
    server = subprocess.Popen(command, stdin=subprocess.PIPE)
    atexit.register(folder.cleanup)
    atexit.register(server.kill)  # and if this process is killed, its end of the pipe closes
    while not address.exists():
        assert server.poll() is None
        signal.sigtimedwait([], 0.02)
    return client(str(address))


def client(address: str, passed: Sequence[int] = ()) -> tuple[str, ...]:
    """The command that asks the server at an address, with file descriptors that it hands over besides the standard streams."""
    return PYTHON, "-S", __file__, "ask", address, ",".join(map(str, (0, 1, 2, *passed)))


@cache
def executable(*modules: str) -> dict[str, str]:
    """The environment in which `python()` is one file, for a launcher that takes no more."""
    *command, address, numbers = python(*modules)
    file = Path(address).with_name("python")
    asking = shlex.join([*command, address, numbers])
    file.write_text(f'#!/bin/sh\n[ "$1" = -u ] && shift\nexec {asking} "$@"\n', encoding="utf-8")
    file.chmod(0o755)
    return {EXECUTABLE: str(file)}


@contextlib.contextmanager
def fork_servers(*modules: str) -> Iterator[None]:
    """What `multiprocessing` calls a fork server, which forks the runs of a study, is a fork here too."""
    from multiprocessing import util

    spawn: Any = util.spawnv_passfds  # pyright: ignore[reportAttributeAccessIssue]
    forget_fork_server()
    ask_instead(lambda: python(*modules)[-2])
    yield
    forget_fork_server()
    util.spawnv_passfds = spawn  # pyright: ignore[reportAttributeAccessIssue]


def forget_fork_server() -> None:
    """The next process needs another one. This one ends with the last of its own processes, for which nobody waits."""
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver  # pyright: ignore[reportAttributeAccessIssue]
    if server._forkserver_pid is not None:
        os.close(server._forkserver_alive_fd)
        server.__init__()


def ask_instead(address: Callable[[], str]) -> None:
    """Fork servers of this process are from now on started by the server at an address."""
    from multiprocessing import util

    spawn: Any = util.spawnv_passfds  # pyright: ignore[reportAttributeAccessIssue]

    def ask_or_spawn(path: bytes, arguments: list[str], passed: list[int]) -> int:
        if "multiprocessing.forkserver" not in arguments[-1]:
            return spawn(path, arguments, passed)
        return spawn(os.fsencode(PYTHON), [*client(address(), passed), *arguments[-2:]], passed)

    util.spawnv_passfds = ask_or_spawn  # pyright: ignore[reportAttributeAccessIssue]


def ask(address: str, numbers: str, *command: str) -> NoReturn:
    """The client: this process stands for the command."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        for number in SIGNALS:
            signal.signal(number, lambda number, _frame: connection.send(bytes([number])))
        streams = array.array("i", map(int, numbers.split(",")))
        request = json.dumps(
            {"command": command, "folder": os.getcwd(), "environment": dict(os.environ), "numbers": streams.tolist()}
        ).encode()
        connection.sendmsg([len(request).to_bytes(4)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        connection.sendall(request)
        for stream in streams[3:]:
            os.close(stream)
        status = int(connection.recv(16) or b"1")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(address: str, *modules: str) -> None:
    """The server: import, listen, and fork for each command, until the process that started it is gone."""
    ask_instead(lambda: address)
    for name in (
        "lampo.process",
        "torch",
        "lampo.train.command",
        "lampo.train.loop",
        "lampo.evaluation.command",
        "lampo.compare.command",
        *modules,
    ):
        importlib.import_module(name)

    gc.freeze()  # a fork that collects garbage would copy all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(address)
        listener.listen(16)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if listener not in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    watch(connection)


def watch(connection: socket.socket) -> None:
    """Fork once more for the command itself, pass the client's signals on, and tell the client how it ended."""
    header, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(4 * MOST_PASSED))
    if not ancillary:  # the client was killed before it asked
        return
    streams = array.array("i", ancillary[0][2])
    request = json.loads(connection.makefile("rb").read(int.from_bytes(header)))
    if (child := os.fork()) == 0:
        connection.close()
        numbers = request.pop("numbers")
        above = [fcntl.fcntl(stream, fcntl.F_DUPFD, ABOVE_ALL) for stream in streams]  # none is in the place of another
        for number, stream in zip(numbers, above, strict=True):
            os.dup2(stream, number)
        for stream in {*streams, *above} - {*numbers}:
            os.close(stream)
        run(**request)
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    connection.settimeout(0.02)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        try:
            told = connection.recv(1)
        except TimeoutError:
            continue
        os.kill(child, told[0] if told else signal.SIGKILL)  # without a word: the client was killed
    connection.settimeout(None)
    try:
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    finally:
        os._exit(0)


def run(command: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """This process as the command, to its end."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = environment.get(EXECUTABLE, sys.executable)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    status: Any = 0
    try:
        how, *arguments = command
        if how == "-m":
            sys.argv, sys.path[0] = arguments, folder
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        elif how == "-c":
            sys.argv, sys.path[0] = ["-c", *arguments[1:]], ""
            exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv, sys.path[0] = command, str(Path(how).parent)
            runpy.run_path(how, run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  what a process does at its end, but for clearing every module
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError) as error:  # as the interpreter tells of it
            status = 120
            with contextlib.suppress(OSError):
                os.write(2, f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}\n".encode())
    os._exit(status or 0)


if __name__ == "__main__":
    {"ask": ask, "serve": serve}[sys.argv[1]](*sys.argv[2:])
