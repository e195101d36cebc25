import errno
import io
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TextIO, cast

import pytest

from lampo.view.output import Unfailing, say, unfailing_output


class Failing(io.StringIO):
    """Takes nothing while `broken`."""

    broken: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        if self.broken is not None:
            raise self.broken
        return super().write(text)


@pytest.mark.parametrize(
    "error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), ValueError("closed"), OSError(5, "EIO")]
)
def test_a_write_that_fails_is_dropped_told_once_and_tried_again(error: OSError | ValueError) -> None:
    stream, told = Failing(), io.StringIO()
    output = Unfailing(cast("TextIO", stream), tell=told)
    print("one", file=output)
    stream.broken = error
    print("two", file=output)
    print("three", file=output, flush=True)
    stream.broken = None  # a disk that has room again
    print("four", file=output)
    assert stream.getvalue() == "one\nfour\n"
    assert told.getvalue().count("The output cannot be written") == 1
    assert output.failure is error


def test_standard_output_is_put_back_and_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, errors = Failing(), io.StringIO()
    stream.broken = BrokenPipeError(errno.EPIPE, "Broken pipe")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", errors)
    with pytest.raises(KeyError), unfailing_output():
        _print_and_raise()
    assert sys.stdout is stream
    assert errors.getvalue() == "The output cannot be written (Broken pipe). The work goes on without it.\n"


@pytest.mark.parametrize("lost_before", [True, False])
def test_a_last_word_is_not_lost_with_standard_output(lost_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where it is itself the first that standard output does not take, either."""
    stream, errors = Failing(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", errors)
    with unfailing_output():
        say("whole")
        stream.broken = BrokenPipeError(errno.EPIPE, "Broken pipe")
        if lost_before:
            print("lost", flush=True)
        say("Go on with: lampo train runs/x --resume")
    assert stream.getvalue() == "whole\n"
    assert errors.getvalue().endswith("without it.\nGo on with: lampo train runs/x --resume\n")


def test_characters_that_the_terminal_lacks_are_written_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with unfailing_output():
        print("π \ud83d")
    assert raw.getvalue() == b"\\u03c0 \\ud83d\n"


NUMBERED = """
import sys
from lampo.view.output import unfailing_output
with unfailing_output(), open(sys.argv[1], "w") as file:
    print(file.fileno(), file=file)
"""


def test_no_file_gets_the_number_of_a_stream_that_was_closed(tmp_path: Path) -> None:
    # libraries print to the numbers 1 and 2, and a signal is told of there
    program = shlex.join([sys.executable, "-c", NUMBERED, str(tmp_path / "file")])
    subprocess.run(f"{program} <&- >&- 2>&-", shell=True, check=True)
    assert int((tmp_path / "file").read_text()) > 2


def _print_and_raise() -> None:
    print("lost")
    assert cast("Unfailing", sys.stdout).failure is not None
    raise KeyError
