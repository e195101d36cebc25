"""The endpoint backend against a local server that misbehaves."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lampo.evaluation.records import ProblemRecord, Records, read_records
from lampo.evaluation.respond import Asked, Failed
from lampo.evaluation.respond.endpoint import EndpointResponder
from lampo.types import LampoError, Problem, Response, Verdict

pytest.importorskip("openai")


def completion(text: str | None, finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    ).encode()


class Server:
    """Answers as a plan says: by the text that is asked and the number of the attempt."""

    def __init__(self, plan: Callable[[str, int], Any]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self._attempts: Counter[str] = Counter()
        self._lock, self._now = threading.Lock(), 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                with outer._lock:
                    outer.requests.append(body)
                    outer.times.append(time.monotonic())
                    outer._now += 1
                    outer.most_at_once = max(outer.most_at_once, outer._now)
                    key = f"{text} {body['seed']}"
                    outer._attempts[key] += 1
                    attempt = outer._attempts[key]
                try:
                    self.answer(plan(text, attempt))
                except OSError:
                    pass  # the client has left
                finally:
                    with outer._lock:
                        outer._now -= 1

            def answer(self, what: Any) -> None:
                match what:
                    case bytes():
                        self.reply(200, what)
                    case int():
                        self.reply(what, b'{"error": {"message": "planned"}}')
                    case (int(status), str(after)):
                        self.reply(status, b"{}", {"Retry-After": after})
                    case ("hang", float(seconds)):
                        time.sleep(seconds)
                        self.reply(200, completion("late"))
                    case "cut":
                        self.send_response(200)
                        self.send_header("Content-Length", "1000")
                        self.end_headers()
                        self.wfile.write(b'{"id":')
                        self.close_connection = True
                    case "drop":
                        self.close_connection = True
                    case _:
                        raise AssertionError(what)

            def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, int], Any]], Server]]:
    servers: list[Server] = []

    def start(plan: Callable[[str, int], Any]) -> Server:
        servers.append(Server(plan))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(server: Server, texts: list[str], samples: int = 1, **options: Any) -> dict[str, list[Response] | Failed]:
    values: dict[str, Any] = {"temperature": 0.6, "max_new_tokens": 50, "timeout_s": 5.0, "retries": 3} | options
    responder = EndpointResponder(server.url, "model", **values)
    asked = [Asked(Problem(text, text, ""), text, seed) for seed, text in enumerate(texts)]
    return {each.text: responses for each, responses in responder.respond(asked, samples)}


def texts_of(answer: list[Response] | Failed) -> list[str]:
    assert not isinstance(answer, Failed), answer
    return [response.text for response in answer]


def test_what_is_asked_and_what_comes_back(serve: Any) -> None:
    server = serve(lambda text, _: completion(f"{text}!", "length" if text == "b" else "stop"))
    answers = ask(server, ["a", "b"], samples=2, system="Be brief.")
    assert answers == {"a": [Response("a!", 3, True)] * 2, "b": [Response("b!", 3, False)] * 2}
    request = server.requests[0]
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("model", 0.6, 50)
    assert len({(each["messages"][1]["content"], each["seed"]) for each in server.requests}) == 4


def test_a_thought_is_put_back(serve: Any) -> None:
    plans = {
        "a": completion("4", reasoning_content="2+2"),
        "b": completion("4", reasoning="2+2"),
        "c": completion(None),
    }
    answers = ask(serve(lambda text, _: plans[text]), ["a", "b", "c"])
    assert [texts_of(answers[text]) for text in "abc"] == [["<think>2+2</think>4"], ["<think>2+2</think>4"], [""]]


@pytest.mark.parametrize(
    "trouble",
    [429, (429, "0.2"), 500, 503, "cut", "drop", b"not json", b"{}", b'{"choices": [], "usage": null}', ("hang", 2.0)],
    ids=str,
)
def test_trouble_for_a_while_is_overcome(serve: Any, trouble: Any) -> None:
    server = serve(lambda text, attempt: trouble if text == "b" and attempt <= 2 else completion(f"{text}!"))
    answers = ask(server, ["a", "b", "c"], timeout_s=1.0)
    assert {text: texts_of(answer) for text, answer in answers.items()} == {"a": ["a!"], "b": ["b!"], "c": ["c!"]}


def test_the_pause_that_the_server_asks_for_is_kept(serve: Any) -> None:
    server = serve(lambda _, attempt: (429, "1") if attempt == 1 else completion("ok"))
    assert texts_of(ask(server, ["a"])["a"]) == ["ok"]
    assert server.times[1] - server.times[0] >= 0.9


def test_trouble_that_lasts_fails_its_problem_and_no_other(serve: Any) -> None:
    server = serve(lambda text, _: 500 if text == "b" else completion(f"{text}!"))
    answers = ask(server, ["a", "b", "c"], retries=1)
    assert isinstance(answers["b"], Failed)
    assert "500" in answers["b"].reason
    assert texts_of(answers["a"]) == ["a!"]
    refused = ask(serve(lambda *_: 401), ["a"])["a"]
    assert isinstance(refused, Failed)
    assert "Authentication" in refused.reason


def test_no_server_at_all(serve: Any) -> None:
    server = serve(lambda *_: completion(""))
    server.close()
    (answer,) = ask(server, ["a"], retries=0).values()
    assert isinstance(answer, Failed)


@pytest.mark.parametrize(
    "url", ["http://localhost:80x/v1", "http://localhost:99999/v1", "http://", "https://[::1/v1", "http://a\x00b/v1"]
)
def test_a_url_that_is_none_is_refused_before_the_first_request(url: str) -> None:
    with pytest.raises(LampoError, match=r"is no URL of a server\. It is like http"):
        EndpointResponder(url, "m", temperature=1.0, max_new_tokens=5)


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "https://example.org/v1", "http://[::1]:8000/v1"])
def test_a_url_with_or_without_a_port_is_taken(url: str) -> None:
    EndpointResponder(url, "m", temperature=1.0, max_new_tokens=5)


def test_half_a_surrogate_pair_is_written_down_and_read_back(serve: Any, tmp_path: Path) -> None:
    text = "half \ud83d, a backslash \\\udc00 and 42"
    (responses,) = ask(serve(lambda *_: completion(text)), ["a"]).values()
    assert texts_of(responses) == [text]
    assert not isinstance(responses, Failed)
    record = ProblemRecord("1", "a \udfff", "42", tuple(responses), (Verdict("right", "42"),))
    Records(tmp_path, {}).add(record)
    assert list(read_records(tmp_path)) == [record] == list(Records(tmp_path, {}).done.values())


def test_never_more_at_once_than_allowed(serve: Any) -> None:
    def slowly(text: str, _: int) -> bytes:
        time.sleep(0.02)
        return completion(text)

    server = serve(slowly)
    answers = ask(server, [str(number) for number in range(12)], samples=3, concurrency=4)
    assert len(answers) == 12
    assert 2 <= server.most_at_once <= 4


def test_requests_a_minute_are_bounded(serve: Any) -> None:
    server = serve(lambda text, _: completion(text))
    ask(server, list("abcde"), requests_per_minute=600)  # one in a tenth of a second
    assert server.times[-1] - server.times[0] >= 0.35


def test_problems_come_as_they_are_done_and_leaving_early_is_clean(serve: Any) -> None:
    server = serve(lambda text, _: completion(text) if text == "b" else ("hang", 30.0))
    responder = EndpointResponder(server.url, "m", temperature=1.0, max_new_tokens=5)
    responses = responder.respond([Asked(Problem(text, text, ""), text, 0) for text in ("a", "b")], 1)
    first, _ = next(responses)
    assert first.text == "b"
    responses.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]
