import gzip
import http.client
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

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


def deep(depth: int) -> bytes:
    return b'{"problem": ' + b"[" * depth + b"]" * depth + b', "rollouts": []}\n'


UNSHARDED = {
    "a folder": ("it is a folder", lambda path: path.mkdir()),
    "a dangling link": ("it is a link to nowhere, which is not there", lambda path: path.symlink_to("nowhere")),
    "a link to itself": ("Too many levels of symbolic links", lambda path: path.symlink_to(path)),
    "a pipe": ("it is no file", lambda path: os.mkfifo(path)),
    "nested deeply": ("nested too deeply", lambda path: path.write_bytes(gzip.compress(deep(100_000)))),
    "no group": ("does not hold the groups", lambda path: path.write_bytes(gzip.compress(deep(3)))),
    "an endless number": (
        "does not hold the groups of a training step (int too large to convert to float)",
        lambda path: path.write_bytes(
            gzip.compress(json.dumps(group(4, "huge", rollout("right", 0.0) | {"total": 10**400})).encode())
        ),
    ),
    "another verdict": (
        "does not hold the groups",
        lambda path: path.write_bytes(
            gzip.compress(json.dumps(group(4, "odd", rollout("right", 0.0) | {"status": ""})).encode())
        ),
    ),
    "not packed": ("probably cut short", lambda path: path.write_bytes(b"plain")),
}


@pytest.mark.parametrize("kind", UNSHARDED)
def test_whatever_a_shard_is_the_others_are_shown(run: Path, tmp_path: Path, kind: str) -> None:
    said, make = UNSHARDED[kind]
    make(shard_path(run, 4))
    assert list(listed(run)) == [1, 2, 3]
    source = open_source(run)
    for _ in range(2):  # when it is asked again too
        (complaint,) = source.index()["complaints"]
        assert complaint.startswith(str(shard_path(run, 4)))
        assert said in complaint
    assert export(source, tmp_path / "page.html") == 6


@pytest.mark.parametrize(
    "config",
    [
        "a: &a [1, 1]\nadvantage: {name: *a}\n",
        "advantage: " + "[" * 400,
        "advantage: !!int foo\n",
        "7",
        "\0",
        "a: 2024-99-99",
    ],
)
def test_whatever_the_settings_are_the_rollouts_are_shown(run: Path, config: str) -> None:
    (run / "config.yaml").write_text(config)
    index = open_source(run).index()
    assert (len(index["groups"]), index["advantage"]) == (6, {})


def test_a_run_that_may_only_be_read_opens(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "rollouts" / "index.jsonl").unlink()
    (run / "rollouts" / "index.jsonl").mkdir()  # nothing can be appended to it
    assert listed(run) == expected(1, 2, 3)


def test_one_group_is_read_without_the_others(run: Path) -> None:
    assert read_group(run, 2, 1) == groups_of(2)[1] == read_groups(run, 2)[1]
    with pytest.raises(LampoError, match="no group 2"):
        read_group(run, 2, 2)


# The server ----------------------------------------------------------------------------------------------------------


Answer = tuple[int, str, dict[str, str]]


