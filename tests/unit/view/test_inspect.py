import gzip
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lampo.algo.advantages import pairwise_advantages
from lampo.cli import app
from lampo.evaluation.records import ProblemRecord, Records
from lampo.store.rollouts import entry, read_group, read_groups, read_index, shard_path, write_shard
from lampo.types import LampoError, Response, Verdict
from lampo.view.inspect.export import export
from lampo.view.inspect.server import ViewerServer
from lampo.view.inspect.source import open_source
from lampo.view.inspect.viewer_page import page

from ...helpers.recorded_groups import HOSTILE, group, groups_of, rollout


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "sums & more"
    (run / "rollouts").mkdir(parents=True)
    (run / "config.yaml").write_text("advantage: {name: pairwise, scale: group_std, temperature: 0.5}\n")
    for step in (1, 2, 3):
        write_shard(run, step, groups_of(step))
    return run


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "evaluation"
    for benchmark in ("aime24", "math500"):
        records = Records(folder / benchmark, {"model": "small"})
        for number in range(2):
            responses = (Response(HOSTILE, 7, True), Response("5", None, False))
            verdicts = (Verdict("right", "4", score=0.5), Verdict("unknown", detail="timed out"))
            records.add(ProblemRecord(f"{benchmark}/{number}", "2 + 2?", "4", responses, verdicts))
    return folder


# The index -----------------------------------------------------------------------------------------------------------


def listed(run: Path) -> dict[int, list]:
    return {step: entries for step, (_, entries) in read_index(run)[0].items()}


def expected(*steps: int) -> dict[int, list]:
    return {step: [entry(each) for each in groups_of(step)] for step in steps}


def test_an_entry_says_what_one_filters_by() -> None:
    mixed, hard = (entry(each) for each in groups_of(1))
    assert mixed.marks == ["mixed", "unknown", "cut"]
    assert (mixed.verdicts, mixed.reward, mixed.spread, mixed.advantage) == ("rwu", 0.5, 1.0, 2.0)
    assert hard.marks == ["wrong", "flat"]
    assert entry(group(1, "a", rollout("unknown", 0.0))).marks == ["unknown"]
    assert entry(group(1, "a", rollout("right", 0.0))).marks == ["right"]  # one alone has no spread, not a spread of 0


def test_training_writes_the_index_and_nothing_is_read_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lampo.store.rollouts.read_groups", None)
    assert listed(run) == expected(1, 2, 3)


def test_a_run_of_an_older_version_is_indexed_once(run: Path) -> None:
    index = run / "rollouts" / "index.jsonl"
    index.unlink()
    for step in (1, 2, 3):
        old = [each | {"rollouts": [without_tokens(one) for one in each["rollouts"]]} for each in groups_of(step)]
        shard_path(run, step).write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in old).encode()))
    told: list[int] = []
    assert {step: entries for step, (_, entries) in read_index(run, tell=told.append)[0].items()} == expected(1, 2, 3)
    assert listed(run) == expected(1, 2, 3)
    read_index(run, tell=told.append)
    assert told == [3]
    assert open_source(run).group("2", 1)["rollouts"][0]["pieces"] is None


def without_tokens(rollout: dict) -> dict:
    return {key: value for key, value in rollout.items() if key not in ("pieces", "logprobs")}


def test_a_resumed_run_is_listed_as_it_was_done_last(run: Path) -> None:
    shard_path(run, 3).unlink()
    assert listed(run) == expected(1, 2)
    again = [group(3, "again", rollout("right", -0.1))]
    write_shard(run, 3, again)
    assert listed(run) == expected(1, 2) | {3: [entry(again[0])]}


