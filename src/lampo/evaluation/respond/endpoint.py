"""Responses from any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, or a hosted model."""

from __future__ import annotations

import asyncio
import json
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from ...types import LampoError, Response
from ...verify import THOUGHT_BEGIN, THOUGHT_END
from .responder import Asked, Failed

TIMEOUT_S, PROBE_TIMEOUT_S, TRIES = 600.0, 60.0, 6
AGAIN = {408, 409, 425, 429}
"""Statuses that another try may change, beside those of 500 and more."""
HOPELESS = {401, 403, 404, 405}
"""Statuses that say that no request at all will be answered: the key, the URL or the model's name is wrong."""
LONGEST_PAUSE_S = 120.0
MOST_WORDS = 300
MOST_TIMEOUTS = 3


class EndpointResponder:
    """Asks a server, so many requests at once, again and again where it fails for a while.

    A request that ends without an answer is repeated with growing pauses, or after the pause that the server asks for
    (Retry-After). One that takes too long is tried three times at most. One that keeps failing makes its problem `Failed`, and the others
    go on. The key is read from OPENAI_API_KEY, and written nowhere, nor is what else is secret in the URL.

    Args:
        url: of the server, up to and with /v1.
        model: the model's name there.
        temperature, max_new_tokens: of the sampling, which is the server's.
        system: a system message.
        concurrency: most requests at once.
        requests_per_minute: most requests begun in a minute; None: no bound.
        timeout_s: most seconds for one try of a request.
        tries: of each request.
        tell: called with a line for each try that fails, from another thread.

    Raises:
        LampoError: the package `openai` is not installed, or the URL is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        temperature: float,
        max_new_tokens: int,
        system: str | None = None,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        timeout_s: float = TIMEOUT_S,
        tries: int = TRIES,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise LampoError("To ask a server, install the extra: pip install 'lampo[endpoint]'.") from None
        try:
            whole = url.isprintable() and urlsplit(url).hostname and urlsplit(url).port != 0
        except ValueError:  # a port that is no number, or beyond 65,535
            whole = False
        if not whole:
            raise LampoError(
                f"{public_url(url)!r} is no URL of a server. It is like http://localhost:8000/v1, up to and with /v1."
            )
        self._openai = openai
        self._url, self._model = url, model
        self._settings: dict[str, Any] = {"temperature": temperature, "max_tokens": max_new_tokens}
        self._system = system
        self._concurrency = concurrency
        self._pause = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._timeout_s, self._tries, self._tell = timeout_s, tries, tell
        self._key = os.environ.get("OPENAI_API_KEY", "none")
        self._secrets = [*_secrets(url), *([self._key] if len(self._key) > 4 else [])]
        self._probed = False

    def probe(self) -> None:
        """See `Responder.probe`. What may pass, as too many requests at once or a model that is still loaded, is told only."""
        if self._probed:
            return

        async def ask() -> None:
            settings = self._settings | {"max_tokens": 1}
            async with self._client() as client:
                timeout_s = min(self._timeout_s, PROBE_TIMEOUT_S)
                await self._try(client, [{"role": "user", "content": "1+1="}], settings | {"seed": 0}, timeout_s)

        failures: list[_FailedTry] = []

        def run() -> None:
            try:
                asyncio.run(ask())
            except _FailedTry as failure:
                failures.append(failure)

        thread = threading.Thread(target=run, name="probe", daemon=True)  # whatever else runs in this one
        thread.start()
        thread.join()
        for failure in failures:
            if not (failure.is_timeout or (failure.may_pass and failure.status is not None)):
                raise LampoError(f"{public_url(self._url)} cannot be asked for {self._model}: {failure}")
            self._tell(f"the first request, of one token: {failure}")
        self._probed = True

    def respond(self, asked: Sequence[Asked], samples: int) -> Iterator[tuple[Asked, list[Response] | Failed]]:
        """See `Responder.respond`."""
        done: queue.SimpleQueue[tuple[Asked, list[Response] | Failed] | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()

        def run() -> None:
            try:
                asyncio.run(self._respond(asked, samples, done, stop))
                done.put(None)
            except BaseException as error:
                done.put(error)

        thread = threading.Thread(target=run, daemon=True, name="endpoint")
        thread.start()
        try:
            while (item := done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def _client(self) -> Any:
        return self._openai.AsyncOpenAI(base_url=self._url, api_key=self._key, max_retries=0, timeout=self._timeout_s)

    async def _respond(self, asked: Sequence[Asked], samples: int, done: Any, stop: threading.Event) -> None:
        slots, begin = asyncio.Semaphore(self._concurrency), asyncio.Lock()
        async with self._client() as client:

            async def one(each: Asked, number: int) -> Response:
                async with slots:
                    async with begin:
                        await asyncio.sleep(self._pause)
                    return await self._ask(client, each, number)

            async def all_of(each: Asked) -> None:
                tasks = [asyncio.ensure_future(one(each, number)) for number in range(samples)]
                try:
                    done.put((each, list(await asyncio.gather(*tasks))))
                except _FailedTry as failure:
                    done.put((each, Failed(str(failure), hopeless=failure.status in HOPELESS)))
                finally:
                    for task in tasks:  # the others of a problem that has failed
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

            tasks = [asyncio.create_task(all_of(each)) for each in asked]
            while tasks:
                _, pending = await asyncio.wait(tasks, timeout=0.2)
                tasks = list(pending)
                if stop.is_set():
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    return

    async def _ask(self, client: Any, each: Asked, number: int) -> Response:
        """One response, after as many tries as it takes and may have."""
        messages = [{"role": "user", "content": each.text}]
        if self._system:
            messages.insert(0, {"role": "system", "content": self._system})
        settings = self._settings | {"seed": (each.seed + number) % 2**31}
        num_timeouts = 0
        for attempt in range(1, self._tries + 1):
            try:
                return await self._try(client, messages, settings)
            except _FailedTry as failure:
                num_timeouts += failure.is_timeout
                self._tell(f"{each.problem.id}, try {attempt} of {self._tries}: {failure}")
                if attempt == self._tries or num_timeouts == MOST_TIMEOUTS or not failure.may_pass:
                    raise
                await asyncio.sleep(min(8.0, 0.5 * 2 ** (attempt - 1)) if failure.pause_s is None else failure.pause_s)
        raise AssertionError("unreachable")

    async def _try(
        self, client: Any, messages: list[dict[str, str]], settings: dict[str, Any], timeout_s: float | None = None
    ) -> Response:
        """One request.

        Raises:
            _FailedTry: it was not answered by a completion.
        """
        ask, timeout_s = client.chat.completions.with_raw_response.create, timeout_s or self._timeout_s
        try:
            reply = await ask(model=self._model, messages=messages, timeout=timeout_s, **settings)
        except self._openai.APITimeoutError:
            failure = _FailedTry(f"no answer within {timeout_s:g} s", is_timeout=True)
        except self._openai.APIStatusError as error:
            again = error.status_code in AGAIN or error.status_code >= 500
            words = f"{error.status_code} {error.response.reason_phrase}: {_words(error.response.text)}"
            pause_s = _pause_s(error.response.headers.get("Retry-After"))
            failure = _FailedTry(self._public(words), error.status_code, may_pass=again, pause_s=pause_s)
        except self._openai.OpenAIError as error:
            failure = _FailedTry(self._public(f"{error} {error.__cause__ or ''}".strip()))
        else:
            try:
                return _response(json.loads(reply.text))
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                words = f"the reply is no completion ({error}): {_words(reply.text)}"
                failure = _FailedTry(self._public(words))
        raise failure

    def _public(self, text: str) -> str:
        """What a server said, without what is secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _FailedTry(Exception):
    """A request that was not answered, in the server's own words.

    Attributes:
        status: of HTTP; None where there was none, or a reply that is no completion.
        may_pass: another try may help.
        pause_s: what the server asks to wait before it.
        is_timeout: it took too long.
    """

    def __init__(
        self,
        words: str,
        status: int | None = None,
        *,
        may_pass: bool = True,
        pause_s: float | None = None,
        is_timeout: bool = False,
    ) -> None:
        super().__init__(words)
        self.status, self.may_pass, self.pause_s, self.is_timeout = status, may_pass, pause_s, is_timeout


