import io

import pytest
from rich.console import Console

from lampo.store.metrics import SummaryRow
from lampo.view.console import Progress, final_table

ROWS = [SummaryRow("held-out accuracy", "25.0 % [20.0, 30.0]", "75.0 % [70.0, 80.0]", "+50.0 points")]
RECORD = {
    "stage": "train",
    "reward/total": 0.5,
    "rollouts/right": 0.25,
    "loss/value": 0.125,
    "time/tokens_per_s": 4321.0,
}
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, _environ={"TERM": "xterm"})


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_lines_have_no_control_codes_and_are_not_wrapped():
    plain = console(terminal=False)
    with Progress("sums [bold]", console=plain) as progress:
        progress.stage("training", 40)
        progress.evaluation({"step": 0, "evaluation/accuracy": 0.25, "evaluation/low": 0.2, "evaluation/high": 0.3})
        for step in range(1, 41):
            progress.tokens(1200)
            progress.step(step, RECORD)
        progress.note("x" * 300)
    final_table(ROWS, console=plain)
    text = output(plain)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "[0:00:00] sums [bold]"
    assert lines[1] == "[0:00:00] held-out accuracy after step 0: 25.0 % [20.0, 30.0]"
    assert lines[2].startswith(
        "[0:00:00] training 1/40  reward 0.500  right 0.250  tokens/s 4,321  held-out 25.0 %  left"
    )
    steps = [int(line.split()[2].split("/")[0]) for line in lines if " training " in line]
    assert steps == [1, *range(2, 41, 2)]  # the first, and every twentieth of 40
    assert "[0:00:00] " + "x" * 300 in lines
    assert lines[-1].split("  ")[0] == "held-out accuracy"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_note_steers_no_terminal(terminal: bool):
    shown = console(terminal)
    with Progress("sums", console=shown) as progress:
        progress.note("[/red] \x1b[2J \u202e \ud83d")
    assert r"[/red] \x1b[2J \u202e \ud83d" in output(shown)


def test_unknown_rollouts_are_shown_where_there_are_some():
    plain = console(terminal=False)
    with Progress("sums", console=plain) as progress:
        for unknown in (0.0, 0.25):
            progress.stage("training", 1)
            progress.step(1, RECORD | {"rollouts/unknown": unknown})
    told = [line.partition("unknown")[2].split("  ")[0] for line in output(plain).splitlines()[1:]]
    assert told == ["", " 25%"]


def test_a_slow_stage_makes_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    plain = console(terminal=False)
    with Progress("slow", console=plain) as progress:
        progress.stage("training", 1000)
        for step in range(1, 8):
            now[0] += 10.0
            progress.step(step, RECORD)
    lines = [line for line in output(plain).splitlines() if " training " in line]
    assert [line.split()[2] for line in lines] == ["1/1000", "4/1000", "7/1000"]
    assert lines[-1].startswith("[0:01:10]")
    assert lines[-1].endswith("left 2:45:30")  # (1000 - 7) steps of 10 s


def test_a_resumed_stage_judges_the_time_left_by_the_steps_it_did(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    plain = console(terminal=False)
    with Progress("resumed", console=plain) as progress:
        progress.stage("training", 100)
        now[0] = 5.0
        progress.step(91, RECORD)
    assert output(plain).splitlines()[-1].endswith("left 0:00:45")  # 9 steps of 5 s


def test_stages_start_over_and_the_warm_start_shows_its_loss():
    plain = console(terminal=False)
    with Progress("staged", console=plain) as progress:
        progress.stage("training", 2)
        progress.stage("warm start", total=1)
        progress.step(1, {"stage": "warmstart", "loss/value": 1.5})
        progress.stage("training", total=2)
        progress.step(1, RECORD)
    lines = output(plain).splitlines()
    assert lines[1] == "[0:00:00] warm start 1/1  loss 1.5000"
    assert lines[2].startswith("[0:00:00] training 1/2  reward 0.500")
    assert "loss" not in lines[2]


def test_the_live_panel_shows_the_last_state_and_gives_the_cursor_back():
    terminal = console(terminal=True)
    with Progress("sums", console=terminal) as progress:
        progress.stage("training", 10)
        progress.evaluation({"step": 0, "evaluation/accuracy": 0.25})
        progress.tokens(1200)
        progress.step(7, RECORD)
        progress.evaluation({"step": 7, "evaluation/accuracy": 0.5})
    text = output(terminal)
    assert "held-out accuracy after step 0: 25.0 %" in text
    assert "50.0 % (was 25.0 %)" in text
    assert "7/10" in text
    assert text.index(HIDE_CURSOR) < text.rindex(SHOW_CURSOR)
    assert HIDE_CURSOR not in text[text.rindex(SHOW_CURSOR) :]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_passes_through_and_the_terminal_is_given_back(error: type[BaseException]):
    terminal = console(terminal=True)

    def stopped_in_the_middle() -> None:
        with Progress("sums", console=terminal) as progress:
            progress.stage("training", 10)
            progress.step(1, RECORD)
            raise error

    with pytest.raises(error):
        stopped_in_the_middle()
    assert output(terminal).rstrip().endswith(SHOW_CURSOR)


def test_the_final_table_is_followed_by_what_to_do_next():
    long = f"/a/{'long/' * 40}report.html"  # longer than any terminal, and copied whole all the same
    for terminal in (True, False):
        target = console(terminal)
        final_table(ROWS, [("report", long), ("train on", "lampo train runs/x --resume")], console=target)
        text = output(target)
        assert "75.0 % [70.0, 80.0]" in text
        assert text.splitlines()[-2:] == [f"report:   {long}", "train on: lampo train runs/x --resume"]
    target = console(terminal=False)
    final_table(ROWS, [("report", "x")], "Nothing was trained.", console=target)
    assert output(target).splitlines()[-2:] == ["Nothing was trained.", "report: x"]
    empty = console(terminal=False)
    final_table([], console=empty)
    assert output(empty) == ""


def test_a_slow_step_tells_what_it_does_every_half_minute(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    plain = console(terminal=False)
    with Progress("slow", console=plain) as progress:
        progress.stage("evaluation", 1)
        for count in range(1, 8):
            now[0] += 10.0
            progress.tokens(1000 * count)
    lines = [line for line in output(plain).splitlines() if "sampled" in line]
    assert lines == ["[0:00:30] evaluation: sampled 3,000 tokens", "[0:01:00] evaluation: sampled 6,000 tokens"]