@pytest.mark.parametrize("torn", [b'\n{"step": 4, "gro', b"\n[1]", b"\nnull", b'\n{"step": 3, "groups": [{"id": 1}]}'])
def test_a_torn_line_of_the_index_harms_no_other(run: Path, torn: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with (run / "rollouts" / "index.jsonl").open("ab") as stream:
        stream.write(torn)
    write_shard(run, 4, groups_of(4))
    monkeypatch.setattr("lampo.store.rollouts.read_groups", None)
    assert listed(run) == expected(1, 2, 3, 4)


def test_what_is_known_is_taken_over_and_what_changed_is_not(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, _ = read_index(run)
    monkeypatch.setattr("lampo.store.rollouts._index_lines", None)
    again, _ = read_index(run, known)
    assert again[1][1] is known[1][1]
    monkeypatch.undo()
    write_shard(run, 1, groups_of(7))
    again, _ = read_index(run, known)
    assert again[1][1] == expected(7)[7]
    assert again[2][1] is known[2][1]


def test_a_damaged_shard_is_a_complaint_and_the_others_are_shown(run: Path) -> None:
    shard_path(run, 2).write_bytes(shard_path(run, 2).read_bytes()[:-20])
    shard_path(run, 3).write_bytes(gzip.compress(b'{"no": "group"}\n'))
    found, complaints = read_index(run)
    assert list(found) == [1]
    assert [re.sub(r".*/rollouts/", "", complaint) for complaint in complaints] == [
        "000002.jsonl.gz cannot be read (Compressed file ended before the end-of-stream marker was reached): "
        "it was probably cut short; delete it",
        "000003.jsonl.gz does not hold the groups of a training step",
    ]
    with pytest.raises(LampoError, match="no group 0 in step 2"):
        open_source(run).group("2", 0)


def test_a_run_that_may_only_be_read_opens(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "rollouts" / "index.jsonl").unlink()
    (run / "rollouts" / "index.jsonl").mkdir()  # nothing can be appended to it
    assert listed(run) == expected(1, 2, 3)


def test_one_group_is_read_without_the_others(run: Path) -> None:
    assert read_group(run, 2, 1) == groups_of(2)[1] == read_groups(run, 2)[1]
    with pytest.raises(LampoError, match="no group 2"):
        read_group(run, 2, 2)


# The server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(request: pytest.FixtureRequest) -> Iterator[Any]:
    folder = request.getfixturevalue(getattr(request, "param", "run"))
    with ViewerServer(open_source(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def get(path: str, host: str | None = None, method: str = "GET") -> tuple[int, str, dict[str, str]]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
            connection.request(method, path, headers={} if host is None else {"Host": host})
            answer = connection.getresponse()
            try:
                return answer.status, answer.read().decode(), dict(answer.getheaders())
            finally:
                connection.close()

        yield get
        server.shutdown()
        thread.join()


def told(ask: Any, path: str) -> Any:
    status, body, _ = ask(path)
    assert status == 200, body
    return json.loads(body)


def test_the_server_lists_groups_and_shows_them(ask: Any) -> None:
    first = told(ask, "/api/group?place=2&number=0")  # even before the index was asked for
    index = told(ask, "/api/index")
    assert (index["title"], index["kind"], index["places"], index["complaints"]) == (
        "sums & more",
        "run",
        ["1", "2", "3"],
        [],
    )
    assert [(line["place"], line["number"], line["id"]) for line in index["groups"][:3]] == [
        ("1", 0, "mixed-1"),
        ("1", 1, "hard-1"),
        ("2", 0, "mixed-2"),
    ]
    assert [line["id"] for line in index["groups"] if "wrong" in line["marks"]] == ["hard-1", "hard-2", "hard-3"]
    assert first["problem"]["id"] == "mixed-2"
    assert first["rollouts"][0]["text"] == HOSTILE
    assert first["rollouts"][0]["pieces"] == [HOSTILE[:9], HOSTILE[9:]]
    assert first["rollouts"][0]["logprobs"] == [-0.125, -2.0]


def test_the_server_compares_with_the_options_of_the_run(ask: Any) -> None:
    found = told(ask, "/api/pairs?place=1&number=0")
    assert (found["options"]["scale"], found["options"]["temperature"], found["temperature"]) == ("group_std", 0.5, 0.5)
    rewards_G, scores_G = torch.tensor([1.0, 0.0]), torch.tensor([-0.1, -0.9])
    advantages_G = pairwise_advantages(
        rewards_G, scores_G, torch.zeros(2, dtype=torch.int64), scale="group_std", temperature=0.5
    )
    assert found["pairwise_G"] == [*advantages_G.tolist(), 0.0]


def test_new_steps_appear_while_training_goes_on(ask: Any, run: Path) -> None:
    assert len(told(ask, "/api/index")["groups"]) == 6
    write_shard(run, 4, groups_of(4))
    assert len(told(ask, "/api/index")["groups"]) == 8
    assert told(ask, "/api/group?place=4&number=0")["problem"]["id"] == "mixed-4"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@evil", "[::1]"]
)
def test_a_foreign_host_is_refused(ask: Any, host: str) -> None:
    for path in ("/", "/api/index", "/api/group?place=1&number=0"):
        status, body, _ = ask(path, host)
        assert status == 403
        assert "mixed" not in body


def test_its_own_names_are_accepted_through_any_port(ask: Any) -> None:
    assert ask("/", "localhost:9000")[0] == ask("/api/index", "127.0.0.1")[0] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/config.yaml", 404),
        ("/../config.yaml", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("//etc/passwd", 404),
        ("/api/group?place=../../etc&number=0", 404),
        ("/api/group?place=1%2F..%2F2&number=0", 404),
        ("/api/group?place=1&number=-1", 404),
        ("/api/group?place=1&number=99", 404),
        ("/api/group?place=%C2%B2&number=0", 404),
        ("/api/group?place=1&number=../1", 400),
        ("/api/group?place=1", 404),
        ("/api/", 404),
    ],
)
def test_paths_that_lead_elsewhere_lead_nowhere(ask: Any, path: str, status: int) -> None:
    assert ask(path)[0] == status


def test_nothing_can_be_posted(ask: Any) -> None:
    assert ask("/api/index", method="POST")[0] == 501


def test_a_port_that_is_taken_is_said(run: Path) -> None:
    with ViewerServer(open_source(run)) as server, pytest.raises(LampoError, match="Leave --port out"):
        ViewerServer(open_source(run), server.server_address[1])


# The page ------------------------------------------------------------------------------------------------------------


def test_a_browser_that_went_away_is_no_news(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ViewerServer(open_source(run)) as server:
        for error, said in ((BrokenPipeError(), False), (ConnectionResetError(), False), (ValueError("ours"), True)):
            try:
                raise error
            except OSError:
                server.handle_error(None, ("127.0.0.1", 1))
            except ValueError:
                server.handle_error(None, ("127.0.0.1", 1))
            assert bool(capfd.readouterr().err) == said


def test_the_page_runs_its_own_script_and_no_other(ask: Any) -> None:
    status, body, headers = ask("/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", body)
    assert not re.search(r"\sstyle=|\son\w+=", body)
    assert "innerHTML" not in body
    assert "insertAdjacentHTML" not in body


def test_an_export_holds_the_most_telling_groups_and_no_markup_of_theirs(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mail.html"
    assert export(open_source(run), file, groups=3) == 3
    text = file.read_text()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 2  # the data and ours
    assert text.count("<script") == 2
    data = json.loads(scripts[0])
    assert list(data["groups"]) == ["1/0", "2/0", "3/0"]
    assert data["groups"]["2/0"]["group"]["rollouts"][0]["text"] == HOSTILE
    assert data["groups"]["2/0"]["pairs"] == told_by(run, "2", 0)
    assert data["index"]["excerpt"] == {"shown": 3, "of": 6}
    assert "Content-Security-Policy" in text
    assert not re.search(r"https?://", text)


def told_by(run: Path, place: str, number: int) -> Any:
    from lampo.view.inspect.server import group_pairs

    return group_pairs(open_source(run), place, number)


def test_an_export_of_a_step(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "step.html"
    assert export(open_source(run), file, step=2) == 2
    assert '"2/1"' in file.read_text()
    assert '"1/0"' not in file.read_text()
    with pytest.raises(LampoError, match="no groups of step 9"):
        export(open_source(run), file, step=9)


@pytest.mark.parametrize(
    ("loss", "clip"),
    [
        ("{surrogate: token, clip_low: 0.2, clip_high: 0.28}", [0.8, 1.28]),
        ("{surrogate: sequence, clip_low: 3.0e-4, clip_high: 4.0e-4}", None),  # no token's ratio is clipped
        ("7", None),
    ],
)
def test_the_index_says_where_ratios_of_tokens_are_clipped(run: Path, loss: str, clip: list[float] | None) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(f"loss: {loss}\n")
    assert open_source(run).index()["clip"] == clip


def test_the_hashes_are_those_of_the_page() -> None:
    import base64
    import hashlib

    text = page({"a": 1})
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text


# Evaluations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["evaluation"], indirect=True)
def test_an_evaluation_shows_verdicts_and_texts_and_no_pairs(ask: Any) -> None:
    index = told(ask, "/api/index")
    assert (index["kind"], index["places"], index["advantage"]) == ("evaluation", ["aime24", "math500"], None)
    assert [line["id"] for line in index["groups"]] == ["aime24/0", "aime24/1", "math500/0", "math500/1"]
    assert index["groups"][0]["marks"] == ["right", "unknown", "cut"]
    found = told(ask, "/api/group?place=math500&number=1")
    assert found["problem"]["id"] == "math500/1"
    assert [each["status"] for each in found["rollouts"]] == ["right", "unknown"]
    assert found["rollouts"][0]["text"] == HOSTILE
    assert found["rollouts"][1]["detail"] == "timed out"
    assert told(ask, "/api/pairs?place=math500&number=1") is None
    assert ask("/api/group?place=..&number=0")[0] == 404


def test_one_benchmark_alone_and_its_export(evaluation: Path, tmp_path: Path) -> None:
    source = open_source(evaluation / "aime24")
    assert source.index()["places"] == ["aime24"]
    assert export(source, tmp_path / "file.html") == 2


def test_a_record_that_is_being_written_is_left_out_and_a_damaged_one_is_said(evaluation: Path) -> None:
    file = evaluation / "aime24" / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + '{"id": 3}\n' + lines[1] + lines[1][:30])
    source = open_source(evaluation)
    index = source.index()
    assert [line["id"] for line in index["groups"] if line["place"] == "aime24"] == ["aime24/0", "aime24/1"]
    assert "records.jsonl, line 2: not a record" in index["complaints"][0]
    assert source.group("aime24", 1)["problem"]["id"] == "aime24/1"


def test_a_folder_of_something_else_is_refused(tmp_path: Path, run: Path) -> None:
    for folder in (tmp_path / "nowhere", run.parent):
        with pytest.raises(LampoError, match="neither a run directory"):
            open_source(folder)
    shutil.rmtree(run / "rollouts")
    (run / "rollouts").mkdir()
    assert open_source(run).index()["groups"] == []


# The command ---------------------------------------------------------------------------------------------------------


def test_what_is_slow_to_import_is_not_imported_to_open_a_run() -> None:
    check = (
        "import sys, lampo.cli, lampo.view.inspect.server, lampo.view.inspect.source, lampo.view.inspect.export; "
        "print({'torch', 'transformers', 'scipy', 'plotly'} & sys.modules.keys())"
    )
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout == "set()\n"


def test_the_command_exports_and_says_what_is_wrong(run: Path, tmp_path: Path) -> None:
    arguments = ["inspect", str(run), "--export", str(tmp_path / "a.html"), "--groups", "2"]
    answer = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert answer.output == f"2 groups in {tmp_path / 'a.html'}\n"
    with pytest.raises(LampoError, match="neither a run directory"):
        CliRunner().invoke(app, ["inspect", str(tmp_path)], catch_exceptions=False)


def test_the_command_serves_until_ctrl_c(run: Path) -> None:
    command = [sys.executable, "-m", "lampo", "inspect", str(run), "--no-browser", "--step", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+/)#2/0", line)
        assert found is not None, line
        with urllib.request.urlopen(found[1] + "api/index") as answer:
            assert len(json.load(answer)["groups"]) == 6
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == ""