def ask_server(server: ViewerServer, path: str, host: str | None, method: str, token: str | None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    headers = ({} if host is None else {"Host": host}) | ({} if token is None else {"Authorization": f"token {token}"})
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


@pytest.fixture
def ask(request: pytest.FixtureRequest) -> Iterator[Any]:
    folder = request.getfixturevalue(getattr(request, "param", "run"))
    with ViewerServer(open_source(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def get(path: str, host: str | None = None, method: str = "GET", *, token: str | None = server.token) -> Answer:
            return ask_server(server, path, host, method, token)

        get.server = server  # pyright: ignore[reportFunctionMemberAccess]
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


def test_without_the_token_nothing_is_told(ask: Any) -> None:
    for path in ("/", "/api/index", "/api/group?place=1&number=0", "/api/pairs?place=1&number=0", "/config.yaml"):
        for token in (None, "", "wrong", ask.server.token[:-1], "\u00e9"):
            with_header = ask(path, token=None if token == "\u00e9" else token)
            with_query = ask(f"{path}{'&' if '?' in path else '?'}token={quote(token or '')}", token=None)
            for status, body, _ in (with_header, with_query):
                assert (status, "mixed" in body) == (403, False)
                assert "Open the one that lampo inspect printed" in body
    assert ask(f"/?token={ask.server.token}", token=None)[0] == 200
    assert ask(f"/api/index?token={ask.server.token}", token=None)[0] == 200


def test_the_address_that_a_browser_is_given_leads_to_the_page_once(ask: Any) -> None:
    path = ask.server.url_for_once().removeprefix(ask.server.address.rstrip("/"))
    assert ask.server.token not in path
    assert ask("/open/None", token=None)[0] == 403
    status, _, headers = ask(path, token=None)
    assert (status, headers["Location"]) == (302, f"/?token={ask.server.token}")
    assert ask(path, token=None)[0] == 403


@pytest.mark.parametrize(
    "address", ["http://[", "http://[::1", "//[", "/api/index?%", "http://127.0.0.1/x", "\xff", "*"]
)
def test_an_address_that_is_none_is_no_traceback(ask: Any, address: str, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", ask.server.server_address[1]), timeout=20) as connection:
        connection.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1"))
        assert re.match(rb"HTTP/1.0 (400|403) ", connection.recv(100))
    assert told(ask, "/api/index")["title"] == "sums & more"
    assert capfd.readouterr().err == ""


def test_the_index_is_made_once_for_all_who_ask(
    ask: Any, run: Path, evaluation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = ask.server.source.index

    def index(*_: Any) -> Any:
        made.append(1)
        time.sleep(0.1)
        return original()

    monkeypatch.setattr(ask.server.source, "index", index)
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: ask("/api/index"), range(60)))
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, body, _ in answers}) == len(made) == 1
    write_shard(run, 4, groups_of(4))
    assert len(told(ask, "/api/index")["groups"]) == 8
    (run / "config.yaml").write_text("advantage: {name: grpo}\n")
    assert told(ask, "/api/index")["advantage"] == {"name": "grpo"}
    assert len(made) == 3
    source = open_source(evaluation)
    assert source.stamp() == source.stamp()
    records = evaluation / "aime24" / "records.jsonl"
    before = source.stamp()
    records.write_text(records.read_text() * 2)
    assert source.stamp() != before


def test_a_group_that_cannot_be_shown_costs_no_other(ask: Any, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    huge, textless = rollout("right", 10**400), rollout("right", -0.1)  # pyright: ignore[reportArgumentType]
    del textless["text"]
    nan = rollout("wrong", math.nan, logprobs=[math.nan, math.inf])
    write_shard(run, 9, [group(9, "textless", textless), group(9, "huge", huge, nan), *groups_of(9)])
    assert len([line for line in told(ask, "/api/index")["groups"] if line["place"] == "9"]) == 4
    assert ask("/api/group?place=9&number=0")[:2] == (500, "This group cannot be shown (KeyError: 'text').")
    status, body, _ = ask("/api/pairs?place=9&number=1")
    assert (status, "cannot be shown" in body) == (500, True)
    assert told(ask, "/api/group?place=9&number=1")["rollouts"][1]["logprobs"] == [
        None,
        None,
    ]  # not NaN: a browser refuses it
    assert told(ask, "/api/group?place=9&number=2")["problem"]["id"] == "mixed-9"
    assert capfd.readouterr().err == ""


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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[" * 100_000 + b"\n", "line 3: not a record (maximum recursion depth exceeded"),
        (b'{"responses": [{"status": []}], "id": 1}\n', "line 3: not a record (unhashable"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_whatever_a_record_is_the_others_are_shown(evaluation: Path, line: bytes | None, said: str) -> None:
    file = evaluation / "aime24" / "records.jsonl"
    if line is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(file.read_bytes() + line)
    source = open_source(evaluation)
    for _ in range(2):
        index = source.index()
        (complaint,) = index["complaints"]
        assert said in complaint
        assert len(index["groups"]) == (2 if line is None else 4)


def test_a_record_that_has_changed_under_the_viewer_is_said(evaluation: Path) -> None:
    source = open_source(evaluation)
    source.index()
    (evaluation / "aime24" / "records.jsonl").write_text("{\n" * 50)
    with pytest.raises(LampoError, match="was changed and cannot be read"):
        source.group("aime24", 1)


def test_a_folder_of_something_else_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(LampoError, match="There is no .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(LampoError, match="neither a run directory"):
        open_source(run.parent)
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
        try:
            line = process.stdout.readline()
            found = re.search(r"(http://127\.0\.0\.1:\d+/)(\?token=\S+)#2/0", line)
            assert found is not None, line
            with urllib.request.urlopen(f"{found[1]}api/index{found[2]}", timeout=60) as answer:
                assert len(json.load(answer)["groups"]) == 6
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()
