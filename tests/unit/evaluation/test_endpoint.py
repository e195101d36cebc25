"""The endpoint backend against a local server that misbehaves."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lampo.evaluation.records import ProblemRecord, Records, read_records
from lampo.evaluation.respond import Asked, Failed
from lampo.evaluation.respond.endpoint import EndpointResponder
from lampo.types import LampoError, Problem, Response, Verdict

from ...helpers.chat_server import Server, Start, chat_servers, completion

pytest.importorskip("openai")


@pytest.fixture
def serve() -> Iterator[Start]:
    with chat_servers() as start:
        yield start


def ask(server: Server, texts: list[str], samples: int = 1, **options: Any) -> dict[str, list[Response] | Failed]:
    values: dict[str, Any] = {"temperature": 0.6, "max_new_tokens": 50, "timeout_s": 5.0, "tries": 4} | options
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
    answers = ask(server, ["a", "b", "c"], tries=2)
    assert len(server.requests) == 1 + 2 + 1
    assert isinstance(answers["b"], Failed)
    assert "500" in answers["b"].reason
    assert texts_of(answers["a"]) == ["a!"]
    refused = ask(serve(lambda *_: 401), ["a"])["a"]
    assert isinstance(refused, Failed)
    assert refused == Failed("401 Unauthorized: planned", hopeless=True)


def test_no_server_at_all(serve: Any) -> None:
    server = serve(lambda *_: completion(""))
    server.close()
    (answer,) = ask(server, ["a"], tries=1).values()
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
    ask(server, list("abcdefgh"), requests_per_minute=600)  # one in a tenth of a second
    assert server.times[-1] - server.times[0] >= 0.4  # of 0.7: the first may arrive late


def test_problems_come_as_they_are_done_and_leaving_early_is_clean(serve: Any) -> None:
    server = serve(lambda text, _: completion(text) if text == "b" else ("hang", 30.0))
    responder = EndpointResponder(server.url, "m", temperature=1.0, max_new_tokens=5)
    responses = responder.respond([Asked(Problem(text, text, ""), text, 0) for text in ("a", "b")], 1)
    first, _ = next(responses)
    assert first.text == "b"
    responses.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [thread for thread in threading.enumerate() if thread.name == "endpoint"]


# What a server says -----------------------------------------------------------------------------------------------------


def changed(**fields: Any) -> bytes:
    """A completion of which some fields are of another type; those of the choice and the message by their names."""
    reply = json.loads(completion("4"))
    for name, value in fields.items():
        place = {"content": reply["choices"][0]["message"], "reasoning_content": reply["choices"][0]["message"]}
        place |= {"finish_reason": reply["choices"][0], "completion_tokens": reply["usage"]}
        place.get(name, reply)[name] = value
    return json.dumps(reply).encode()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (changed(completion_tokens="many"), Response("4", None, True)),
        (changed(completion_tokens=-1), Response("4", None, True)),
        (changed(completion_tokens=10**400), Response("4", None, True)),
        (changed(completion_tokens=True), Response("4", None, True)),
        (changed(completion_tokens=7.5), Response("4", None, True)),
        (changed(usage=None), Response("4", None, True)),
        (changed(usage="none"), Response("4", None, True)),
        (changed(usage=[]), Response("4", None, True)),
        (changed(finish_reason=None), Response("4", 3, True)),
        (changed(finish_reason=["length"]), Response("4", 3, True)),
        (
            changed(content=[{"type": "text", "text": "It is "}, {"type": "text", "text": "4"}]),
            Response("It is 4", 3, True),
        ),
        (changed(content=["It is ", "4"]), Response("It is 4", 3, True)),
        (changed(content=[]), Response("", 3, True)),
        (changed(reasoning_content=[{"text": "2+2"}]), Response("<think>2+2</think>4", 3, True)),
        (changed(reasoning_content=[]), Response("4", 3, True)),
    ],
)
def test_fields_of_other_types_cost_no_response(serve: Any, reply: bytes, expected: Response) -> None:
    assert ask(serve(lambda *_: reply), ["a"], tries=1) == {"a": [expected]}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (changed(content={"text": "4"}), "its content is a dict"),
        (changed(content=4), "its content is a int"),
        (changed(reasoning_content=7), "its reasoning_content is a int"),
        (changed(choices=[]), "list index out of range"),
        (changed(choices="abc"), "string indices must be integers"),
        (changed(choices=[{"message": "4"}]), "'str' object has no attribute 'get'"),
        (b"[]", "list indices must be integers"),
        (b"null", "'NoneType' object is not subscriptable"),
        (b"[" * 100_000, "recursion"),
        (b"<html><title>Sign in</title><style>p {}</style><p>Please <b>sign in</b>.", ": Sign in Please sign in ."),
        (b'{"error": "out of credit"}', ": out of credit"),
        (b'{"error": {"message": "out of credit"}}', ": out of credit"),
    ],
)
def test_a_reply_that_is_no_completion_is_told_in_its_own_words(serve: Any, reply: bytes, said: str) -> None:
    (answer,) = ask(serve(lambda *_: reply), ["a"], tries=1).values()
    assert isinstance(answer, Failed)
    assert answer.reason.startswith("the reply is no completion (")
    assert said in answer.reason
    assert len(answer.reason) < 600


def responder(server: Server, **options: Any) -> EndpointResponder:
    return EndpointResponder(server.url, "model", **({"temperature": 0.6, "max_new_tokens": 50} | options))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (401, "401 Unauthorized: planned"),
        (404, "404 Not Found: planned"),
        ((400, b'{"message": "bad temperature"}'), '400 Bad Request: {"message": "bad temperature"}'),
        (b"<html><p>Sign in", "the reply is no completion (Expecting value: line 1 column 1 (char 0)): Sign in"),
        ("drop", "Connection error. Server disconnected"),
        ((400, b"[" * 3_000), "400 Bad Request: [[["),
    ],
)
def test_a_server_that_cannot_be_asked_is_told_after_one_request(serve: Any, what: Any, said: str) -> None:
    server = serve(lambda *_: what)
    with pytest.raises(LampoError) as told:
        responder(server).probe()
    assert str(told.value).startswith(f"{server.url} cannot be asked for model: {said}")
    assert len(server.requests) == 1


def test_what_may_pass_is_no_reason_to_end_and_a_probe_is_short(serve: Any) -> None:
    for what in (429, 503, ("hang", 1.0)):
        told: list[str] = []
        server = serve(lambda *_, what=what: what)
        responder(server, timeout_s=0.3, tell=told.append).probe()
        assert len(told) == 1
    server = serve(lambda *_: completion("4"))
    asked = responder(server)
    asked.probe()
    asked.probe()
    (request,) = server.requests
    assert (request["max_tokens"], request["model"], request["temperature"]) == (1, "model", 0.6)


def test_each_try_that_fails_is_told_as_it_happens(serve: Any) -> None:
    told: list[str] = []
    server = serve(lambda _, attempt: 500 if attempt < 3 else completion("ok"))
    assert texts_of(ask(server, ["a"], tell=told.append)["a"]) == ["ok"]
    assert told == [f"a, try {number} of 4: 500 Internal Server Error: planned" for number in (1, 2)]


def test_a_request_that_takes_too_long_is_tried_three_times(serve: Any) -> None:
    server = serve(lambda *_: ("hang", 3.0))
    (answer,) = ask(server, ["a"], timeout_s=0.2).values()
    assert answer == Failed("no answer within 0.2 s")
    assert len(server.requests) == 3


def test_the_other_requests_of_a_problem_that_has_failed_are_not_made(serve: Any) -> None:
    server = serve(lambda text, _: (400, b"no") if text == "a" else completion(text))
    answers = ask(server, ["a", "b"], samples=20, concurrency=1)
    assert isinstance(answers["a"], Failed)
    assert len(server.requests) == 1 + 20


SECRETS = ("hidden-key", "s3cret/pw", "s3cret%2Fpw", "me@there", "me%40there")


def test_no_secret_of_the_url_or_of_the_key_is_told(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hidden-key")
    server = serve(lambda *_: (401, b"no hidden-key, s3cret/pw, s3cret%2Fpw, me@there, me%40there please"))
    host = server.url.removeprefix("http://")
    told: list[str] = []
    asked = EndpointResponder(
        f"http://me%40there:s3cret%2Fpw@{host}?key=hidden-key", "m", temperature=1.0, max_new_tokens=5, tell=told.append
    )
    with pytest.raises(LampoError) as error:
        asked.probe()
    ((_, failed),) = asked.respond([Asked(Problem("a", "a", ""), "a", 0)], 1)
    assert isinstance(failed, Failed)
    for text in (str(error.value), failed.reason, *told):
        assert "no ***, ***, ***, ***, *** please" in text
        assert not [secret for secret in SECRETS if secret in text]
    with pytest.raises(LampoError, match="'http://host:port/v1' is no URL"):
        EndpointResponder("http://me:s3cret@host:port/v1?k=hidden-key", "m", temperature=1.0, max_new_tokens=5)