def public_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, and all behind a question mark.

    >>> public_url("https://me:key@example.org:8000/v1?api_key=secret")
    'https://example.org:8000/v1'
    """
    return re.sub(r"^(\w+://)[^/]*@", r"\1", re.split(r"[?#]", url, maxsplit=1)[0])


def _secrets(url: str) -> list[str]:
    """User, password and the values of the query, as they are written and as they are meant."""
    before, _, query = url.partition("?")
    parts = re.split(r"[:@]", before.rpartition("@")[0].partition("://")[2]) + re.split(r"[&=#]", query)
    return [secret for part in parts for secret in {part, unquote(part)} if len(secret) > 3]


def _pause_s(retry_after: str | None) -> float | None:
    with suppress(TypeError, ValueError):
        seconds = float(retry_after or "")
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, LONGEST_PAUSE_S)
    return None  # there was none, or it is a date


def _words(body: str) -> str:
    """What a server says in the body of a reply: the message of an error, or the text of a page."""
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        error = json.loads(body)["error"]
        body = error if isinstance(error, str) else str(error["message"])
    text = " ".join(re.sub(r"(?s)<(style|script).*?</\1>|<[^>]*>", " ", body).split())
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]} ..."


def _response(reply: Any) -> Response:
    """A completion. Of its fields only the text has to be there.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is none.
    """
    choice = reply["choices"][0]
    message = choice["message"]
    text = _text(message.get("content"), "content")
    thought = next((_text(message.get(key), key) for key in ("reasoning_content", "reasoning") if message.get(key)), "")
    if thought:
        text = f"{THOUGHT_BEGIN}{thought}{THOUGHT_END}{text}"
    usage = reply.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**53
    return Response(text, count if is_count else None, choice.get("finish_reason") != "length")


def _text(content: Any, name: str) -> str:
    """A text, whole or in parts."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(_text(part.get("text") if isinstance(part, dict) else part, name) for part in content)
    raise TypeError(f"its {name} is a {type(content).__name__}")
