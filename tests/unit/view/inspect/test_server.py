"""What the server answers, to whom, and that nothing ends it."""

import math
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch

from lampo.algo.advantages import pairwise_advantages
from lampo.store.rollouts import write_shard
from lampo.types import LampoError
from lampo.view.inspect.server import ViewerServer
from lampo.view.inspect.source import open_source

from ....helpers.recorded_groups import HOSTILE, group, groups_of, rollout
from ....helpers.viewer_client import told


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


def test_a_burst_of_requests_waits_in_line(run: Path) -> None:
    with ViewerServer(open_source(run)) as server, ExitStack() as stack:  # which answers none of them yet
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=2))


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
