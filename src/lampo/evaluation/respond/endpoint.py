"""Responses from any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, or a hosted model."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...types import LampoError, Response
from ...verify import THOUGHT_BEGIN, THOUGHT_END
from .responder import Asked, Failed


class EndpointResponder:
    """Asks a server, so many requests at once, again and again where it fails for a while.

    A request that ends without an answer is repeated with growing pauses, or after the pause that the server asks for
    (Retry-After); one that keeps failing makes its problem `Failed`, and the others go on. The key is read from
    OPENAI_API_KEY and written nowhere.

    Args:
        url: of the server, up to and with /v1.
        model: the model's name there.
        temperature, max_new_tokens: of the sampling, which is the server's.
        system: a system message.
        concurrency: most requests at once.
        requests_per_minute: most requests begun in a minute; None: no bound.
        timeout_s: most seconds for one request.
        retries: times that a request is repeated.

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
        timeout_s: float = 600.0,
        retries: int = 5,
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
            raise LampoError(f"{url!r} is no URL of a server. It is like http://localhost:8000/v1, up to and with /v1.")
        self._openai = openai
        self._url, self._model = url, model
        self._settings: dict[str, Any] = {"temperature": temperature, "max_tokens": max_new_tokens}
        self._system = system
        self._concurrency = concurrency
        self._pause = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._timeout_s, self._retries = timeout_s, retries

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

    async def _respond(self, asked: Sequence[Asked], samples: int, done: Any, stop: threading.Event) -> None:
        slots, begin = asyncio.Semaphore(self._concurrency), asyncio.Lock()
        async with self._openai.AsyncOpenAI(
            base_url=self._url,
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            max_retries=self._retries,
            timeout=self._timeout_s,
        ) as client:

            async def one(each: Asked, number: int) -> Response:
                async with slots:
                    async with begin:
                        await asyncio.sleep(self._pause)
                    return await self._ask(client, each, number)

            async def all_of(each: Asked) -> None:
                try:
                    done.put((each, list(await asyncio.gather(*(one(each, number) for number in range(samples))))))
                except self._openai.OpenAIError as error:
                    done.put((each, Failed(f"{type(error).__name__}: {error}")))

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
        messages = [{"role": "user", "content": each.text}]
        if self._system:
            messages.insert(0, {"role": "system", "content": self._system})
        for attempt in range(self._retries + 1):
            try:
                reply = await client.chat.completions.create(
                    model=self._model, messages=messages, seed=(each.seed + number) % 2**31, **self._settings
                )
                return _response(reply)
            except (ValueError, LookupError, TypeError, AttributeError) as error:  # no completion in the reply's body
                if attempt == self._retries:
                    raise self._openai.OpenAIError(f"the server's reply is no completion: {error}") from None
                await asyncio.sleep(min(8.0, 0.5 * 2**attempt))
        raise AssertionError("unreachable")


def _response(reply: Any) -> Response:
    choice = reply.choices[0]
    text = choice.message.content or ""
    thought = getattr(choice.message, "reasoning_content", None) or getattr(choice.message, "reasoning", None)
    if thought:
        text = f"{THOUGHT_BEGIN}{thought}{THOUGHT_END}{text}"
    return Response(text, reply.usage.completion_tokens if reply.usage else None, choice.finish_reason != "length")
